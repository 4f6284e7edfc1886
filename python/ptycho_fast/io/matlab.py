"""MATLAB files of version 5 as containers; those of version 7.3 are HDF5."""

from __future__ import annotations

import os
import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.layouts import stack_layout
from ptycho_fast.io.listing import listed
from ptycho_fast.io.regular import check_regular, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

DTYPES = {"double": "f8", "single": "f4", "logical": "?"}
"""MATLAB's names of types that NumPy calls otherwise."""

AS_NUMBERS = {
    "cell": "cat(3, {0}{{:}})", "sparse": "full({0})", "char": "str2num({0})",
    "struct": "{0}.FIELD",
}  # fmt: skip
"""What a user of MATLAB saves instead of a variable of another kind."""

HEADER_BYTES = 128

ELEMENTS = (14, 15)
"""What the elements of a file are: arrays, and compressed arrays."""


class MATLABContainer(Container):
    """A MATLAB file of version 5, of which SciPy reads one array after another.

    The arrays have the axes that they have in MATLAB. They are at most 2 GB large, and are read
    whole.
    """

    @cached_property
    def _infos(self) -> dict[str, ArrayInfo]:
        _check_length(self.path)
        infos = {}
        for name, shape, kind in self._variables:
            try:
                dtype = np.dtype(DTYPES.get(kind, kind))
            except TypeError:  # a struct, a cell or text
                dtype = np.dtype(object)
            infos[name] = ArrayInfo(tuple(shape), dtype)
        return infos

    @cached_property
    def _variables(self) -> list[tuple[str, tuple[int, ...], str]]:
        """The name, the shape and the kind of each variable."""
        return list(_scipy(self.path, "whosmat"))

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {}

    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return name -> what is known of each variable; those of no numbers are objects."""
        del most
        return dict(self._infos)

    def __contains__(self, key: str) -> bool:
        return key.removeprefix("/") in self._infos

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of an array."""
        if key not in self:
            msg = f"{self.path} has no {key!r}. It has: {listed(self._infos)}."
            raise KeyError(msg)
        return self._infos[key.removeprefix("/")]

    def read(self, key: str) -> NDArray[Any]:
        """Read an array."""
        name = key.removeprefix("/")
        if self.info(key).dtype.hasobject:
            raise self._no_numbers(name)
        if name not in self._arrays:
            read = _scipy(self.path, "loadmat", variable_names=[name])
            self._arrays[name] = np.asarray(read[name])
        return self._arrays[name]

    def frames(
        self, key: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> Frames:
        """Read a stack of frames."""
        name = f"{self.path}: {key!r}"
        # Only the numbers themselves show whether they are complex.
        values = self.read(key)
        if values.dtype.kind not in "fiu":
            msg = (
                f"{name} must be frames (n, rows, columns) of real numbers, got {values.dtype} of "
                f"shape {values.shape}."
            )
            raise ValueError(msg)
        layout = stack_layout(name, values.shape, recipe, n, grid)
        if layout.frames_last:
            values = np.moveaxis(values, 2, 0)
        return MemoryFrames(np.ascontiguousarray(values.reshape(layout.shape)))

    def _no_numbers(self, name: str) -> ValueError:
        kind = next(kind for found, _, kind in self._variables if found == name)
        cure = AS_NUMBERS.get(kind, "its numbers").format(name)
        return ValueError(
            f"{self.path}: {name!r} is of MATLAB's class {kind} (shape {self._infos[name].shape}), "
            f"no array of numbers. Save {cure} instead."
        )

    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read arrays of one number each."""
        return {key: float(self.read(key).reshape(-1)[0]) for key in keys}


class MemoryFrames(Frames):
    """Frames that had to be read whole.

    Parameters
    ----------
    values : ndarray, (n, rows, columns)
    """

    def __init__(self, values: NDArray[Any]) -> None:
        n, height, width = values.shape
        self.values = values.astype(values.dtype.newbyteorder("="), copy=False)
        self.shape, self.dtype = (n, height, width), self.values.dtype

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with frame ``rows[i]``."""
        np.take(self.values, rows, axis=0, out=out)


def _check_length(path: str) -> None:
    """Refuse a file that is cut short, of which SciPy would list the whole arrays alone."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(HEADER_BYTES - 2)
        order = "<" if file.read(2) == b"IM" else ">"
        place = HEADER_BYTES
        while place < size:
            file.seek(place)
            tag = file.read(8)
            # An element is its type, the number of its bytes, and these bytes.
            kind, length = struct.unpack(f"{order}II", tag) if len(tag) == 8 else (0, 0)
            if kind not in ELEMENTS:
                break
            place += 8 + length
    if place != size:
        msg = f"{path} is damaged or cut short at byte {min(place, size)} of {size}. Copy it again."
        raise OSError(msg)


def _scipy(path: str, function: str, **options: Any) -> Any:
    """Call a function of `scipy.io` on a file."""
    check_regular(path)
    try:
        import scipy.io  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        msg = f'{path} is a MATLAB file of version 5, which needs SciPy: pip install "scipy".'
        raise ImportError(msg) from error
    try:
        return getattr(scipy.io, function)(path, **options)
    except Exception as error:  # SciPy raises what it meets in a damaged file
        msg = f"{path} is a MATLAB file that is damaged or cut short ({error}). Write it again."
        raise OSError(msg) from error
