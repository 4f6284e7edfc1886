"""Files that hold one array, as containers: NPY, and the pages of a TIFF file."""

from __future__ import annotations

import contextlib
import math
import os
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.hdf5.frames import file_stamp
from ptycho_fast.io.layouts import stack_layout
from ptycho_fast.io.npy import read_header
from ptycho_fast.io.regular import check_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

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


class TIFFContainer(OneArray):
    """A TIFF file of pages of equal size."""

    @cached_property
    def _file(self) -> Any:
        return _open_tiff(self.path)

    def close(self) -> None:
        """Close the file and those that were opened through it."""
        super().close()
        if "_file" in vars(self):
            self._file.close()

    @cached_property
    def _series(self) -> Any:
        with _damage(self.path):
            series = self._file.series
            if series and len(series[0].shape) < 2:
                msg = "it has no pages"
                raise ValueError(msg)
        shapes = {tuple(page.shape) for page in series}
        if len(series) != 1 or len(shapes) != 1:
            several = ", ".join(map(str, sorted(shapes)))
            msg = f"{self.path} must hold pages of one size, got {several or 'no page'}."
            raise ValueError(msg)
        return series[0]

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of the pages, (n, rows, columns)."""
        self._check_name(key)
        series = self._series
        shape = tuple(int(side) for side in series.shape)
        return ArrayInfo(shape if len(shape) > 2 else (1, *shape), np.dtype(series.dtype))

    def read(self, key: str) -> NDArray[Any]:
        """Read all pages."""
        info = self.info(key)
        with _damage(self.path):
            return np.asarray(self._series.asarray()).reshape(info.shape)

    def frames(
        self, key: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> Frames:
        """Open the pages as a stack of frames, which stay in the file."""
        info, series = self.info(key), self._series
        if info.dtype.kind not in "fiu" or "S" in series.axes:
            raise self._not_a_stack(info.shape, info.dtype)
        layout = stack_layout(self.path, info.shape, recipe, n, grid)
        if layout.frames_last:
            raise self._not_a_stack(info.shape, info.dtype)
        if series.dataoffset is not None:
            stored = info.dtype.newbyteorder(self._file.byteorder)
            return FileFrames(self.path, series.dataoffset, layout.shape, stored)
        if len(series.pages) != layout.shape[0]:
            raise self._not_a_stack(info.shape, info.dtype)
        return TIFFFrames(self.path, layout.shape, info.dtype, file_stamp(self.path))


class TIFFFrames(Frames):
    """Pages of a TIFF file that tifffile must decode.

    Parameters
    ----------
    path : path
        The file.
    shape : tuple of int, (n, rows, columns)
    dtype : dtype
        Of its pages.
    version : (int, int)
        The size and the modification time that the file must have.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        version: tuple[int, int],
    ) -> None:
        self.path = os.path.abspath(path)
        self.shape, self.dtype = shape, dtype.newbyteorder("=")
        self._version = version
        self._opened: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TIFFFrames, (self.path, self.shape, self.dtype, self._version)

    def _pages(self) -> Any:
        """Return the pages, opened by this process: a parent's handle must not be shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open_tiff(self.path)
        return self._opened[1].series[0].pages

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with page ``rows[i]``."""
        pages = self._pages()
        with _damage(self.path):
            for place, row in enumerate(rows.tolist()):
                out[place] = pages[row].asarray()
        if file_stamp(self.path) != self._version:
            msg = (
                f"{self.path} was changed since it was opened: its patterns may be others now. "
                "Read the scan again."
            )
            raise OSError(msg)


def _open_tiff(path: str) -> Any:
    check_regular(path)
    try:
        import tifffile  # noqa: PLC0415  # an optional dependency
    except ImportError as error:
        msg = (
            f"{path} is a TIFF file, which needs tifffile. Install it with: pip install "
            '"ptycho_fast[tiff]"'
        )
        raise ImportError(msg) from error
    with _damage(path):
        return tifffile.TiffFile(path)


@contextlib.contextmanager
def _damage(path: str) -> Iterator[None]:
    """Turn what tifffile and its decoders, each with errors of its own, raise into OSError."""
    try:
        yield
    except Exception as error:
        msg = (
            f"{path} is a TIFF file that can't be read ({error}). If it is compressed, "
            'pip install "imagecodecs"; else it is damaged or cut short.'
        )
        raise OSError(msg) from error
