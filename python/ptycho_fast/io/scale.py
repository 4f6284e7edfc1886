"""Whether positions have a scale that a scan can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST = 1.0
"""Pixels of the object. Positions that span less tell nothing from one another."""


def odd_scale(positions: NDArray[np.float64], N: int) -> str | None:
    """Say that positions are so close together, or so far apart, that their scale must be wrong.

    Frames that were all taken at the very same place have no scale, so nothing is said of them.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        In pixels of the object, finite.
    N : int
        Pixels per side of a window.

    Returns
    -------
    str or None
        A sentence if all positions lie within `SMALLEST` of each other, or if fewer than half of
        the windows overlap another.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.scale import odd_scale
    >>> positions = np.arange(20.0).reshape(10, 2)
    >>> odd_scale(positions, 64)
    >>> odd_scale(1e3 * positions, 64)[:57]
    'The 10 positions span 1.8e+04 x 1.8e+04 pixels of the obj'
    """
    width, height = np.ptp(positions, axis=0)
    if max(width, height) == 0:
        return None
    if max(width, height) < SMALLEST:
        what = "less than one pixel"
    elif _overlapping(positions, N) < len(positions) / 2:
        what = f"and most windows of {N} x {N} pixels overlap no other"
    else:
        return None
    return (
        f"The {len(positions)} positions span {width:.4g} x {height:.4g} pixels of the object, "
        f"{what}. Check the unit of the positions, the energy, the distance and the detector "
        "pixel."
    )


def _overlapping(positions: NDArray[np.float64], N: int) -> int:
    """Count positions less than N from another along both axes; some beyond N / 2 are missed."""
    steps = np.abs(np.diff(positions, axis=0)).max(axis=1)
    near = int(np.count_nonzero(steps < N))
    if near >= len(steps) / 2:
        return len(positions)
    # Positions in any order: two that are less than N / 2 apart along both axes share a cell of
    # N x N in one of four grids, and two that share a cell are less than N apart.
    share = np.zeros(len(positions), np.bool_)
    for shift in np.ndindex(2, 2):
        cells = np.floor(positions / N + np.array(shift) / 2)
        _, which, times = np.unique(
            cells[:, 0] + 1j * cells[:, 1], return_inverse=True, return_counts=True
        )
        share |= times[which.reshape(-1)] > 1
    return int(np.count_nonzero(share))
