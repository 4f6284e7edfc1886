"""Frames of a detector become amplitudes, and bad pixels are found, as they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from ptycho_fast.bad_pixels import BadPixels
    from ptycho_fast.frames import Window

PIECE_BYTES = 2**20
"""Bytes of frames that become amplitudes at a time, which stay in the processor's cache."""


def find_bad(raw: NDArray[Any], bad_value: float | None = None) -> NDArray[np.bool_] | None:
    """Return which pixels were not measured; None if all were.

    Parameters
    ----------
    raw : ndarray, real
        Pixels as they are stored. An integer is bad if it is the largest of its dtype (saturated,
        or a gap between modules) or negative (a flag), a float if it is not finite.
    bad_value : float, optional
        Another value that marks bad pixels.

    Returns
    -------
    ndarray, bool, or None
        True for bad pixels; of the shape of `raw`.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.amplitudes import find_bad
    >>> find_bad(np.array([0, 7, 65535], np.uint16), bad_value=7)
    array([False,  True,  True])
    """
    bad = None
    if raw.dtype.kind in "iu" and raw.size:
        largest = np.iinfo(raw.dtype).max
        if raw.max() == largest or (raw.dtype.kind == "i" and raw.min() < 0):
            bad = (raw == largest) | (raw < 0)
    elif raw.dtype.kind == "f":
        finite = np.isfinite(raw)
        bad = None if finite.all() else ~finite
    if bad_value is not None:
        named = raw == raw.dtype.type(bad_value) if _holds(raw.dtype, bad_value) else False
        bad = named if bad is None else bad | named
    return bad if bad is not None and bad.any() else None


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Tell whether an array of this dtype can hold a value."""
    if dtype.kind == "f":
        return True
    return (
        dtype.kind in "iu"
        and value == int(value)
        and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    )


class Piece(NamedTuple):
    """Some patterns, as `PreparedFrames.pieces` reads them."""

    rows: NDArray[np.integer[Any]]
    """(k,), the index of each in the scan."""
    raw: NDArray[Any]
    """What is stored in the part of the detector that is kept, 0 where it is bad."""
    amplitudes: NDArray[Any]
    """(k, N, N)."""
    bad: NDArray[np.bool_] | None
    """(k, N, N), True where an amplitude is 0 because it was not measured; None if none is."""


class Shifted(Frames):
    """Frames whose zero frequency is moved from the corner, [0, 0], to the middle.

    Parameters
    ----------
    source : Frames, (n, H, W)
        The frames as they are stored.
    """

    def __init__(self, source: Frames) -> None:
        self.source = source
        self.shape, self.dtype = source.shape, source.dtype

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with frame ``rows[i]``."""
        self.source.read(rows, out)
        out[...] = np.fft.fftshift(out, axes=(1, 2))

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of the source."""
        return self.source.unwritten()

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all frames in the way that suits the source."""
        for rows, block in self.source.blocks():
            yield rows, np.fft.fftshift(block, axes=(1, 2))

    def look(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read some frames in the way that suits the source."""
        for rows, block in self.source.look():
            yield rows, np.fft.fftshift(block, axes=(1, 2))


class PreparedFrames(Frames):
    """Frames of a detector that become amplitudes as they are read.

    Pixels that were not measured have amplitude 0, and `read_good` tells them from dark ones. Bad
    are those that `mask` or `listed` name, and those that `find_bad` finds. With `bin`, the counts
    of the pixels of a bin are summed, and one bad pixel makes its bin bad.

    Parameters
    ----------
    source : Frames, (m, H, W), real
        What the detector recorded.
    window : Window
        What is kept of each frame.
    intensity : bool
        Whether the frames are counts, whose square roots are the amplitudes.
    rows : ndarray, (n,), int, optional
        Which frames, in which order; all by default.
    mask : ndarray, (H, W), bool, optional
        False for pixels that are bad in every frame.
    listed : BadPixels, optional
        Bad pixels of each of the m frames that the file lists.
    bad_value : float, optional
        As of `find_bad`.
    dtype : dtype
        Of the amplitudes. Any but float32 requires a source of that dtype, no roots and no bins.
    """

    def __init__(
        self,
        source: Frames,
        window: Window,
        *,
        intensity: bool,
        rows: NDArray[np.integer[Any]] | None = None,
        mask: NDArray[np.bool_] | None = None,
        listed: BadPixels | None = None,
        bad_value: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.source = source
        self.window = window
        self.intensity = intensity
        self.rows = rows
        self.mask = mask
        self.listed = listed
        self.bad_value = bad_value
        self.shape = (len(source) if rows is None else len(rows), window.N, window.N)
        self.dtype = np.dtype(dtype)
        self._masked = None if mask is None else ~mask[window.rows, window.columns]
        # Nothing is cut out or computed, so frames are read straight into the output.
        self._as_stored = (
            not intensity and source.dtype == self.dtype and self.shape[1:] == source.shape[1:]
        )

    def unchanged(self) -> Frames | None:
        """Return the source, if reading it gives the same patterns but for bad pixels."""
        plain = self._as_stored and self.mask is None and self.rows is None
        return self.source if plain else None

    may_be_bad = True

    def take(self, rows: NDArray[np.integer[Any]]) -> PreparedFrames:
        """Return some of the frames, which stay in their file."""
        return self._like(self.window, rows if self.rows is None else self.rows[rows], self.dtype)

    def within(self, part: Window) -> PreparedFrames:
        """Return a part of each pattern, or its bins; counts are summed as the file has them."""
        dtype = self.dtype if part.bin == 1 else np.float32
        return self._like(self.window.within(part), self.rows, dtype)

    def _like(
        self, window: Window, rows: NDArray[np.integer[Any]] | None, dtype: DTypeLike
    ) -> PreparedFrames:
        made = PreparedFrames(
            self.source,
            window,
            intensity=self.intensity,
            rows=rows,
            mask=self.mask,
            listed=self.listed,
            bad_value=self.bad_value,
            dtype=dtype,
        )
        made.may_be_bad = self.may_be_bad
        return made

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with the amplitudes of pattern ``rows[i]``."""
        self.read_good(rows, out)

    def read_good(
        self, rows: NDArray[np.integer[Any]], out: NDArray[Any]
    ) -> NDArray[np.bool_] | None:
        """Fill ``out[i]`` with the amplitudes of pattern ``rows[i]``; return what was measured."""
        frames = rows if self.rows is None else self.rows[rows]
        size = max(1, self.source.nbytes // max(1, len(self.source)))
        each = max(1, min(PIECE_BYTES // size, len(rows)))
        buffer = None
        if not self._as_stored:
            buffer = np.empty((each, *self.source.shape[1:]), self.source.dtype)
        good: NDArray[np.bool_] | None = None
        for first in range(0, len(rows), each):
            some = frames[first : first + each]
            target = out[first : first + len(some)]
            raw = target if buffer is None else buffer[: len(some)]
            self.source.read(some, raw)
            bad = self._prepare(raw, some, target)[1]
            if bad is not None:
                if good is None:
                    good = np.ones(out.shape, np.bool_)
                np.logical_not(bad, out=good[first : first + len(some)])
        return good

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of the source."""
        missing = self.source.unwritten()
        return missing if self.rows is None else np.flatnonzero(np.isin(self.rows, missing))

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns, some at a time, in the way that suits the source."""
        for piece in self.pieces():
            first = int(piece.rows[0])
            yield slice(first, first + len(piece.rows)), piece.amplitudes

    def pieces(
        self, *, everything: bool = True, out: NDArray[Any] | None = None
    ) -> Iterator[Piece]:
        """Read all patterns in order, with what is stored of them and which pixels are bad.

        Parameters
        ----------
        everything : bool
            False reads only some patterns that show what the others are like (`Frames.look`).
        out : ndarray, (n, N, N), of the dtype of the patterns, optional
            Filled with the amplitudes, of which each piece then is a part.
        """
        if self.rows is not None:
            read = self._chosen(np.arange(len(self)) if everything else self.spread())
        elif everything:
            read = (
                (np.arange(where.start, where.stop), block) for where, block in self.source.blocks()
            )
        else:
            read = self.source.look()
        for rows, block in read:
            yield from self._pieces(rows, block, out)

    def _chosen(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        assert self.rows is not None
        size = max(1, self.source.nbytes // max(1, len(self.source)))
        each = max(1, PIECE_BYTES // size)
        for first in range(0, len(rows), each):
            some = rows[first : first + each]
            raw = np.empty((len(some), *self.source.shape[1:]), self.source.dtype)
            self.source.read(self.rows[some], raw)
            yield some, raw

    def _pieces(
        self, rows: NDArray[np.int64], block: NDArray[Any], whole: NDArray[Any] | None
    ) -> Iterator[Piece]:
        each = max(1, PIECE_BYTES // max(1, self.nbytes // max(1, len(self))))
        for first in range(0, len(rows), each):
            some = rows[first : first + each]
            frames = some if self.rows is None else self.rows[some]
            if whole is None:
                out = np.empty((len(some), *self.shape[1:]), self.dtype)
            else:  # all are read, in order
                out = whole[some[0] : some[-1] + 1]
            kept, bad = self._prepare(block[first : first + each], frames, out)
            yield Piece(some, kept, out, bad)

    def _prepare(
        self, raw: NDArray[Any], frames: NDArray[np.integer[Any]], out: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Fill `out` with amplitudes, overwriting the frames; return what is kept and bad."""
        window = self.window
        kept = raw[:, window.rows, window.columns]
        bad: Any = find_bad(kept, self.bad_value)
        if self.listed is not None:
            unlisted = self.listed.good(frames, raw.shape[1:])[:, window.rows, window.columns]
            bad = ~unlisted if bad is None else bad | ~unlisted
        if self._masked is not None:
            bad = np.repeat(self._masked[None], len(raw), 0) if bad is None else bad | self._masked
        if bad is not None:
            np.copyto(kept, 0, where=bad)
        if self.intensity and kept.dtype.kind == "f":
            lowest = kept.min(axis=(1, 2), initial=0)
            if (lowest < 0).any():
                first = int(np.argmax(lowest < 0))
                msg = (
                    f"Intensities can't be negative; the lowest is {lowest[first]:g} (pattern "
                    f"{frames[first]}). If a background was subtracted, add it again; if "
                    f"{lowest[first]:g} marks bad pixels, pass bad_value={lowest[first]:g} "
                    f"(--bad-value); or mask these pixels."
                )
                raise ValueError(msg)
        if window.bin == 1:
            if self.intensity:
                np.sqrt(kept, out=out, dtype=np.float32, casting="unsafe")
            elif raw is not out:
                out[...] = kept
            return kept, bad
        N, b = window.N, window.bin
        counts = kept.astype(np.float64)
        if not self.intensity:
            np.square(counts, out=counts)
        summed = window.summed(counts)
        if bad is not None:
            bad = bad.reshape(-1, N, b, N, b).any(axis=(2, 4))
            summed[bad] = 0
        out[...] = np.sqrt(summed)
        return kept, bad
