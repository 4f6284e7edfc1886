"""What belongs to groups of positions: their patterns, coordinates and object patches."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_stack, as_valid_positions
from ptycho_fast.grouping import group_coordinates, relative_coordinates
from ptycho_fast.patches import cpu
from ptycho_fast.patterns import gather_normalised
from ptycho_fast.ptychopinn.functions import get_image_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")


def grouped_patterns(
    diff3d: NDArray[Any] | None, indices: NDArray[np.int32], N: int
) -> dict[str, NDArray[Any] | None]:
    """Gather the diffraction patterns of groups.

    Parameters
    ----------
    diff3d : ndarray, (n, N, N), real, or None
        Amplitudes of the scan.
    indices : ndarray, (B, C), int32
        The groups.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    dict
        ``diffraction``, (B, N, N, C), of the dtype of `diff3d`, and ``X_full``, the same normalised
        as float32. Both are None without `diff3d`.

    Raises
    ------
    ValueError
        If the patterns have another size or dtype, or nothing in them is above zero.
    """
    if diff3d is None:
        return {"diffraction": None, "X_full": None}
    stack = as_stack(diff3d)
    if stack.shape[1] != N:
        side = stack.shape[1]
        msg = f"N={N}, but the patterns of diff3d are {side} pixels a side. Pass N={side}."
        raise ValueError(msg)
    diffraction, X_full = gather_normalised(stack, indices)
    return {"diffraction": diffraction, "X_full": X_full}


def grouped_coordinates(
    positions: NDArray[np.float64], planned: NDArray[np.float64] | None, indices: NDArray[np.int32]
) -> dict[str, NDArray[np.float64] | None]:
    """Gather the coordinates of groups and split them into means and relative coordinates.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Scan positions, in pixels.
    planned : ndarray, (n, 2), float64, or None
        The positions as they were planned.
    indices : ndarray, (B, C), int32
        The groups.

    Returns
    -------
    dict
        ``coords_nn`` and ``coords_relative``, (B, 1, 2, C), and ``coords_offsets``, (B, 1, 2, 1);
        the same of the planned positions under ``coords_start_*``. Without planned positions
        ``coords_start_nn`` is None, and the two others, which loaders read, are those of
        `positions`.

    Raises
    ------
    ValueError
        If planned positions are not finite.
    """
    coords_nn = group_coordinates(positions, indices)
    start_nn = None if planned is None else group_coordinates(as_valid_positions(planned), indices)
    offsets, relative = relative_coordinates(coords_nn)
    start_offsets, start_relative = relative_coordinates(
        coords_nn if start_nn is None else start_nn
    )
    return {
        "coords_nn": coords_nn,
        "coords_offsets": offsets,
        "coords_relative": relative,
        "coords_start_nn": start_nn,
        "coords_start_offsets": start_offsets,
        "coords_start_relative": start_relative,
    }


def own_patches(
    Y: NDArray[Any], indices: NDArray[np.int32], n: int, N: int
) -> NDArray[np.complex64]:
    """Return the object patches that a record holds itself, by group.

    Parameters
    ----------
    Y : ndarray, (n, N, N), (n, N, N, 1) or (B, N, N, C), complex
        Patches of the positions, or of these groups.
    indices : ndarray, (B, C), int32
        The groups.
    n : int
        Number of positions.
    N : int
        Pixels per side of a patch.

    Returns
    -------
    ndarray, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If `Y` fits neither the positions nor the groups.
    """
    logger.info("Y: the record's own Y")
    B, C = indices.shape
    by_position = Y[..., 0] if Y.shape == (n, N, N, 1) else Y
    if Y.dtype.kind in "fiuc" and by_position.shape == (n, N, N):
        patches = np.empty((B, N, N, C), np.complex64)
        for channel in range(C):  # one at a time, so that there is no second array of that size
            patches[..., channel] = by_position[indices[:, channel]]
        return patches
    if Y.dtype.kind in "fiuc" and Y.shape == (B, N, N, C):
        return np.asarray(Y, dtype=np.complex64)
    msg = (
        f"Y has shape {Y.shape} of {Y.dtype}, which fits neither the positions ({n}, {N}, {N}) "
        f"nor these groups ({B}, {N}, {N}, {C}). Set Y to None to take patches of objectGuess."
    )
    raise ValueError(msg)


def object_patches(
    image: NDArray[Any] | None, coordinates: dict[str, Any], N: int, *, mirror: bool
) -> NDArray[np.complex64] | None:
    """Cut the patches of groups from an object.

    Parameters
    ----------
    image : ndarray, (H, W), complex, or None
        The object.
    coordinates : dict
        What `grouped_coordinates` returned.
    N : int
        Pixels per side of a patch.
    mirror : bool
        Mirror the patches through the mean of their group, see `get_image_patches`; otherwise cut
        them at the positions themselves.

    Returns
    -------
    ndarray, (B, N, N, C), complex64, or None
        None without an object.
    """
    if image is None:
        logger.info("Y: None, because the record has neither Y nor objectGuess")
        return None
    if not mirror:
        logger.info("Y: patches of objectGuess at the positions themselves")
        return cpu.extract_patches(image, coordinates["coords_nn"], N)
    logger.info(
        "Y: patches of objectGuess at coords_offsets + coords_relative (for gridsize > 1 mirrored "
        "through the mean of the group)"
    )
    offsets, relative = coordinates["coords_offsets"], coordinates["coords_relative"]
    gridsize = math.isqrt(relative.shape[-1])
    return get_image_patches(image, offsets, relative, N=N, gridsize=gridsize)
