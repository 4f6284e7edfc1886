"""Patterns in an HDF5 data set that only h5py can read: chunked, compressed or virtual ones."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import BLOCK_BYTES, FileFrames, Frames
from ptycho_fast.io import cache
from ptycho_fast.io.hdf5.links import import_h5py, open_file
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ptycho_fast.io.container import ArrayInfo
    from ptycho_fast.io.layouts import Layout

AMPLIFICATION = 4
"""Warn of chunks that make reading random patterns decode more than this times what it needs."""

LEAST_CACHE = 2**24
"""Bytes of the chunk cache. Two rows of chunks always fit, up to `MOST_CACHE`."""

MOST_CACHE = 2**29


class HDF5Frames(Frames):
    """Patterns in an HDF5 data set that h5py must read: chunked, compressed or virtual.

    Parameters
    ----------
    path : path
        The file.
    key : str
        The path of the data set in it.
    layout : Layout
        Which of its axes count frames.
    stored : ArrayInfo
        Its shape, dtype and chunks.
    versions : dict of str to (int, int)
        The files of which it is made, with the size and modification time they must have.
    missing : ndarray, int, optional
        The frames that were never written (what `unwritten` returns).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        layout: Layout,
        stored: ArrayInfo,
        *,
        versions: dict[str, tuple[int, int]],
        missing: NDArray[np.int64] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.key = key
        self.layout = layout
        self.dtype = stored.dtype.newbyteorder("=")
        self.shape = self.layout.shape
        self._stored = stored
        self._missing = np.empty(0, np.int64) if missing is None else missing
        self._versions = versions
        self._check_versions()
        self.amplification = 1.0
        """Bytes decoded to read one pattern on its own, divided by the bytes it has."""
        cache_bytes, slots = LEAST_CACHE, 521
        if stored.chunks is not None:
            counts = self._counting()
            each = math.prod(stored.chunks[axis] for axis in range(counts.start, counts.stop))
            # How many chunks lie side by side in one frame, and how many pixels they hold: a last
            # chunk that is cut off by the edge is decoded whole.
            across = covered = 1
            for axis, (side, chunk) in enumerate(zip(stored.shape, stored.chunks, strict=True)):
                if axis not in counts:
                    across *= -(-side // chunk)
                    covered *= -(-side // chunk) * chunk
            self.amplification = each * covered / (self.shape[1] * self.shape[2])
            row = each * covered * self.dtype.itemsize
            cache_bytes = min(max(LEAST_CACHE, 2 * row), max(row, MOST_CACHE))
            # HDF5's manual asks for a prime of about 100 times the number of chunks that fit.
            slots = _prime_from(100 * max(1, cache_bytes * across // row))
        self._cache = {"rdcc_nbytes": cache_bytes, "rdcc_nslots": slots}
        self._opened: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that receives this opens the file anew, and it must be the same file.
        make = partial(HDF5Frames, versions=self._versions, missing=self._missing)
        return make, (self.path, self.key, self.layout, self._stored)

    def files(self) -> set[str]:
        """Return the files of which the data set is made."""
        return {self.path, *self._versions}

    def _counting(self) -> range:
        """Return the axes of the data set that count frames."""
        shape = self._stored.shape
        if self.layout.frames_last:
            return range(len(shape) - 1, len(shape))
        n = self.shape[0]
        last = next(k for k in range(1, 3) if math.prod(shape[:k]) == n)
        return range(last)

    def unwritten(self) -> NDArray[np.int64]:
        """Return the patterns that were never written, or only in part; HDF5 fills in the rest.

        Returns
        -------
        ndarray, (m,), int64
            Their indices, ascending. They are known without reading any pattern.
        """
        return self._missing

    def _check_versions(self) -> None:
        """Refuse changed files: HDF5 reads zeros where a file was cut off after it was opened."""
        for name, version in self._versions.items():
            if file_stamp(name) != version:
                msg = (
                    f"{name} was changed since it was opened: its patterns may be others now. "
                    "Read the scan again."
                )
                raise OSError(msg)

    def _item(self) -> Any:
        """Return the data set, opened by this process: a parent's handle must not be shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_file(self.path, **self._cache)[self.key]
        return self._opened[1]

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``, with one call of h5py for each run of rows.

        h5py lets one thread at a time read.
        """
        rows = np.asarray(rows, np.int64)  # differences of unsigned integers would wrap
        if not len(rows):
            return
        counts, stored = self._counting(), self._stored.shape
        # In a grid of frames, a run ends with its row.
        line = stored[counts.stop - 1]
        begins = (np.diff(rows, prepend=-2) != 1) | (rows % line == 0)
        starts = np.flatnonzero(begins).tolist()
        for first, last in zip(starts, [*starts[1:], len(rows)], strict=True):
            begin, extent = [0] * len(stored), list(stored)
            place = np.unravel_index(rows[first], [stored[axis] for axis in counts])
            for axis, index in zip(counts, place, strict=True):
                begin[axis], extent[axis] = int(index), 1
            extent[counts.stop - 1] = last - first
            run = f"{rows[first]}..{rows[last - 1]}" if last - first > 1 else f"{rows[first]}"
            part = out[first:last]
            if self.layout.frames_last:
                turned = np.empty(extent, self.dtype)
                self._read(begin, extent, turned, run)
                part[...] = turned.reshape(*self.shape[1:], -1).transpose(2, 0, 1)
            else:
                self._read(begin, extent, part, run)
        self._check_versions()

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns in order; the next block is decoded while the caller uses this one.

        HDF5 decodes in one thread, and decoding takes most of the time of reading.
        """
        n = len(self)
        each = max(1, BLOCK_BYTES // max(1, self.nbytes // max(1, n)))
        buffers = [np.empty((min(each, n), *self.shape[1:]), self.dtype) for _ in range(2)]
        parts = [slice(first, min(first + each, n)) for first in range(0, n, each)]

        def decode(number: int) -> NDArray[Any]:
            rows = np.arange(parts[number].start, parts[number].stop)
            block = buffers[number % 2][: len(rows)]
            self.read(rows, block)
            return block

        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(decode, 0) if parts else None
            for number, part in enumerate(parts):
                assert coming is not None
                block = coming.result()
                if number + 1 < len(parts):
                    coming = thread.submit(decode, number + 1)
                yield part, block

    def _read(self, begin: list[int], extent: list[int], out: NDArray[Any], run: str) -> None:
        identifier = self._item().id
        space = identifier.get_space()
        space.select_hyperslab(tuple(begin), tuple(extent))
        simple = import_h5py().h5s.create_simple(tuple(extent))
        try:
            identifier.read(simple, space, out)
        except (OSError, RuntimeError) as error:
            what = f"{self.key!r}, pattern {run} of {len(self)},"
            raise unreadable(self.path, what, error) from error

    def warn_of_amplification(self) -> None:
        """Warn if reading patterns in random order decodes much more than it needs."""
        if self.amplification > AMPLIFICATION:
            warn(
                f"{self.path}: the chunks of {self.key!r} make each pattern that is read at "
                f"random cost {self.amplification:.3g} times its bytes. For training, convert "
                "the file once: ptycho-fast convert IN OUT.npz",
            )


class Turned:
    """Patterns (H, W, n): to be read in order, since each on its own is spread over the file.

    Parameters
    ----------
    frames : HDF5Frames
        The patterns.
    """

    def __init__(self, frames: HDF5Frames) -> None:
        self.frames = frames
        self.shape, self.dtype = frames.shape, frames.dtype
        self.frames_first = False

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all patterns in order, some at a time."""
        for _, block in self.frames.blocks():
            yield block

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache, where they lie one after another."""
        key = f"{self.frames.key}[:,:,i]"
        return cache.unpacked(self.frames.path, key, self.shape, self.dtype, self.blocks)


def file_stamp(path: str) -> tuple[int, int]:
    """Return the size and the modification time by which a changed file is recognised."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def unreadable(path: str | os.PathLike[str], what: str, error: Exception) -> OSError:
    """Return the error for what HDF5 could not read, with the likely way out."""
    reason = str(error)
    # The wording depends on the version of HDF5; the directory is that of its plugins.
    if any(word in reason for word in ("plugin", "registered", "open directory")):
        hint = 'It is compressed with a filter that is not installed: pip install "hdf5plugin".'
    else:
        hint = "It is damaged or cut short. Copy or write it again."
    return OSError(f"{os.fspath(path)}: {what} can't be read ({reason}). {hint}")


def _prime_from(number: int) -> int:
    number = min(number, 10**6) | 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number
