"""Which groups a batch holds, where their positions are, and to which scans they belong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.grouping import group_coordinates, relative_coordinates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ptycho_fast.batches.schedule import Schedule
    from ptycho_fast.grouping import Groups

TOGETHER = 16
"""Batches whose coordinates are computed at once: a NumPy call costs more than its arithmetic."""

Share = tuple[int, "slice | NDArray[np.bool_]"]
"""The number of a scan, and which rows of a batch belong to it."""


@dataclass(frozen=True, eq=False)
class BatchGroups:
    """The groups of one batch, or of some batches one after another."""

    scan_id: NDArray[np.int32]
    """Number of the scan that each group is from, (B,)."""

    indices: NDArray[np.int32]
    """Scan positions of each group, (B, C)."""

    coords: NDArray[np.float64]
    """Their coordinates in pixels, x then y, (B, 1, 2, C)."""

    offsets: NDArray[np.float64]
    """Centre of each group, (B, 1, 2, 1)."""

    relative: NDArray[np.float64]
    """Centre minus coordinates, (B, 1, 2, C)."""

    def rows(self, rows: slice) -> BatchGroups:
        """Return some of the groups."""
        return BatchGroups(
            self.scan_id[rows],
            self.indices[rows],
            self.coords[rows],
            self.offsets[rows],
            self.relative[rows],
        )


def shares(scan_id: NDArray[np.int32], n_scans: int) -> list[Share]:
    """Return the scans that groups belong to, and the rows of each."""
    if n_scans == 1:
        return [(0, slice(None))]
    return [(int(scan), scan_id == scan) for scan in np.unique(scan_id)]


class Planner:
    """Looks up the groups of each batch and computes their coordinates, some batches at once.

    Parameters
    ----------
    groups : sequence of Groups
        The groups of each scan, in the order of ``scan_id``.
    schedule : Schedule
        Which of them each batch holds.
    step : int
        Every how many batches one is likely to be asked for.
    """

    def __init__(self, groups: Sequence[Groups], schedule: Schedule, *, step: int = 1) -> None:
        self.groups, self.schedule, self.step = groups, schedule, step
        self.first_row = np.cumsum([0, *(len(some) for some in groups)])
        self._numbers, self._ends = range(0), [0]
        self._planned: BatchGroups | None = None

    def batch(self, number: int) -> BatchGroups:
        """Return the groups of the batch of this number."""
        if self._planned is None or number not in self._numbers:
            self._numbers = range(number, len(self.schedule), self.step)[:TOGETHER]
            self._planned = self._plan()
        place = self._numbers.index(number)
        return self._planned.rows(slice(self._ends[place], self._ends[place + 1]))

    def _plan(self) -> BatchGroups:
        """Compute what these batches hold."""
        each = [self.schedule.rows(batch) for batch in self._numbers]
        self._ends = [0, *np.cumsum([len(some) for some in each]).tolist()]
        rows = np.concatenate(each)
        scan_id = np.zeros(len(rows), np.int32)
        if len(self.groups) > 1:
            scan_id[:] = np.searchsorted(self.first_row, rows, side="right") - 1
        C = self.groups[0].group_size
        indices = np.empty((len(rows), C), np.int32)
        coords = np.empty((len(rows), 1, 2, C))
        for scan, own in shares(scan_id, len(self.groups)):
            groups = self.groups[scan]
            indices[own] = groups.indices[rows[own] - self.first_row[scan]]
            coords[own] = group_coordinates(groups.positions, indices[own])
        return BatchGroups(scan_id, indices, coords, *relative_coordinates(coords))
