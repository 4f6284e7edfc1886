"""Patterns on their way into a file, which are looked at as they pass."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io.survey import Survey
from ptycho_fast.patterns import pattern_energies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.io.amplitudes import PreparedFrames


class Passing(Frames):
    """Patterns on their way into a file: how far they are, and what is found about them.

    Parameters
    ----------
    source : PreparedFrames
        The patterns.
    mask : ndarray, (N, N), bool, optional
        False for pixels that do not count.
    progress : callable, optional
        Called with shares of the work, which sum to 1.

    Attributes
    ----------
    energies : ndarray, (n,), float64
        The energies of the patterns that have passed; NaN for the others.
    survey : Survey
        What the patterns that have passed look like.
    """

    def __init__(
        self,
        source: PreparedFrames,
        mask: NDArray[np.bool_] | None,
        progress: Callable[[float], object] | None = None,
    ) -> None:
        self.source, self.mask, self.progress = source, mask, progress
        self.shape, self.dtype = source.shape, source.dtype
        self.energies = np.full(len(source), np.nan)
        self.survey = Survey(source, mask)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self.source.read(rows, out)

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns, some at a time; the next ones are read while these are written."""
        source = self.source.pieces()

        def read_next() -> NDArray[Any] | None:
            piece = next(source, None)
            if piece is None:
                return None
            self.energies[piece.rows] = pattern_energies(piece.amplitudes, mask=self.mask)
            self.survey.add(piece)
            return piece.amplitudes

        first = 0
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read_next)
            while (patterns := coming.result()) is not None:
                coming = reader.submit(read_next)
                yield slice(first, first + len(patterns)), patterns
                first += len(patterns)
                if self.progress is not None:
                    self.progress(len(patterns) / len(self))
