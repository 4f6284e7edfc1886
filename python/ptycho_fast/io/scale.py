"""Whether positions have a scale that a scan can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST = 1.0
"""Pixels of the object. Positions that span less tell nothing from one another."""

FAR = 10
"""Windows. Scans may be sparse, but units and prefixes that are taken for others make 1000."""


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
        them have another within `FAR` windows.

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
    elif _together(positions, FAR * N) < len(positions) / 2:
        what = f"and most lie farther from any other than {FAR} windows of {N} x {N} pixels"
    else:
        return None
    return (
        f"The {len(positions)} positions span {width:.4g} x {height:.4g} pixels of the object, "
        f"{what}. Check the unit of the positions, the energy, the distance and the detector "
        "pixel."
    )


def _together(positions: NDArray[np.float64], side: int) -> int:
    """Count positions that are less than `side` from another along both axes.

    Some that are more than half of it from any other are missed.
    """
    steps = np.abs(np.diff(positions, axis=0)).max(axis=1)
    near = int(np.count_nonzero(steps < side))
    if near >= len(steps) / 2:
        return len(positions)
    # Positions in any order: two that are less than half a side apart along both axes share a cell
    # in one of four grids, and two that share a cell are less than a side apart.
    share = np.zeros(len(positions), np.bool_)
    for shift in np.ndindex(2, 2):
        cells = np.floor(positions / side + np.array(shift) / 2)
        _, which, times = np.unique(
            cells[:, 0] + 1j * cells[:, 1], return_inverse=True, return_counts=True
        )
        share |= times[which.reshape(-1)] > 1
    return int(np.count_nonzero(share))
