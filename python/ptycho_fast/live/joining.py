"""Frames and positions that arrive one by one are joined by their numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames, Window
from ptycho_fast.io.assemble import Given, assemble, averaged, join, scaled
from ptycho_fast.io.layouts import as_probe
from ptycho_fast.io.recipe import window
from ptycho_fast.memory import available
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.live.source import News
    from ptycho_fast.scan import Scan

LISTED = 5
"""How many numbers a sentence lists."""

SHARE = 0.5
"""Frames may take this fraction of the memory that is free when room is made for them."""


class Arrived(Frames):
    """Some of the frames that have arrived, which are held in memory.

    Parameters
    ----------
    held : ndarray, (m, H, W)
        At least those that are chosen; they never change.
    rows : ndarray, (n,), int
        Which of them, in which order.
    """

    def __init__(self, held: NDArray[Any], rows: NDArray[np.int64]) -> None:
        self.held, self.rows = held, rows
        self.shape, self.dtype = (len(rows), *held.shape[1:]), held.dtype

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with frame ``rows[i]``."""
        np.take(self.held, self.rows[rows], axis=0, out=out, mode="clip")


class Joined:
    """What has arrived of a scan. A frame counts once its position is there, too.

    Parameters
    ----------
    recipe : Recipe
        What the numbers mean.
    name : str
        Of the source, for messages.
    """

    def __init__(self, recipe: Recipe, name: str) -> None:
        self.recipe, self.name = recipe, name
        self._ids = np.empty(0, np.int64)
        self._again = 0
        self._held: NDArray[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._part: Window | None = None
        self._places = np.empty(0, np.int64)
        self._xy = np.empty((0, 2))
        self._probe: NDArray[Any] | None = None
        self._looked = False
        self._mask: NDArray[np.bool_] | None = None
        self._rows = self._ids
        self._positions = np.empty((0, 2))

    def __len__(self) -> int:
        """Return the number of frames whose position is there."""
        return len(self._rows)

    @property
    def frames(self) -> int:
        """How many frames have arrived, with a position or without."""
        return len(self._ids)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the frames of `scan`, ascending."""
        return self._ids[self._rows]

    @property
    def side(self) -> int:
        """Pixels per side of the patterns; 0 as long as there is none."""
        return 0 if self._part is None else self._part.N

    def add(self, news: News) -> bool:
        """Take what has arrived; tell whether anything has.

        Raises
        ------
        ValueError
            If frames differ in shape or dtype, or two positions have the same number.
        MemoryError
            If the frames take too much memory.
        """
        if news.probe is not None and self._probe is None:
            self._probe = news.probe
        if news.mask is not None and self._mask is None:
            self._mask = news.mask
        came = self._add_frames(news)
        came |= self._add_positions(news)
        if came and self.frames and len(self._places):
            self._join()
        return came

    def scan(self, *, quiet: bool = True) -> Scan:
        """Return the scan so far. Its patterns become amplitudes as they are read.

        Parameters
        ----------
        quiet : bool
            Whether to say nothing of what is odd about the positions.
        """
        assert self._part is not None
        assert self._held is not None
        x, y = self._positions.T
        x, y, pixel = scaled(x, y, self.recipe, self._part, (len(self), *self._shape))
        side = self._part.N * self._part.bin
        part, mask = Window(slice(0, side), slice(0, side), self._part.bin), self._mask
        if mask is not None:
            mask = np.fft.fftshift(mask) if self.recipe.fftshift else mask
            mask = mask[self._part.rows, self._part.columns]
        given = Given(
            Arrived(self._held, self._rows),
            x,
            y,
            intensity=bool(self.recipe.intensity),
            object_pixel=pixel,
            mask=mask,
            probe=self._checked_probe(part.N),
        )
        # These were done on arrival.
        recipe = replace(self.recipe, first=None, fftshift=False, average_positions=False)
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            return assemble(given, part, recipe)

    def waits_for(self) -> str:
        """Return a sentence if frames wait for positions, or positions for frames."""
        ahead, behind = self.frames - len(self), len(np.unique(self._places)) - len(self)
        if ahead > 0:
            return f"{ahead} of {self.frames} frames wait for their positions."
        if behind > 0:
            return f"{behind} positions wait for their frames."
        return ""

    def gaps(self) -> list[str]:
        """Return a sentence for each kind of frames and positions that are not used."""
        said = []
        have = np.sort(self._ids)
        most = self.recipe.first or (int(have[-1]) + 1 if len(have) else 0)
        if len(missing := np.setdiff1d(np.arange(most), have)):
            said.append(f"{len(missing)} of {most} frames never came: {_listed(missing)}.")
        if len(alone := np.setdiff1d(have, self._places)):
            said.append(f"{len(alone)} of {len(have)} frames have no position: {_listed(alone)}.")
        places = np.unique(self._places)
        if len(alone := np.setdiff1d(places[places >= most], have)):
            said.append(f"{len(alone)} of {len(places)} positions have no frame.")
        if self._again:
            said.append(f"{self._again} frames came twice; the first was kept.")
        return said

    def _checked_probe(self, N: int) -> NDArray[Any] | None:
        """Return the probe, if it fits the patterns; say so once if it does not."""
        if self._probe is not None and not self._looked:
            self._looked = True
            probe = as_probe(f"{self.name}: the probe", self._probe, (N, N))
            if probe.shape[-2:] != (N, N):
                warn(
                    f"{self.name}: the probe has shape {probe.shape}, which does not fit patterns "
                    f"of {N} x {N}; it was left out.",
                )
            self._probe = probe if probe.shape[-2:] == (N, N) else None
        return self._probe

    def _add_frames(self, news: News) -> bool:
        if news.patterns is None or not len(news.frames):
            return False
        patterns = np.asarray(news.patterns)
        shape, first = patterns.shape[1:], int(news.frames[0])
        if (
            patterns.ndim != 3
            or len(patterns) != len(news.frames)
            or patterns.dtype.kind not in "fiu"
        ):
            msg = (
                f"{self.name}: frames must be (n, rows, columns) of real numbers, got shape "
                f"{patterns.shape} of {patterns.dtype} for {len(news.frames)} frames."
            )
            raise ValueError(msg)
        dtype = patterns.dtype.newbyteorder("=")
        if self._part is None:
            self._shape = shape
            self._part = window((len(patterns), *shape), self.recipe)
            side = self._part.N * self._part.bin
            self._held = np.empty((0, side, side), dtype)
        assert self._held is not None
        if (shape, dtype) != (self._shape, self._held.dtype):
            msg = (
                f"{self.name}: frame {first} has shape {shape} of {dtype}, but those before had "
                f"{self._shape} of {self._held.dtype}. Are they of one scan?"
            )
            raise ValueError(msg)
        # The first of those that come twice is kept.
        keep = np.unique(news.frames, return_index=True)[1]
        keep = np.sort(keep[self._wanted(news.frames[keep])])
        keep = keep[~np.isin(news.frames[keep], self._ids)]
        numbers = news.frames[keep]
        self._again += int(np.count_nonzero(self._wanted(news.frames))) - len(keep)
        if self.recipe.fftshift:
            patterns = np.fft.fftshift(patterns, axes=(1, 2))
        n = self.frames
        self._make_room(n + len(numbers))
        self._held[n : n + len(numbers)] = patterns[keep][:, self._part.rows, self._part.columns]
        self._ids = np.concatenate([self._ids, numbers])
        return len(numbers) > 0

    def _make_room(self, needed: int) -> None:
        assert self._held is not None
        if needed <= len(self._held):
            return
        size = max(needed, self.recipe.first or 0, 2 * len(self._held))
        each = max(1, self._held[:0].itemsize * int(np.prod(self._held.shape[1:])))
        if size * each > SHARE * available():
            size = needed
        if size * each > available():
            msg = (
                f"{self.name}: {needed} frames of {self._held.shape[1]} x {self._held.shape[2]} "
                f"{self._held.dtype} take {needed * each / 1e9:.3g} GB of memory, but "
                f"{available() / 1e9:.3g} GB are free. Keep less of each frame: crop=N (--crop N)."
            )
            raise MemoryError(msg)
        larger = np.empty((size, *self._held.shape[1:]), self._held.dtype)
        larger[: self.frames] = self._held[: self.frames]
        self._held = larger

    def _add_positions(self, news: News) -> bool:
        finite = np.isfinite(news.x) & np.isfinite(news.y)
        keep = np.flatnonzero(finite & (news.places >= 0))
        keep = keep[self._wanted(news.places[keep])]
        if not len(keep):
            return False
        self._places = np.concatenate([self._places, news.places[keep]])
        self._xy = np.concatenate([self._xy, np.stack([news.x[keep], news.y[keep]], axis=1)])
        return True

    def _wanted(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which numbers belong to the scan, of which `first` may be wanted."""
        first = self.recipe.first
        return numbers >= 0 if first is None else (numbers >= 0) & (numbers < first)

    def _join(self) -> None:
        x, y = self._xy.T
        places = self._places
        if self.recipe.average_positions:
            x, y, places = averaged(x, y, places)
        frames, rows = join(self.frames, len(places), self._ids, places)
        order = np.argsort(self._ids[frames], kind="stable")
        self._rows = frames[order]
        self._positions = np.stack([x, y], axis=1)[rows[order]]


def _listed(numbers: NDArray[np.int64]) -> str:
    return ", ".join(map(str, numbers[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
