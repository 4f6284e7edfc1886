"""The counts of a scan: read from its patterns, and split at random."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

BLOCK_PIXELS = 2**20
"""Pixels of patterns that are read, or split, together. The split depends on it."""

WHOLE = 0.02
"""Counts whose distance from whole numbers is this on average (0.25 is random) are whole."""


@dataclass(frozen=True, eq=False)
class Counts:
    """The counts of some patterns, in memory.

    Parameters
    ----------
    values : ndarray, (n, N, N), float32
        Counts, 0 where a pixel was not measured.
    good : ndarray, (n, N, N) or (1, N, N), bool, optional
        True where a pixel was measured; None if all were.
    """

    values: NDArray[np.float32]
    good: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.bool_] | None]]:
        """Yield which patterns, their counts, and which of their pixels were measured."""
        yield slice(0, len(self)), self.values, self.good

    def take(self, rows: NDArray[np.integer[Any]]) -> Counts:
        """Return the counts of some of the patterns.

        Parameters
        ----------
        rows : ndarray, (k,), int

        Returns
        -------
        Counts
        """
        single = self.good is not None and len(self.good) > 1
        return Counts(self.values[rows], self.good[rows] if single else self.good)  # type: ignore[index]

    def split(self, share: float, key: tuple[int, int]) -> tuple[Counts, Counts]:
        """Split the counts in two at random.

        Each count is in the second part with probability `share`. Both parts have Poisson
        statistics and are independent of each other.

        Parameters
        ----------
        share : float
            0..1.
        key : (int, int)
            Key of NumPy's Philox generator. Block number b of the patterns (of about 2**20 pixels)
            starts at counter ``b << 64``.

        Returns
        -------
        Counts, Counts
        """
        first, second = np.empty_like(self.values), np.empty_like(self.values)
        size = max(1, BLOCK_PIXELS // self.values[0].size)

        def split(block: int) -> None:
            some = slice(block * size, (block + 1) * size)
            numbers = np.random.Philox(key=np.array(key, np.uint64), counter=[0, block, 0, 0])
            whole = np.rint(self.values[some]).astype(np.int64)
            second[some] = np.random.Generator(numbers).binomial(whole, share)
            # What is not whole stays in the first part.
            np.maximum(self.values[some] - second[some], 0, out=first[some])

        # NumPy's generators release the GIL.
        with ThreadPoolExecutor(as_threads(None) or 1) as pool:
            list(pool.map(split, range(-(-len(self) // size))))
        return Counts(first, self.good), Counts(second, self.good)


@dataclass(frozen=True, eq=False)
class CountsInFile:
    """The counts of a scan whose patterns stay where they are; they are read block by block.

    Parameters
    ----------
    scan : Scan
    gain : float
        Divides the squared amplitudes.
    """

    scan: Scan
    gain: float = 1.0

    def __len__(self) -> int:
        return len(self.scan)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.bool_] | None]]:
        """Yield which patterns, their counts, and which of their pixels were measured."""
        size = max(1, BLOCK_PIXELS // self.scan.N**2)
        for first in range(0, len(self), size):
            some = slice(first, min(first + size, len(self)))
            yield some, *_read(self.scan, np.arange(some.start, some.stop), self.gain)

    def take(self, rows: NDArray[np.integer[Any]]) -> Counts:
        """Read the counts of some patterns into memory.

        Parameters
        ----------
        rows : ndarray, (k,), int

        Returns
        -------
        Counts
        """
        return Counts(*_read(self.scan, rows, self.gain))


def _read(
    scan: Scan, rows: NDArray[np.integer[Any]], gain: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    patterns, good = scan.measured(rows)
    counts = np.square(patterns, dtype=np.float32)
    if gain != 1:
        counts /= np.float32(gain)
    if not np.isfinite(counts.sum(dtype=np.float64)):
        bad = rows[~np.isfinite(counts).all(axis=(1, 2))]
        msg = f"Patterns must be finite: pattern {bad[0]} contains NaN or infinity."
        raise ValueError(msg)
    return counts, None if good is None else np.ascontiguousarray(good)
