"""One look at the patterns of a scan: what is odd about them is found here, and said."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.amplitudes import Piece, PreparedFrames

SENTINELS = tuple(2**bits - 1 for bits in (16, 31, 32, 63, 64))
"""Largest values of integers, which mark bad pixels and survive in a wider dtype."""

LISTED = 5
"""A sentence names so many patterns."""


class Survey:
    """What patterns look like, gathered piece by piece.

    Parameters
    ----------
    frames : PreparedFrames, (n, N, N)
        The patterns.
    mask : ndarray, (N, N), bool, optional
        False for pixels that are known to be bad in every pattern.
    """

    def __init__(self, frames: PreparedFrames, mask: NDArray[np.bool_] | None) -> None:
        self.n = len(frames)
        self.stored: np.dtype[Any] = frames.source.dtype
        self.intensity = frames.intensity
        self.looked_at = 0
        self.highest = self.lowest = 0.0
        self.brightest = 0.0
        """The largest amplitude."""
        self.times_highest = 0
        """Of what is stored, how many pixels hold the highest."""
        self.whole = True
        """Only whole numbers are stored."""
        self._listed = frames.listed
        self.unwritten = frames.unwritten()
        """Patterns that the file holds no data of."""
        self._rows = frames.rows
        self._looked: list[NDArray[np.integer[Any]]] = []
        self._mask = np.ones(frames.shape[1:], np.bool_) if mask is None else mask
        self._votes = 0
        self._times_bad = np.zeros(frames.shape[1:], np.int64)
        self._light = np.zeros(frames.shape[1:])
        self._lists: list[BadPixels] = []
        self._dark: list[NDArray[np.integer[Any]]] = []

    def add(self, piece: Piece) -> None:
        """Take note of some patterns; they come in order."""
        k = len(piece.rows)
        self.looked_at += k
        self._note_range(piece.raw)
        self._looked.append(piece.rows if self._rows is None else self._rows[piece.rows])
        # Numbers of 8 bytes would take most of the time of reading, and pieces are small.
        patterns = piece.amplitudes.reshape(k, -1).astype(np.float32, copy=False)
        brightest = patterns.max(axis=1, initial=0)
        zero = brightest == 0
        self._dark.append(piece.rows[zero])
        # A frame that was never written, all zero, does not make a pixel good.
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
        """False for pixels that were bad wherever there was light, (N, N); None: there is none."""
        good = self._mask & (self._times_bad < max(1, self._votes))
        return None if good.all() else good

    @cached_property
    def bad(self) -> BadPixels | None:
        """Pixels that were bad in some of the patterns; None if there is none."""
        found = BadPixels.join(self._lists)
        found = found if self.mask is None else found.without(self.mask)
        return found if len(found.pixels) else None

    @property
    def found(self) -> int:
        """How many of `bad` were not listed before."""
        if self.bad is None:
            return 0
        if self._listed is None or not self._looked:
            return len(self.bad.pixels)
        starts = self._listed.starts
        return len(self.bad.pixels) - int(np.diff(starts)[np.concatenate(self._looked)].sum())

    @cached_property
    def dark(self) -> NDArray[np.int64]:
        """Patterns that hold nothing: all zero, without a good pixel, or never written."""
        return np.union1d(np.concatenate([np.zeros(0, np.int64), *self._dark]), self.unwritten)

    @cached_property
    def light(self) -> NDArray[np.float64]:
        """The mean of the counts over the patterns in which a pixel is good, (N, N)."""
        light: NDArray[np.float64] = self._light / np.maximum(1, self._votes - self._times_bad)
        return light

    @cached_property
    def centre(self) -> tuple[float, float] | None:
        """Row and column about which the light lies on the (periodic) detector; None: nowhere.

        The phase of the first Fourier coefficient, which is the centre of gravity on a circle.
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
        """Whether the light lies about the corner [0, 0]."""
        if self.centre is None:
            return False
        N = len(self.light)
        away = [abs((place - N // 2 + N / 2) % N - N / 2) for place in self.centre]
        return max(away) > 3 * N / 8

    @property
    def may_be_counts(self) -> bool:
        """Whether amplitudes are whole numbers, as counts are."""
        return not self.intensity and self.whole and self.highest >= 2

    @property
    def sentinel(self) -> int | None:
        """The largest value of a narrower integer dtype, if that is the highest that is stored."""
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
        """Return a sentence for each thing that a user should know.

        Parameters
        ----------
        told : bool
            Whether these are counts or amplitudes was said, by the caller or to the user.
        dropped : bool
            Dark patterns are left out.
        """
        of = f"{self.n} patterns"
        if not self.complete:
            of = f"{self.looked_at} patterns looked at (of {self.n})"
        said = []
        if self.never_measured:
            said.append(
                f"{self.never_measured} of {self._mask.size} pixels hold no measurement in any of "
                f"{of} ({self._reasons()}): they are False in Scan.mask."
            )
        if self.bad is not None and self.found > 0:
            some = np.count_nonzero(np.diff(self.bad.starts))
            said.append(
                f"In {some} of {of}, single pixels hold no measurement ({self._reasons()}), "
                f"{len(self.bad.pixels)} in all: they weigh nothing there."
            )
        # Of those never written the format's module tells.
        dark = np.setdiff1d(self.dark, self.unwritten)
        if len(dark) and not dropped:
            more = ", ..." if len(dark) > LISTED else ""
            said.append(
                f"{len(dark)} of {of} hold nothing (all zero, or no good pixel): "
                f"{', '.join(map(str, dark[:LISTED]))}{more}. To leave them out, pass "
                "drop_dark=True (--drop-dark)."
            )
        if self.in_the_corner:
            assert self.centre is not None
            N = len(self.light)
            said.append(
                f"The light of the mean pattern lies about row {self.centre[0]:.1f}, column "
                f"{self.centre[1]:.1f} of {N} x {N}, but zero frequency should be at "
                f"[{N // 2}, {N // 2}]. If it is in the corner, pass fftshift=True (--fftshift)."
            )
        if self.sentinel is not None:
            said.append(
                f"The highest value, {self.highest:.10g} in {self.times_highest} pixels of {of}, "
                f"is what marks bad pixels in integers of {self.sentinel.bit_length()} bits. "
                f"If it does so here, pass bad_value={self.highest:.17g} (--bad-value)."
            )
        if self.lowest < 0:
            said.append(
                f"The lowest amplitude is {self.lowest:g}, and a modulus is never negative. If "
                f"that marks bad pixels, pass bad_value={self.lowest:.17g} (--bad-value)."
            )
        if self.may_be_counts and not told:
            said.append(
                f"The patterns are read as amplitudes, but are whole numbers ({self.stored}, up to "
                f"{self.highest:.10g}), as counts are. Pass counts=True (--counts) if they are, or "
                "counts=False (--amplitude) if not."
            )
        return said

    @property
    def never_measured(self) -> int:
        """How many pixels were found bad in every pattern, beyond those that the mask names."""
        return 0 if self.mask is None else int(np.count_nonzero(self._mask & ~self.mask))

    def _reasons(self) -> str:
        if self.stored.kind == "f":
            return "not finite, or marked"
        largest = np.iinfo(self.stored).max if self.stored.kind in "iu" else True
        return f"{largest}, negative, or marked"
