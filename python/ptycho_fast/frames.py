"""Patterns that stay in their file until they are wanted."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK_BYTES = 2**24
"""Passes over all patterns take this much at a time."""


class Frames(ABC):
    """A stack of patterns ``(n, N, N)`` that is read by row, not held.

    It looks like an array where that costs nothing (`shape`, `dtype`, `len`); indexing it reads,
    and ``numpy.asarray`` reads all of it. Threads and forked children may share one.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``.

        Parameters
        ----------
        rows : ndarray, (m,), int
            Patterns, in ``0..n-1``. Ascending rows are read fastest.
        out : ndarray, (m, N, N), C-contiguous, of `dtype`
            What is filled.

        Raises
        ------
        OSError
            If the file was cut short or can't be read.
        """

    @property
    def ndim(self) -> int:
        """3."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What the stack would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Read patterns: by number, slice, or array of numbers or bools."""
        chosen = np.arange(len(self))[rows]
        out = np.empty((chosen.size, *self.shape[1:]), self.dtype)
        self.read(chosen.ravel(), out)
        return out.reshape(*chosen.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            msg = "Patterns in a file can't be an array without reading them."
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


class FileFrames(Frames):
    """Patterns that lie one after another in a file, read by position.

    Not a memory map: a file that is cut short under a map kills the process; here it is an
    OSError.

    Parameters
    ----------
    path : path
        The file.
    offset : int
        Byte at which the first pattern begins.
    shape : tuple of int, (n, N, N)
        What lies there, in C order.
    dtype : dtype
        As which numbers, in either byte order.

    Raises
    ------
    OSError
        If the file is missing or shorter than that.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
    ) -> None:
        self.path = os.path.abspath(path)
        self.offset = offset
        self.shape = shape
        self.stored = np.dtype(dtype)
        self.dtype = self.stored.newbyteorder("=")
        self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        needed, found = offset + self.nbytes, os.fstat(self._file).st_size
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
        return FileFrames, (self.path, self.offset, self.shape, self.stored)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``; one system call for each run of rows."""
        size = self.nbytes // max(1, len(self))
        rows = np.asarray(rows)
        content = out.reshape(-1).view(np.uint8).data
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for first, last in zip(starts, [*starts[1:], len(rows)], strict=True):
            part = content[first * size : last * size]
            position = self.offset + int(rows[first]) * size
            while part:
                count = os.preadv(self._file, [part], position)
                if count == 0:
                    msg = (
                        f"{self.path} was cut short while it was read: pattern {rows[first]} "
                        f"of {len(self)} should go on at byte {position}. Copy it again."
                    )
                    raise OSError(msg)
                part, position = part[count:], position + count
        if self.stored != self.dtype:
            out.byteswap(inplace=True)
