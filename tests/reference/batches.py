"""What a batch holds: coordinates, patterns, their scale (docs/contract.md, sections 1 and 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def coordinates(positions: ArrayLike, indices: ArrayLike) -> dict[str, Floats]:
    """Coordinates of groups: absolute, mean, and relative to the mean with the field's minus.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    indices : array_like of int, shape (B, C)
        Groups.

    Returns
    -------
    dict
        `coords_nn` (B, 1, 2, C), `coords_offsets` (B, 1, 2, 1), `coords_relative` (B, 1, 2, C).
    """
    points = np.asarray(positions, dtype=np.float64)
    groups = np.asarray(indices)
    nn = np.ascontiguousarray(points[groups].transpose(0, 2, 1)[:, None])
    total = nn[..., 0].copy()
    for c in range(1, groups.shape[1]):
        total += nn[..., c]
    offsets = (total / groups.shape[1])[..., None]
    return {"coords_nn": nn, "coords_offsets": offsets, "coords_relative": -(nn - offsets)}


def gather(stack: NDArray[Any], indices: ArrayLike) -> NDArray[Any]:
    """Patterns of groups, channels last.

    Parameters
    ----------
    stack : ndarray, shape (n, N, N)
        Diffraction patterns.
    indices : array_like of int, shape (B, C)
        Groups.

    Returns
    -------
    ndarray, shape (B, N, N, C)
        C-contiguous, of the stack's dtype.
    """
    return np.ascontiguousarray(stack[np.asarray(indices)].transpose(0, 2, 3, 1))


def normalisation_scale(diffraction_groups: NDArray[Any], N: int) -> np.float32:
    """Scale at which the mean energy of a pattern is (N/2)**2.

    Parameters
    ----------
    diffraction_groups : ndarray, shape (B, N, N, C)
        Gathered amplitudes.
    N : int
        Pixels per side.

    Returns
    -------
    numpy.float32
        The scale; `X_full` is the scale times the amplitudes in float32.
    """
    energy = np.sum(diffraction_groups.astype(np.float64) ** 2, axis=(1, 2))
    mean = float(np.mean(energy))
    if not mean > 0:
        raise ValueError("an all-zero stack has no scale")
    return np.float32(np.sqrt((N / 2) ** 2 / mean))
