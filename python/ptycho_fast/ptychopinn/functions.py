"""The functions that PtychoPINN has beside `RawData`."""

# the argument lists are those that callers use

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import (
    as_count,
    as_patch_positions,
    as_real_dtype,
    join_coordinates,
)
from ptycho_fast.grouping import ScanIndex, relative_coordinates
from ptycho_fast.patches import cpu
from ptycho_fast.patterns import normalisation_scale
from ptycho_fast.ptychopinn.params import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


def get_image_patches(
    gt_image: ArrayLike,
    global_offsets: ArrayLike,
    local_offsets: ArrayLike,
    N: int | None = None,
    gridsize: int | None = None,
) -> NDArray[np.complex64]:
    """Cut the patches of an object at ``global_offsets + local_offsets``.

    With ``coords_offsets`` and ``coords_relative`` of `RawData.generate_grouped_data`, channel c is
    read at ``2 * mean - position``: in groups of more than one position, patches are mirrored
    through the mean of the group. This is kept because trained networks and callers expect these
    numbers; `ptycho_fast.extract_patches` cuts at the positions themselves.

    Parameters
    ----------
    gt_image : array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``. It is 0 outside.
    global_offsets : array_like, (B, 1, 2, 1), real
        x, then y, in pixels. The sum is taken in float64 and rounded to float32.
    local_offsets : array_like, (B, 1, 2, C), real
        The same for each channel.
    N : int, optional
        Pixels per side of a patch; by default ``ptycho.params.cfg['N']`` where that is loaded.
    gridsize : int, optional
        Checked against ``C = gridsize**2``. By default ``ptycho.params.cfg['gridsize']`` where that
        is loaded; otherwise nothing is checked.

    Returns
    -------
    ndarray, (B, N, N, C), complex64
        Cut by the Rust core; or by TensorFlow, patch by patch, where
        ``ptycho.params.cfg['use_batched_patch_extraction']`` is loaded and false.

    Raises
    ------
    ValueError
        If shapes do not fit one another, offsets are not finite, or N is not known.
    MemoryError
        If the patches do not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.ptychopinn import get_image_patches
    >>> offsets, relative = np.array([[[[2.0], [1.0]]]]), np.zeros((1, 1, 2, 1))
    >>> image = np.arange(30.0).reshape(5, 6)
    >>> get_image_patches(image, offsets, relative, N=2, gridsize=1)[0, :, :, 0].real
    array([[1., 2.],
           [7., 8.]], dtype=float32)
    """
    N = setting("N", None) if N is None else N
    if N is None:
        msg = "N is not known. Pass N, the number of pixels per side of a patch."
        raise ValueError(msg)
    N = as_count("N", N)
    middle, local = as_patch_positions(global_offsets), as_patch_positions(local_offsets)
    B, _, C = local.shape
    if middle.shape != (B, 2, 1):
        msg = (
            f"global_offsets has shape {np.shape(global_offsets)} and local_offsets "
            f"{np.shape(local_offsets)}, but (B, 1, 2, 1) and (B, 1, 2, C) are needed, with the "
            "same B."
        )
        raise ValueError(msg)
    gridsize = setting("gridsize", None) if gridsize is None else gridsize
    if gridsize is not None and as_count("gridsize", gridsize) ** 2 != C:
        msg = (
            f"gridsize={gridsize} means {gridsize**2} channels, but local_offsets has {C}. Pass "
            "the gridsize of these offsets; it is ptycho.params.cfg['gridsize'] if left out."
        )
        raise ValueError(msg)
    positions = (middle + local).astype(np.float32).astype(np.float64)
    if setting("use_batched_patch_extraction", default=True):
        return cpu.extract_patches(gt_image, positions, N)
    from ptycho_fast.patches import tensorflow  # noqa: PLC0415  # TensorFlow takes seconds to import

    return np.asarray(tensorflow.extract_patches(gt_image, positions, N, method="iterative"))


def get_relative_coords(
    coords_nn: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split the positions of groups into the mean of each group and minus the distances from it.

    Parameters
    ----------
    coords_nn : array_like, (B, 1, 2, C), real
        Positions in pixels, x then y.

    Returns
    -------
    offsets : ndarray, (B, 1, 2, 1), float64
        The mean over the channels.
    relative : ndarray, (B, 1, 2, C), float64
        ``-(coords_nn - offsets)``. The minus is PtychoPINN's convention (`local_offset_sign`).

    Raises
    ------
    ValueError
        If `coords_nn` has another shape or does not hold real numbers.

    Examples
    --------
    >>> from ptycho_fast.ptychopinn import get_relative_coords
    >>> offsets, relative = get_relative_coords([[[[1.0, 2.0], [5.0, 9.0]]]])
    >>> offsets.ravel(), relative[0, 0]
    (array([1.5, 7. ]), array([[ 0.5, -0.5],
           [ 2. , -2. ]]))
    """
    return relative_coordinates(as_patch_positions(coords_nn)[:, np.newaxis])


def get_neighbor_indices(xcoords: ArrayLike, ycoords: ArrayLike, K: int = 3) -> NDArray[np.int64]:
    """Find the nearest neighbours of each position, after the position itself.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Positions in pixels.
    K : int
        Number of neighbours of each position, at most n - 1.

    Returns
    -------
    ndarray, (n, K + 1), int64
        The position itself, then its neighbours from the nearest on. Of two at the same distance,
        the one with the smaller index comes first.

    Raises
    ------
    ValueError
        If lengths differ, positions are not finite, or K is not in 1..n-1.

    Examples
    --------
    >>> from ptycho_fast.ptychopinn import get_neighbor_indices
    >>> get_neighbor_indices([0.0, 1.0, 3.0], [0.0, 0.0, 0.0], K=2)
    array([[0, 1, 2],
           [1, 0, 2],
           [2, 1, 0]])
    """
    index = ScanIndex(join_coordinates(xcoords, ycoords))
    n = len(index)
    K = as_count("K", K)
    if n <= K:
        msg = f"K={K} neighbours were asked for, but each of {n} points has only {n - 1}. Lower K."
        raise ValueError(msg)
    return np.column_stack([np.arange(n), index.neighbors(K)])


def normalize_data(dset: Mapping[str, Any], N: int) -> NDArray[np.float32]:
    """Scale grouped diffraction patterns to a mean energy of ``(N/2)**2``.

    All patterns are multiplied by the same number, so their relative exposures stay.

    Parameters
    ----------
    dset : mapping
        ``dset['diffraction']`` holds the amplitudes, (B, N, N, C) or (n, N, N), of any real dtype.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    ndarray, as ``dset['diffraction']``, float32
        ``X_full``.

    Raises
    ------
    KeyError
        If there is no ``'diffraction'``.
    ValueError
        If it has another shape, is not real or not finite, or is zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.ptychopinn import normalize_data
    >>> normalize_data({"diffraction": np.full((1, 4, 4, 1), 3.0)}, N=4).mean()
    np.float32(0.5)
    """
    diffraction = np.asarray(dset["diffraction"])
    as_real_dtype("dset['diffraction']", diffraction.dtype)
    if diffraction.ndim not in (3, 4):
        msg = f"dset['diffraction'] must be (B, N, N, C) or (n, N, N), got {diffraction.shape}."
        raise ValueError(msg)
    channels = diffraction if diffraction.ndim == 4 else diffraction[..., np.newaxis]
    energies = np.einsum("bijc,bijc->bc", channels, channels, dtype=np.float64).ravel()
    scale = normalisation_scale(energies, np.arange(energies.size), N)
    X_full = diffraction.astype(np.float32)
    X_full *= scale
    return X_full
