"""Files that hold one array, as containers: NPY; `ptycho_fast.io.tiff` has another kind."""

from __future__ import annotations

import math
import os
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import FileFrames
from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.layouts import stack_layout
from ptycho_fast.io.npy import read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.recipe import Recipe

KEY = "data"
"""The name of the only array. ``FILE:`` without a name means it, too."""


class OneArray(Container):
    """A file that holds one array, which has no name of its own."""

    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return what is known of the array."""
        del most
        return {KEY: self.info(KEY)}

    def __contains__(self, key: str) -> bool:
        return key in ("", KEY)

    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read the array, if it is one number."""
        return {key: float(self.read(key).reshape(-1)[0]) for key in keys}

    def _check_name(self, key: str) -> None:
        if key not in self:
            msg = f"{self.path} holds one array, {KEY!r}, and no {key!r}."
            raise KeyError(msg)

    def _not_a_stack(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ValueError:
        return ValueError(
            f"{self.path} must hold frames (n, rows, columns) of real numbers, got shape {shape} "
            f"of {dtype}."
        )


class NPYContainer(OneArray):
    """An NPY file.

    Parameters
    ----------
    path, open_other
        As of `Container`.
    file : binary file
        The file, open; it is closed with the container.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        open_other: Callable[[str | os.PathLike[str]], Container],
        file: IO[bytes],
    ) -> None:
        super().__init__(path, open_other)
        self._file = file

    def close(self) -> None:
        """Close the file and those that were opened through it."""
        super().close()
        self._file.close()

    @cached_property
    def _known(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Shape, whether in Fortran order, dtype, and the place of the first number."""
        self._file.seek(0)
        try:
            shape, fortran_order, dtype = read_header(self._file)
        except ValueError as error:
            msg = f"{self.path} is an NPY file that is damaged ({error}). Write it again."
            raise OSError(msg) from error
        if dtype.hasobject:
            msg = f"{self.path} holds Python objects, no numbers. Write it again with numbers."
            raise ValueError(msg)
        first = self._file.tell()
        needed = first + math.prod(shape) * dtype.itemsize
        if (found := os.fstat(self._file.fileno()).st_size) < needed:
            msg = f"{self.path} is cut short: {needed} bytes are needed, but it has {found}."
            raise OSError(msg)
        return shape, fortran_order, dtype, first

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of the array."""
        self._check_name(key)
        shape, _, dtype, _ = self._known
        return ArrayInfo(shape, dtype)

    def read(self, key: str) -> NDArray[Any]:
        """Read the array."""
        self._check_name(key)
        shape, fortran_order, dtype, first = self._known
        self._file.seek(first)
        values = np.fromfile(self._file, dtype, math.prod(shape))
        return values.reshape(shape, order="F" if fortran_order else "C")

    def frames(
        self, key: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> Frames:
        """Open a stack of frames, which stay in the file."""
        self._check_name(key)
        shape, fortran_order, dtype, first = self._known
        if dtype.kind not in "fiub":
            raise self._not_a_stack(shape, dtype)
        layout = stack_layout(self.path, shape, recipe, n, grid)
        if fortran_order or layout.frames_last:
            order = "in Fortran order" if fortran_order else "with its frames last"
            msg = (
                f"{self.path} holds {shape} {order}, so no frame of it can be read on its own. "
                "Save numpy.ascontiguousarray(...) of it, with the frames first."
            )
            raise ValueError(msg)
        return FileFrames(self.path, first, layout.shape, dtype)
