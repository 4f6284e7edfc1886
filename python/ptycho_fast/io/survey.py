"""What the patterns of a scan look like: bad pixels, empty patterns, and signs of wrong options."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.amplitudes import Piece, PreparedFrames

SENTINELS = tuple(2**bits - 1 for bits in (16, 31, 32, 63, 64))
"""The largest integers of common dtypes, which mark bad pixels also in a wider dtype."""

LISTED = 5
"""How many patterns a message lists."""


class Survey:
    """What patterns look like, gathered piece by piece as they are read.

    Parameters
    ----------
    frames : PreparedFrames, (n, N, N)
        The patterns.
    mask : ndarray, (N, N), bool, optional
        False for pixels that are known to be bad in every pattern.

    Attributes
    ----------
    n, looked_at : int
        How many patterns there are, and how many of them were looked at.
    highest, lowest : float
        The largest value that is stored, or 0, and the lowest, or 0.
    brightest : float
        The largest amplitude.
    unwritten : ndarray, int
        Patterns of which the file holds no data.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.io import examine
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.npz"
    >>> pf.write_scan(pf.simulate_scan(n_positions=9, N=16, seed=0), path)
    >>> survey = examine(path)[1]
    >>> survey.complete, survey.mask, survey.bad, survey.oddities(told=True)
    (True, None, None, [])
    """

    def __init__(self, frames: PreparedFrames, mask: NDArray[np.bool_] | None) -> None:
        self.n = len(frames)
        self.stored: np.dtype[Any] = frames.source.dtype
        self.intensity = frames.intensity
        self.looked_at = 0
        self.highest = self.lowest = 0.0
        self.brightest = 0.0
        self.times_highest = 0
        """How many pixels hold the highest value."""
        self.whole = True
        """Whether all values are whole numbers."""
        self._listed = frames.listed
        self.unwritten = frames.unwritten()
        self._rows = frames.rows
        self._looked: list[NDArray[np.integer[Any]]] = []
        self._mask = np.ones(frames.shape[1:], np.bool_) if mask is None else mask
        self._votes = 0
        self._times_bad = np.zeros(frames.shape[1:], np.int64)
        self._light = np.zeros(frames.shape[1:])
        self._lists: list[BadPixels] = []
        self._dark: list[NDArray[np.integer[Any]]] = []

    def add(self, piece: Piece) -> None:
        """Add some patterns, which must come in order."""
        k = len(piece.rows)
        self.looked_at += k
        self._note_range(piece.raw)
        self._looked.append(piece.rows if self._rows is None else self._rows[piece.rows])
        # float64 would take most of the time of reading; float32 suffices, as pieces are small.
        patterns = piece.amplitudes.reshape(k, -1).astype(np.float32, copy=False)
        brightest = patterns.max(axis=1, initial=0)
        zero = brightest == 0
        self._dark.append(piece.rows[zero])
        # An empty frame, which may never have been written, is no sign that a pixel is good.
        votes = ~zero if piece.bad is None else ~zero | piece.bad.all(axis=(1, 2))
        self._votes += int(np.count_nonzero(votes))
        self.brightest = max(self.brightest, float(brightest.max(initial=0)))
        self._light += np.einsum("ij,ij->j", patterns, patterns).reshape(self._light.shape)
        if piece.bad is None:
            self._lists.append(BadPixels(np.zeros(k + 1, np.int64), np.zeros(0, np.int32)))
        else:
            self._times_bad += np.count_nonzero(piece.bad[votes], axis=0)
            self._lists.append(BadPixels.of(piece.bad & self._mask))

    def _note_range(self, raw: NDArray[Any]) -> None:
        if not raw.size:
            return
        highest = float(raw.max())
        if highest >= self.highest:
            times = int(np.count_nonzero(raw == raw.max()))
            self.times_highest = times + (self.times_highest if highest == self.highest else 0)
            self.highest = highest
        self.lowest = min(self.lowest, float(raw.min()))
        if self.whole and raw.dtype.kind == "f":
            self.whole = bool((raw == np.rint(raw)).all())

    @property
    def complete(self) -> bool:
        """Whether every pattern was looked at."""
        return self.looked_at == self.n

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """(N, N), False for pixels that are bad in every pattern with light; None if none is."""
        good = self._mask & (self._times_bad < max(1, self._votes))
        return None if good.all() else good

    @cached_property
    def bad(self) -> BadPixels | None:
        """Pixels that are bad in some of the patterns only; None if there are none."""
        found = BadPixels.join(self._lists)
        found = found if self.mask is None else found.without(self.mask)
        return found if len(found.pixels) else None

    @property
    def found(self) -> int:
        """How many entries of `bad` the file does not list itself."""
        if self.bad is None:
            return 0
        if self._listed is None or not self._looked:
            return len(self.bad.pixels)
        starts = self._listed.starts
        return len(self.bad.pixels) - int(np.diff(starts)[np.concatenate(self._looked)].sum())

    @cached_property
    def dark(self) -> NDArray[np.int64]:
        """Empty patterns: all zero, without a good pixel, or never written."""
        return np.union1d(np.concatenate([np.zeros(0, np.int64), *self._dark]), self.unwritten)

    @cached_property
    def light(self) -> NDArray[np.float64]:
        """(N, N), the mean counts of each pixel over the patterns in which it is good."""
        light: NDArray[np.float64] = self._light / np.maximum(1, self._votes - self._times_bad)
        return light

    @cached_property
    def centre(self) -> tuple[float, float] | None:
        """Row and column of the centre of the light; None if it is spread evenly.

        The detector is taken to be periodic: the phase of the first Fourier coefficient is the
        centre of mass on a circle.
        """
        N = len(self.light)
        circle = np.exp(2j * np.pi * np.arange(N) / N)
        moments = [circle @ self.light.sum(axis=1 - axis) for axis in (0, 1)]
        total = float(self.light.sum())
        if total == 0 or min(abs(moment) for moment in moments) < 0.05 * total:
            return None
        row, column = (float(np.angle(moment) / (2 * np.pi) * N % N) for moment in moments)
        return row, column

    @property
    def in_the_corner(self) -> bool:
        """Whether the light is centred on the corner [0, 0]."""
        if self.centre is None:
            return False
        N = len(self.light)
        away = [abs((place - N // 2 + N / 2) % N - N / 2) for place in self.centre]
        return max(away) > 3 * N / 8

    @property
    def may_be_counts(self) -> bool:
        """Whether what is read as amplitudes are whole numbers, as counts are."""
        return not self.intensity and self.whole and self.highest >= 2

    @property
    def sentinel(self) -> int | None:
        """The highest value that is stored, if it is the largest integer of another dtype."""
        own = np.iinfo(self.stored).max if self.stored.kind in "iu" else None
        for value in SENTINELS:
            if value == own:
                continue
            stored = {float(value), float(np.float32(value))}
            rooted = not self.intensity and abs(self.highest**2 - value) <= 3e-7 * value
            if self.highest in stored or rooted:
                return value
        return None

    def oddities(self, *, told: bool, dropped: bool = False) -> list[str]:
        """Return a sentence for each thing about the patterns that a user should know.

        Parameters
        ----------
        told : bool
            It is settled, or said elsewhere, whether the patterns are counts or amplitudes.
        dropped : bool
            Empty patterns are left out, so they need not be mentioned.
        """
        of = f"{self.n} patterns"
        if not self.complete:
            of = f"{self.looked_at} patterns looked at (of {self.n})"
        said = []
        if self.never_measured:
            said.append(
                f"{self.never_measured} of {self._mask.size} pixels were not measured in any of "
                f"{of} ({self._reasons()}): they are False in Scan.mask."
            )
        if self.bad is not None and self.found > 0:
            some = np.count_nonzero(np.diff(self.bad.starts))
            said.append(
                f"In {some} of {of}, some pixels were not measured ({self._reasons()}), "
                f"{len(self.bad.pixels)} in all: they have no weight in these patterns."
            )
        # The container has warned of those that were never written.
        dark = np.setdiff1d(self.dark, self.unwritten)
        if len(dark) and not dropped:
            more = ", ..." if len(dark) > LISTED else ""
            said.append(
                f"{len(dark)} of {of} are empty (all zero, or without a good pixel): "
                f"{', '.join(map(str, dark[:LISTED]))}{more}. To leave them out, pass "
                "drop_dark=True (--drop-dark)."
            )
        if self.in_the_corner:
            assert self.centre is not None
            N = len(self.light)
            said.append(
                f"The mean pattern is centred on row {self.centre[0]:.1f}, column "
                f"{self.centre[1]:.1f} of {N} x {N}, but zero frequency should be at "
                f"[{N // 2}, {N // 2}]. If it is in the corner, pass fftshift=True (--fftshift)."
            )
        if self.sentinel is not None:
            said.append(
                f"The highest value, {self.highest:.10g} in {self.times_highest} pixels of {of}, "
                f"marks bad pixels in integers of {self.sentinel.bit_length()} bits. "
                f"If it does so here, pass bad_value={self.highest:.17g} (--bad-value)."
            )
        if self.lowest < 0:
            said.append(
                f"The lowest amplitude is {self.lowest:g}, but amplitudes cannot be negative. If "
                f"this value marks bad pixels, pass bad_value={self.lowest:.17g} (--bad-value)."
            )
        if self.may_be_counts and not told:
            said.append(
                f"The patterns are read as amplitudes, but all of them are whole numbers "
                f"({self.stored}, up to {self.highest:.10g}), as counts are. Pass counts=True "
                "(--counts) if they are counts, or counts=False (--amplitude) if not."
            )
        return said

    @property
    def never_measured(self) -> int:
        """How many pixels were found bad in every pattern that the mask does not name."""
        return 0 if self.mask is None else int(np.count_nonzero(self._mask & ~self.mask))

    def _reasons(self) -> str:
        if self.stored.kind == "f":
            return "not finite, or marked"
        largest = np.iinfo(self.stored).max if self.stored.kind in "iu" else True
        return f"{largest}, negative, or marked"
