"""The configuration of a model: every option that its network and its training depend on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ptycho_fast.checks import as_count
from ptycho_fast.models.physics import LOSSES

SCHEDULES = ("cosine", "plateau")


@dataclass(frozen=True)
class ModelConfig:
    """All options of a `PtychoModel`, checked. ``config.json`` holds them.

    The probe and the learned weights are not part of it.

    Parameters
    ----------
    architecture, N, gridsize, seed, stages, overlap
    loss, schedule, learning_rate, trainable_probe, least_exposure
        As of `ptycho_fast.models.PtychoModel`.
    options : dict
        Options of the architecture.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    architecture: str
    N: int
    gridsize: int
    seed: int
    stages: int
    overlap: int
    loss: str
    schedule: str
    learning_rate: float
    trainable_probe: bool
    least_exposure: float
    options: dict[str, Any]

    def __post_init__(self) -> None:
        N = as_count("N", self.N, least=4)
        if N % 2:
            msg = f"N must be even, got {N}."
            raise ValueError(msg)
        for what, value, known in (
            ("loss", self.loss, LOSSES),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if value not in known:
                msg = f"{what} must be one of {known}, got {value!r}."
                raise ValueError(msg)
        rate, least = self.learning_rate, self.least_exposure
        if not isinstance(rate, float | int) or not 0 < rate < 1:
            msg = f"learning_rate must be between 0 and 1, got {rate!r}."
            raise ValueError(msg)
        if not isinstance(least, float | int) or not 0 < least <= 1:
            msg = f"least_exposure must be more than 0 and at most 1, got {least!r}."
            raise ValueError(msg)
        checked = {
            "N": N,
            "gridsize": as_count("gridsize", self.gridsize, most=8),
            "seed": as_count("seed", self.seed, least=0, most=2**32 - 1),
            "stages": as_count("stages", self.stages, most=16),
            "overlap": as_count("overlap", self.overlap, most=64),
            "learning_rate": float(rate),
            "trainable_probe": bool(self.trainable_probe),
            "least_exposure": float(least),
        }
        for name, number in checked.items():
            object.__setattr__(self, name, number)  # the dataclass is frozen

    @property
    def channels(self) -> int:
        """Number of patterns that the network sees together (C)."""
        return self.gridsize**2

    def differences(self, other: ModelConfig) -> str:
        """Return a sentence that lists where another configuration differs; empty if nowhere.

        Parameters
        ----------
        other : ModelConfig
        """
        return "; ".join(
            f"{name} is {value!r} here, {getattr(other, name)!r} there"
            for name, value in dataclasses.asdict(self).items()
            if getattr(other, name) != value
        )
