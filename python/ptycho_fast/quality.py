"""How well a selection of groups samples the scan: coverage, overlap, uniformity, duplicates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.cards import card, small
from ptycho_fast.checks import as_indices, check_groups
from ptycho_fast.grouping.index import ScanIndex
from ptycho_fast.grouping.rules.overlap import NEIGHBORS
from ptycho_fast.illumination import Map, ObjectGrid, probe_intensity
from ptycho_fast.plot import draw_coverage
from ptycho_fast.spacing import LEAST_OVERLAP, group_overlaps, window_overlap

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ptycho_fast.grouping.groups import Groups
    from ptycho_fast.scan import Scan

FOOTPRINT = 0.9
"""A position illuminates the brightest pixels that together hold this fraction of the probe."""

CELLS = 64
"""The discrepancy compares quadrants about the corners of this many by this many cells."""

MOST_NEIGHBORS = NEIGHBORS
"""The largest K that is suggested."""

SAMPLED = 1000
"""The suggested K is found from the neighbours of this many centres."""


@dataclass(frozen=True)
class Coverage:
    """How well groups sample their scan, as `coverage` measures it. ``str()`` of it is a table.

    Parameters
    ----------
    n_positions : int
        Positions of the scan (n).
    n_groups : int
        Groups (B).
    group_size : int
        Channels per group (C).
    positions_used : float
        The fraction of the scan's positions that are in a group, 0..1.
    area_covered : float
        The fraction of the illuminated object that the groups cover, 0..1: of the light of the
        whole scan, the part that fell on pixels which the groups illuminate.
    probe_weighted : bool
        Whether the light is that of the probe. Without a probe (or with one that is 0 or not
        finite), windows of N x N pixels are taken as evenly lit.
    overlap_min : float or None
        The smallest overlap of two windows in any group, 0..1. None at C = 1.
    overlap_median : float or None
        The median over groups of the smallest overlap of two windows. None at C = 1.
    discrepancy : float
        How far the centres are from uniform over the scan, 0..1: the largest difference between
        the fraction of the centres and the fraction of the positions in one quadrant. B centres
        drawn at random from many positions have about ``1.25 / sqrt(B)``; the first half of a
        raster has 0.5.
    duplicates : int
        Groups that have the same members as an earlier group.
    suggested_neighbors : int or None
        A suggested K: the largest with which, around the median centre, even the two neighbours
        that are farthest apart overlap by a quarter of a window. At least C and at most 30; None
        at C = 1.
    covered : Map, optional
        The fraction of each cell of the illuminated object that is covered, NaN where no position
        of the scan illuminates it.
    overlaps : ndarray, (B,), float64, optional
        The smallest overlap of two windows of each group.
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
    covered: Map | None = field(default=None, repr=False, compare=False)
    overlaps: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        rows = {line[:12]: line[12:] for line in str(self).splitlines()}
        picture = None if self.covered is None else small(self.covered.values)
        return card("Coverage", rows, {"object that is covered": picture})

    def plot(self) -> Figure:
        """Draw the part of the object that is covered, the overlaps, and the table.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig("coverage.png")`` writes it to a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> scan = pf.simulate_scan(n_positions=50, N=32, seed=0)
        >>> found = pf.coverage(scan, pf.group_positions(scan.positions, 9, seed=1))
        >>> figure = found.plot()  # needs matplotlib
        """
        return draw_coverage(self.covered, self.overlaps, str(self))

    def __str__(self) -> str:
        light = "weighted by the probe" if self.probe_weighted else "with evenly lit windows"
        lines = {
            "used": f"{self.positions_used:.1%} of {self.n_positions} positions",
            "object": f"{self.area_covered:.1%} of the illuminated object covered, {light}",
        }
        if self.overlap_median is not None:
            lines["overlap"] = (
                f"median {self.overlap_median:.1%}, smallest {self.overlap_min:.1%} of a window, "
                "between the members of a group that are farthest apart"
            )
        lines["discrepancy"] = (
            f"{self.discrepancy:.3g} between centres and scan (0: as uniform, 1: all in a corner)"
        )
        lines["duplicates"] = (
            f"{self.duplicates} of {self.n_groups} groups have the same members as another"
        )
        if self.suggested_neighbors is not None:
            fewest = self.suggested_neighbors == self.group_size
            lines["suggested K"] = f"{self.suggested_neighbors}, " + (
                f"the smallest possible: windows of a typical group overlap < {LEAST_OVERLAP:.0%}"
                if fewest
                else f"so that windows of a typical group overlap by {LEAST_OVERLAP:.0%} or more"
            )
        return "\n".join(f"{name:<12}{value}" for name, value in lines.items())


