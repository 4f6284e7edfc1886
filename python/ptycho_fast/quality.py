"""How good a selection of groups is: what of the scan and of the object it covers, how evenly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_indices
from ptycho_fast.grouping.index import ScanIndex
from ptycho_fast.illumination import ObjectGrid, probe_intensity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.grouping.groups import Groups
    from ptycho_fast.scan import Scan

FOOTPRINT = 0.9
"""A position illuminates the brightest pixels that together hold this share of the probe."""

CELLS = 64
"""The discrepancy looks at quadrants about the corners of as many by as many cells."""

LEAST_OVERLAP = 0.25
"""What two windows of a group should share; the default of the rule ``overlap``."""

MOST_NEIGHBORS = 30
"""More are not suggested: the default K of the rule ``overlap``."""

SAMPLED = 1000
"""The neighbours of as many centres tell the K to suggest."""

BLOCK = 4096
"""Groups whose pairs are compared at a time: they stay in the processor's cache."""


@dataclass(frozen=True)
class Coverage:
    """What groups cover of their scan; `coverage` makes it, and ``str()`` of it is a table.

    Parameters
    ----------
    n_positions : int
        Positions of the scan (n).
    n_groups : int
        Groups (B).
    group_size : int
        Channels per group (C).
    positions_used : float
        Share of the scan's positions that are in a group, 0..1.
    area_covered : float
        Share of the light of the whole scan that fell on pixels of the object which the groups
        illuminate, 0..1.
    probe_weighted : bool
        Whether that is the light of the probe. Without a probe (or with one that is 0 or not
        finite), windows of N x N pixels are taken as evenly lit.
    overlap_min : float or None
        The smallest overlap of two windows in any group, 0..1. None at C = 1.
    overlap_median : float or None
        The median over groups of the smallest overlap of two windows. None at C = 1.
    discrepancy : float
        How far the centres are from uniform over the scan, 0..1: the largest difference between
        the share of the centres and the share of the positions that lie in one quadrant. A random
        draw of B of many positions has about ``1.25 / sqrt(B)``; the first half of a raster, 0.5.
    duplicates : int
        Groups whose set of members an earlier group has.
    suggested_neighbors : int or None
        The K to draw from: the largest with which, around the median centre, even the two
        neighbours farthest apart share a quarter of a window. C at least, 30 at most; None at
        C = 1.
    """

    n_positions: int
    n_groups: int
    group_size: int
    positions_used: float
    area_covered: float
    probe_weighted: bool
    overlap_min: float | None
    overlap_median: float | None
    discrepancy: float
    duplicates: int
    suggested_neighbors: int | None

    def __str__(self) -> str:
        light = "weighted by the probe" if self.probe_weighted else "of evenly lit windows"
        lines = {
            "used": f"{self.positions_used:.1%} of {self.n_positions} positions",
            "object": f"{self.area_covered:.1%} of the illuminated area, {light}",
        }
        if self.overlap_median is not None:
            lines["overlap"] = (
                f"median {self.overlap_median:.1%}, least {self.overlap_min:.1%} of a window, "
                "between the farthest members of a group"
            )
        lines["discrepancy"] = (
            f"{self.discrepancy:.3g} between centres and scan (0: as even, 1: in one corner)"
        )
        lines["repeated"] = (
            f"{self.duplicates} of {self.n_groups} groups have the members of another"
        )
        if self.suggested_neighbors is not None:
            fewest = self.suggested_neighbors == self.group_size
            lines["suggested K"] = f"{self.suggested_neighbors}, " + (
                f"the fewest: of more, windows of a typical group share < {LEAST_OVERLAP:.0%}"
                if fewest
                else f"so that any two windows of a typical group share {LEAST_OVERLAP:.0%}"
            )
        return "\n".join(f"{name:<12}{value}" for name, value in lines.items())


def coverage(scan: Scan, groups: Groups) -> Coverage:
    """Measure how good a selection of groups is.

    - *Area.* A position illuminates the pixels of the object under the brightest part of the
      probe, that which holds 90 % of its energy (of all its modes), about the position rounded to
      pixels. Each pixel counts by the light that the whole scan sheds on it. Objects of more than
      about 1024 pixels a side are mapped in cells of several pixels, which can be 0.01 off.
    - *Overlap* of two N x N windows, (dx, dy) apart, is
      ``max(0, N - |dx|) * max(0, N - |dy|) / N**2``; that of a group, its smallest.
    - *Discrepancy.* Peacock's statistic of two samples, the centres and the scan positions: the
      largest difference of their shares in any of the four quadrants about a point. The points
      are the corners of 64 x 64 cells, each column and each row of which holds as many positions,
      so it takes O(n). It measures against the scan, not against its bounding box, which a round
      scan does not fill.

    Parameters
    ----------
    scan : Scan
        The scan. Its patterns are not read.
    groups : Groups
        Groups of this scan.

    Returns
    -------
    Coverage

    Raises
    ------
    ValueError
        If there are no groups, or they were drawn from another number of positions.

    References
    ----------
    J. A. Peacock, "Two-dimensional goodness-of-fit testing in astronomy", Monthly Notices of the
    Royal Astronomical Society 202, 615-627 (1983).

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> first = pf.group_positions(scan.positions, 20, centers="sequential", seed=0)
    >>> random = pf.group_positions(scan.positions, 20, seed=0)
    >>> pf.coverage(scan, first).area_covered < pf.coverage(scan, random).area_covered
    True
    >>> print(pf.coverage(scan, random))
    used        ...% of 100 positions
    object      ...% of the illuminated area, weighted by the probe
    ...
    """
    check_groups(scan, groups)
    positions, n, N, C = scan.positions, len(scan), scan.N, groups.group_size
    indices = as_indices("indices", groups.indices, 2, n)
    used = np.zeros(n, np.bool_)
    used[indices] = True
    overlaps = group_overlaps(positions, indices, N) if C > 1 else None
    return Coverage(
        n_positions=n,
        n_groups=len(groups),
        group_size=C,
        positions_used=int(np.count_nonzero(used)) / n,
        area_covered=_area_covered(scan, used),
        probe_weighted=probe_intensity(scan) is not None,
        overlap_min=None if overlaps is None else float(overlaps.min()),
        overlap_median=None if overlaps is None else float(np.median(overlaps)),
        discrepancy=_discrepancy(positions, groups.centers),
        duplicates=_duplicates(indices),
        suggested_neighbors=None if C == 1 else _suggested_neighbors(positions, N, groups),
    )


