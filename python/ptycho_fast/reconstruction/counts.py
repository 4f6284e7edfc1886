"""The counts of a scan: read from its patterns, and split at random."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ptycho_fast.checks import as_threads
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

BLOCK_PIXELS = 2**20
"""Pixels of patterns that are read, or split, together. The split depends on it."""

IN_MEMORY = 160_000_000
"""Counts of up to this many bytes are kept in memory; others are computed block by block."""

LOOKED_AT = 16
"""Number of patterns that show whether the counts are whole numbers."""

WHOLE = 0.02
"""Counts whose mean distance from whole numbers is at most this are whole. Numbers that are
rounded to float32, or were squared after rounding, are not exactly so."""

BRIGHT = 10.0
"""Where no pixel has so many counts, squares that are not whole numbers can't be counts."""

PHOTONS = 1e6
"""A pattern is assumed to have so many photons where they were not counted."""

Block: TypeAlias = "tuple[slice, NDArray[np.float32], NDArray[np.bool_] | None]"
"""Which patterns, their counts, and which pixels were measured."""


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

    def blocks(self) -> Iterator[Block]:
        """Yield which patterns, their counts, and which of their pixels were measured."""
        yield slice(0, len(self)), self.values, self.good

    def kept(self) -> Counts:
        """Return the same counts in memory: these."""
        return self

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
class CountsOfScan:
    """The counts of some patterns of a scan, which are computed from its amplitudes block by block.

    Patterns that stay in their file are read anew for each iteration.

    Parameters
    ----------
    scan : Scan
    rows : ndarray, (n,), int
        Which patterns.
    gain : float
        By which squared amplitudes are divided.
    """

    scan: Scan
    rows: NDArray[np.integer[Any]]
    gain: float = 1.0

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[Block]:
        """Yield which patterns, their counts, and which of their pixels were measured."""
        size = max(1, BLOCK_PIXELS // self.scan.N**2)
        for first in range(0, len(self), size):
            some = slice(first, min(first + size, len(self)))
            read = self._read(self.rows[some])
            yield some, read.values, read.good

    def take(self, rows: NDArray[np.integer[Any]]) -> Counts | CountsOfScan:
        """Return the counts of some of the patterns, in memory if they are few.

        Parameters
        ----------
        rows : ndarray, (k,), int

        Returns
        -------
        Counts or CountsOfScan
        """
        some = CountsOfScan(self.scan, self.rows[rows], self.gain)
        return some.kept() if 4 * len(rows) * self.scan.N**2 <= IN_MEMORY else some

    def kept(self) -> Counts:
        """Return the same counts in memory."""
        return self._read(self.rows)

    def _read(self, rows: NDArray[np.integer[Any]]) -> Counts:
        patterns, good = self.scan.measured(rows)
        counts = np.square(patterns, dtype=np.float32)
        if self.gain != 1:
            counts /= np.float32(self.gain)
        if not np.isfinite(counts.sum(dtype=np.float64)):
            bad = rows[~np.isfinite(counts).all(axis=(1, 2))]
            msg = (
                f"Patterns must be finite: {len(bad)} of {len(rows)} patterns that were read "
                f"together contain NaN or infinity; the first is pattern {bad[0]}. Mark such "
                "pixels in the scan's mask or bad_pixels."
            )
            raise ValueError(msg)
        return Counts(counts, None if good is None else np.ascontiguousarray(good))


def spread(n: int, most: int) -> NDArray[np.intp]:
    """Return some of n patterns, spread evenly over the scan.

    Parameters
    ----------
    n : int
    most : int
        How many at most; at least one is returned.

    Returns
    -------
    ndarray, (k,), int
        In ascending order.

    Examples
    --------
    >>> from ptycho_fast.reconstruction.counts import spread
    >>> spread(9, 3)
    array([0, 4, 8])
    """
    return np.unique(np.linspace(0, n - 1, min(n, max(1, most))).astype(np.intp))


def counts_of(scan: Scan) -> tuple[Counts | CountsOfScan, tuple[str, ...]]:
    """Return the counts of a scan: the squares of its amplitudes.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    counts : Counts or CountsOfScan
        In memory if they take at most 160 MB there.
    notes : tuple of str
        What users should know of the counts.

    Raises
    ------
    ValueError
        If patterns are not finite, or all are 0.
    """
    n = len(scan)
    gain, notes = unit_of(scan)
    counts: Counts | CountsOfScan = CountsOfScan(scan, np.arange(n), gain)
    if 4 * n * scan.N**2 <= IN_MEMORY:
        counts = counts.kept()
        if not counts.values.any():
            msg = f"All {n} patterns are zero, so there is nothing to reconstruct."
            raise ValueError(msg)
    return counts, notes


def unit_of(scan: Scan) -> tuple[float, tuple[str, ...]]:
    """Return what one count is in the squared amplitudes of a scan, judged by some of them.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    unit : float
    notes : tuple of str
        What users should know of it.
    """
    looked = spread(len(scan), LOOKED_AT)
    sample = CountsOfScan(scan, looked).kept().values
    return _gain(sample[sample > 0].astype(np.float64), len(looked))


def _gain(values: NDArray[np.float64], patterns: int) -> tuple[float, tuple[str, ...]]:
    """Return what a count is in the squares of the amplitudes, and what is odd about it."""

    def off(unit: float) -> float:
        """Mean distance from whole numbers above 0; 1/4 for arbitrary ones."""
        return float(np.abs(values / unit - np.maximum(np.rint(values / unit), 1)).mean())

    if len(values) == 0 or off(1.0) <= WHOLE:
        return 1.0, ()
    # Amplitudes are often normalised. Then the smallest of them is that of one count.
    unit = float(values.min())
    if off(unit) <= WHOLE:
        note = f"The squared amplitudes are multiples of {unit:.4g}, which is taken as one count."
        logger.info(note)
        return unit, (note,)
    odd = f"on average, they are {off(1.0):.2f} away from one"
    if values.max() >= BRIGHT:
        note = (
            f"The squared amplitudes are not whole numbers ({odd}). They are used as counts of "
            "photons; if they are not, the image is too smooth or too rough."
        )
        logger.info(note)
        return 1.0, (note,)
    unit = float(values.sum()) / patterns / PHOTONS
    note = (
        f"The squared amplitudes are not counts of photons: they are not whole numbers ({odd}), "
        f"and the largest is {values.max():.4g}. How bright the patterns were can't be known, so "
        f"{PHOTONS:g} photons a pattern are assumed. If there were others, multiply the amplitudes "
        "such that their squares are counts."
    )
    warn(note)
    return unit, (note,)
