"""Patches on the CPU, by the Rust kernel: NumPy arrays in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import (
    as_complex,
    as_count,
    as_object,
    as_output,
    as_patch_positions,
    as_threads,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def extract_patches(
    object: ArrayLike,
    positions: ArrayLike,
    N: int,
    *,
    out: NDArray[np.complex64] | None = None,
    num_threads: int | None = None,
) -> NDArray[np.complex64]:
    """Cut the patches of an object at sub-pixel positions, by bilinear interpolation.

    Position (x, y) falls on pixel ``[N//2, N//2]`` of its patch. The object is 0 outside.

    Parameters
    ----------
    object : array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``. complex128 is narrowed to complex64.
    positions : array_like, (B, 2, C) or (B, 1, 2, C), real
        x, then y, of each channel of each group, in pixels.
    N : int
        Pixels per side of a patch.
    out : ndarray, (B, N, N, C), complex64, optional
        Filled and returned: first-touch page faults of a new array cost more than the arithmetic.
    num_threads : int, optional
        Threads to use; ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use. The
        result does not depend on it.

    Returns
    -------
    ndarray, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If positions are not finite or of another shape, N < 1, the object is not 2-D, or `out`
        does not fit.
    MemoryError
        If the patches do not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> image = np.arange(30.0).reshape(5, 6)
    >>> pf.extract_patches(image, [[[2.5], [1.0]]], N=2)[0, :, :, 0].real
    array([[1.5, 2.5],
           [7.5, 8.5]], dtype=float32)
    """
    image = as_object(object)
    positions = as_patch_positions(positions)
    N = as_count("N", N)
    B, _, C = positions.shape
    patches = as_output(out, (B, N, N, C), np.complex64)
    _core.extract_patches(image, positions, patches, as_threads(num_threads))
    return patches


def add_patches(
    patches: ArrayLike,
    positions: ArrayLike,
    out: NDArray[np.complex64],
    *,
    num_threads: int | None = None,
) -> NDArray[np.complex64]:
    """Add patches to an object where `extract_patches` would cut them: its adjoint.

    ``sum(extract_patches(object, positions, N) * conj(patches))`` equals
    ``sum(object * conj(add_patches(patches, positions, zeros)))``, so it is both the gradient of
    the extraction and the sum that stitching divides by its weights.

    Parameters
    ----------
    patches : array_like, (B, N, N, C), complex
        What to add.
    positions : array_like, (B, 2, C) or (B, 1, 2, C), real
        x, then y, in pixels.
    out : ndarray, (H, W), complex64
        The object that is added to; what falls outside is dropped.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    ndarray, (H, W), complex64
        `out`.

    Raises
    ------
    ValueError
        If shapes do not fit or positions are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patches.cpu import add_patches
    >>> add_patches(np.ones((1, 1, 1, 1)), [[[1.5], [0.0]]], np.zeros((1, 4), np.complex64)).real
    array([[0. , 0.5, 0.5, 0. ]], dtype=float32)
    """
    positions = as_patch_positions(positions)
    B, _, C = positions.shape
    stack = as_complex("patches", patches, "(B, N, N, C)")
    if stack.shape != (B, stack.shape[1], stack.shape[1], C):
        msg = f"patches must be ({B}, N, N, {C}) for these positions, got shape {stack.shape}."
        raise ValueError(msg)
    if getattr(out, "ndim", None) != 2:
        msg = f"out must be a complex64 array (H, W), got {type(out).__name__} {np.shape(out)}."
        raise ValueError(msg)
    out = as_output(out, out.shape, np.complex64)
    _core.add_patches(stack, positions, out, as_threads(num_threads))
    return out
