"""TIFF files, whose pages are a stack of frames, as containers."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io.container import ArrayInfo
from ptycho_fast.io.hdf5.frames import file_stamp
from ptycho_fast.io.layouts import stack_layout
from ptycho_fast.io.listing import MOST
from ptycho_fast.io.regular import check_regular
from ptycho_fast.io.single import OneArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

GREY = (0, 1)
"""Of pages that hold one number a pixel (photometric): zero is white, or black."""


class _Pages(NamedTuple):
    """What the pages of a file are."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    """Of the first number, if all follow it in the file."""
    colour: bool


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
    def _known(self) -> _Pages:
        file = self._file
        with _damage(self.path):
            series = list(file.series)
            # Each with what it says itself; a series takes the others to be as its first.
            pages = [page.aspage() for page in file.pages]
            _check_end(file, pages)
            kinds = {page.hash: _kind(page) for page in pages}
        counted = sum(math.prod(one.shape) for one in series)
        if len(kinds) != 1 or (len(series) > 1 and counted != len(pages) * pages[0].size):
            several = sorted(set(kinds.values()))
            more = ", ..." if len(several) > MOST else ""
            msg = f"{self.path} must hold pages of one size, got {', '.join(several[:MOST])}{more}."
            raise ValueError(msg)
        page = pages[0]
        colour = page.photometric not in GREY or page.samplesperpixel != 1
        if len(series) > 1:
            return _Pages((len(pages), *page.shape), np.dtype(page.dtype), None, colour)
        shape = tuple(int(side) for side in series[0].shape)
        shape = shape if len(shape) > 2 else (1, *shape)
        return _Pages(shape, np.dtype(series[0].dtype), series[0].dataoffset, colour)

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of the pages, (n, rows, columns)."""
        self._check_name(key)
        return ArrayInfo(self._known.shape, self._known.dtype)

    def read(self, key: str) -> NDArray[Any]:
        """Read all pages."""
        info = self.info(key)
        with _damage(self.path):
            values = [series.asarray() for series in self._file.series]
            return np.concatenate(values, axis=None).reshape(info.shape)

    def frames(
        self, key: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> Frames:
        """Open the pages as a stack of frames, which stay in the file."""
        info, known = self.info(key), self._known
        if known.colour:
            msg = (
                f"{self.path} has colour pages, {info.shape} of {info.dtype}, whose numbers are no "
                "counts. Write the frames (n, rows, columns) with photometric='minisblack'."
            )
            raise ValueError(msg)
        if info.dtype.kind not in "fiu":
            raise self._not_a_stack(info.shape, info.dtype)
        layout = stack_layout(self.path, info.shape, recipe, n, grid)
        if layout.frames_last:
            raise self._not_a_stack(info.shape, info.dtype)
        if known.offset is not None:
            stored = info.dtype.newbyteorder(self._file.byteorder)
            return FileFrames(self.path, known.offset, layout.shape, stored)
        if len(_pages(self._file)) != layout.shape[0]:
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

    def files(self) -> set[str]:
        """Return the file."""
        return {self.path}

    def _pages(self) -> Any:
        """Return the pages, opened by this process: a parent's handle must not be shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            file = _open_tiff(self.path)
            weakref.finalize(self, file.close)
            self._opened = os.getpid(), file
        return _pages(self._opened[1])

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with page ``rows[i]``."""
        with _damage(self.path):
            pages = self._pages()
            for place, row in enumerate(rows.tolist()):
                out[place] = pages[row].asarray()
        if file_stamp(self.path) != self._version:
            msg = (
                f"{self.path} was changed since it was opened: its patterns may be others now. "
                "Read the scan again."
            )
            raise OSError(msg)


def _pages(file: Any) -> Any:
    """Return the pages of a file in the order of its frames."""
    return file.series[0].pages if len(file.series) == 1 else file.pages


def _kind(page: Any) -> str:
    """Describe a page."""
    sides = " x ".join(map(str, page.shape))
    name = getattr(page.compression, "name", page.compression)
    return f"{sides} of {page.dtype}, compression {name}"


def _check_end(file: Any, pages: list[Any]) -> None:
    """Refuse a file that ends before the last of its pages."""
    handle = file.filehandle
    handle.seek(file.pages.next_page_offset)
    # Each page says where the next one is, and the last one 0.
    tail = handle.read(file.tiff.offsetsize)
    ends = [
        start + count
        for page in pages
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if (
        not pages
        or len(tail) != file.tiff.offsetsize
        or any(tail)
        or max(ends, default=0) > handle.size
    ):
        msg = f"it ends after {len(pages)} whole pages"
        raise ValueError(msg)


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
    """Turn what tifffile and its decoders, each with errors of its own, raise into OSError.

    What tifffile logs meanwhile says the same once more, so it is left out.
    """
    logger, quiet = logging.getLogger("tifffile"), _Nothing()
    logger.addFilter(quiet)
    try:
        yield
    except Exception as error:
        msg = (
            f"{path} is a TIFF file that can't be read ({error}). If it is compressed, "
            'pip install "imagecodecs"; else it is damaged or cut short.'
        )
        raise OSError(msg) from error
    finally:
        logger.removeFilter(quiet)


class _Nothing(logging.Filter):
    """Lets no line of a log pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return False
