"""`DrawRequest`: what was asked of a draw, which is all that its groups depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ptycho_fast import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Bounds: TypeAlias = "tuple[tuple[float, float], tuple[float, float]]"
"""``((x0, x1), (y0, y1))``, fractions 0..1 of the scan's extent in x and in y."""


@dataclass(frozen=True, eq=False)
class DrawRequest:
    """What was asked of a draw. The groups are a function of it.

    `group_positions` makes one from the arguments of a caller, after it has checked them.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        The scan positions x and y, in pixels.
    n_neighbors : int
        Neighbours considered per centre (K).
    seed, epoch : int
        What the random words come from.
    rule, strategy : str
        How a group is chosen, and whether groups are drawn directly or sampled from a pool.
    rng, engine : str
        The random stream, and the kind of index that finds the neighbours.
    include_center : bool
        Whether channel 0 of a group is its centre.
    center_choice : {"random", "sequential", "given"}
        How the centres are chosen.
    min_distance, max_distance : float, optional
        Limits of the distance between a centre and its neighbours, in pixels.
    groups_per_center : int
        Groups drawn around each centre.
    bounds : ((x0, x1), (y0, y1)), optional
        The part of the scan in which the centres lie, in fractions of its extent.
    N : int, optional
        Pixels per side of a pattern, for the rule ``overlap``.
    min_overlap : float, optional
        The overlap that the rule ``overlap`` asks of two windows, 0..1.
    n_groups : int, optional
        How many centres are tried; for the rule ``oversample`` and for ``group-then-sample``, how
        many groups are drawn. None stands for the number of positions.
    scan_ids : ndarray, (n,), int32, optional
        The number of each position's label, labels in sorted order.
    given_centers : ndarray, int32, optional
        The centres, where they were given.
    group_size : int
        Channels per group (C).
    """

    positions: NDArray[np.float64]
    n_neighbors: int
    seed: int
    epoch: int = 0
    rule: str = "nearest"
    rng: str = "philox"
    engine: str = "auto"
    include_center: bool = False
    center_choice: str = "random"
    strategy: str = "sample-then-group"
    min_distance: float | None = None
    max_distance: float | None = None
    groups_per_center: int = 1
    bounds: Bounds | None = None
    N: int | None = None
    min_overlap: float | None = None
    n_groups: int | None = None
    scan_ids: NDArray[np.int32] | None = None
    given_centers: NDArray[np.int32] | None = None
    group_size: int = 4

    @property
    def limits(self) -> tuple[float, float] | None:
        """The smallest and the largest distance of a neighbour; None if neither is limited."""
        if self.min_distance is None and self.max_distance is None:
            return None
        return (
            0.0 if self.min_distance is None else self.min_distance,
            math.inf if self.max_distance is None else self.max_distance,
        )

    @property
    def key(self) -> tuple[int, int]:
        """The key of the counter generator."""
        return _core.philox_key(self.seed, self.epoch)

    @property
    def count(self) -> int:
        """`n_groups`, or the number of positions where that was not given."""
        return len(self.positions) if self.n_groups is None else self.n_groups
