"""Which axis of an array counts what: layouts that one reading fits, and options for the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

MOST_FRAMES = 2**25

COMPLEX_FIELDS = (("r", "i"), ("re", "im"), ("real", "imag"), ("real", "imaginary"))


class Layout(NamedTuple):
    """How a stack is read."""

    shape: tuple[int, int, int]
    """(n, rows, columns)"""
    frames_last: bool
    """The array is (rows, columns, n). If not, its frames lie one after another."""


def stack_layout(
    what: str,
    shape: tuple[int, ...],
    recipe: Recipe,
    n: int | None = None,
    grid: tuple[int, ...] = (),
) -> Layout:
    """Decide which axes of a stack count its frames.

    Parameters
    ----------
    what : str
        How sentences call the stack.
    shape : tuple of int
        (n, rows, columns), (rows, columns, n), either with further axes of length 1, or
        (ny, nx, rows, columns).
    recipe : Recipe
        Of which `frames_axis` and `reshape` count here.
    n : int, optional
        How many positions there are, if one belongs to each frame.
    grid : tuple of int, (ny, nx), optional
        The shape in which the positions came.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If it is no stack, or more than one reading is possible.

    Warns
    -----
    UserWarning
        If the first and the last axis are both as long as the positions: the first is taken.

    Examples
    --------
    >>> from ptycho_fast.io.layouts import stack_layout
    >>> from ptycho_fast.io.recipe import Recipe
    >>> stack_layout("diff3d", (16, 16, 9), Recipe(), 9)
    Layout(shape=(9, 16, 16), frames_last=True)
    >>> stack_layout("data", (3, 3, 16, 16), Recipe(reshape=True), 9)
    Layout(shape=(9, 16, 16), frames_last=False)
    """
    if recipe.frames_axis not in (None, 0, 2):
        msg = f"frames_axis must be 0 or 2, got {recipe.frames_axis!r}."
        raise ValueError(msg)
    axes = shape
    if len(axes) == 4 and 1 in axes[:2]:
        axes = axes[1:] if axes[0] == 1 else (axes[0], *axes[2:])
    elif len(axes) == 4 and axes[3] == 1:
        axes = axes[:3]
    if len(axes) == 4 and 0 not in axes:
        if not (recipe.reshape or grid == axes[:2]):
            msg = (
                f"{what} must be frames (n, rows, columns), got shape {shape}. If it is a grid of "
                f"{axes[0]} x {axes[1]} frames, to be taken row by row: reshape=True (--reshape)."
            )
            raise ValueError(msg)
        axes = (axes[0] * axes[1], *axes[2:])
        if recipe.frames_axis == 2:
            msg = f"{what} has shape {shape}, so frames_axis=2 can't be."
            raise ValueError(msg)
    if len(axes) != 3 or 0 in axes:
        msg = f"{what} must be frames (n, rows, columns), got shape {shape}."
        raise ValueError(msg)
    first = axes[0] == n
    last = axes[2] == n and axes[0] == axes[1] and axes == shape[:3]
    if first and last and recipe.frames_axis is None:
        warn(
            f"{what} has shape {shape}, of which the first axis and the last are as long as the "
            f"{n} positions. The first was taken for the frames; frames_axis=0 or 2 "
            "(--frames-axis) decides it.",
        )
    if recipe.frames_axis == 2 or (recipe.frames_axis is None and last and not first):
        layout = Layout((axes[2], axes[0], axes[1]), frames_last=True)
    else:
        layout = Layout((axes[0], axes[1], axes[2]), frames_last=False)
    if layout.shape[0] > MOST_FRAMES:
        msg = (
            f"{what} has shape {shape}: {layout.shape[0]} frames, more than the {MOST_FRAMES} "
            "that a scan may have. Is another axis that of the frames (frames_axis)?"
        )
        raise ValueError(msg)
    return layout


def as_line(values: NDArray[Any]) -> NDArray[Any]:
    """Return (n, 1) and (1, n) as (n,); anything else as it is."""
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values


def grid_of(shape: tuple[int, ...], stack: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid (ny, nx) that positions of a shape may be, next to a stack of a shape."""
    is_grid = len(shape) == 2 and 1 not in shape and len(stack) in (3, 4)
    frames = {math.prod(stack[:-2]), stack[-1]} if is_grid else set()
    return shape if math.prod(shape) in frames else ()


