"""The coordinates of groups: absolute, and relative to the mean position of each group.

Units, axes and signs are those of docs/contract.md, section 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def group_coordinates(
    positions: NDArray[np.float64], indices: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the scan positions of the members of groups.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Scan positions x and y, in pixels.
    indices : ndarray, (B, C), int32
        The members of each group.

    Returns
    -------
    ndarray, (B, 1, 2, C), float64
        In pixels, x then y on the axis of length 2.
    """
    return np.ascontiguousarray(positions[indices].transpose(0, 2, 1))[:, np.newaxis]


def relative_coordinates(
    coords: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split the positions of groups into the mean of each group and the rest.

    Parameters
    ----------
    coords : ndarray, (B, 1, 2, C)
        Positions in pixels, x then y.

    Returns
    -------
    offsets : ndarray, (B, 1, 2, 1), float64
        The mean position of each group. The channels are summed in the order 0, 1, ... and the
        sum is divided once: another order of summation would change the last bit.
    relative : ndarray, (B, 1, 2, C), float64
        ``-(coords - offsets)``.
    """
    total = np.array(coords[..., 0], dtype=np.float64)
    for channel in range(1, coords.shape[-1]):
        total += coords[..., channel]
    offsets = (total / coords.shape[-1])[..., np.newaxis]
    relative = coords - offsets
    np.negative(relative, out=relative)
    return offsets, relative
