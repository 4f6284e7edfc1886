"""The training loop: Lightning's, with what a reconstruction needs to be watched and to go on."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

try:
    from lightning import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
except ModuleNotFoundError as error:
    msg = f'Lightning is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

from ptycho_fast.atomic import replacing
from ptycho_fast.models.checkpoint import CHECKPOINT, damaged
from ptycho_fast.models.physics import GroupCanvas, diffract, diffraction_loss
from ptycho_fast.models.storage import check_weights, read_text
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ptycho_fast.models.network import PatchNetwork

logger = logging.getLogger("ptycho_fast")

COLUMNS = (
    "epoch",
    "loss",
    "validation_loss",
    "image_correlation",
    "variation",
    "learning_rate",
    "seconds",
)
HISTORY = "history.csv"

WARM_UP = 500
"""Steps until the learning rate is reached; at most a tenth of all."""

BEGINNING = 100
"""Steps after which a network should tell patterns apart."""

COLLAPSED = 0.01
"""Variation of the patches below which they are all the same image."""


class Reconstructor(LightningModule):
    """One network in training.

    Parameters
    ----------
    network : PatchNetwork
    loss : {"poisson", "amplitude"}
    learning_rate : float
        Of Adam, after the warm-up.
    schedule : {"cosine", "plateau"}
        Cosine to 0 at the last step, or halved after 5 epochs without a lower loss.
    trainable_probe : bool
    least_exposure : float
        See `ptycho_fast.models.PtychoModel`.
    seed : int
        Of the exposures.
    """

    def __init__(
        self,
        network: PatchNetwork,
        *,
        loss: str,
        learning_rate: float,
        schedule: str,
        trainable_probe: bool,
        least_exposure: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.least_exposure = least_exposure
        self.seed = seed
        network.probe_parts.requires_grad_(trainable_probe)
        self.variation = math.nan

    def transfer_batch_to_device(
        self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Move the patterns and what is good of them; positions are wanted where they are."""
        there = self.network.probe_parts.device if device is None else device
        return {
            name: value.to(there, non_blocking=True) if name in ("diffraction", "good") else value
            for name, value in batch.items()
        }

    def _losses(
        self, batch: dict[str, Tensor], least_exposure: float = 1.0
    ) -> tuple[list[Tensor], Tensor]:
        """Return what each stage's patches cost, and the last of them."""
        network = self.network
        amplitude, good = batch["diffraction"].float(), batch.get("good")
        seen = amplitude
        if least_exposure < 1:
            # A function of seed, step and rank, so that a run that goes on sees the same.
            generator = torch.Generator(amplitude.device)
            key = np.random.SeedSequence([self.seed, self.global_rank, self.global_step])
            generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            seen = thin(amplitude, least_exposure, generator)
        positions = (batch["coords_offsets"] - batch["coords_relative"])[:, 0].numpy()
        if network.channels == amplitude.shape[1]:
            made = network(seen, positions, good)
        else:
            # The network sees single patterns, and is held to what their neighbours show: a
            # pattern alone leaves open how much of it modulus and how much phase has made.
            alone = network(*_one_by_one(seen, good))
            canvas = GroupCanvas(positions, network.weight)
            made = [patches.view_as(amplitude) for patches in alone]
            made = made[:1] + [canvas.merge(patches) for patches in made]
        probe = network.probe
        losses = [
            diffraction_loss(diffract(patches, probe), amplitude, self.loss, network.mask, good)
            for patches in made
        ]
        return losses, made[-1].detach()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the sum of the stages' losses; that of the last is logged."""
        losses, patches = self._losses(batch, self.least_exposure)
        if not math.isfinite(float(losses[-1].detach())):
            self._refuse(batch, batch_idx, float(losses[-1].detach()))
        last = losses[-1].detach()
        self.log("loss", last, prog_bar=True)
        self.log(
            "epoch_loss",
            last,
            on_step=False,
            on_epoch=True,
            batch_size=len(patches),
            sync_dist=True,
        )
        if batch_idx == 0:
            self.variation = self._variation(batch)
        return torch.stack(losses).sum()

    def _variation(self, batch: dict[str, Tensor]) -> float:
        """Of patches as they are made: on a canvas, even one image differs from place to place."""
        network, amplitude, good = self.network, batch["diffraction"].float(), batch.get("good")
        alone = network.channels != amplitude.shape[1]
        seen = _one_by_one(amplitude, good) if alone else (amplitude, None, good)
        with torch.no_grad():
            return variation(network(*seen)[-1], network.weight)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the last stage's loss."""
        losses, patches = self._losses(batch)
        self.log(
            "validation_loss",
            losses[-1],
            prog_bar=True,
            batch_size=len(patches),
            sync_dist=True,
        )

    def configure_optimizers(self) -> Any:
        """Return Adam and its schedule."""
        network = self.network
        learned = [
            p for name, p in network.named_parameters() if p.requires_grad and name != "probe_parts"
        ]
        # PyTorch has no fused step for complex weights.
        fused = not any(p.is_complex() for p in learned)
        groups: list[dict[str, Any]] = [{"params": learned}]
        if network.probe_parts.requires_grad:
            # Adam steps by the rate itself: here in units of the probe, and gently, since at the
            # rate of the network it diverges.
            brightest = float(network.probe_parts.detach().abs().max())
            groups.append(
                {
                    "params": [network.probe_parts],
                    "lr": 0.1 * self.learning_rate * brightest,
                }
            )
        adam = torch.optim.Adam(groups, lr=self.learning_rate, betas=(0.9, 0.99), fused=fused)
        # Not `estimated_stepping_batches`: it would make the loader before a checkpoint is read,
        # and a run that goes on would begin with the groups of epoch 0.
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined, unused-ignore]
        steps = int(self.trainer.max_epochs or 1) * len(datamodule.train)
        warm_up = max(1, min(WARM_UP, steps // 10))
        if self.schedule == "plateau":
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

    def _refuse(self, batch: dict[str, Tensor], batch_idx: int, loss: float) -> None:
        patterns = batch["diffraction"]
        indices = batch["nn_indices"].cpu().numpy()
        bad = ~torch.isfinite(patterns).flatten(2).all(dim=2).cpu().numpy()
        where = f"epoch {self.current_epoch}, batch {batch_idx}"
        if bad.any():
            msg = (
                f"Patterns that are not finite in {where}: scan indices "
                f"{_listed(np.unique(indices[bad]))}. Leave them out of the scan."
            )
        else:
            msg = (
                f"The loss is {loss} in {where}, of scan indices {_listed(np.unique(indices))}. "
                f"Lower the learning rate ({self.learning_rate}); what was learned up to the "
                "epoch before is kept."
            )
        raise FloatingPointError(msg)


def _one_by_one(amplitude: Tensor, good: Tensor | None) -> tuple[Tensor, None, Tensor | None]:
    """Return what a network of single patterns takes of groups of several."""
    alone = None if good is None else good.flatten(0, 1).unsqueeze(1)
    return amplitude.flatten(0, 1).unsqueeze(1), None, alone


def thin(amplitude: Tensor, least_exposure: float, generator: torch.Generator) -> Tensor:
    """Return patterns as shorter exposures would have them, at the brightness of the long ones.

    Parameters
    ----------
    amplitude : tensor, (B, C, N, N), float32
        Roots of counts.
    least_exposure : float
        Each pattern's exposure is a share of its own between this and 1, uniform in its logarithm.
    generator : torch.Generator
        On the device of the patterns.

    Returns
    -------
    tensor, (B, C, N, N), float32
        Roots of counts drawn binomially, divided by the root of the share.
    """
    shape = (*amplitude.shape[:2], 1, 1)
    drawn = torch.rand(shape, generator=generator, device=amplitude.device)
    share = least_exposure**drawn
    counts = torch.nan_to_num(amplitude.square()).round()  # what is no number is refused later
    kept = torch.binomial(counts, share.expand_as(counts).contiguous(), generator=generator)
    return (kept / share).sqrt()


def variation(patches: Tensor, weight: Tensor) -> float:
    """Return how much patches differ from each other: 0 if all are one image.

    Parameters
    ----------
    patches : tensor, (B, C, N, N), complex64
    weight : tensor, (N, N), float32

    Returns
    -------
    float
        Root of the mean square distance from the mean patch, in units of the mean square, each
        freed of its own phase.
    """
    flat = patches.flatten(0, 1)
    if len(flat) < 2:
        return math.nan
    factor = (flat * weight).sum(dim=(-2, -1), keepdim=True)
    flat = flat * torch.polar(torch.ones_like(factor.real), -factor.angle())
    apart = (flat - flat.mean(dim=0)).abs().square()
    return float(((apart * weight).sum() / (flat.abs().square() * weight).sum()).sqrt())


class Watch(Callback):
    """Writes the history, keeps the weights, draws the picture, and warns of a collapse.

    Parameters
    ----------
    folder : Path or None
        Nothing is written without.
    save : callable
        Writes the model into the folder.
    picture : callable
        Takes the number of epochs done; draws the image and returns its correlation.
    picture_every : int
        Epochs; 0 for never.
    rows : list of dict
        The history so far.
    """

    def __init__(
        self,
        folder: Path | None,
        save: Callable[[], object],
        picture: Callable[[int], float],
        picture_every: int,
        rows: list[dict[str, Any]],
    ) -> None:
        self.folder, self.save, self.picture = folder, save, picture
        self.picture_every = picture_every
        self.rows = rows
        self.stepped = False
        self._began = 0.0
        self._warned = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take up the history where the checkpoint ends."""
        if trainer.current_epoch:
            check_optimizer(trainer.optimizers[0])
            self.rows = [row for row in self.rows if row["epoch"] < trainer.current_epoch]
            # A checkpoint is written before a schedule that follows the loss has heard of it.
            for config in trainer.lr_scheduler_configs if self.rows else ():
                if config.reduce_on_plateau:
                    config.scheduler.step(self.rows[-1]["loss"])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note that a step was done: what was read to go on from is in use."""
        self.stepped = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write a row and the weights; draw."""
        seconds = time.perf_counter() - self._began
        epoch = trainer.current_epoch
        self._warn(pl_module.variation, epoch, epoch * trainer.num_training_batches)
        if not trainer.is_global_zero:
            return
        last = epoch + 1 == trainer.max_epochs
        correlation: float | str = ""
        if self.picture_every and (last or (epoch + 1) % self.picture_every == 0):
            correlation = self.picture(epoch + 1)
            trainer.progress_bar_metrics["image_correlation"] = correlation
        metrics = trainer.callback_metrics
        row = {
            "epoch": epoch,
            "loss": float(metrics["epoch_loss"]),
            "validation_loss": float(metrics["validation_loss"])
            if "validation_loss" in metrics
            else "",
            "image_correlation": correlation,
            "variation": pl_module.variation,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(seconds, 3),
        }
        self.rows.append(row)
        logger.info("epoch %d: loss %.4g, %.1f s", epoch, row["loss"], seconds)
        path = self._history()
        if path is None:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(path) as file:
            file.write(text.getvalue().encode())
        self.save()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep what a user who interrupts has."""
        if isinstance(exception, KeyboardInterrupt) and self.folder is not None:
            if trainer.is_global_zero:
                self.save()
            logger.warning(
                "Interrupted in epoch %d: the weights are in %s, and the last whole epoch in %s, "
                "from where resume=True goes on.",
                trainer.current_epoch,
                self.folder,
                self.folder / CHECKPOINT,
            )

    def _history(self) -> Path | None:
        return None if self.folder is None else self.folder / HISTORY

    def _warn(self, found: float, epoch: int, steps: int) -> None:
        # Every network begins with one image for all.
        if found < COLLAPSED and steps >= BEGINNING and not self._warned:
            self._warned = True
            warn(
                f"After {epoch} epochs the patches differ from each other by {found:.2g} of "
                f"their size, less than {COLLAPSED}: the network gives one image for every "
                "pattern. Another seed or a lower learning rate may help, unless the object is as "
                "faint as that.",
            )


def check_optimizer(adam: torch.optim.Optimizer) -> None:
    """Refuse what training has not written: Adam's fused step reads beyond a wrong shape.

    Parameters
    ----------
    adam : torch.optim.Optimizer
        As a checkpoint has left it.

    Raises
    ------
    ValueError
        If options, names, shapes or dtypes are not those of Adam, or numbers are not finite.
    """
    for group in adam.param_groups:
        its = {name: group.get(name) for name in adam.defaults if name != "lr"}
        rate = group.get("lr")
        if any(its[name] != adam.defaults[name] for name in its) or not isinstance(rate, float):
            raise ValueError("its optimizer is not the one of training")
        for p in group["params"]:
            state = adam.state.get(p, {})
            check_weights(state, {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p})
            for name, tensor in state.items():
                # Of its own memory, in the order of the weight's.
                state[name] = torch.empty_like(p if tensor.ndim else tensor).copy_(tensor)


def read_history(folder: Path, done: int) -> list[dict[str, Any]]:
    """Read the rows that a run has written.

    Parameters
    ----------
    folder : Path
        Of the run.
    done : int
        Epochs that its checkpoint has.

    Returns
    -------
    list of dict
        One an epoch; none if there is no file.

    Raises
    ------
    ValueError
        If the file is damaged.
    OSError
        If it is no regular file or cannot be read.
    """
    path = folder / HISTORY
    try:
        text = read_text(path)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS or not text.endswith("\n"):
            raise ValueError("it does not begin and end as a history does")
        rows = [_as_row(row) for row in reader]
        epochs = [row["epoch"] for row in rows]
        # The first may be missing, where somebody removed the file and went on.
        if not rows or epochs != list(range(epochs[0], epochs[0] + len(rows))):
            raise ValueError(f"its epochs are not counted through, but {epochs!r:.50}")
        if epochs[-1] < done - 1:
            raise ValueError(f"it ends with epoch {epochs[-1]}, and {done} epochs were done")
    except FileNotFoundError:
        return []
    except (csv.Error, ValueError) as error:
        msg = (
            f"{path} is damaged: {error}. Copy it again, or delete it: the run then goes on with "
            "a history that begins there."
        )
        raise ValueError(msg) from None
    return rows


def _as_row(text: dict[str, Any]) -> dict[str, Any]:
    if list(text) != list(COLUMNS) or None in text.values():
        raise ValueError(f"a row of it does not have {len(COLUMNS)} columns")
    numbers = {name: float(value) if value else "" for name, value in text.items()}
    return numbers | {"epoch": int(text["epoch"]), "loss": float(text["loss"])}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from Lightning's log and warnings what says nothing to those who train with this."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(level)


class Bar(TQDMProgressBar):
    """A bar an epoch, with the losses and the correlation of the last picture."""

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Return what is shown: not the version of a log, which there is none of."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown


def fit(
    module: Reconstructor,
    feed: LightningDataModule,
    watch: Watch,
    *,
    max_epochs: int,
    accelerator: str,
    devices: int,
    checkpoint: Path | None,
    trainer_cls: Any,
) -> None:
    """Train to the last epoch.

    Parameters
    ----------
    module : Reconstructor
    feed : LightningDataModule
        Of groups.
    watch : Watch
        Its folder takes the checkpoint, written after each epoch over the one before.
    max_epochs, devices : int
    accelerator : {"cpu", "gpu"}
    checkpoint : Path, optional
        Where to go on from.
    trainer_cls : type, optional
        Instead of ``lightning.Trainer``.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    ValueError
        If the checkpoint cannot be gone on from.
    KeyboardInterrupt
        If it was interrupted; the weights are saved.
    """
    # A bar in a log file would be a line a step.
    bar = sys.stderr.isatty() or "ipykernel" in sys.modules
    callbacks: list[Callback] = [watch, *([Bar()] if bar else [])]
    if watch.folder is not None:
        watch.folder.mkdir(parents=True, exist_ok=True)
        callbacks.append(
            ModelCheckpoint(
                watch.folder,
                filename=CHECKPOINT.removesuffix(".ckpt"),
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
        )
    handler = signal.getsignal(signal.SIGINT)
    with quiet():
        trainer = (trainer_cls or Trainer)(
            accelerator=accelerator,
            devices=devices,
            strategy="ddp" if devices > 1 else "auto",
            max_epochs=max_epochs,
            # Convolutions; what PyTorch has no such form of, Fourier transforms, stays float32.
            precision="bf16-mixed" if accelerator == "gpu" else "32-true",
            gradient_clip_val=1.0,
            callbacks=callbacks,
            enable_checkpointing=watch.folder is not None,
            enable_progress_bar=bar,
            enable_model_summary=False,
            logger=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
        module.train()
        try:
            # Loaders draw from PyTorch's stream, which is the caller's.
            with torch.random.fork_rng(devices=[]):
                trainer.fit(module, datamodule=feed, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # Lightning's answer to Ctrl-C
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # Of optimisers and schedules a checkpoint can hold anything.
            if checkpoint is None or watch.stepped:
                raise
            raise damaged(checkpoint, error) from error
    if checkpoint is not None and not watch.stepped and trainer.is_global_zero:
        logger.warning(
            "All %d epochs were done before: ask for more to go on.", trainer.current_epoch
        )


def _listed(indices: Any) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:8])
    return f"{shown}, ... ({len(indices)} in all)" if len(indices) > 8 else shown
