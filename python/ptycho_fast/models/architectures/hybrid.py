"""A U-Net whose blocks combine local convolutions with spectral mixing.

After Wen et al., U-FNO, Advances in Water Resources 163, 104180 (2022).
"""

from __future__ import annotations

from ptycho_fast.models.architectures.blocks import Residual, SpectralMixing
from ptycho_fast.models.architectures.cnn import UNet


class Hybrid(UNet):
    """The U-Net of "cnn"; its blocks also mix the lowest Fourier modes.

    Parameters
    ----------
    features, channels, N : int
        See `ptycho_fast.models.register_architecture`.
    width : int
        Channels of the finest layer.
    modes : int
        Number of Fourier modes along each axis that a block mixes, limited by its resolution.
    """

    def __init__(
        self, *, features: int, channels: int, N: int, width: int = 16, modes: int = 8
    ) -> None:
        def block(width: int, level: int) -> Residual:
            return Residual(width, SpectralMixing(width, max(1, min(modes, N // 2 ** (level + 1)))))

        super().__init__(features, channels, width, block)
