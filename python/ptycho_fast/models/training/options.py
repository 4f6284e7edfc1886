"""The options of training.

`PtychoModel.train` and the command line take their defaults from here. PyTorch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptycho_fast.batches.processes import processes_of_torchrun
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
    neighbor_count, max_epochs, refine_probe, picture_every : int
    devices : int
        Those of this machine. Where ``torchrun`` started this process, it is the number of its
        processes here, and `machines` the number of machines.
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
    machines: int = field(default=1, init=False)
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
        local, world = processes_of_torchrun()
        if world > 1 and self.devices not in (1, local):
            msg = (
                f"devices={self.devices}, but torchrun started {local} processes on this machine, "
                "of which each uses one device. Leave devices out."
            )
            raise ValueError(msg)
        if world % local:
            msg = (
                f"torchrun started {local} processes on this machine, and {world} in all. Start "
                "equally many on each machine."
            )
            raise ValueError(msg)
        object.__setattr__(self, "devices", max(self.devices, local))
        object.__setattr__(self, "machines", world // local)

    @property
    def processes(self) -> int:
        """How many processes train together, on all machines."""
        return self.devices * self.machines