def as_coordinates(
    name: str, key: str, values: NDArray[Any], stack: tuple[int, ...], recipe: Recipe
) -> NDArray[np.float64]:
    """Return one coordinate of each position, (n,).

    Parameters
    ----------
    name, key : str
        What they are and what they are called, for sentences.
    values : ndarray, (n,), (n, 1), (1, n), or (ny, nx) of a grid
        What was read.
    stack : tuple of int
        The shape of the patterns, which says whether a grid is one.
    recipe : Recipe
        Of which `reshape` counts here.

    Raises
    ------
    ValueError
        If they are no real numbers, or how to take them row by row must be said.
    """
    line = as_line(values)
    grid = grid_of(line.shape, stack)
    if grid and line.dtype.kind in "fiu":
        if recipe.reshape or (len(stack) == 4 and stack[:2] == grid):
            line = line.reshape(-1)
        else:
            msg = (
                f"{name}={key!r} is a grid of shape {grid}, but the patterns have shape {stack}. "
                "If the positions belong to them row by row: reshape=True (--reshape)."
            )
            raise ValueError(msg)
    if line.ndim != 1 or line.dtype.kind not in "fiu":
        msg = (
            f"{name}={key!r} must be real numbers (n,), got shape {values.shape} of "
            f"{values.dtype}.{_one_line(name, key, values.shape, stack)}"
        )
        raise ValueError(msg)
    return line.astype(np.float64)


def _one_line(name: str, key: str, shape: tuple[int, ...], stack: tuple[int, ...]) -> str:
    """Return how to name a row or column of an array."""
    if len(shape) != 2 or key.endswith("]"):
        return ""
    in_rows = shape[1] in stack and shape[0] not in stack
    part, what = ("[0]", "row") if in_rows else ("[:,0]", "column")
    return f" Name one {what}: {name}='{key}{part}'."


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Tell whether numbers are complex, or pairs of fields that are."""
    names = tuple(name.lower() for name in dtype.names or ())
    return dtype.kind == "c" or names in COMPLEX_FIELDS


def as_complex_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return pairs of fields, (r, i), (re, im) or (real, imag), as complex numbers.

    Parameters
    ----------
    values : ndarray
        Anything; what has no such fields is returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.layouts import as_complex_numbers
    >>> as_complex_numbers(np.array([(1.0, 2.0)], [("real", "f4"), ("imag", "f4")]))
    array([1.+2.j], dtype=complex64)
    """
    names = values.dtype.names or ()
    if not names or not is_complex(values.dtype):
        return values
    real, imaginary = (values[name] for name in names)
    if real.dtype.kind not in "fiu" or imaginary.dtype.kind not in "fiu":
        return values
    return np.asarray(real + 1j * imaginary.astype(np.result_type(real.dtype, np.float32)))


def as_probe(what: str, values: NDArray[Any], detector: tuple[int, ...]) -> NDArray[Any]:
    """Return a probe as (N, N) or (modes, N, N).

    Parameters
    ----------
    what : str
        File and key, for sentences.
    values : ndarray
        (N, N), (modes, N, N), (N, N, modes) or, with further axes of length 1, (1, modes, N, N),
        (modes, 1, N, N); pairs of fields are complex numbers.
    detector : tuple of int, (rows, columns)
        What tells (modes, N, N) from (N, N, modes).

    Raises
    ------
    ValueError
        If it is something else.

    Warns
    -----
    UserWarning
        If it was read as another shape than it has.
    """
    probe = as_complex_numbers(values)
    if probe.ndim == 4 and 1 in probe.shape[:2]:
        probe = probe[0] if probe.shape[0] == 1 else probe[:, 0]
    if probe.ndim == 3 and probe.shape[:2] == detector != probe.shape[1:]:
        probe = np.ascontiguousarray(np.moveaxis(probe, 2, 0))
    if probe.ndim == 3 and len(probe) == 1 and values.ndim == 4:
        probe = probe[0]
    if probe.ndim not in (2, 3) or probe.dtype.kind not in "fiuc":
        cure = (
            f"Write the file again with one of them, as probe[0]: {probe.shape[1:]}."
            if probe.ndim == 4
            else "Leave it out, or name another with probe=KEY."
        )
        msg = (
            f"{what}: the probe has shape {values.shape} of {values.dtype}, but (N, N) or (modes, "
            f"N, N) complex is needed. {cure}"
        )
        raise ValueError(msg)
    if probe.shape != values.shape:
        warn(f"{what}: the probe has shape {values.shape}; it was read as {probe.shape}.")
    return probe


def as_layer(what: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return an object as (H, W), also of (1, H, W) or (1, 1, H, W) and pairs of fields.

    Raises
    ------
    ValueError
        If it has several layers.
    """
    layer = as_complex_numbers(values)
    while layer.ndim > 2 and len(layer) == 1:
        layer = layer[0]
    if layer.ndim != 2 or layer.dtype.kind not in "fiuc":
        msg = (
            f"{what}: the object has shape {values.shape} of {values.dtype}, but (H, W) complex "
            "is needed. Write the file again with one layer of it, or without it."
        )
        raise ValueError(msg)
    return layer
