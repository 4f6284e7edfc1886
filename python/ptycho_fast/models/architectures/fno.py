"""A Fourier neural operator, followed by a few convolutions for the detail.

Li et al., Fourier neural operator for parametric partial differential equations, ICLR 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_fast.models.architectures.blocks import (
    PolarNetwork,
    SpectralMixing,
    convolve,
    start_at_zero,
)


class FNO(PolarNetwork):
    """Fourier blocks at half the resolution, each the sum of a spectral and a pointwise layer.

    Parameters
    ----------
    features, channels, N : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Number of channels in a block.
    blocks : int
        Number of blocks.
    modes : int
        Number of Fourier modes along each axis.
    """

    MULTIPLE = 2

    def __init__(
        self,
        *,
        features: int,
        channels: int,
        N: int,
        width: int = 32,
        blocks: int = 4,
        modes: int = 16,
    ) -> None:
        super().__init__()
        modes = min(modes, N // 2)
        self.lifter = nn.Sequential(convolve(4 * features, width), convolve(width, width))
        self.spectral = nn.ModuleList(SpectralMixing(width, modes) for _ in range(blocks))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.detail = nn.Conv2d(width, 4 * 8, 1)
        self.refiner = nn.Sequential(
            convolve(8 + features, 12),
            convolve(12, 12),
            start_at_zero(nn.Conv2d(12, 2 * channels, 3, padding=1)),
        )
        self.coarse = start_at_zero(nn.Conv2d(width, 2 * channels, 1))

    def polar(self, features: Tensor) -> Tensor:  # noqa: D102
        x = self.lifter(functional.pixel_unshuffle(features, 2))
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            x = x + functional.gelu(spectral(x) + pointwise(x))
        fine = functional.pixel_shuffle(self.detail(x), 2)
        smooth = functional.interpolate(self.coarse(x), scale_factor=2, mode="bilinear")
        made: Tensor = smooth + self.refiner(torch.cat([fine, features], dim=1))
        return made
