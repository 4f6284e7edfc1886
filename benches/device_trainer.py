"""A trainer for ``benches/device.py``: `PtychoModel`'s own, with a clock and in any precision."""

from __future__ import annotations

import time
from typing import Any

from device_measures import wait
from lightning.pytorch.profilers import SimpleProfiler

from ptycho_fast.models.training.lightning import Callback, Trainer

WAITING = ("train_dataloader_next", "batch_to_device")
"""What Lightning calls waiting for a batch, and sending it to the device."""


class Clock(Callback):
    """Takes the time of each epoch, and how much of it was spent waiting for data.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.profiler = SimpleProfiler()
        self.epochs: list[tuple[float, float]] = []

    def waited(self) -> float:
        """Return the seconds until each batch had come and was on its way to the device."""
        found = self.profiler.recorded_durations
        if not any(name.endswith(WAITING[0]) for name in found):
            msg = f"Lightning names no time spent waiting for data, only {sorted(found)}."
            raise LookupError(msg)
        return sum(sum(times) for name, times in found.items() if name.endswith(WAITING))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        wait(self.device)
        self.profiler.recorded_durations.clear()
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock."""
        wait(self.device)
        self.epochs.append((time.perf_counter() - self.start, self.waited()))


def clocked(clock: Clock, mode: str, **given: Any) -> Any:
    """Return the trainer that `PtychoModel.train` asks for, with a clock, in another precision."""
    callbacks = [*given["callbacks"], clock]
    own = {"callbacks": callbacks, "precision": mode, "profiler": clock.profiler}
    return Trainer(**{**given, **own})
