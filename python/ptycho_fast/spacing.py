"""How far apart scan positions lie, and how much their windows overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_OVERLAP = 0.25
"""The fraction of a window that two windows of a group should share."""

BLOCK = 4096
"""Groups whose pairs are compared at a time, few enough for the processor's cache."""


def median_spacing(positions: NDArray[np.float64]) -> float:
    """Return the median distance from a position to its nearest neighbour.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Scan positions x and y, in pixels.

    Returns
    -------
    float
        In pixels; 0 for a scan of one position.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.spacing import median_spacing
    >>> median_spacing(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 5.0]]))
    3.0
    """
    every = np.arange(len(positions), dtype=np.int32)
    nearest = _core.ScanIndex(positions, "auto", None).neighbors(every, 1, None)
    if nearest.shape[1] == 0:
        return 0.0
    apart = positions[nearest[:, 0]] - positions
    return float(np.median(np.hypot(apart[:, 0], apart[:, 1])))


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
        Fractions of a window, 0..1.
    """
    least = np.empty(len(indices))
    for first in range(0, len(indices), BLOCK):
        members = indices[first : first + BLOCK].T
        x, y = positions[members, 0], positions[members, 1]
        smallest = np.full(members.shape[1], np.inf)
        for lag in range(1, len(members)):
            shared = window_overlap(x[lag:] - x[:-lag], y[lag:] - y[:-lag], N)
            np.minimum(smallest, shared.min(axis=0), out=smallest)
        least[first : first + BLOCK] = smallest
    return least


def window_overlap(dx: NDArray[np.float64], dy: NDArray[np.float64], N: int) -> NDArray[np.float64]:
    """Return the fraction of an N x N window that another one shares, (dx, dy) apart."""
    width, height = np.maximum(N - np.abs(dx), 0), np.maximum(N - np.abs(dy), 0)
    shared: NDArray[np.float64] = width * height / N**2
    return shared
