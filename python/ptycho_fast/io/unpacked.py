"""Patterns that can't be read where they lie, and are unpacked once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ptycho_fast.frames import LOOK_BYTES, FileFrames, Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Packed(Protocol):
    """Patterns that can be read in order, but not one by one."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    frames_first: bool
    """Patterns come one after another, so that the first ones can be read without the others."""

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all patterns in order, some at a time."""

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache."""


class Unpacked(Frames):
    """Patterns that can't be read where they lie: unpacked when the first of them is wanted.

    What wants all of them in order, as `convert`, gets them straight from the file.

    Parameters
    ----------
    stack : Packed
        Where they are.
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
        """Read all patterns if they are few, else the first ones, if they can be had alone."""
        few = self.nbytes <= LOOK_BYTES
        if not (few or self.stack.frames_first):
            return
        for where, block in self.blocks():
            yield np.arange(where.start, where.stop), block
            if not few:
                return
