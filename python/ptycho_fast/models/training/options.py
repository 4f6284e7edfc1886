"""The options of training.

`PtychoModel.train` and the command line take their defaults from here. PyTorch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from pathlib import Path

PATTERNS_A_STEP = 8
"""The default batch has this many patterns per device."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of `ptycho_fast.models.PtychoModel.train`, which describes them.

    Parameters
    ----------
    neighbor_count, max_epochs, refine_probe, picture_every, devices : int
    n_groups, batch_size : int, optional
    validation : float, optional
        The share of each scan.
    output : Path, optional
    resume : bool
    accelerator : {"cpu", "gpu"}
    trainer_cls : type, optional

    Raises
    ------
    ValueError
        If a count is out of its range.
    """

    neighbor_count: int = 4
    n_groups: int | None = None
    batch_size: int | None = None
    max_epochs: int = 15
    validation: float | None = None
    output: Path | None = None
    resume: bool = False
    refine_probe: int = 0
    picture_every: int = 5
    accelerator: str = "cpu"
    devices: int = 1
    trainer_cls: Any = None

    def __post_init__(self) -> None:
        checked = {
            "max_epochs": as_count("max_epochs", self.max_epochs),
            "devices": as_count("devices", self.devices),
            "refine_probe": as_count("refine_probe", self.refine_probe, least=0),
            "picture_every": as_count("picture_every", self.picture_every, least=0),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
