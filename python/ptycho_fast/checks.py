"""Checks of what callers pass: it becomes the arrays that the core takes, or a `ValueError`.

Conditions on every value (finite, in range, enough of them) are checked by the core, which reads
the values anyway.
"""

from __future__ import annotations

import hashlib
import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import _core
from ptycho_fast.memory import empty

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.protocols import GroupsLike

MOST = 2**31 - 1
"""Indices are int32, so nothing can be counted beyond this."""

TRUTHS = (bool, np.bool_)
"""Python takes these for numbers; whoever passes one as a count made a mistake."""


def as_count(name: str, value: object, *, least: int = 1, most: int = MOST) -> int:
    """Return a whole number in ``least..most``; raise `ValueError` for anything else."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, TRUTHS) or not least <= count <= most:
        msg = f"{name} must be a whole number in {least}..{most}, got {value!r}."
        raise ValueError(msg)
    return count


def as_number(name: str, value: object, most: float = math.inf) -> float | None:
    """Return a finite number in ``0..most``, or None for None; raise `ValueError` for others."""
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= most or math.isinf(number) or isinstance(value, bool | str):
        limit = "of at least 0" if math.isinf(most) else f"in 0..{most:g}"
        msg = f"{name} must be a number {limit}, got {value!r}."
        raise ValueError(msg)
    return number


def one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise `ValueError` unless a value is one of some words."""
    if not isinstance(value, str) or value not in allowed:
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        raise ValueError(msg)


def check_neighbors(neighbor_count: int, channels: int) -> None:
    """Raise `ValueError` if fewer neighbours are considered than a group has patterns."""
    if as_count("neighbor_count", neighbor_count) < channels:
        msg = (
            f"neighbor_count={neighbor_count} must be at least gridsize² = {channels}: a group "
            f"of {channels} patterns is drawn from the neighbours of its centre."
        )
        raise ValueError(msg)


def as_threads(num_threads: object) -> int | None:
    """Return the number of threads asked for; None lets the core choose."""
    return None if num_threads is None else as_count("num_threads", num_threads, most=4096)


