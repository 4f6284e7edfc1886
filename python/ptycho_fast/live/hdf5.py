"""An HDF5 file that grows while it is measured."""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.hdf5.unwritten import Parts
from ptycho_fast.io.layouts import named_probe
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.recipe import as_recipe, window
from ptycho_fast.io.scan_files import read_scan
from ptycho_fast.live.growing import GrowingHDF5, open_growing, said, write_flags
from ptycho_fast.live.positions import GrowingPositions, Places
from ptycho_fast.live.source import News, ScanSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

MOST_BYTES = 2**26
"""Bytes of frames that are read at a time."""


class HDF5Source(ScanSource):
    """A scan in an HDF5 file that is being written.

    The file is in SWMR mode (single writer, multiple readers), or it is closed after each batch of
    frames and opened again. The scan has ended when the writer has closed the file and there are
    positions for all frames or, with `first`, as soon as so many are there.

    Frames whose chunks the file does not have yet, and frames at the end that hold nothing but
    zeros, are taken for not yet written until the file is closed.

    Parameters
    ----------
    path : path
        The file. It need not exist yet.
    **reading
        Arguments of `ptycho_fast.read_scan`. `diffraction`, `x` and `y` must be given.
    """

    def __init__(self, path: str | os.PathLike[str], **reading: Any) -> None:
        self.name = os.fspath(path)
        self.recipe = as_recipe(**reading)
        self._reading = reading
        needed = ("diffraction", "x", "y")
        if missing := [name for name in needed if not self.recipe.given(name)]:
            msg = (
                f"{self.name} can be followed if its arrays are named: "
                f"{', '.join(f'{name}=KEY' for name in missing)}."
            )
            raise ValueError(msg)
        if self.recipe.frames_axis == 2 or self.recipe.reshape:
            msg = "Frames must be (n, rows, columns) to be followed: no frames_axis, no reshape."
            raise ValueError(msg)
        self._positions = GrowingPositions(self.recipe)
        self._sent = np.empty(0, np.bool_)
        self._mark: tuple[int, int] | None = None
        """Number and checksum of a frame that was handed over."""
        self._replaced = ""
        self._fixed = False

    def poll(self) -> News:
        """Return what was written since the last call."""
        if self._replaced:
            return News(ended=self._replaced)
        try:
            # A file that stayed open would show less than one that is opened anew, and might keep
            # its writer from opening it again.
            with open_growing(self.name) as container:
                if not isinstance(container, GrowingHDF5):
                    return News(waits_for="It is no HDF5 file yet.")
                return self._look(container)
        except (OSError, RuntimeError, KeyError) as error:
            if isinstance(error, KeyError) and _is_finished(self.name):
                raise
            return News(waits_for=said(self.name, error))

    def reread(self) -> Scan | None:
        """Read the finished file."""
        return None if self._replaced else read_scan(self.name, **self._reading)

    def _look(self, container: GrowingHDF5) -> News:
        where, key = container.locate(str(self.recipe.diffraction))
        if not isinstance(where, GrowingHDF5):
            msg = f"{self.recipe.diffraction!r} lies in no HDF5 file."
            raise ValueError(msg)
        closed = where.finished
        stack = where.growing(key)
        n = self._check(stack)
        if self._is_another(stack):
            self._replaced = (
                f"{self.name} was replaced by another file after {np.count_nonzero(self._sent)} "
                "frames, which the image is of. To follow the new one, begin again."
            )
            return News(ended=self._replaced)
        probe = mask = None
        if not self._fixed:
            probe = named_probe(container, self.recipe, window(stack.shape, self.recipe).N)
            mask = read_mask(container, self.recipe, (n, *stack.shape[1:]))
            if mask is not None and mask.ndim == 3:
                msg = "A mask for each frame can't be followed. Name one mask (H, W) for all."
                raise ValueError(msg)
            self._fixed = True
        places = self._places(container)
        frames, patterns, damaged = self._frames(stack, n, closed=closed)
        ended, late = "", damaged or places.late
        if not late:
            ended, late = self._end(n, closed=closed)
        return News(
            frames, patterns, places.numbers, places.x, places.y,
            probe=probe, mask=mask, waits_for=late, ended=ended,
        )  # fmt: skip

    def _places(self, container: GrowingHDF5) -> Places:
        """Return positions that are new. Frames need not wait for their file."""
        try:
            return self._positions.read(container)
        except (OSError, RuntimeError, KeyError) as error:
            if isinstance(error, KeyError) and container.finished:
                raise
            return Places.none(said(self.name, error))

    def _check(self, stack: Any) -> int:
        """Return how many frames there are now; refuse what is no stack that grows."""
        what = f"{self.name}: {self.recipe.diffraction!r}"
        if stack.ndim != 3 or stack.dtype.kind not in "fiu":
            msg = (
                f"{what} must be frames (n, rows, columns) of real numbers, got shape "
                f"{stack.shape} of {stack.dtype}."
            )
            raise ValueError(msg)
        if stack.is_virtual or stack.external:
            msg = (
                f"{what} is made of other files. Name the one that the detector writes: "
                "diffraction=FILE:KEY (--diffraction FILE:KEY)."
            )
            raise ValueError(msg)
        return int(stack.shape[0])

    def _is_another(self, stack: Any) -> bool:
        """Tell whether a frame that was handed over is no longer there as it was."""
        if self._mark is None:
            return False
        number, checksum = self._mark
        return len(stack) <= number or zlib.crc32(stack[number].tobytes()) != checksum

    def _frames(
        self, stack: Any, n: int, *, closed: bool
    ) -> tuple[NDArray[np.int64], NDArray[Any] | None, str]:
        """Return frames that are new, with their numbers, and what can't be read, in a sentence."""
        first = self.recipe.first
        n = n if first is None else min(n, first)
        sent = np.zeros(n, np.bool_)
        few = min(n, len(self._sent))
        sent[:few] = self._sent[:few]
        holes = Parts(stack).holes(len(stack), frames_last=False)
        if holes is not None:
            sent[holes.frames[holes.frames < n]] = True  # not there yet
        wanted = np.flatnonzero(~sent)
        each = max(1, math.prod(stack.shape[1:]) * stack.dtype.itemsize)
        batch = wanted[: max(1, MOST_BYTES // each)]
        numbers, patterns, damaged = _read(stack, batch)
        if len(numbers) and not closed:
            lit = np.asarray(patterns.any(axis=(1, 2)))
            # What is zero at the end may not have been written yet, though the file is as long.
            end = len(lit) - int(np.argmax(lit[::-1])) if lit.any() else 0
            more = len(wanted) > len(batch) and bool(_read(stack, wanted[-1:])[1].any())
            if not more:
                numbers, patterns = numbers[:end], patterns[:end]
        if holes is not None:
            sent[holes.frames[holes.frames < n]] = False
            sent[:few] |= self._sent[:few]
        sent[numbers] = True
        self._sent = sent
        bright = np.flatnonzero(patterns.any(axis=(1, 2)))  # dark frames are all alike
        if len(bright) and self._mark is None:
            row = int(bright[0])
            self._mark = int(numbers[row]), zlib.crc32(patterns[row].tobytes())
        return numbers, patterns if len(numbers) else None, damaged

    def _end(self, n: int, *, closed: bool) -> tuple[str, str]:
        """Return why the scan has ended, if it has, and what it waits for if it has not."""
        there, first = int(np.count_nonzero(self._sent)), self.recipe.first
        positions = self._positions.known
        if first is not None and min(there, positions) >= first:
            return f"All {first} frames and positions are there (first={first}).", ""
        if not closed:
            return "", ""
        if first is None and there == len(self._sent) and positions >= there:
            return "The writer has closed the file.", ""
        few = f"It is closed, but has {there} frames and {positions} positions"
        return "", f"{few} of {first}." if first is not None else f"{few}."


def _read(stack: Any, wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any], str]:
    """Read some frames; those that can't be read are left out, and named in a sentence."""
    patterns = np.empty((len(wanted), *stack.shape[1:]), stack.dtype)
    good = np.ones(len(wanted), np.bool_)
    why = ""
    starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1).tolist()
    for start, stop in zip(starts, [*starts, len(wanted)][1:], strict=True):
        low, high = int(wanted[start]), int(wanted[stop - 1]) + 1
        try:
            patterns[start:stop] = stack[low:high]
            continue
        except (OSError, RuntimeError):
            pass  # one by one
        for row in range(start, stop):
            try:
                patterns[row] = stack[int(wanted[row])]
            except (OSError, RuntimeError) as error:
                good[row], why = False, str(error)
    if good.all():
        return wanted, patterns, ""
    bad = wanted[~good]
    said = f"{len(bad)} frames can't be read: {', '.join(map(str, bad[:5]))} ({why})."
    return wanted[good], patterns[good], said


def _is_finished(path: str) -> bool:
    try:
        return not write_flags(path)
    except OSError:
        return False
