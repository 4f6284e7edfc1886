"""The spacing of a scan: how far apart neighbouring scan positions lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
