"""Residual blocks with spectral mixing between two down-sampling and two up-sampling stages.

The residual bottleneck is that of Johnson, Alahi and Fei-Fei, ECCV 2016; the spectral mixing that
of Li et al., Fourier neural operator, ICLR 2021.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ptycho_fast.models.architectures.blocks import (
    PolarNetwork,
    Pyramid,
    Residual,
    SpectralMixing,
    convolve,
    grow,
)


class HybridResNet(PolarNetwork):
    """Residual blocks on 1/16 of the pixels.

    Parameters
    ----------
    features, channels, N : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Channels at half the resolution; the bottleneck has twice as many.
    blocks : int
        Number of residual blocks in the bottleneck.
    modes : int
        Number of Fourier modes along each axis that each block mixes.
    """

    MULTIPLE = 4

    def __init__(
        self,
        *,
        features: int,
        channels: int,
        N: int,
        width: int = 16,
        blocks: int = 3,
        modes: int = 8,
    ) -> None:
        super().__init__()
        modes = min(modes, N // 4)
        self.halve = convolve(4 * features, width)
        self.quarter = convolve(width, 2 * width, 4, 2)
        self.bottleneck = nn.Sequential(
            *(Residual(2 * width, SpectralMixing(2 * width, modes)) for _ in range(blocks))
        )
        self.up = nn.Conv2d(2 * width, width, 1)
        self.join = Residual(width)
        self.heads = Pyramid([2 * width, width], 2 * channels)

    def polar(self, features: Tensor) -> Tensor:  # noqa: D102
        half = self.halve(functional.pixel_unshuffle(features, 2))
        quarter = self.bottleneck(self.quarter(half))
        half = self.join(grow(self.up(quarter)) + half)
        made: Tensor = self.heads([quarter, half])
        return made