def coverage(scan: Scan, groups: Groups) -> Coverage:
    """Report how well a selection of groups samples the scan.

    The report has the positions used, the fraction of the illuminated object covered, the overlap
    within groups, the uniformity of the centres, the duplicates, and a suggested K.

    - *Area covered.* A position illuminates the pixels of the object under the brightest part of
      the probe, the part that holds 90 % of the energy of all its modes, with the position rounded
      to pixels. Each pixel is weighted by the light that the whole scan sheds on it. Objects
      larger than about 1024 pixels per side are mapped in cells of several pixels, which can be
      off by 0.01.
    - *Overlap.* The overlap of two N x N windows, (dx, dy) apart, is
      ``max(0, N - |dx|) * max(0, N - |dy|) / N**2``. The overlap of a group is the smallest of any
      two of its windows.
    - *Discrepancy.* Peacock's statistic of two samples, the centres and the scan positions: the
      largest difference between the fractions of them that lie in one of the four quadrants about
      a point. The points are the corners of 64 x 64 cells, with equal numbers of positions in each
      column and in each row. This takes O(n). The centres are compared with the scan, not with its
      bounding box, which a round scan does not fill.

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
        If there are no groups, or they were drawn from a scan with another number of positions.

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
    object      ...% of the illuminated object covered, weighted by the probe
    ...
    """
    check_groups(len(scan), groups)
    positions, n, N, C = scan.positions, len(scan), scan.N, groups.group_size
    indices = as_indices("indices", groups.indices, 2, n)
    used = np.zeros(n, np.bool_)
    used[indices] = True
    overlaps = group_overlaps(positions, indices, N) if C > 1 else None
    area, covered = _area_covered(scan, used)
    return Coverage(
        n_positions=n,
        n_groups=len(groups),
        group_size=C,
        positions_used=int(np.count_nonzero(used)) / n,
        area_covered=area,
        probe_weighted=probe_intensity(scan) is not None,
        overlap_min=None if overlaps is None else float(overlaps.min()),
        overlap_median=None if overlaps is None else float(np.median(overlaps)),
        discrepancy=_discrepancy(positions, groups.centers),
        duplicates=_duplicates(indices),
        suggested_neighbors=None if C == 1 else _suggested_neighbors(positions, N, groups),
        covered=covered,
        overlaps=overlaps,
    )


def _area_covered(scan: Scan, used: NDArray[np.bool_]) -> tuple[float, Map]:
    grid = ObjectGrid(scan)
    light = probe_intensity(scan)
    light = np.ones((scan.N, scan.N)) if light is None else light
    brightest = np.sort(light, axis=None)[::-1]
    enough = np.searchsorted(np.cumsum(brightest), FOOTPRINT * light.sum())
    footprint = light >= brightest[min(enough, len(brightest) - 1)]
    weight = np.maximum(grid.spread(np.ones(len(scan)), grid.kernel(light)), 0)
    # Each position leaves a fraction of a cell's pixels dark. Which pixels is not known, so the
    # fractions are multiplied as if they were independent: their logarithms are added. A fraction
    # of 0 has no logarithm, hence the 1e-12. Where a cell is one pixel, fractions are 0 or 1, and
    # the result is exact. A cell wider than a window is taken to be as wide as the window.
    pixels = min(grid.step, scan.N) ** 2
    dark = np.log(np.maximum(1 - grid.kernel(footprint) / pixels, 1e-12))

    def lit(times: NDArray[np.generic]) -> NDArray[np.float64]:
        return -np.expm1(grid.spread(times, dark))

    seen, whole = lit(used), lit(np.ones(len(scan)))
    area = float((weight * seen).sum()) / float((weight * whole).sum())
    # Where the footprint of no position reaches, rounding leaves about 1e-16 of a fraction.
    fraction = np.where(whole > 1e-6, np.clip(seen / np.maximum(whole, 1e-6), 0, 1), np.nan)
    return area, Map(fraction, grid.extent)


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
    shared = window_overlap(x[:, :, None] - x[:, None, :], y[:, :, None] - y[:, None, :], N)
    # The smallest overlap of neighbour k with those before it, then of any two of the first k.
    farthest = np.minimum.accumulate(np.tril(shared - 1).min(axis=2) + 1, axis=1)
    good = np.count_nonzero(np.median(farthest, axis=0) >= LEAST_OVERLAP)
    return max(C, int(good))
