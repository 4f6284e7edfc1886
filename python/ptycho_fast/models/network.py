"""The network that turns groups of diffraction patterns into patches of the object.

It combines an architecture, which is learned, with the physics of diffraction, which is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ptycho_fast.models.architectures import build_architecture
from ptycho_fast.models.inputs import FLOOR, count_features, make_features
from ptycho_fast.models.light import Probes
from ptycho_fast.models.physics import (
    GroupCanvas,
    diffract,
    each_mode,
    far_field,
    light_share,
    near_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


class ScanNetwork(nn.Module):
    """What a network of scans consists of: learned stages, the probes, and a mask.

    Its ``forward`` turns groups of patterns into patches (`PatchNetwork.forward`).

    Parameters
    ----------
    stages : iterable of torch.nn.Module
        What is learned.
    channels : int
        Number of patterns in a group (C).
    probe : ndarray, (modes, N, N), complex64
        Scaled to the patterns, see `ptycho_fast.models.physics.scale_probe`. `set_probes` gives the
        network the probes of several scans.
    """

    SEES_GROUPS = False
    """Whether it images groups of any number of patterns together, at their own exposure."""

    def __init__(
        self, stages: Iterable[nn.Module], *, channels: int, probe: NDArray[np.complex64]
    ) -> None:
        super().__init__()
        self.channels = channels
        self.stages = nn.ModuleList(stages).to(memory_format=torch.channels_last)
        # Stored as real and imaginary parts, because not every optimiser and not every way of
        # sharing weights between processes supports complex numbers.
        self.probe_parts = nn.Parameter(torch.view_as_real(torch.from_numpy(probe)).clone())
        self.log_intensity = nn.Parameter(torch.zeros(()))
        self.exposure: Tensor | None
        self.register_buffer("exposure", None)
        self.mask: Tensor | None
        self.register_buffer("mask", None, persistent=False)

    def set_mask(self, mask: NDArray[np.bool_] | None) -> None:
        """Set which detector pixels are used. The mask belongs to a scan and is not saved.

        Parameters
        ----------
        mask : ndarray, (N, N), bool, optional
            False for pixels to ignore.
        """
        self.mask = None if mask is None else torch.tensor(mask, device=self.probe_parts.device)

    def set_probes(self, probes: Probes) -> None:
        """Set the probes, and forget those before.

        Parameters
        ----------
        probes : Probes
        """
        bare, there = probes.bare, self.probe_parts.device
        several = probes.exposure is not None
        parts = torch.view_as_real(torch.from_numpy(bare if several else bare[0]))
        self.probe_parts = nn.Parameter(parts.to(there, copy=True))
        self.exposure = torch.tensor(probes.exposure, device=there) if several else None

    @property
    def probes(self) -> Probes:
        """The probes of all scans, without the learned scale of the intensity."""
        exposure = None if self.exposure is None else self.exposure.cpu().numpy()
        return Probes(self.bare.detach().cpu().numpy(), exposure)

    @property
    def bare(self) -> Tensor:
        """The probes of all scans, as `Probes` has them, ``(scans, modes, N, N)`` complex64."""
        probe = torch.view_as_complex(self.probe_parts)
        return probe if probe.ndim == 4 else probe.unsqueeze(0)

    def scaled(self, bare: Tensor) -> Tensor:
        """Return probes with the learned scale of the intensity.

        Parameters
        ----------
        bare : tensor, (..., N, N), complex64

        Returns
        -------
        tensor, (..., N, N), complex64
        """
        return bare * (self.log_intensity / 2).exp()


class PatchNetwork(ScanNetwork):
    """Computes patches of the object from groups of patterns, in several stages.

    The first stage sees the patterns. Each further stage sees what the patches so far leave
    unexplained: the difference between modelled and measured amplitudes, propagated back to the
    object (the update step of ePIE, Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009), eq. 6).
    Its output multiplies the patches. Two small networks in sequence reach a lower error than one
    large network (this is unrolled gradient descent: Gregor and LeCun, ICML 2010).

    Parameters
    ----------
    architecture : str
        The architecture of each stage.
    N : int
        Pixels per side of a pattern.
    channels : int
        Number of patterns in a group (C).
    probe : ndarray, (modes, N, N), complex64
        See `ScanNetwork`.
    stages : int
        Number of stages.
    **options
        Options of the architecture.
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
        features = count_features(channels)
        made = (
            build_architecture(
                architecture,
                features=features + (4 * channels if stage else 0),
                channels=channels,
                N=N,
                **options,
            )
            for stage in range(stages)
        )
        super().__init__(made, channels=channels, probe=probe)

    def forward(
        self,
        amplitude: Tensor,
        positions: NDArray[np.float64] | None = None,
        good: Tensor | None = None,
        bare: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the patches after each stage.

        Parameters
        ----------
        amplitude : tensor, (B, C, N, N), float32
            Square roots of counts, divided by how much brighter the scan is than the first scan of
            the training.
        positions : ndarray, (B, 2, C), float64, optional
            Positions of the patches in each group. If they are given and C > 1, the patches are
            merged on a common canvas, so that they agree where they overlap.
        good : tensor, (B, C, N, N), bool, optional
            False for pixels that were not measured in a single pattern.
        bare : tensor, (1, modes, N, N) or (B, modes, N, N), complex64, optional
            The probe of all groups, or of each, as bright as `bare`; by default the probe of the
            training, if it had a single scan.

        Returns
        -------
        list of tensor, (B, C, N, N), complex64
        """
        bare = self.bare if bare is None else bare
        probe = self.scaled(bare).detach()
        counted = self.mask if good is None else good
        if good is not None and self.mask is not None:
            counted = good & self.mask
        if counted is not None:
            # Pixels that were not measured (they may hold NaN) get the amplitude that the probe
            # would give without an object. Zeros would look as if the object had removed light:
            # with 0.9 % bad pixels at N = 16, the phase RMSE is 0.116 with zeros, 0.102 with this,
            # and 0.100 without bad pixels.
            empty = far_field(probe).abs().square().sum(dim=1, keepdim=True).sqrt()
            amplitude = torch.where(counted, amplitude, empty)
        features = make_features(amplitude, probe)
        canvas = None
        if positions is not None and self.channels > 1:
            canvas = GroupCanvas(positions, light_share(bare))
        made: list[Tensor] = []
        for stage in self.stages:
            if not made:
                patches = stage(features)
            else:
                # Every stage has its own loss, so no gradient flows back into earlier stages.
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
        """Return the ePIE update step, divided by the patches, ``(B, C, N, N)``."""
        intensity = probe.abs().square().sum(dim=1, keepdim=True)
        peak = intensity.amax(dim=(-2, -1), keepdim=True)
        modelled = diffract(patches, probe).sqrt()
        if counted is not None:
            amplitude = torch.where(counted, amplitude, modelled)
        excess = amplitude / (modelled + 1e-3) - 1
        step = torch.zeros_like(patches)
        for mode in each_mode(probe):
            step = step + mode.conj() * near_field(excess * far_field(mode * patches))
        step = step / (intensity + FLOOR * peak)
        return step * patches.conj() / (patches.abs().square() + 1e-2)
