"""One scan of a data set with its groups."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ptycho_fast.grouping import Groups, KnownNeighbors, prepare_redraw, redraw
from ptycho_fast.patterns import brought_energies, measured_energies, normalisation_scale

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")


class ScanCache:
    """What all data sets of one scan share, computed at first use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.energies: NDArray[np.float64] | None = None
        self.neighbors: KnownNeighbors | None = None

    def __reduce__(self) -> tuple[type[ScanCache], tuple[()]]:
        return ScanCache, ()  # a lock cannot be pickled; another process computes its own


@dataclass(frozen=True, eq=False)
class Part:
    """One scan and its groups; after a split, those on one side of it."""

    scan: Scan
    groups: Groups
    cache: ScanCache = field(default_factory=ScanCache)
    inside: NDArray[np.bool_] | None = None
    """The positions that groups may use, (n,); None: all."""
    unsplit: Groups | None = None
    """The groups before the split; None: there was none."""

    @property
    def whole(self) -> Groups:
        """The groups before any split."""
        return self.groups if self.unsplit is None else self.unsplit

    def scale(self) -> np.float32:
        """Return the factor that brings the mean energy of all groups to ``(N/2)**2``."""
        return normalisation_scale(self._energies(), self.whole.indices, self.scan.N)

    def _energies(self) -> NDArray[np.float64]:
        """Return the energy of each pattern, (n,): those of the scan, else from one pass."""
        with self.cache.lock:
            if self.cache.energies is None:
                self.cache.energies = brought_energies(self.scan)
            if self.cache.energies is None:
                logger.info(
                    "normalize: one pass over %d patterns (%.0f MB) for their energies; "
                    "`ptycho-fast convert` stores them",
                    len(self.scan),
                    self.scan.diffraction.nbytes / 1e6,
                )
                self.cache.energies = measured_energies(self.scan)
            return self.cache.energies

    def at_epoch(self, epoch: int, num_threads: int) -> Part:
        """Return the same scan with the groups of another epoch, on the same side of a split."""
        with self.cache.lock:
            if self.cache.neighbors is None:
                self.cache.neighbors = prepare_redraw(self.whole, num_threads)
            neighbors = self.cache.neighbors
        groups = redraw(self.whole, neighbors, epoch, num_threads)
        part = replace(self, groups=groups, unsplit=None)
        return part if self.inside is None else part.within(self.inside)

    def within(self, inside: NDArray[np.bool_]) -> Part:
        """Return the groups all of whose positions are inside, (n,) bool."""
        if self.inside is not None:
            inside = inside & self.inside
        kept = inside[self.groups.indices].all(axis=1)
        groups = replace(
            self.groups, indices=self.groups.indices[kept], centers=self.groups.centers[kept]
        )
        return replace(self, groups=groups, inside=inside, unsplit=self.whole)
