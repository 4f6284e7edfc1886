"""What a caller passes to `group_positions`, checked and turned into a `DrawRequest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import (
    as_count,
    as_number,
    as_valid_positions,
    join_coordinates,
    one_of,
)
from ptycho_fast.grouping.centers import as_bounds, as_centers, count_centers
from ptycho_fast.grouping.index import ENGINES, ScanIndex
from ptycho_fast.grouping.randomness import RNGS, as_seed
from ptycho_fast.grouping.request import DrawRequest
from ptycho_fast.grouping.rules import find_rule
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

GRIDSIZE = 2
"""The default: groups of 2² = 4 positions."""


def as_index_or_points(
    positions: ArrayLike | ScanIndex | None, xcoords: ArrayLike | None, ycoords: ArrayLike | None
) -> tuple[ScanIndex | None, NDArray[np.float64]]:
    """Return the index, where one was passed, and the scan positions, (n, 2)."""
    if (positions is None) == (xcoords is None and ycoords is None):
        msg = "Give positions, or xcoords and ycoords."
        raise ValueError(msg)
    if isinstance(positions, ScanIndex):
        return positions, positions.positions
    if positions is None:
        if xcoords is None or ycoords is None:
            missing, there = ("xcoords", "ycoords") if xcoords is None else ("ycoords", "xcoords")
            msg = f"{missing} is missing: pass it together with {there}."
            raise ValueError(msg)
        positions = join_coordinates(xcoords, ycoords)
    return None, as_valid_positions(positions)


def accept_request(
    points: NDArray[np.float64],
    n_groups: int | None,
    *,
    gridsize: int | None,
    group_size: int | None,
    n_neighbors: int | None,
    seed: int | None,
    epoch: int,
    rule: str,
    strategy: str,
    centers: str | ArrayLike,
    include_center: bool,
    min_distance: float | None,
    max_distance: float | None,
    groups_per_center: int,
    bounds: object,
    scan_ids: ArrayLike | None,
    N: int | None,
    min_overlap: float | None,
    rng: str,
    engine: str,
) -> DrawRequest:
    """Return the request that the arguments of `group_positions` make, or refuse them.

    Warns
    -----
    UserWarning
        If more centres are asked for than there are positions.
    """
    n, C = len(points), _as_group_size(gridsize, group_size)
    how = find_rule(rule, strategy)
    one_of("rng", rng, RNGS)
    one_of("engine", engine, ENGINES)
    choice, given = as_centers(centers, n)
    within = as_bounds(bounds)
    asked = None if n_groups is None else as_count("n_groups", n_groups)
    B = count_centers(asked, points, within, given, counts_groups=how.counts_groups)
    request = DrawRequest(
        positions=points,
        n_neighbors=as_count(
            "n_neighbors", how.default_neighbors(C) if n_neighbors is None else n_neighbors
        ),
        seed=as_seed(seed, rng),
        epoch=as_count("epoch", epoch, least=0, most=2**32 - 1),
        rule=rule,
        rng=rng,
        engine=engine,
        include_center=bool(include_center),
        center_choice=choice,
        strategy=strategy,
        min_distance=as_number("min_distance", min_distance),
        max_distance=as_number("max_distance", max_distance),
        groups_per_center=as_count("groups_per_center", groups_per_center),
        bounds=within,
        N=N,
        min_overlap=min_overlap,
        n_groups=B,
        scan_ids=_as_labels(scan_ids, n),
        given_centers=given,
        group_size=C,
    )
    if request.limits is not None and request.limits[0] > request.limits[1]:
        msg = (
            f"min_distance={request.min_distance:g} exceeds max_distance="
            f"{request.max_distance:g}: no distance lies between them. Swap them."
        )
        raise ValueError(msg)
    request = how.accept(request)
    if rng == "numpy":
        _refuse_beyond_legacy(request)
    _core.check_group(n, request.n_neighbors, C)
    if asked is not None and asked > B:
        which = "of the scan" if within is None else "within bounds"
        warn(
            f"n_groups={asked} exceeds the {B} positions {which}: every position becomes a "
            "centre once. rule='oversample' draws more groups than positions.",
        )
    return request


def _as_group_size(gridsize: int | None, group_size: int | None) -> int:
    """Return C, channels per group."""
    if group_size is None:
        return as_count("gridsize", GRIDSIZE if gridsize is None else gridsize, most=46340) ** 2
    if gridsize is not None:
        msg = f"Give gridsize ({gridsize!r}) or group_size ({group_size!r}), not both."
        raise ValueError(msg)
    return as_count("group_size", group_size)


def _as_labels(scan_ids: ArrayLike | None, n: int) -> NDArray[np.int32] | None:
    """Return the number of each position's label, (n,), labels in sorted order."""
    if scan_ids is None:
        return None
    labels = np.asarray(scan_ids)
    if labels.shape != (n,) or labels.dtype.kind not in "iubUS":
        msg = (
            f"scan_ids must be ({n},) whole numbers or text, a label for each position, got "
            f"shape {labels.shape} of {labels.dtype}."
        )
        raise ValueError(msg)
    numbers: NDArray[np.int32] = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    return numbers.reshape(n)


def _refuse_beyond_legacy(request: DrawRequest) -> None:
    """Refuse what NumPy's legacy stream has never drawn."""
    asked = (
        request.epoch,
        request.rule != "nearest",
        request.strategy != "sample-then-group",
        request.include_center,
        request.center_choice != "random",
        request.limits is not None,
        request.groups_per_center > 1,
        request.bounds is not None,
        request.scan_ids is not None,
    )
    if any(asked):
        msg = (
            'rng="numpy" repeats what older code drew, which knew no epoch, include_center '
            "or centers, no other rule or strategy, no distances, groups_per_center, bounds or "
            'scan_ids. Leave them out, or use the default rng="philox".'
        )
        raise ValueError(msg)
