"""The training loop, which is Lightning's."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from ptycho_fast.feeds.lightning import GroupedDataModule
from ptycho_fast.models.checkpoint import CHECKPOINT, damaged
from ptycho_fast.models.training.lightning import (
    Callback,
    LightningDataModule,
    ModelCheckpoint,
    TQDMProgressBar,
    Trainer,
)
from ptycho_fast.models.training.module import TrainingModule
from ptycho_fast.models.training.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ptycho_fast.models.config import ModelConfig
    from ptycho_fast.models.light import Probes
    from ptycho_fast.models.network import ScanNetwork
    from ptycho_fast.models.training.options import TrainingOptions
    from ptycho_fast.models.training.setup import TrainingPlan

logger = logging.getLogger("ptycho_fast")


def train_network(
    network: ScanNetwork,
    config: ModelConfig,
    plan: TrainingPlan,
    options: TrainingOptions,
    *,
    held_out: Probes | None,
    checkpoint: Path | None,
    rows: list[dict[str, Any]],
    save: Callable[[], object],
    picture: Callable[[int], float],
) -> list[dict[str, Any]]:
    """Train a network on the groups of a plan. Afterwards it is on the CPU, ready for imaging.

    Parameters
    ----------
    network : ScanNetwork
    config : ModelConfig
    plan : TrainingPlan
    options : TrainingOptions
    held_out : Probes, optional
        The probes of the scans for validation, if these are whole scans.
    checkpoint : Path, optional
        The checkpoint to resume from.
    rows : list of dict
        The history so far.
    save, picture : callable
        See `ptycho_fast.models.training.watch.Watch`.

    Returns
    -------
    list of dict
        The history, one row per epoch.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    ValueError
        If the run cannot be resumed from the checkpoint.
    MemoryError
        If the GPU has too little memory.
    """
    feed = GroupedDataModule(
        plan.data,
        plan.held_out,
        batch_size=plan.batch_size,
        seed=config.seed,
        redraw=True,
        fields=plan.fields,
    )
    watch = Watch(options.output, save, picture, options.picture_every, rows)
    module = TrainingModule(network, config, held_out=held_out, names=plan.names)
    try:
        _fit(module, feed, watch, options, checkpoint)
    except torch.OutOfMemoryError as error:
        msg = (
            f"The GPU has too little memory for a step of batch_size={plan.batch_size} groups of "
            f"{plan.members} patterns of {config.N} x {config.N} pixels. Lower batch_size, or the "
            f"width of the architecture. ({error})"
        )
        raise MemoryError(msg) from error
    finally:
        network.to("cpu").eval()
    return watch.rows


def _fit(
    module: TrainingModule,
    feed: LightningDataModule,
    watch: Watch,
    options: TrainingOptions,
    checkpoint: Path | None,
) -> None:
    """Run Lightning's trainer up to the last epoch."""
    # In a log file, a progress bar would write one line per step.
    bar = sys.stderr.isatty() or "ipykernel" in sys.modules
    callbacks: list[Callback] = [watch, *([_Bar()] if bar else [])]
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
    with _quiet():
        trainer = (options.trainer_cls or Trainer)(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.machines,
            strategy="ddp" if options.processes > 1 else "auto",
            max_epochs=options.max_epochs,
            # Convolutions use bfloat16. Fourier transforms stay float32, PyTorch has no other.
            precision="bf16-mixed" if options.accelerator == "gpu" else "32-true",
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
            # Data loaders draw from PyTorch's global random numbers, which belong to the caller.
            with torch.random.fork_rng(devices=[]):
                trainer.fit(module, datamodule=feed, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # this is how Lightning reacts to Ctrl-C
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # The states of optimiser and schedule in a damaged checkpoint can raise anything.
            if checkpoint is None or watch.stepped:
                raise
            raise damaged(checkpoint, error) from error
    if checkpoint is not None and not watch.stepped and trainer.is_global_zero:
        logger.warning(
            "All %d epochs were done before. Ask for more epochs to continue.",
            trainer.current_epoch,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress those of Lightning's messages and warnings that do not concern our users."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        log.setLevel(level)


class _Bar(TQDMProgressBar):
    """A progress bar per epoch, with the losses and the correlation of the last picture."""

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Return what the bar shows, without the version number of a log that does not exist."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown
