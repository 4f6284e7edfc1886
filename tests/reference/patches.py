"""Object patches, bilinear (docs/contract.md, section 5)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Int64 = NDArray[np.int64]


def _taps(coordinate: Floats, size: int) -> list[tuple[Int64, Floats]]:
    """Index and weight of the two taps along one axis of an object with a border of zeros."""
    lower = np.floor(coordinate)
    fraction = coordinate - lower
    taps = []
    for tap, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
        taps.append((np.clip(tap, -1, size).astype(np.int64) + 1, weight))
    return taps


def extract_patches(obj: NDArray[Any], positions: ArrayLike, N: int) -> NDArray[np.complex128]:
    """Object patches around positions, bilinear, in float64.

    Parameters
    ----------
    obj : ndarray, shape (H, W)
        Object, zero outside its bounds.
    positions : array_like, shape (B, 2, C) or (B, 1, 2, C)
        Positions, x then y; each falls on patch index N // 2.
    N : int
        Pixels per side of a patch.

    Returns
    -------
    ndarray of complex128, shape (B, N, N, C)
        Patches.
    """
    image = np.asarray(obj, dtype=np.complex128)
    at = np.asarray(positions, dtype=np.float64)
    if at.ndim == 4 and at.shape[1] == 1:
        at = at[:, 0]
    if image.ndim != 2 or at.ndim != 3 or at.shape[1] != 2 or N < 1 or not np.isfinite(at).all():
        raise ValueError(f"object {image.shape}, positions {at.shape}, N={N}: not extractable")
    height, width = image.shape
    pixel = np.arange(N, dtype=np.float64)
    patches = np.zeros((at.shape[0], N, N, at.shape[2]), dtype=np.complex128)
    bordered = np.pad(image, 1)  # a tap outside reads a zero, whatever its weight
    for b, c in np.ndindex(at.shape[0], at.shape[2]):
        x, y = at[b, :, c]
        rows = _taps(pixel + y - N // 2, height)
        columns = _taps(pixel + x - N // 2, width)
        for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
            weight = row_weight[:, None] * column_weight[None, :]
            patches[b, :, :, c] += weight * bordered[np.ix_(row, column)]
    return patches
