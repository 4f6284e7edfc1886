"""Centres: the scan positions around which groups are drawn, and the bounds that they lie in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import as_count, as_indices, one_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.grouping.request import Bounds, DrawRequest


class Centers(NamedTuple):
    """The centres of a draw."""

    tried: NDArray[np.int32]
    """(m,), in the order in which groups are drawn around them."""
    outside: int
    """How many of the given centres lie outside the bounds."""


def choose_centers(
    request: DrawRequest, *, all_positions: bool, num_threads: int | None = None
) -> Centers:
    """Choose the centres of a draw.

    Parameters
    ----------
    request : DrawRequest
        What was asked.
    all_positions : bool
        Whether groups are drawn around all positions that may be centres, in order of index,
        as for a pool.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    Centers

    Raises
    ------
    ValueError
        If no position that may be a centre lies within the bounds.
    """
    n, B = len(request.positions), request.count
    given = request.given_centers
    allowed = positions_allowed(request.positions, request.bounds, given)
    if given is not None:
        # A copy: groups and their request do not share an array.
        tried = given.copy() if allowed is None else given[allowed[given]]
        return Centers(tried, len(given) - len(tried))
    if all_positions or request.center_choice == "sequential":
        ranked = np.arange(n, dtype=np.int32)
    else:
        # Where bounds take some away, it is not known beforehand how many have to be drawn.
        wanted = min(B, n) if allowed is None else n
        ranked = _core.draw_centers(n, wanted, request.key, num_threads)
    if allowed is not None:
        ranked = ranked[allowed[ranked]]
    return Centers(ranked if all_positions else ranked[:B], 0)


def positions_allowed(
    points: NDArray[np.float64], bounds: Bounds | None, given: NDArray[np.int32] | None
) -> NDArray[np.bool_] | None:
    """Return which positions lie within the bounds, (n,), or None where there are no bounds."""
    if bounds is None:
        return None
    inside = np.ones(len(points), np.bool_)
    for values, (low, high) in zip(points.T, bounds, strict=True):
        from_least = values - values.min()
        extent = values.max() - values.min()
        inside &= (low * extent <= from_least) & (from_least <= high * extent)
    tried = np.arange(len(points), dtype=np.int32) if given is None else given
    if not inside[tried].any():
        raise ValueError(_explain_bounds(points, bounds, tried))
    return inside


def count_centers(
    n_groups: int | None,
    points: NDArray[np.float64],
    bounds: Bounds | None,
    given: NDArray[np.int32] | None,
    *,
    counts_groups: bool,
) -> int:
    """Return how many centres are tried, or how many groups are drawn.

    Parameters
    ----------
    n_groups : int, optional
        What the caller asks for.
    points : ndarray, (n, 2), float64
        The scan positions.
    bounds : ((x0, x1), (y0, y1)), optional
        The part of the scan in which the centres lie.
    given : ndarray, int32, optional
        The centres, where they were given.
    counts_groups : bool
        Whether `n_groups` counts groups, which may be more than the positions.

    Returns
    -------
    int
        For centres, at most one for each position that may be a centre.
    """
    allowed = positions_allowed(points, bounds, given)
    if given is not None:
        if n_groups not in (None, len(given)):
            msg = (
                f"centers names {len(given)} centres, but n_groups is {n_groups}. Leave n_groups "
                "out: one group is drawn around each of the centres given."
            )
            raise ValueError(msg)
        return as_count("The number of centers", len(given))
    n = len(points)
    B = n if n_groups is None else n_groups
    if counts_groups:
        return B
    return min(B, n if allowed is None else int(np.count_nonzero(allowed)))


def as_centers(centers: str | ArrayLike, n: int) -> tuple[str, NDArray[np.int32] | None]:
    """Return how the centres of n positions are chosen, and those that are given."""
    if isinstance(centers, str):
        one_of("centers", centers, ("random", "sequential"))
        return centers, None
    # A copy: what the caller later writes to his array is not in the groups.
    return "given", as_indices("centers", centers, 1, n).copy()


def as_bounds(bounds: object) -> Bounds | None:
    """Return ``((x0, x1), (y0, y1))``, fractions 0..1 of the scan's extent."""
    if bounds is None:
        return None
    pairs: Any = bounds
    try:
        along_x, along_y = pairs
        (x0, x1), (y0, y1) = map(float, along_x), map(float, along_y)
    except (TypeError, ValueError, OverflowError):
        msg = (
            f"bounds must be ((x0, x1), (y0, y1)), fractions of the scan's extent, got {bounds!r}."
        )
        raise ValueError(msg) from None
    for axis, (low, high) in zip("xy", ((x0, x1), (y0, y1)), strict=True):
        if not (0 <= low <= 1 and 0 <= high <= 1):
            msg = (
                "bounds must lie in 0..1, as fractions of the scan's extent, got "
                f"({low:g}, {high:g}) along {axis}."
            )
            raise ValueError(msg)
        if low > high:
            msg = f"bounds ({low:g}, {high:g}) along {axis} are reversed. Pass ({high:g}, {low:g})."
            raise ValueError(msg)
    return (x0, x1), (y0, y1)


def _explain_bounds(
    positions: NDArray[np.float64], bounds: Bounds, tried: NDArray[np.int32]
) -> str:
    """Say that the bounds hold no centre, and which bounds would hold the nearest one."""
    fractions = []
    for values in positions.T:
        extent = values.max() - values.min()
        fractions.append((values[tried] - values.min()) / (extent if extent > 0 else 1.0))
    beyond = [
        np.maximum(np.maximum(low - fraction, fraction - high), 0)
        for fraction, (low, high) in zip(fractions, bounds, strict=True)
    ]
    best = int(np.argmin(beyond[0] + beyond[1]))
    wider = []
    for fraction, (low, high) in zip(fractions, bounds, strict=True):
        least = max(0.0, math.floor((fraction[best] - 1e-9) * 1e4) / 1e4)
        most = min(1.0, math.ceil((fraction[best] + 1e-9) * 1e4) / 1e4)
        wider.append((min(low, least), max(high, most)))
    return (
        f"bounds={bounds} hold none of the {len(tried)} positions that may be centres. "
        f"Widen them to {tuple(wider)}, which holds the nearest ({tried[best]})."
    )
