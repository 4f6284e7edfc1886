"""Patterns that must be unpacked before one of them can be read on its own."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ptycho_fast.frames import LOOK_BYTES, FileFrames, Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Packed(Protocol):
    """Patterns that can be read in order, but not each on its own."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    frames_first: bool
    """Whether patterns lie one after another, so that the first can be read without the rest."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all patterns in order, some at a time."""

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache, where they lie one after another."""


class Unpacked(Frames):
    """Patterns that are unpacked into the cache when the first of them is read on its own.

    Reading all of them in order, as `ptycho_fast.io.convert` does, needs no cache.

    Parameters
    ----------
    stack : Packed
        The patterns as they are stored.
    """

    def __init__(self, stack: Packed) -> None:
        self.stack = stack
        self.shape, self.dtype = stack.shape, stack.dtype

    @cached_property
    def _unpacked(self) -> FileFrames:
        return self.stack.unpack()

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self._unpacked.read(rows, out)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns in order, some at a time."""
        first = 0
        for block in self.stack.blocks():
            yield slice(first, first + len(block)), np.ascontiguousarray(block, self.dtype)
            first += len(block)

    def look(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read all patterns if they are few; else the first ones, if that needs no unpacking."""
        few = self.nbytes <= LOOK_BYTES
        if not (few or self.stack.frames_first):
            return
        for where, block in self.blocks():
            yield np.arange(where.start, where.stop), block
            if not few:
                return
