"""The first patterns of a stack, where `first=N` leaves out the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_fast.frames import FileFrames, Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


class LeadingFrames(Frames):
    """The first n patterns of a stack.

    Parameters
    ----------
    source : Frames, (m, H, W)
        The whole stack.
    n : int
        How many of its patterns are used.
    """

    def __init__(self, source: Frames, n: int) -> None:
        self.source = source
        self.shape = (n, *source.shape[1:])
        self.dtype = source.dtype

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self.source.read(rows, out)

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of the source."""
        missing = self.source.unwritten()
        return missing[missing < len(self)]

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns in order, some at a time."""
        for where, block in self.source.blocks():
            if where.start >= len(self):
                return
            last = min(where.stop, len(self))
            yield slice(where.start, last), block[: last - where.start]


def leading(patterns: Any, n: int) -> Any:
    """Return the first n patterns of an array, or of `Frames`, which stay in their file."""
    if n == len(patterns):
        return patterns
    if isinstance(patterns, FileFrames):
        shape = (n, *patterns.shape[1:])
        return FileFrames(patterns.path, patterns.offset, shape, patterns.stored)
    return LeadingFrames(patterns, n) if isinstance(patterns, Frames) else patterns[:n]
