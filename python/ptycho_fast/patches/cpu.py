"""Patches on the CPU: NumPy arrays in and out, cut by the Rust kernel."""

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
    """Cut patches out of an object at sub-pixel positions, by bilinear interpolation.

    Position (x, y) lies on pixel ``[N//2, N//2]`` of its patch. Outside its bounds the object
    is 0.

    Parameters
    ----------
    object : array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``. It is converted to complex64.
    positions : array_like, (B, 2, C) or (B, 1, 2, C), real
        Positions of each channel of each group in pixels, x then y.
    N : int
        Pixels per side of a patch.
    out : ndarray, (B, N, N, C), complex64, optional
        An array to write the patches to. Passing the same one again saves the page faults on new
        memory, which take longer than the interpolation.
    num_threads : int, optional
        Threads to use. By default ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use.
        The result does not depend on it.

    Returns
    -------
    ndarray, (B, N, N, C), complex64

    Raises
    ------
    ValueError
        If positions are not finite or have another shape, N < 1, the object is not 2-D, or `out`
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
    """Add patches to an object at the positions where `extract_patches` would cut them.

    This is the adjoint of `extract_patches`:
    ``sum(extract_patches(object, positions, N) * conj(patches))`` equals
    ``sum(object * conj(add_patches(patches, positions, zeros)))``. So it is the gradient of the
    extraction, and also the sum that stitching divides by its weights.

    Parameters
    ----------
    patches : array_like, (B, N, N, C), complex
        The patches to add.
    positions : array_like, (B, 2, C) or (B, 1, 2, C), real
        Their positions in pixels, x then y.
    out : ndarray, (H, W), complex64
        The object that they are added to. What lies outside its bounds is dropped.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    ndarray, (H, W), complex64
        `out`.

    Raises
    ------
    ValueError
        If shapes do not fit, or positions are not finite.

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
