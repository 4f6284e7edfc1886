"""The configuration of a model: every option that its network and its training depend on.

`PtychoModel` and the command line take their defaults from here. PyTorch is not imported.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ptycho_fast.checks import as_count

LOSSES = ("poisson", "amplitude")
"""What `ptycho_fast.models.physics.diffraction_loss` can compute."""

SCHEDULES = ("cosine", "plateau")
"""How the learning rate can fall."""


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

    architecture: str = "cnn"
    N: int = 64
    gridsize: int = 1
    seed: int = 0
    stages: int = 2
    overlap: int = 4
    loss: str = LOSSES[0]
    schedule: str = SCHEDULES[0]
    learning_rate: float = 2e-3
    trainable_probe: bool = False
    least_exposure: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

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
