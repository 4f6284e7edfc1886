"""Pixels that were not measured in some of the patterns of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class BadPixels:
    """A list of bad pixels for each pattern of a scan.

    Pixels that are bad in every pattern belong in `Scan.mask` instead. The lists take 8 bytes for
    each pattern and 4 for each bad pixel.

    Parameters
    ----------
    starts : ndarray, (n + 1,), int64
        The bad pixels of pattern i are ``pixels[starts[i] : starts[i + 1]]``.
    pixels : ndarray, (m,), int32
        The place of each bad pixel in its pattern, ``row * N + column``.

    Raises
    ------
    ValueError
        If `starts` does not rise from 0 to m, or a pixel number is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.bad_pixels import BadPixels
    >>> bad = np.zeros((3, 4, 4), bool)
    >>> bad[1, 2, 3] = True
    >>> found = BadPixels.of(bad)
    >>> len(found), found.pixels
    (3, array([11], dtype=int32))
    >>> bool((found.good(np.array([1, 0]), 4) == ~bad[[1, 0]]).all())
    True
    """

    starts: NDArray[np.int64]
    pixels: NDArray[np.int32]

    def __post_init__(self) -> None:
        starts = np.ascontiguousarray(self.starts, np.int64)
        pixels = np.ascontiguousarray(self.pixels, np.int32)
        whole = starts.ndim == pixels.ndim == 1 and len(starts) > 0
        if not whole or starts[0] != 0 or starts[-1] != len(pixels) or (np.diff(starts) < 0).any():
            msg = (
                "starts of bad pixels must rise from 0 to the number of bad pixels, got "
                f"{self.starts!r} for {np.shape(self.pixels)} pixels."
            )
            raise ValueError(msg)
        if len(pixels) and pixels.min() < 0:
            msg = f"Bad pixels are numbered from 0, got {pixels.min()}."
            raise ValueError(msg)
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "pixels", pixels)

    @classmethod
    def of(cls, bad: NDArray[np.bool_]) -> BadPixels:
        """List the pixels that are True in a stack of bools.

        Parameters
        ----------
        bad : ndarray, (n, N, N), bool
            True for bad pixels.

        Returns
        -------
        BadPixels
        """
        flat = bad.reshape(len(bad), math.prod(bad.shape[1:]))
        counts = np.count_nonzero(flat, axis=1)
        pixels = np.nonzero(flat)[1].astype(np.int32)
        return cls(np.concatenate([[0], np.cumsum(counts)]), pixels)

    @classmethod
    def join(cls, lists: Iterable[BadPixels]) -> BadPixels:
        """Join lists of consecutive patterns to one for all of them."""
        lists = list(lists)
        counts = [np.diff(some.starts) for some in lists]
        pixels = [some.pixels for some in lists]
        return cls(
            np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]),
            np.concatenate([np.zeros(0, np.int32), *pixels]),
        )

    def __len__(self) -> int:
        """Return the number of patterns."""
        return len(self.starts) - 1

    def __repr__(self) -> str:
        some = np.count_nonzero(np.diff(self.starts))
        return f"BadPixels({len(self.pixels)} in {some} of {len(self)} patterns)"

    def good(
        self, rows: NDArray[np.integer[Any]], side: int | tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Return which pixels of some patterns were measured.

        Parameters
        ----------
        rows : ndarray, (k,), int
            Which patterns.
        side : int or (int, int)
            Pixels per side of a pattern, or its rows and columns (H, W).

        Returns
        -------
        ndarray, (k, H, W), bool
            True for measured pixels.
        """
        height, width = side if isinstance(side, tuple) else (side, side)
        good = np.ones((len(rows), height * width), np.bool_)
        pattern, pixels = self._of_rows(rows)
        good[pattern, pixels] = False
        return good.reshape(len(rows), height, width)

    def take(self, rows: NDArray[np.integer[Any]]) -> BadPixels:
        """Return the lists of some patterns, in the order of `rows`."""
        counts = np.diff(self.starts)[rows]
        return BadPixels(np.concatenate([[0], np.cumsum(counts)]), self._of_rows(rows)[1])

    def union(self, other: BadPixels) -> BadPixels:
        """Return the lists of pixels that are in these or in those of the same patterns."""
        size = 1 + max(some.pixels.max(initial=0) for some in (self, other))
        places = [
            np.repeat(np.arange(len(some)), np.diff(some.starts)) * size + some.pixels
            for some in (self, other)
        ]
        pattern, pixels = np.divmod(np.unique(np.concatenate(places)), size)
        return BadPixels(np.searchsorted(pattern, np.arange(len(self) + 1)), pixels)

    def without(self, mask: NDArray[np.bool_]) -> BadPixels:
        """Return the lists without pixels that are False in a mask (N, N) anyway."""
        kept = mask.reshape(-1)[self.pixels]
        before = np.concatenate([[0], np.cumsum(kept)])
        return BadPixels(before[self.starts], self.pixels[kept])

    def within(self, side: int, rows: slice, columns: slice, bin: int) -> BadPixels:  # noqa: A002
        """Return the lists for a part of each pattern; one bad pixel makes its bin bad.

        Parameters
        ----------
        side : int
            Pixels per side of a pattern.
        rows, columns, bin
            As of `ptycho_fast.frames.Window`.
        """
        N = (rows.stop - rows.start) // bin
        row, column = np.divmod(self.pixels.astype(np.int64), side)
        row, column = (row - rows.start) // bin, (column - columns.start) // bin
        kept = (row >= 0) & (row < N) & (column >= 0) & (column < N)
        pattern = np.repeat(np.arange(len(self)), np.diff(self.starts))
        # Several bad pixels of a bin make one bad bin.
        place = np.unique(((pattern * N + row) * N + column)[kept])
        pattern, pixels = np.divmod(place, N * N)
        return BadPixels(np.searchsorted(pattern, np.arange(len(self) + 1)), pixels)

    def shifted(self, height: int, width: int) -> BadPixels:
        """Return the lists for patterns (height, width) shifted by `numpy.fft.fftshift`."""
        row, column = np.divmod(self.pixels, width)
        row, column = (row + height // 2) % height, (column + width // 2) % width
        return BadPixels(self.starts, row * np.int32(width) + column)

    def _of_rows(
        self, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return, for each bad pixel of some patterns, its index in `rows` and its pixel number."""
        counts = np.diff(self.starts)[rows]
        pattern = np.repeat(np.arange(len(rows)), counts)
        first = np.repeat(self.starts[rows] - (np.cumsum(counts) - counts), counts)
        return pattern, self.pixels[first + np.arange(len(pattern))]
