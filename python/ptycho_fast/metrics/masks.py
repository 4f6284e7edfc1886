"""Which pixels of an object the scan saw well enough to be scored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions
from ptycho_fast.metrics.extras import ndimage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ptycho_fast.metrics.images import Mask

NEAREST = 3
"""A pixel is scored if at least this many scan positions are near it."""

NEAR = 10 / 64
"""A position is near a pixel if it is within this fraction of N, the side of a pattern."""

EROSION = 4
"""This many pixels along the rim of the scanned area are not scored."""


def scan_mask(shape: tuple[int, int], positions: ArrayLike, N: int) -> Mask:
    """Return the pixels of an object that the scan saw well enough to be scored.

    A pixel counts if at least 3 scan positions lie within ``10 * N / 64`` pixels of it. Holes in
    that area are filled, and then its rim of 4 pixels is removed (4 binary erosions with the four
    nearest neighbours; everything beyond the array counts as not seen).

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the object.
    positions : array_like, (n, 2), real
        Scan positions x and y, in pixels.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    ndarray, (H, W), bool
        For a small or sparse scan it may contain no pixel at all.

    Raises
    ------
    ValueError
        If positions are not finite, or N < 1.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.metrics import scan_mask
    >>> scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    >>> mask = scan_mask(scan.object.shape, scan.positions, scan.N)
    >>> bool(mask.any()), bool(mask.all())
    (True, False)
    """
    morphology = ndimage()
    height, width = (as_count("an axis of shape", length) for length in shape)
    radius = NEAR * as_count("N", N)
    positions = as_valid_positions(positions)
    count = np.zeros((height, width), np.int64)
    reach = math.ceil(radius)
    around = np.arange(-reach, reach + 1)
    block = max(1, 2**21 // len(around) ** 2)
    # Positions farther than the radius from the array are near no pixel, and may be too large for
    # an integer.
    limits = np.array([width, height]) + radius
    positions = positions[((positions >= -radius) & (positions <= limits)).all(axis=1)]
    for first in range(0, len(positions), block):
        x, y = positions[first : first + block].T
        columns = np.rint(x).astype(np.intp)[:, None] + around
        rows = np.rint(y).astype(np.intp)[:, None] + around
        dx, dy = columns - x[:, None], rows - y[:, None]
        near = dx[:, None, :] ** 2 + dy[:, :, None] ** 2 <= radius**2
        near &= ((columns >= 0) & (columns < width))[:, None, :]
        near &= ((rows >= 0) & (rows < height))[:, :, None]
        pixels = rows[:, :, None] * width + columns[:, None, :]
        count += np.bincount(pixels[near], minlength=count.size).reshape(count.shape)
    seen = morphology.binary_fill_holes(count >= NEAREST)
    mask: Mask = morphology.binary_erosion(seen, iterations=EROSION)
    return mask
