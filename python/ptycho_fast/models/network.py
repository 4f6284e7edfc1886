"""Network and physics together: patches from patterns, and what they would diffract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptycho_fast.models.architectures import build_architecture
from ptycho_fast.models.inputs import FLOOR, count_features, make_features
from ptycho_fast.models.physics import GroupCanvas, diffract, far_field, near_field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PatchNetwork(nn.Module):
    """From groups of patterns to patches of the object, in stages.

    The first stage sees the patterns. Each further one sees what the patches so far leave
    unexplained: the difference from the measured amplitudes, carried back to the object (the step
    of ePIE, Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009), eq. 6). It says by what the
    patches are to be multiplied. So two small networks get further than a large one (unrolled
    descent: Gregor and LeCun, ICML 2010).

    Parameters
    ----------
    architecture : str
        Of each stage.
    N : int
        Pixels per side of a pattern.
    channels : int
        Patterns in a group (C).
    probe : ndarray, (modes, N, N), complex64
        Scaled to the patterns, see `ptycho_fast.models.physics.scale_probe`.
    stages : int
        How many.
    **options
        Of the architecture.
    """

    def __init__(
        self,
        architecture: str,
        *,
        N: int,
        channels: int,
        probe: NDArray[np.complex64],
        stages: int = 2,
        **options: Any,
    ) -> None:
        super().__init__()
        self.channels = channels
        features = count_features(channels)
        self.stages = nn.ModuleList(
            build_architecture(
                architecture,
                features=features + (4 * channels if stage else 0),
                channels=channels,
                N=N,
                **options,
            )
            for stage in range(stages)
        ).to(memory_format=torch.channels_last)
        # As two real numbers: neither every optimiser nor every way of sharing knows complex ones.
        self.probe_parts = nn.Parameter(torch.view_as_real(torch.from_numpy(probe)).clone())
        self.log_intensity = nn.Parameter(torch.zeros(()))
        self.mask: Tensor | None
        self.register_buffer("mask", None, persistent=False)

    def set_mask(self, mask: NDArray[np.bool_] | None) -> None:
        """Say which pixels of the detector count; it is the scan's, and not saved.

        Parameters
        ----------
        mask : ndarray, (N, N), bool, optional
            False for those that do not.
        """
        self.mask = None if mask is None else torch.tensor(mask, device=self.probe_parts.device)

    @property
    def probe(self) -> Tensor:
        """The probe, ``(modes, N, N)`` complex64, with the fitted scale of the intensity."""
        return torch.view_as_complex(self.probe_parts) * (self.log_intensity / 2).exp()

    @property
    def weight(self) -> Tensor:
        """How much the probe says about each pixel of a patch, ``(N, N)``, at most 1."""
        intensity = torch.view_as_complex(self.probe_parts.detach()).abs().square().sum(dim=0)
        return intensity / intensity.max()

    def forward(
        self,
        amplitude: Tensor,
        positions: NDArray[np.float64] | None = None,
        good: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the patches after each stage.

        Parameters
        ----------
        amplitude : tensor, (B, C, N, N), float32
        positions : ndarray, (B, 2, C), float64, optional
            Of the patches of each group, which for C > 1 are then one on their common canvas.
        good : tensor, (B, C, N, N), bool, optional
            False for pixels that do not count in single patterns.

        Returns
        -------
        list of tensor, (B, C, N, N), complex64
        """
        probe = self.probe.detach()
        counted = self.mask if good is None else good
        if good is not None and self.mask is not None:
            counted = good & self.mask
        if counted is not None:
            # What is unknown is taken to be what the probe alone would give, also where a pixel
            # is no number. Zeros would be read as light that the object took away: phase RMSE
            # 0.116 instead of 0.102 (0.100 without bad pixels) with 0.9 % of them, N = 16.
            empty = far_field(probe).abs().square().sum(dim=0).sqrt()
            amplitude = torch.where(counted, amplitude, empty)
        features = make_features(amplitude, probe)
        canvas = None
        if positions is not None and self.channels > 1:
            canvas = GroupCanvas(positions, self.weight)
        made: list[Tensor] = []
        for stage in self.stages:
            if not made:
                patches = stage(features)
            else:
                # Where the way back leads through the stages before, it is not followed: each
                # stage has a loss of its own.
                before = made[-1].detach()
                unexplained = self._unexplained(before, amplitude, probe, counted)
                seen = [features, unexplained.real, unexplained.imag]
                seen += [before.abs().clamp(min=1e-3).log(), before.angle()]
                patches = before * stage(torch.cat(seen, dim=1))
            made.append(patches if canvas is None else canvas.merge(patches))
        return made

    def _unexplained(
        self, patches: Tensor, amplitude: Tensor, probe: Tensor, counted: Tensor | None
    ) -> Tensor:
        """Return the step of ePIE relative to the patches, ``(B, C, N, N)``."""
        intensity = probe.abs().square().sum(dim=0)
        modelled = diffract(patches, probe).sqrt()
        if counted is not None:
            amplitude = torch.where(counted, amplitude, modelled)
        excess = amplitude / (modelled + 1e-3) - 1
        step = torch.zeros_like(patches)
        for mode in probe:
            step = step + mode.conj() * near_field(excess * far_field(mode * patches))
        step = step / (intensity + FLOOR * intensity.max())
        return step * patches.conj() / (patches.abs().square() + 1e-2)
