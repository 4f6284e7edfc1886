"""What a selection of groups covers, by the definitions, one position and one group at a time.

Nothing here imports the package under test.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats = NDArray[np.float64]


def coverage(
    positions: Floats, indices: NDArray[Any], centers: NDArray[Any], N: int, probe: Any = None
) -> dict[str, Any]:
    """Return positions used, area covered, overlaps, discrepancy and duplicates.

    Parameters
    ----------
    positions : ndarray, (n, 2)
        Positions x and y.
    indices, centers : ndarray, (B, C) and (B,), int
        The groups.
    N : int
        Pixels per side of a window.
    probe : ndarray, (N, N) or (modes, N, N), complex, optional
        The illumination; evenly lit windows without.

    Returns
    -------
    dict
        `overlaps` is an array, (B,); the rest are numbers.
    """
    used = {int(member) for group in indices for member in group}
    sets = {frozenset(group.tolist()) for group in indices}
    return {
        "positions_used": len(used) / len(positions),
        "area_covered": area_covered(positions, used, light_of(N, probe)),
        "overlaps": np.array([smallest_overlap(positions[group], N) for group in indices]),
        "discrepancy": discrepancy(positions, positions[centers]),
        "duplicates": len(indices) - len(sets),
    }


def light_of(N: int, probe: Any = None) -> Floats:
    """Intensity of the probe, summed over its modes."""
    if probe is None:
        return np.ones((N, N))
    return np.asarray((np.abs(np.reshape(probe, (-1, N, N)).astype(complex)) ** 2).sum(axis=0))


def area_covered(positions: Floats, used: set[int], light: Floats) -> float:
    """Share of the scan's light on the pixels that the used positions illuminate."""
    N = len(light)
    enough = np.flatnonzero(np.cumsum(np.sort(light.ravel())[::-1]) >= 0.9 * light.sum())[0]
    footprint = light >= np.sort(light.ravel())[::-1][enough]
    pixels = np.rint(positions).astype(int)
    pixels -= pixels.min(axis=0)
    width, height = pixels.max(axis=0) + N
    total = np.zeros((height, width))
    by_scan, by_used = np.zeros_like(total, bool), np.zeros_like(total, bool)
    for i, (x, y) in enumerate(pixels):
        window = np.s_[y : y + N, x : x + N]
        total[window] += light
        by_scan[window] |= footprint
        if i in used:
            by_used[window] |= footprint
    return float(total[by_used].sum() / total[by_scan].sum())


def smallest_overlap(members: Floats, N: int) -> float:
    """Of any two N x N windows, as a share of a window."""
    pairs: Iterator[tuple[list[float], list[float]]] = itertools.combinations(members.tolist(), 2)
    return min(
        max(0.0, N - abs(a - c)) * max(0.0, N - abs(b - d)) / N**2 for (a, b), (c, d) in pairs
    )


def discrepancy(positions: Floats, centers: Floats) -> float:
    """Largest difference of shares in a quadrant about corners of 64 x 64 cells of equal count."""
    n, largest = len(positions), 0.0
    corners = [np.sort(axis)[np.arange(1, 64) * n // 64] for axis in positions.T]
    for x in np.unique(corners[0]):
        for y in np.unique(corners[1]):
            shares = []
            for points in (positions, centers):
                left, above = points[:, 0] <= x, points[:, 1] <= y
                quadrants = (left & above, ~left & above, left & ~above, ~left & ~above)
                shares.append([np.count_nonzero(quadrant) / len(points) for quadrant in quadrants])
            largest = max(largest, float(np.abs(np.array(shares[0]) - shares[1]).max()))
    return largest


def suggested_neighbors(positions: Floats, centers: NDArray[Any], N: int, C: int) -> int:
    """Largest K, C..30, with which any two neighbours of the median centre share a quarter."""
    least = np.empty((len(centers), min(30, len(positions) - 1)))
    for row, center in enumerate(centers):
        away = ((positions - positions[center]) ** 2).sum(axis=1)
        near = [i for i in np.lexsort((np.arange(len(away)), away)) if i != center]
        for k in range(least.shape[1]):
            least[row, k] = smallest_overlap(positions[near[: k + 1]], N) if k else 1
    return max(C, int(np.count_nonzero(np.median(least, axis=0) >= 0.25)))
