"""A U of spectral blocks with local convolutions in parallel, and skips.

After Wen et al., U-FNO, Advances in Water Resources 163, 104180 (2022).
"""

from __future__ import annotations

from ptycho_fast.models.architectures import register_architecture
from ptycho_fast.models.architectures.blocks import Residual, SpectralMixing
from ptycho_fast.models.architectures.cnn import UNet


@register_architecture("hybrid")
class Hybrid(UNet):
    """The U-Net of "cnn", whose blocks also mix the lowest Fourier modes.

    Parameters
    ----------
    features, channels, N : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Channels of the finest layer.
    modes : int
        Fourier modes along each axis that a block mixes; no more than its side has.
    """

    def __init__(
        self, *, features: int, channels: int, N: int, width: int = 16, modes: int = 8
    ) -> None:
        def block(width: int, level: int) -> Residual:
            return Residual(width, SpectralMixing(width, max(1, min(modes, N // 2 ** (level + 1)))))

        super().__init__(features, channels, width, block)
