"""A U-Net that predicts modulus and phase at each of its three resolutions.

After Ronneberger, Fischer and Brox, MICCAI 2015, and PtychoNN, Cherukara et al., Appl. Phys. Lett.
117, 044103 (2020).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from ptycho_fast.models.architectures.blocks import (
    PolarNetwork,
    Pyramid,
    Residual,
    convolve,
    grow,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class UNet(PolarNetwork):
    """A U-Net on 1/4, 1/16 and 1/64 of the pixels, made of any kind of block.

    Parameters
    ----------
    features, channels : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Channels of the finest layer; each coarser layer has twice as many.
    block : callable
        Creates a block from its number of channels and its level (0, 1, 2). The block must keep
        the shape of its input.
    """

    def __init__(
        self, features: int, channels: int, width: int, block: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stem = convolve(4 * features, width)
        self.encoder = nn.ModuleList(block(w, level) for level, w in enumerate(widths))
        self.down = nn.ModuleList(
            convolve(w, wider, 4, 2) for w, wider in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[1::-1])
        self.decoder = nn.ModuleList(block(widths[level], level) for level in (1, 0))
        self.heads = Pyramid(widths[::-1], 2 * channels)

    def polar(self, features: Tensor) -> Tensor:  # noqa: D102
        x = self.stem(functional.pixel_unshuffle(features, 2))
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=False):
            x = encode(x)
            skips.append(x)
            x = down(x)
        x = self.encoder[-1](x)
        seen = [x]
        for up, decode, skip in zip(self.up, self.decoder, skips[::-1], strict=True):
            # Adding the skip costs half the arithmetic of concatenating it, and is as accurate.
            x = decode(grow(up(x)) + skip)
            seen.append(x)
        made: Tensor = self.heads(seen)
        return made


class CNN(UNet):
    """A U-Net of residual blocks.

    Parameters
    ----------
    features, channels, N : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Channels of the finest layer.
    """

    def __init__(self, *, features: int, channels: int, N: int, width: int = 16) -> None:
        super().__init__(features, channels, width, lambda w, level: Residual(w))
