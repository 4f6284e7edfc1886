"""The rule ``overlap``: a group is grown from its centre, and all its windows overlap."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_count, as_number
from ptycho_fast.grouping.rules.base import Rule
from ptycho_fast.grouping.rules.explain import Near, neighbors_of, rounded
from ptycho_fast.spacing import LEAST_OVERLAP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.grouping.request import DrawRequest

NEIGHBORS = 30
"""Neighbours considered per centre, where the caller gives no K."""

RELAXED = 1.5**3
"""The core divides `min_overlap` by 1.5 up to three times before it gives up on a group."""


class Overlap(Rule):
    """Grown from the centre: the window of each next position overlaps those of all before it."""

    name = "overlap"
    uses_windows = True

    def default_neighbors(self, group_size: int) -> int:
        """Return K where the caller gives none: enough neighbours to choose from."""
        return NEIGHBORS

    def check(self, request: DrawRequest) -> DrawRequest:
        """Refuse a request without `N`; fill in `min_overlap`."""
        if request.N is None:
            msg = "rule='overlap' needs N, the number of pixels per side of a pattern."
            raise ValueError(msg)
        least = LEAST_OVERLAP if request.min_overlap is None else request.min_overlap
        return replace(
            request,
            N=as_count("N", request.N),
            min_overlap=as_number("min_overlap", least, 1.0),
            include_center=True,  # a group grows from its centre, which is channel 0
        )

    def explain(
        self, request: DrawRequest, centers: NDArray[np.int32], left_out: dict[str, int]
    ) -> str:
        """Say which `min_overlap` would give a centre a group."""
        if self.name not in left_out:
            return super().explain(request, centers, left_out)
        least = request.min_overlap or 0.0
        around = neighbors_of(request, centers, request.limits)
        near = next(
            (near for near in around if len(near.neighbors) >= request.group_size - 1), None
        )
        lower = (
            "0" if near is None else f"{_widest(request, near)}, which serves centre {near.center}"
        )
        return (
            f"min_overlap={least:g} leaves out all {len(centers)} centres, even relaxed to "
            f"{least / RELAXED:.3g}: windows of N={request.N} pixels overlap less. Lower "
            f"min_overlap to {lower}, or check N."
        )


def _widest(request: DrawRequest, near: Near) -> str:
    """Return a `min_overlap` that every pair of windows around a centre meets."""
    N = float(request.N or 0)
    most = min(request.n_neighbors, 1000)  # all pairs of them are compared
    around = request.positions[[near.center, *near.neighbors[:most]]]
    sides = np.maximum(0.0, N - np.abs(around[:, np.newaxis] - around))
    return rounded(float(sides.prod(axis=-1).min() / (N * N)), math.floor, lambda _: True)
