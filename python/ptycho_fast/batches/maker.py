"""One batch: its groups, their patterns, and what else was asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ptycho_fast.batches.buffers import Buffers
    from ptycho_fast.batches.plan import BatchGroups, Planner
    from ptycho_fast.scan import Scan


class Gatherer(Protocol):
    """Collects the images of a batch, wherever the patterns are."""

    def patterns(self, groups: BatchGroups) -> tuple[Any, Any]:
        """Return the patterns of some groups, and which of their pixels were measured.

        The second is None if ``good`` is not among the fields that were asked for.
        """

    def patches(self, groups: BatchGroups) -> Any:
        """Return the patches of the objects at the positions of some groups."""


AT_A_TIME = 2
"""Batches that are made at the same time, where threads suffice: while one looks up what it needs,
the other copies."""


class Maker:
    """Makes batches by their numbers; its length is that of the epoch.

    Parameters
    ----------
    planner : Planner
        The groups of each batch.
    gatherer : Gatherer
        Collects their patterns and patches.
    buffers : Buffers
        The caller's arrays, if there are any, to which everything else is copied.
    scans : sequence of Scan
        The scans, in the order of ``scan_id``.
    """

    def __init__(
        self, planner: Planner, gatherer: Gatherer, buffers: Buffers, scans: Sequence[Scan]
    ) -> None:
        self.planner, self.gatherer, self.buffers, self.scans = planner, gatherer, buffers, scans
        self.fields = planner.schedule.options.fields

    def __len__(self) -> int:
        return len(self.planner.schedule)

    def numbers(self, start_batch: int = 0) -> range:
        """Return the numbers of the batches from `start_batch` on.

        Raises
        ------
        ValueError
            If the epoch has fewer batches than that.
        """
        return range(as_count("start_batch", start_batch, least=0, most=len(self)), len(self))

    def __call__(self, number: int) -> dict[str, Any]:
        """Return the batch of this number."""
        groups, put = self.planner.batch(number), self.buffers.put
        patterns, good = self.gatherer.patterns(groups)
        batch = {
            "diffraction": patterns,
            "coords_relative": put("coords_relative", groups.relative),
            "coords_offsets": put("coords_offsets", groups.offsets),
            "nn_indices": put("nn_indices", groups.indices),
        }
        if "Y" in self.fields:
            batch["Y"] = self.gatherer.patches(groups)
        if "probe" in self.fields:
            batch["probe"] = put("probe", self._probes[groups.scan_id])
        if "scan_id" in self.fields:
            batch["scan_id"] = put("scan_id", groups.scan_id)
        if "good" in self.fields:
            batch["good"] = good
        return batch

    @cached_property
    def _probes(self) -> NDArray[Any]:
        probes = [scan.probe for scan in self.scans if scan.probe is not None]
        shapes = {probe.shape for probe in probes}
        if len(shapes) > 1:
            msg = (
                f"The probes of the scans have different shapes, {shapes}, so one batch cannot "
                "hold them. Leave 'probe' out of fields."
            )
            raise ValueError(msg)
        return np.stack(probes)
