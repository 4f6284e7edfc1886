"""Diffraction patterns that stay in their file until they are needed."""

from __future__ import annotations

import math
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK_BYTES = 2**24
"""Bytes that are read at a time where all patterns are read."""

LOOK_BYTES = 2**26
"""Where the patterns have more bytes than this, `Frames.look` reads only `LOOKED_AT` of them."""

LOOKED_AT = 64


class Window(NamedTuple):
    """The part of the detector that is kept, and how many detector pixels make one pixel."""

    rows: slice
    columns: slice
    bin: int

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of the patterns that result."""
        return int(self.rows.stop - self.rows.start) // self.bin

    def good(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Crop and bin which pixels are good; a bin is good if all of its pixels are.

        Parameters
        ----------
        mask : ndarray, (..., H, W), bool

        Returns
        -------
        ndarray, (..., N, N), bool
        """
        N, b = self.N, self.bin
        kept = mask[..., self.rows, self.columns]
        return np.asarray(kept.reshape(*kept.shape[:-2], N, b, N, b).all(axis=(-3, -1)))

    def summed(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum counts of the kept pixels, (k, N * bin, N * bin), over the bins."""
        N, b = self.N, self.bin
        summed: NDArray[np.float64] = counts.reshape(-1, N, b, N, b).sum(axis=(2, 4))
        return summed

    def amplitudes(self, patterns: NDArray[Any]) -> NDArray[Any]:
        """Crop and bin amplitudes, (k, H, W); the roots of summed counts are float32."""
        kept = patterns[:, self.rows, self.columns]
        if self.bin == 1:
            return np.ascontiguousarray(kept)
        return np.sqrt(self.summed(np.square(kept, dtype=np.float64))).astype(np.float32)

    def within(self, part: Window) -> Window:
        """Return a part of what this one keeps as a part of the detector."""
        rows, columns = (
            slice(mine.start + its.start * self.bin, mine.start + its.stop * self.bin)
            for mine, its in ((self.rows, part.rows), (self.columns, part.columns))
        )
        return Window(rows, columns, self.bin * part.bin)


class Frames(ABC):
    """A stack of patterns ``(n, N, N)`` that are read when they are needed, not held in memory.

    `shape`, `dtype`, `ndim`, `nbytes` and `len` are known without reading anything. Indexing reads
    the patterns that are selected, and ``numpy.asarray`` reads all of them. Threads and forked
    processes may share a stack.

    Attributes
    ----------
    shape : tuple of int, (n, N, N)
    dtype : dtype
        Of the patterns, in native byte order.
    may_be_bad : bool
        Whether `read_good` may report pixels that were not measured.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    may_be_bad: bool = False

    @abstractmethod
    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``.

        Parameters
        ----------
        rows : ndarray, (m,), int
            Which patterns, in ``0..n-1``. Ascending rows are read fastest.
        out : ndarray, (m, N, N), C-contiguous, of `dtype`
            The array to fill.

        Raises
        ------
        OSError
            If the file was cut short or cannot be read.
        """

    def read_good(
        self, rows: NDArray[np.integer[Any]], out: NDArray[Any]
    ) -> NDArray[np.bool_] | None:
        """Fill ``out[i]`` as `read` does, and return which pixels were measured.

        Parameters
        ----------
        rows, out
            As of `read`.

        Returns
        -------
        ndarray, (m, N, N), bool, or None
            False where a pattern holds 0 because the pixel was not measured; None if all were.
        """
        self.read(rows, out)
        return None

    def unwritten(self) -> NDArray[np.int64]:
        """Return the patterns of which the file is known to hold no data.

        Returns
        -------
        ndarray, (m,), int64
            Their indices, ascending. They are known without reading any pattern.
        """
        return np.empty(0, np.int64)

    def take(self, rows: NDArray[np.integer[Any]]) -> Frames:
        """Return some of the patterns, which stay in their file.

        Parameters
        ----------
        rows : ndarray, (k,), int
            Which patterns, in ``0..n-1``.
        """
        return PartFrames(self, rows=rows)

    def within(self, part: Window) -> Frames:
        """Return a part of each pattern, or its bins, read from the file when it is needed."""
        return PartFrames(self, part=part)

    def files(self) -> set[str]:
        """Return the files from which the patterns are read, as far as they are known."""
        return set()

    @property
    def ndim(self) -> int:
        """3."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the stack would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Read the patterns that an index, a slice, or an array of indices or bools selects."""
        chosen = np.arange(len(self))[rows]
        out = np.empty((chosen.size, *self.shape[1:]), self.dtype)
        self.read(chosen.ravel(), out)
        return out.reshape(*chosen.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            msg = "Patterns in a file must be read to become an array, so copy=False is impossible."
            raise ValueError(msg)
        return np.asarray(self[:], dtype=dtype)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns, some at a time, into one buffer: (rows, patterns)."""
        each = max(1, BLOCK_BYTES // max(1, self.nbytes // max(1, len(self))))
        buffer = np.empty((min(each, len(self)), *self.shape[1:]), self.dtype)
        for first in range(0, len(self), each):
            rows = np.arange(first, min(first + each, len(self)))
            self.read(rows, buffer[: len(rows)])
            yield slice(first, first + len(rows)), buffer[: len(rows)]

    def spread(self) -> NDArray[np.int64]:
        """Return rows that show what the patterns are like: all, or some spread over the scan."""
        n = len(self)
        few = max(1, min(LOOKED_AT, LOOK_BYTES // max(1, self.nbytes // max(1, n))))
        return np.arange(n) if self.nbytes <= LOOK_BYTES else np.linspace(0, n - 1, few).astype(int)

    def look(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read the patterns of `spread`, some at a time: (rows, patterns)."""
        if self.nbytes <= LOOK_BYTES:
            for where, block in self.blocks():
                yield np.arange(where.start, where.stop), block
            return
        rows = self.spread()
        each = max(1, BLOCK_BYTES // max(1, self.nbytes // len(self)))
        for first in range(0, len(rows), each):
            yield rows[first : first + each], self[rows[first : first + each]]


class PartFrames(Frames):
    """Some of the patterns of a stack, or a part of each, which stay in their file.

    Parameters
    ----------
    source : Frames, (m, H, W)
        All patterns, whole.
    rows : ndarray, (n,), int, optional
        Which of them; all by default.
    part : Window, optional
        What is kept of each; everything by default.
    """

    def __init__(
        self,
        source: Frames,
        rows: NDArray[np.integer[Any]] | None = None,
        part: Window | None = None,
    ) -> None:
        self.source, self.rows, self.part = source, rows, part
        n = len(source) if rows is None else len(rows)
        sides = source.shape[1:] if part is None else (part.N, part.N)
        self.shape = (n, *sides)
        whole = part is None or part.bin == 1
        self.dtype = source.dtype if whole else np.dtype(np.float32)
        self.may_be_bad = source.may_be_bad

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self.read_good(rows, out)

    def read_good(
        self, rows: NDArray[np.integer[Any]], out: NDArray[Any]
    ) -> NDArray[np.bool_] | None:
        """Fill ``out[i]`` with pattern ``rows[i]``; return which pixels were measured."""
        rows = np.asarray(rows) if self.rows is None else self.rows[rows]
        if self.part is None:
            return self.source.read_good(rows, out)
        good: NDArray[np.bool_] | None = None
        each = max(1, BLOCK_BYTES // max(1, self.source.nbytes // max(1, len(self.source))))
        buffer = np.empty((min(each, len(rows)), *self.source.shape[1:]), self.source.dtype)
        for first in range(0, len(rows), each):
            some = slice(first, min(first + each, len(rows)))
            block = buffer[: some.stop - first]
            found = self.source.read_good(rows[some], block)
            out[some] = self.part.amplitudes(block)
            if found is not None:
                good = np.ones(out.shape, np.bool_) if good is None else good
                good[some] = self.part.good(found)
                out[some][~good[some]] = 0
        return good

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of the source."""
        missing = self.source.unwritten()
        return missing if self.rows is None else np.flatnonzero(np.isin(self.rows, missing))

    def take(self, rows: NDArray[np.integer[Any]]) -> PartFrames:
        """Return some of the patterns, which stay in their file."""
        return PartFrames(self.source, rows if self.rows is None else self.rows[rows], self.part)


class FileFrames(Frames):
    """Patterns that lie one after another in a file and are read by their place in it.

    This is no memory map: a file that is cut short while it is mapped kills the process, whereas
    here it raises OSError.

    Parameters
    ----------
    path : path
        The file.
    offset : int
        The byte at which the first pattern begins.
    shape : tuple of int, (n, N, N)
        Their shape, in C order.
    dtype : dtype
        Their dtype in the file, in either byte order.
    version : tuple of int, optional
        The size and the modification time (`os.stat_result.st_mtime_ns`) the file must have.

    Raises
    ------
    OSError
        If the file is missing, too short, or has another size or time than `version`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        version: tuple[int, int] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.offset = offset
        self.shape = shape
        self.stored = np.dtype(dtype)
        self.dtype = self.stored.newbyteorder("=")
        self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._version = self._stamp() if version is None else version
        self._check_version()
        needed, found = offset + self.nbytes, self._version[0]
        if found < needed:
            msg = (
                f"{self.path} is cut short: {len(self)} patterns of {shape[1]} x {shape[2]} "
                f"{self.dtype} end at byte {needed}, but the file at {found}. Copy it again."
            )
            raise OSError(msg)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that receives this opens the file anew, and it must be the same file.
        return FileFrames, (self.path, self.offset, self.shape, self.stored, self._version)

    def files(self) -> set[str]:
        """Return the file."""
        return {self.path}

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _check_version(self) -> None:
        if self._stamp() != self._version:
            msg = (
                f"{self.path} was changed since it was opened: its patterns may be others now. "
                "Read the scan again."
            )
            raise OSError(msg)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``, with one system call for each run of rows."""
        size = self.nbytes // max(1, len(self))
        rows = np.asarray(rows, np.int64)  # differences of unsigned integers would wrap
        content = out.reshape(-1).view(np.uint8).data
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for first, last in zip(starts, [*starts, len(rows)][1:], strict=True):
            part = content[first * size : last * size]
            position = self.offset + int(rows[first]) * size
            while part:
                count = _read_at(self._file, part, position)
                if count == 0:
                    row = (position - self.offset) // size
                    msg = (
                        f"{self.path} was cut short while it was read: pattern {row} of "
                        f"{len(self)} should go on at byte {position}. Copy it again."
                    )
                    raise OSError(msg)
                part, position = part[count:], position + count
        self._check_version()
        if self.stored != self.dtype:
            out.byteswap(inplace=True)


_seeking = threading.Lock()


def _read_at(file: int, content: memoryview, position: int) -> int:
    """Fill as much of `content` as the file has, as `os.preadv`; return how many bytes."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [content], position)
    with _seeking:  # on Windows, seeking and reading are two calls
        os.lseek(file, position, os.SEEK_SET)
        found = os.read(file, min(len(content), BLOCK_BYTES))
    content[: len(found)] = found
    return len(found)
