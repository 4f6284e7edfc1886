"""What happens around the epochs of a run: history, files, pictures, and a warning of collapse."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ptycho_fast.models.checkpoint import CHECKPOINT, check_optimizer
from ptycho_fast.models.training.history import write_history
from ptycho_fast.models.training.lightning import Callback
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("ptycho_fast")

BEGINNING = 100
"""Number of steps after which the patches of a network should differ from each other."""

COLLAPSED = 0.01
"""Patches whose `variation` is below this are all the same image."""


class Watch(Callback):
    """Watches a run: writes its history and weights, draws pictures, and warns of a collapse.

    Parameters
    ----------
    folder : Path or None
        The folder of the run. If it is None, nothing is written.
    save : callable
        Writes the model into the folder.
    picture : callable
        Draws a picture after the given number of epochs, and returns its correlation.
    picture_every : int
        Number of epochs from one picture to the next; 0 for none.
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
        """Continue the history where the checkpoint ends."""
        if trainer.current_epoch:
            check_optimizer(trainer.optimizers[0])
            self.rows = [row for row in self.rows if row["epoch"] < trainer.current_epoch]
            # Lightning writes a checkpoint before it tells the plateau schedule the last loss.
            for config in trainer.lr_scheduler_configs if self.rows else ():
                if config.reduce_on_plateau:
                    config.scheduler.step(self.rows[-1]["loss"])

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Note the time."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note that a step was done, so a later error is not due to the checkpoint."""
        self.stepped = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Add a row to the history, draw a picture if it is time, and write the files."""
        seconds = time.perf_counter() - self._began
        pl_module.log_epoch()
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
        if self.folder is not None:
            write_history(self.folder, self.rows)
            self.save()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """If the user interrupted, save the weights and say where they are."""
        if isinstance(exception, KeyboardInterrupt) and self.folder is not None:
            if trainer.is_global_zero:
                self.save()
            logger.warning(
                "Interrupted in epoch %d. The weights are in %s, and the last complete epoch in "
                "%s, from which resume=True continues.",
                trainer.current_epoch,
                self.folder,
                self.folder / CHECKPOINT,
            )

    def _warn(self, found: float, epoch: int, steps: int) -> None:
        # Before training, every network returns the same patch for all patterns.
        if found < COLLAPSED and steps >= BEGINNING and not self._warned:
            self._warned = True
            warn(
                f"After {epoch} epochs the patches differ from each other by only {found:.2g} of "
                f"their size (less than {COLLAPSED}): the network returns one image for every "
                "pattern. Try another seed or a lower learning rate, unless the object itself is "
                "so faint.",
            )
