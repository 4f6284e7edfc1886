"""Which axes of an array are which; where two readings are possible, an option decides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe

MOST_FRAMES = 2**25
"""A scan of more frames is refused: another axis is likely to be meant."""

COMPLEX_FIELDS = (("r", "i"), ("re", "im"), ("real", "imag"), ("real", "imaginary"))
"""Names of the two fields by which programs without complex numbers write them."""


class Layout(NamedTuple):
    """How a stack is read."""

    shape: tuple[int, int, int]
    """(n, rows, columns)"""
    frames_last: bool
    """Whether the array is (rows, columns, n). If not, its frames lie one after another."""


def stack_layout(
    what: str,
    shape: tuple[int, ...],
    recipe: Recipe,
    n: int | None = None,
    grid: tuple[int, ...] = (),
) -> Layout:
    """Decide which axes of an array count its frames.

    Parameters
    ----------
    what : str
        The name of the stack in messages.
    shape : tuple of int
        (n, rows, columns), (rows, columns, n), either with further axes of length 1, or
        (ny, nx, rows, columns).
    recipe : Recipe
        Its `frames_axis` and `reshape` are used.
    n : int, optional
        How many positions there are, if each frame has one.
    grid : tuple of int, (ny, nx), optional
        The shape in which the positions are stored.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If it is not a stack, or more than one reading is possible.

    Warns
    -----
    UserWarning
        If the first and the last axis both have as many entries as there are positions: the first
        is taken.

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
                f"{axes[0]} x {axes[1]} frames that is to be read row by row, pass reshape=True "
                "(--reshape)."
            )
            raise ValueError(msg)
        axes = (axes[0] * axes[1], *axes[2:])
        if recipe.frames_axis == 2:
            msg = (
                f"{what} has shape {shape}, a grid of frames, so frames_axis=2 cannot be right. "
                "Leave it out."
            )
            raise ValueError(msg)
    if len(axes) != 3 or 0 in axes:
        msg = f"{what} must be frames (n, rows, columns), got shape {shape}."
        raise ValueError(msg)
    first = axes[0] == n
    last = axes[2] == n and axes[0] == axes[1] and axes == shape[:3]
    if first and last and recipe.frames_axis is None:
        warn(
            f"{what} has shape {shape}: its first axis and its last both have as many entries as "
            f"there are positions, {n}. The first was taken for the frames. To decide it, pass "
            "frames_axis=0 or frames_axis=2 (--frames-axis).",
        )
    if recipe.frames_axis == 2 or (recipe.frames_axis is None and last and not first):
        layout = Layout((axes[2], axes[0], axes[1]), frames_last=True)
    else:
        layout = Layout((axes[0], axes[1], axes[2]), frames_last=False)
    if layout.shape[0] > MOST_FRAMES:
        msg = (
            f"{what} has shape {shape}: {layout.shape[0]} frames, more than the {MOST_FRAMES} "
            "that a scan may have. If another axis counts the frames, pass frames_axis."
        )
        raise ValueError(msg)
    return layout


def as_line(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array (n, 1) or (1, n) as (n,), and any other as it is."""
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else values


def grid_of(shape: tuple[int, ...], stack: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` if positions of this shape may be a grid (ny, nx) for this stack, else ()."""
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
        The option and the name of the array, for messages.
    values : ndarray, (n,), (n, 1), (1, n), or (ny, nx) of a grid
        The array as it is stored.
    stack : tuple of int
        The shape of the patterns, by which a grid is recognised.
    recipe : Recipe
        Its `reshape` is used.

    Raises
    ------
    ValueError
        If they are not real numbers, or a grid that only `reshape` allows to read row by row.
    """
    line = as_line(values)
    grid = grid_of(line.shape, stack)
    if grid and line.dtype.kind in "fiu":
        if recipe.reshape or (len(stack) == 4 and stack[:2] == grid):
            line = line.reshape(-1)
        else:
            msg = (
                f"{name}={key!r} is a grid of shape {grid}, but the patterns have shape {stack}. "
                "If the positions belong to them row by row, pass reshape=True (--reshape)."
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
    """Return a sentence that says how to name one row or column of an array."""
    if len(shape) != 2 or key.endswith("]"):
        return ""
    in_rows = shape[1] in stack and shape[0] not in stack
    part, what = ("[0]", "row") if in_rows else ("[:,0]", "column")
    return f" Name one {what}: {name}='{key}{part}'."


def is_complex(dtype: np.dtype[Any]) -> bool:
    """Tell whether numbers are complex, or pairs of fields that stand for complex numbers."""
    names = tuple(name.lower() for name in dtype.names or ())
    return dtype.kind == "c" or names in COMPLEX_FIELDS


def as_complex_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return pairs of fields, (r, i), (re, im) or (real, imag), as complex numbers.

    Parameters
    ----------
    values : ndarray
        Any array; one without such fields is returned as it is.

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
        File and key, for messages.
    values : ndarray
        (N, N), (modes, N, N), (N, N, modes) or, with further axes of length 1, (1, modes, N, N),
        (modes, 1, N, N). Pairs of fields are taken for complex numbers.
    detector : tuple of int, (rows, columns)
        The shape of the patterns, which tells (modes, N, N) from (N, N, modes).

    Raises
    ------
    ValueError
        If the array is not a probe.

    Warns
    -----
    UserWarning
        If the axes of the array were changed.
    """
    probe = as_complex_numbers(values)
    if probe.ndim == 4 and 1 in probe.shape[:2]:
        probe = probe[0] if probe.shape[0] == 1 else probe[:, 0]
    if probe.ndim == 3 and probe.shape[:2] == detector != probe.shape[1:]:
        probe = np.ascontiguousarray(np.moveaxis(probe, 2, 0))
    if probe.ndim == 3 and len(probe) == 1 and values.ndim == 4:
        probe = probe[0]
    if probe.ndim not in (2, 3) or probe.dtype.kind not in "fiuc" or not probe.size:
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


def named_probe(container: Container, recipe: Recipe, N: int) -> NDArray[Any] | None:
    """Return the probe that the caller names, (N, N) or (modes, N, N); None if none is named.

    Parameters
    ----------
    container : Container
    recipe : Recipe
    N : int
        Pixels per side of a pattern.

    Raises
    ------
    KeyError, OSError, ValueError
        If it is not there, cannot be read, or is no probe.
    """
    if recipe.probe is None:
        return None
    values = container.read_named(recipe.probe)
    return as_probe(f"{container.path}: {recipe.probe!r}", values, (N, N))


def as_layer(what: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return an object as (H, W), given (H, W), (1, H, W) or (1, 1, H, W), or pairs of fields.

    Raises
    ------
    ValueError
        If the object has several layers, or is not an array of numbers.
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