def as_real(what: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return real numbers as C-contiguous float64, in their own shape."""
    array = _as_array(what, values)
    if array.dtype.kind not in "fiu":
        msg = f"{what} must be real numbers, got dtype {array.dtype}. Convert them to float64."
        raise ValueError(msg)
    return np.ascontiguousarray(array, dtype=np.float64)


def _as_array(what: str, values: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        msg = f"{what} must be an array, with rows of equal length: {error}"
        raise ValueError(msg) from None


def as_positions(positions: ArrayLike) -> NDArray[np.float64]:
    """Return scan positions as C-contiguous float64 ``(n, 2)``, columns x and y."""
    array = _as_array("positions", positions)
    if array.size == 0:
        array = np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        hint = " Transpose it." if array.ndim == 2 and array.shape[0] == 2 else ""
        msg = f"positions must be (n, 2) with columns x and y, got shape {array.shape}.{hint}"
        raise ValueError(msg)
    return as_real("positions", array)


def join_coordinates(xcoords: ArrayLike, ycoords: ArrayLike) -> NDArray[np.float64]:
    """Return coordinates ``(n,)`` and ``(n,)`` as positions ``(n, 2)``."""
    x, y = as_real("xcoords", xcoords), as_real("ycoords", ycoords)
    if x.shape != y.shape:
        msg = (
            "Coordinate arrays must have matching shapes. "
            f"xcoords is {x.shape} and ycoords is {y.shape}; both must be (n,)."
        )
        raise ValueError(msg)
    if x.ndim != 1:
        hint = (
            " Pass xcoords.ravel(), and ycoords likewise."
            if x.size == max(x.shape, default=0)
            else ""
        )
        msg = (
            f"xcoords and ycoords must be (n,), one number for each position, got {x.shape}.{hint}"
        )
        raise ValueError(msg)
    return np.stack([x, y], axis=1)


def as_valid_positions(positions: ArrayLike) -> NDArray[np.float64]:
    """Return scan positions, at least one, all of them finite and within 1e150."""
    array = as_positions(positions)
    _core.check_positions(array)
    return array


def as_patch_positions(positions: ArrayLike) -> NDArray[np.float64]:
    """Return positions of patches as C-contiguous float64 ``(B, 2, C)``."""
    array = as_real("positions", positions)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or array.shape[1] != 2 or array.shape[2] == 0:
        msg = (
            "positions of patches must be (B, 2, C) or (B, 1, 2, C), x then y on the axis of "
            f"length 2, got shape {np.shape(positions)}."
        )
        raise ValueError(msg)
    return array


def as_complex(what: str, values: ArrayLike, shape: str) -> NDArray[np.complex64]:
    """Return numbers as C-contiguous complex64 with as many axes as `shape` names."""
    array = _as_array(what, values)
    if array.ndim != len(shape.split(",")) or array.dtype.kind not in "fiuc":
        msg = f"{what} must be {shape} complex, got {_describe(array)}."
        raise ValueError(msg)
    return np.ascontiguousarray(array, dtype=np.complex64)


def as_object(object: ArrayLike) -> NDArray[np.complex64]:
    """Return an object as C-contiguous complex64 ``(H, W)``."""
    return as_complex("object", object, "(H, W)")


def as_stack(diffraction: ArrayLike) -> NDArray[Any]:
    """Return patterns as C-contiguous ``(n, N, N)`` of real numbers in the machine's byte order."""
    array = _as_array("diffraction", diffraction)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or array.shape[1] == 0:
        msg = f"diffraction must be (n, N, N), square patterns, got shape {array.shape}."
        raise ValueError(msg)
    as_real_dtype("diffraction", array.dtype)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def as_real_dtype(what: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of patterns: bool, or real numbers of up to 8 bytes; refuse any other."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        hint = " Use float64." if dtype.kind == "f" else ""
        msg = f"{what} must be real numbers of up to 64 bits, got {dtype}.{hint}"
        raise ValueError(msg)
    return dtype


def as_mask(mask: ArrayLike, N: int) -> NDArray[np.bool_]:
    """Return a detector mask as C-contiguous bool ``(N, N)``, True for good pixels."""
    array = _as_array("mask", mask)
    if array.shape != (N, N) or array.dtype != np.bool_:
        msg = f"mask must be ({N}, {N}) bool, True for good pixels, got {_describe(array)}."
        raise ValueError(msg)
    return np.ascontiguousarray(array)


def _describe(array: NDArray[Any]) -> str:
    return f"shape {array.shape} of {array.dtype}"


def as_indices(name: str, indices: ArrayLike, ndim: int, n: int) -> NDArray[np.int32]:
    """Return integers in ``0..n-1`` as C-contiguous int32."""
    array = _as_array(name, indices)
    if array.ndim != ndim or array.dtype.kind not in "iu":
        msg = (
            f"{name} must be integers in 0..{n - 1} with {ndim} "
            f"ax{'i' if ndim == 1 else 'e'}s, got shape {array.shape} of {array.dtype}."
        )
        raise ValueError(msg)
    outside = (array < 0) | (array >= n)
    if outside.any():
        msg = (
            f"{name} must be integers in 0..{n - 1}: {array[outside][0]} is the first of "
            f"{np.count_nonzero(outside)} outside that range."
        )
        raise ValueError(msg)
    return np.ascontiguousarray(array, dtype=np.int32)


def as_output(out: object, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> NDArray[Any]:
    """Return an array to fill: a new one for None, or ``out`` itself if it fits."""
    if out is None:
        return empty(shape, dtype)
    if (
        not isinstance(out, np.ndarray)
        or out.shape != shape
        or out.dtype != dtype
        or not out.flags.c_contiguous
        or not out.flags.writeable
    ):
        found = f"{out.shape} of {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        msg = (
            f"out must be a writeable C-contiguous array {shape} of {np.dtype(dtype)}, got "
            f"{found}. Without out a new array is returned."
        )
        raise ValueError(msg)
    return out


def positions_checksum(positions: NDArray[np.float64]) -> str:
    """Return the SHA-256 of positions as little-endian float64, in hexadecimal digits."""
    little_endian = np.ascontiguousarray(positions, dtype="<f8")
    return hashlib.sha256(little_endian.data).hexdigest()


def check_groups(n: int, groups: GroupsLike) -> None:
    """Raise `ValueError` if there are no groups, or they were not drawn from n positions."""
    if len(groups.positions) != n:
        msg = (
            f"The groups were drawn from {len(groups.positions)} positions, but the scan has "
            f"{n}. Draw groups from the positions of this scan."
        )
        raise ValueError(msg)
    if len(groups) == 0:
        msg = "There are no groups. Draw some with group_positions."
        raise ValueError(msg)
