"""Why no centre has a group, and a limit that would give one: for the messages of the rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptycho_fast.spacing import median_spacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.grouping.request import DrawRequest

MOST_CENTERS, MOST_DISTANCES = 1000, 2 * 10**6
"""How many centres are looked at for a way out, and how many distances are computed for them."""


class Near(NamedTuple):
    """A centre and its neighbours, nearest first."""

    center: int
    neighbors: NDArray[np.intp]
    distance2: NDArray[np.float64]


def explain_limits(
    request: DrawRequest, centers: NDArray[np.int32], left_out: dict[str, int]
) -> str:
    """Say which of `scan_ids`, `min_distance` and `max_distance` leaves out every centre.

    Parameters
    ----------
    request : DrawRequest
        What was asked.
    centers : ndarray, (m,), int32
        The centres, none of which has a group.
    left_out : dict of str to int
        Reason -> how many of them.

    Returns
    -------
    str
        Names a limit that gives at least one centre a group.
    """
    C = request.group_size
    everyone = f"all {len(centers)} centres"
    if "distance" not in left_out and request.scan_ids is not None:
        return (
            f"scan_ids leaves out {everyone}: a group needs C={C} positions of one label, and "
            f"the longest label has {np.bincount(request.scan_ids).max()}. Use a smaller "
            "gridsize, or leave scan_ids out."
        )
    for near in neighbors_of(request, centers, None):
        if len(near.distance2) >= C:  # else its label has too few positions
            return _explain_distances(request, near, everyone)
    return (
        f"Within distance limits a group needs C={C} neighbours beside its centre, and no centre "
        "has as many. Leave min_distance and max_distance out, or use a smaller gridsize."
    )


def _explain_distances(request: DrawRequest, near: Near, everyone: str) -> str:
    """Name the limit to change, and to what, for one of the centres."""
    C, d2 = request.group_size, near.distance2
    nearest, farthest = request.limits or (0.0, math.inf)
    far = d2[d2 >= nearest * nearest]
    close = d2[d2 <= farthest * farthest]
    serves = f"which serves centre {near.center}."
    spacing = (
        f"The scan's spacing is {median_spacing(request.positions):.4g} "
        "(the median distance to the nearest neighbour)."
    )
    if math.isfinite(farthest) and len(far) >= C:
        return (
            f"max_distance={farthest:g} leaves out {everyone}: none has C={C} neighbours "
            f"within it. {spacing} Raise max_distance to {at_least(far[C - 1])}, {serves}"
        )
    if len(close) >= C:
        return (
            f"min_distance={nearest:g} leaves out {everyone}: none has C={C} neighbours "
            f"beyond it. {spacing} Lower min_distance to {at_most(close[-C])}, {serves}"
        )
    return (
        f"min_distance={nearest:g} and max_distance={farthest:g} leave out {everyone}: none has "
        f"C={C} neighbours between them. {spacing} Lower min_distance to 0 and raise "
        f"max_distance to {at_least(d2[C - 1])}, {serves}"
    )


def centers_looked_at(positions: NDArray[np.float64], centers: NDArray[np.int32]) -> int:
    """Return how many centres `neighbors_of` looks at: fewer, the larger the scan."""
    return min(len(centers), MOST_CENTERS, max(1, MOST_DISTANCES // len(positions)))


def neighbors_of(
    request: DrawRequest, centers: NDArray[np.int32], limits: tuple[float, float] | None
) -> Iterator[Near]:
    """Yield the first centres with all their neighbours of the same label within the limits.

    By brute force: before an error message a second does not matter.
    """
    positions, labels = request.positions, request.scan_ids
    for center in centers[: centers_looked_at(positions, centers)].tolist():
        apart = positions - positions[center]
        d2 = apart[:, 0] * apart[:, 0] + apart[:, 1] * apart[:, 1]
        fits = np.arange(len(positions)) != center
        if labels is not None:
            fits &= labels == labels[center]
        if limits is not None:
            fits &= (limits[0] * limits[0] <= d2) & (d2 <= limits[1] * limits[1])
        own = np.flatnonzero(fits)
        order = own[np.argsort(d2[own], kind="stable")]
        yield Near(center, order, d2[order])


def at_least(d2: float) -> str:
    """Return a distance of 4 digits that is not less than the root of a squared distance."""
    return rounded(math.sqrt(d2), math.ceil, lambda distance: distance * distance >= d2)


def at_most(d2: float) -> str:
    """Return a distance of 4 digits that is not more than the root of a squared distance."""
    return rounded(math.sqrt(d2), math.floor, lambda distance: distance * distance <= d2)


def rounded(value: float, how: Callable[[float], int], holds: Callable[[float], bool]) -> str:
    """Return a number of 4 digits, rounded up or down until a condition holds for it."""
    if value == 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    count, step = how(value / unit), 1 if how is math.ceil else -1
    while not holds(float(text := f"{count * unit:.4g}")):
        count += step
    return text
