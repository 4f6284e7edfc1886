"""A network that images all patterns of a scan together: some iterations, then learned steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptycho_fast.canvas import span
from ptycho_fast.models.network import ScanNetwork
from ptycho_fast.patches.torch import extract_patches
from ptycho_fast.reconstruction.choice import FIRST
from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.fit import ROUGH, approach, fit
from ptycho_fast.reconstruction.learned import CanvasNetwork, predicted, see
from ptycho_fast.reconstruction.objective import Unknowns
from ptycho_fast.reconstruction.on_device import model_on

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class UnrolledNetwork(ScanNetwork):
    """Images patterns on their common canvas: those of a scan, or of a group.

    It begins with iterations of `ptycho_fast.reconstruction` under the smooth prior, of fixed
    weight. In each stage the image is fitted anew and improved by a network, as by the learned
    prior (`ptycho_fast.reconstruction.learned`). It is in pixels of the object and fully
    convolutional. So the same weights serve patterns of any size, any probe, and any exposure.

    Parameters
    ----------
    probe : ndarray, (modes, N, N), complex64
        Scaled to the counts.
    stages : int
    """

    SEES_GROUPS = True

    def __init__(self, *, probe: NDArray[np.complex64], stages: int = 1) -> None:
        networks = (CanvasNetwork() for _ in range(stages))
        super().__init__(networks, channels=1, probe=probe)

    def forward(
        self,
        amplitude: Tensor,
        positions: NDArray[Any],
        good: Tensor | None,
        bare: Tensor,
    ) -> list[Tensor]:
        """Return the patches after each stage, differentiable by the weights.

        Parameters
        ----------
        amplitude : tensor, (B, C, N, N), float32
            Square roots of counts.
        positions : ndarray, (B, 2, C), float64
            Positions of the patterns in each group.
        good : tensor, (B, C, N, N), bool, optional
            False for pixels that were not measured in a single pattern.
        bare : tensor, (1, modes, N, N) or (B, modes, N, N), complex64
            The probe of all groups, or of each, scaled to the counts.

        Returns
        -------
        list of tensor, (B, C, N, N), complex64
        """
        N, device = amplitude.shape[-1], "gpu" if amplitude.is_cuda else "cpu"
        probes = self.scaled(bare).detach()
        made = []
        for number, seen in enumerate(amplitude):
            known = None if self.mask is None else self.mask.expand_as(seen)
            if good is not None:
                known = good[number] if known is None else good[number] & known
            values = seen.square() if known is None else torch.where(known, seen.square(), 0)
            where = positions[number].T
            area = span(where, N)
            local = area.local(where)
            model = model_on(device, local, area.shape, N)
            lit = probes[number if len(probes) > 1 else 0]
            flat = np.ones(area.shape, np.complex64)
            images = self.images(
                model,
                Counts(values.cpu().numpy(), None if known is None else known.cpu().numpy()),
                Unknowns(model.asarray(flat), model.asarray(lit.cpu().numpy()), model.positions),
            )
            made.append([extract_patches(image, local.T[None], N)[0] for image in images])
        return [torch.stack(stage).permute(0, 3, 1, 2) for stage in zip(*made, strict=True)]

    def images(self, model: Any, counts: Any, start: Unknowns) -> list[Tensor]:
        """Return the image after each stage, differentiable by the weights.

        Parameters
        ----------
        model : CpuModel or TorchModel
        counts : Counts or CountsOfScan
            The counts of the model's positions.
        start : Unknowns
            A flat object, and the probe scaled to the counts.

        Returns
        -------
        list of tensor, (H, W), complex64
        """
        if isinstance(counts, Counts) and not counts.values.any():
            flat = torch.from_numpy(model.to_numpy(start.object))
            return [flat.to(self.probe_parts.device)] * len(self.stages)
        with torch.no_grad():
            now = approach(model, counts, start, free=("object",), mu=FIRST, seed=0)
            now = fit(model, counts, now, free=("object",), mu=FIRST, tolerance=ROUGH)
        made = []
        for network in self.stages:
            assert isinstance(network, CanvasNetwork)
            # Every stage has its own loss, so no gradient flows back through the physics.
            image = predicted(see(model, counts, now, FIRST), network)
            now = replace(now, object=model.asarray(image.detach().cpu().numpy()))
            made.append(image)
        return made
