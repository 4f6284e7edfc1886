"""One network in training: its losses, its optimiser and its learning rates, for Lightning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ptycho_fast.models.physics import GroupCanvas, diffract, diffraction_loss, light_share
from ptycho_fast.models.training.lightning import LightningModule
from ptycho_fast.models.training.thinning import halves, thin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.light import Probes
    from ptycho_fast.models.network import ScanNetwork

WARM_UP = 500
"""Number of steps in which the learning rate rises, but at most a tenth of all steps."""

ON_DEVICE = ("diffraction", "good", "scan_id")
"""The entries of a batch that are needed on the device. Positions are used on the CPU."""


class TrainingModule(LightningModule):
    """A network in training, as Lightning sees it.

    Parameters
    ----------
    network : ScanNetwork
    config : ModelConfig
        Loss, learning rate, schedule, exposures and seed. The schedule "cosine" lets the learning
        rate fall to 0 at the last step; "plateau" halves it after 5 epochs without a lower loss.
    held_out : Probes, optional
        The probes of the scans for validation, if these are whole scans.
    names : tuple of str
        What messages call the scans that are trained on.
    """

    def __init__(
        self,
        network: ScanNetwork,
        config: ModelConfig,
        *,
        held_out: Probes | None = None,
        names: tuple[str, ...] = ("",),
    ) -> None:
        super().__init__()
        self.names = names
        self.held_out: Tensor | None
        self.held_out_exposure: Tensor | None
        parts = None if held_out is None else torch.from_numpy(held_out.bare)
        times = None if held_out is None else torch.from_numpy(held_out.exposure)
        self.register_buffer("held_out", parts, persistent=False)
        self.register_buffer("held_out_exposure", times, persistent=False)
        self.network = network
        self.config = config
        network.probe_parts.requires_grad_(config.trainable_probe)
        self.variation = math.nan
        self.total, self.count = torch.zeros(()), 0

    def transfer_batch_to_device(
        self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Move what is needed there to the device."""
        there = self.network.probe_parts.device if device is None else device
        return {
            name: value.to(there, non_blocking=True) if name in ON_DEVICE else value
            for name, value in batch.items()
        }

    def _light(
        self, batch: dict[str, Tensor], *, held_out: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the probes of the groups, all equally bright, and their exposures, (B, 1, 1, 1).

        If there is only one scan, there is only one probe, and no exposure.
        """
        network = self.network
        bare, exposure = network.bare, network.exposure
        if held_out and self.held_out is not None:
            bare, exposure = self.held_out, self.held_out_exposure
        if exposure is None:
            return bare, None
        scan = batch["scan_id"].long()
        return bare[scan], exposure[scan][:, None, None, None]

    def _losses(
        self, batch: dict[str, Tensor], least_exposure: float = 1.0, *, held_out: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Return the loss of each stage, and the patches of the last stage."""
        network = self.network
        amplitude, good = batch["diffraction"].float(), batch.get("good")
        bare, exposure = self._light(batch, held_out=held_out)
        seen = amplitude
        if network.SEES_GROUPS:
            bare = bare if exposure is None else bare * exposure
            bare, exposure = bare * math.sqrt(0.5), None
            seen, amplitude = halves(amplitude, self._generator(amplitude.device))
        elif least_exposure < 1:
            seen = thin(amplitude, least_exposure, self._generator(amplitude.device))
        probe = network.scaled(bare)
        if exposure is not None:
            seen, probe = seen / exposure, probe * exposure
        positions = _positions(batch)
        if network.SEES_GROUPS or network.channels == amplitude.shape[1]:
            made = network(seen, positions, good, bare)
        else:
            # The network sees single patterns, but its patches are merged with those of their
            # neighbours. A single pattern does not determine how much of it is due to the modulus
            # of the object and how much to the phase; overlapping patterns do.
            made = [one.view_as(amplitude) for one in network(*_one_by_one(seen, good, bare))]
            made = made[:1] + _merged(made, positions, light_share(bare))
        # All stages in one call: with so few patterns, calls take longer than they compute.
        losses = [
            diffraction_loss(intensity, amplitude, self.config.loss, network.mask, good)
            for intensity in diffract(torch.stack(made), probe)
        ]
        return losses, made[-1].detach()

    def _generator(self, device: torch.device) -> torch.Generator:
        """Return random numbers that are a function of seed, step and rank.

        A resumed run sees the same exposures.
        """
        generator = torch.Generator(device)
        key = np.random.SeedSequence([self.config.seed, self.global_rank, self.global_step])
        generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return generator

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of the losses of all stages; the loss of the last stage is logged."""
        losses, patches = self._losses(batch, self.config.least_exposure)
        if not math.isfinite(float(losses[-1].detach())):
            self._raise_not_finite(batch, batch_idx, float(losses[-1].detach()))
        last = losses[-1].detach()
        if self.trainer.progress_bar_callback is not None:
            self.log("loss", last, prog_bar=True)
        if batch_idx == 0:
            self.total, self.count = torch.zeros_like(last), 0
            self.variation = self._variation(batch)
        self.total += last * len(patches)
        self.count += len(patches)
        return torch.stack(losses).sum()

    def log_epoch(self) -> None:
        """Log the mean loss of the epoch. To log each step would take a tenth of its time."""
        mean = self.total / self.count
        self.log("epoch_loss", mean, on_epoch=True, batch_size=self.count, sync_dist=True)

    def _variation(self, batch: dict[str, Tensor]) -> float:
        """Return the `variation` of the patches before they are merged with their neighbours."""
        network, amplitude, good = self.network, batch["diffraction"].float(), batch.get("good")
        bare, exposure = self._light(batch)
        seen: tuple[Any, ...]
        if network.SEES_GROUPS:
            bare = bare if exposure is None else bare * exposure
            seen = (amplitude, _positions(batch), good, bare)
        else:
            amplitude = amplitude if exposure is None else amplitude / exposure
            alone = network.channels != amplitude.shape[1]
            seen = _one_by_one(amplitude, good, bare) if alone else (amplitude, None, good, bare)
        with torch.no_grad():
            return variation(network(*seen)[-1], light_share(bare).mean(dim=0))

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the last stage."""
        losses, patches = self._losses(batch, held_out=True)
        self.log(
            "validation_loss",
            losses[-1],
            prog_bar=True,
            batch_size=len(patches),
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        """Return Adam and the schedule of its learning rate."""
        network, config = self.network, self.config
        learned = [
            p for name, p in network.named_parameters() if p.requires_grad and name != "probe_parts"
        ]
        # PyTorch's fused step does not support complex weights.
        fused = not any(p.is_complex() for p in learned)
        groups: list[dict[str, Any]] = [{"params": learned}]
        if network.probe_parts.requires_grad:
            # Adam changes a number by about the learning rate in each step, so that rate is given
            # in units of the probe. At the full rate of the network, the probe diverges.
            brightest = float(network.probe_parts.detach().abs().max())
            groups.append(
                {
                    "params": [network.probe_parts],
                    "lr": 0.1 * config.learning_rate * brightest,
                }
            )
        adam = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=fused)
        # Lightning's estimated_stepping_batches would create the data loader before the checkpoint
        # is read, and a resumed run would start with the groups of epoch 0.
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined, unused-ignore]
        steps = int(self.trainer.max_epochs or 1) * len(datamodule.train)
        warm_up = max(1, min(WARM_UP, steps // 10))
        if config.schedule == "plateau":
            rise = torch.optim.lr_scheduler.LinearLR(adam, 1 / warm_up, total_iters=warm_up)
            fall = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.5, patience=5)
            return [adam], [
                {"scheduler": rise, "interval": "step"},
                {"scheduler": fall, "interval": "epoch", "monitor": "epoch_loss"},
            ]

        def factor(step: int) -> float:
            done = min(1.0, step / max(1, steps))
            return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * done))

        cosine = torch.optim.lr_scheduler.LambdaLR(adam, factor)
        return [adam], [{"scheduler": cosine, "interval": "step"}]

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradients.

        In bfloat16, Lightning itself refuses PyTorch's fused step, for the sake of float16: there
        that step undoes a scaling of the gradients, which bfloat16 does not need.
        """
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(learned, gradient_clip_val)

    def _raise_not_finite(self, batch: dict[str, Tensor], batch_idx: int, loss: float) -> None:
        patterns = batch["diffraction"]
        indices = batch["nn_indices"].cpu().numpy()
        bad = ~torch.isfinite(patterns).flatten(2).all(dim=2).cpu().numpy()
        where = f"epoch {self.current_epoch}, batch {batch_idx}"
        scans = batch.get("scan_id")
        numbers = np.zeros(len(indices), int) if scans is None else scans.cpu().numpy()
        if bad.any():
            msg = (
                f"Some patterns are not finite in {where}: scan indices "
                f"{self._places(numbers, indices, bad)}. Leave them out of the scan."
            )
        else:
            msg = (
                f"The loss is {loss} in {where}, of scan indices "
                f"{self._places(numbers, indices, np.ones_like(bad))}. "
                f"Lower the learning rate ({self.config.learning_rate}). The weights of the "
                "previous epoch are kept."
            )
        raise FloatingPointError(msg)

    def _places(self, scans: Any, indices: Any, which: Any) -> str:
        """List some scan indices, with the names of their scans if there are several."""
        told = []
        for scan in np.unique(scans[which.any(axis=1)]):
            own = scans == scan
            found = _first_of(np.unique(indices[own][which[own]]))
            name = self.names[scan]
            told.append(f"{found} of {name}" if name else found)
        return "; ".join(told)


def _positions(batch: dict[str, Tensor]) -> NDArray[np.float64]:
    """Return the positions of the patterns in each group, (B, 2, C)."""
    found: NDArray[np.float64] = (batch["coords_offsets"] - batch["coords_relative"])[:, 0].numpy()
    return found


def _one_by_one(
    amplitude: Tensor, good: Tensor | None, bare: Tensor
) -> tuple[Tensor, None, Tensor | None, Tensor]:
    """Rearrange groups of several patterns into groups of one, as network arguments."""
    alone = None if good is None else good.flatten(0, 1).unsqueeze(1)
    each = bare if len(bare) == 1 else bare.repeat_interleave(amplitude.shape[1], dim=0)
    return amplitude.flatten(0, 1).unsqueeze(1), None, alone, each


def _merged(made: list[Tensor], positions: NDArray[np.float64], weight: Tensor) -> list[Tensor]:
    """Merge the patches of each stage, (B, C, N, N), on the canvases of their groups."""
    n = len(made)
    each = weight if len(weight) == 1 else weight.repeat(n, 1, 1)
    canvas = GroupCanvas(np.tile(positions, (n, 1, 1)), each)
    return list(canvas.merge(torch.cat(made)).chunk(n))


def variation(patches: Tensor, weight: Tensor) -> float:
    """Return how much patches differ from each other; 0 if they are all the same.

    Parameters
    ----------
    patches : tensor, (B, C, N, N), complex64
    weight : tensor, (N, N), float32

    Returns
    -------
    float
        Root mean square distance from the mean patch, divided by the root mean square of the
        patches, after the mean phase of each patch was removed. NaN for fewer than two patches.
    """
    flat = patches.flatten(0, 1)
    if len(flat) < 2:
        return math.nan
    factor = (flat * weight).sum(dim=(-2, -1), keepdim=True)
    flat = flat * torch.polar(torch.ones_like(factor.real), -factor.angle())
    apart = (flat - flat.mean(dim=0)).abs().square()
    return float(((apart * weight).sum() / (flat.abs().square() * weight).sum()).sqrt())


def _first_of(indices: Any) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:8])
    return f"{shown}, ... ({len(indices)} in all)" if len(indices) > 8 else shown