def check_groups(scan: Scan, groups: Groups) -> None:
    """Refuse groups that can't be of this scan."""
    if len(groups.positions) != len(scan):
        msg = (
            f"The groups were drawn from {len(groups.positions)} positions, but the scan has "
            f"{len(scan)}. Draw the groups of this scan."
        )
        raise ValueError(msg)
    if len(groups) == 0:
        msg = "There are no groups. Draw some with group_positions."
        raise ValueError(msg)


def group_overlaps(
    positions: NDArray[np.float64], indices: NDArray[np.int32], N: int
) -> NDArray[np.float64]:
    """Return the smallest overlap of two N x N windows of each group.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Positions x and y, in pixels.
    indices : ndarray, (B, C), int32
        Members of the groups, C > 1.
    N : int
        Pixels per side of a window.

    Returns
    -------
    ndarray, (B,), float64
        Shares of a window, 0..1.
    """
    least = np.empty(len(indices))
    for first in range(0, len(indices), BLOCK):
        members = indices[first : first + BLOCK].T
        x, y = positions[members, 0], positions[members, 1]
        smallest = np.full(members.shape[1], np.inf)
        for lag in range(1, len(members)):
            shared = _overlap(x[lag:] - x[:-lag], y[lag:] - y[:-lag], N)
            np.minimum(smallest, shared.min(axis=0), out=smallest)
        least[first : first + BLOCK] = smallest
    return least


def _overlap(dx: NDArray[np.float64], dy: NDArray[np.float64], N: int) -> NDArray[np.float64]:
    width, height = np.maximum(N - np.abs(dx), 0), np.maximum(N - np.abs(dy), 0)
    shared: NDArray[np.float64] = width * height / N**2
    return shared


def _area_covered(scan: Scan, used: NDArray[np.bool_]) -> float:
    grid = ObjectGrid(scan)
    light = probe_intensity(scan)
    light = np.ones((scan.N, scan.N)) if light is None else light
    brightest = np.sort(light, axis=None)[::-1]
    enough = np.searchsorted(np.cumsum(brightest), FOOTPRINT * light.sum())
    footprint = light >= brightest[min(enough, len(brightest) - 1)]
    weight = np.maximum(grid.spread(np.ones(len(scan)), grid.kernel(light)), 0)
    # Of the pixels of a cell, each position leaves a share dark, wherever they lie. (A share of 0
    # has no logarithm. Where a cell is a pixel, shares are 0 or 1, and this is exact. A cell wider
    # than a window is taken for one.)
    pixels = min(grid.step, scan.N) ** 2
    dark = np.log(np.maximum(1 - grid.kernel(footprint) / pixels, 1e-12))

    def lit(times: NDArray[np.generic]) -> float:
        return float(-(weight * np.expm1(grid.spread(times, dark))).sum())

    return lit(used) / lit(np.ones(len(scan)))


def _discrepancy(positions: NDArray[np.float64], centers: NDArray[np.int32]) -> float:
    n = len(positions)
    ranks = np.arange(1, CELLS) * n // CELLS
    column, row = (
        np.searchsorted(np.partition(axis, np.unique(ranks))[ranks], axis) for axis in positions.T
    )
    cell = row * CELLS + column
    of_scan, of_centers = (
        np.bincount(cells, minlength=CELLS**2) / len(cells) for cells in (cell, cell[centers])
    )
    both = np.cumsum(np.cumsum((of_centers - of_scan).reshape(CELLS, CELLS), axis=0), axis=1)
    of_row, of_column = both[:, -1:], both[-1:, :]
    quadrants = (both, of_row - both, of_column - both, of_row + of_column - both)
    return max(float(np.abs(quadrant).max()) for quadrant in quadrants)


def _duplicates(indices: NDArray[np.int32]) -> int:
    members = np.sort(indices, axis=1)
    members = members[np.lexsort(members.T)]
    return int(np.count_nonzero((members[1:] == members[:-1]).all(axis=1)))


def _suggested_neighbors(positions: NDArray[np.float64], N: int, groups: Groups) -> int:
    C, most = groups.group_size, min(MOST_NEIGHBORS, len(positions) - 1)
    rows = np.linspace(0, len(groups) - 1, min(len(groups), SAMPLED)).astype(np.intp)
    near = ScanIndex(positions).neighbors(most, np.unique(groups.centers[rows]))
    x, y = positions[near, 0], positions[near, 1]
    shared = _overlap(x[:, :, None] - x[:, None, :], y[:, :, None] - y[:, None, :], N)
    # Of neighbour k with those before it, then of any two of the first k.
    farthest = np.minimum.accumulate(np.tril(shared - 1).min(axis=2) + 1, axis=1)
    good = np.count_nonzero(np.median(farthest, axis=0) >= LEAST_OVERLAP)
    return max(C, int(good))
