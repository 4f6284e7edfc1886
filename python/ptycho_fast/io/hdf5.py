"""HDF5: data sets by their paths, and patterns that stay in them."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import cache
from ptycho_fast.io.layouts import Layout, stack_layout
from ptycho_fast.io.links import (
    check_sources,
    external_files,
    follow,
    import_h5py,
    is_hdf5,
    open_file,
)
from ptycho_fast.io.listing import MOST, listed
from ptycho_fast.io.prepare import Recipe
from ptycho_fast.io.unpacked import Unpacked
from ptycho_fast.io.written import Holes, Parts
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


__all__ = ["DataSet", "HDF5Frames", "array", "datasets", "frames", "is_hdf5", "open_file"]

AMPLIFICATION = 4
"""Warn of chunks from which random patterns read more than this times what they need."""

LEAST_CACHE = 2**24
"""Bytes; two rows of chunks always fit, up to `MOST_CACHE`."""

MOST_CACHE = 2**29

MOST_CHUNK = 2**29
"""Bytes. A chunk is decoded whole, so one of more than this, and than its array, is refused."""

LARGE, MOST_RATIO = 2**30, 20
"""An array of more bytes than `LARGE` is refused if they are so many times those of the file."""


class DataSet(NamedTuple):
    """An array in an HDF5 file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    unit: str | None
    """What its attribute ``units`` says."""


def datasets(path: str | os.PathLike[str], most: int | None = None) -> dict[str, DataSet]:
    """Return path -> what is known of each data set, links followed, reading no array.

    One that has several names is listed by the first. `most`: stop after so many.
    """
    h5py = import_h5py()
    found: dict[str, DataSet] = {}
    seen = set()
    with open_file(path) as file:
        # Of h5py only what is below its classes: those take several times as long.
        rest = [_members(file.id, "")]
        while rest and (most is None or len(found) < most):
            name, item = next(rest[-1], ("", None))
            if item is None:
                rest.pop()
                continue
            info = h5py.h5o.get_info(item)
            if (place := (info.fileno, info.addr)) in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.h5g.GroupID):
                rest.append(_members(item, name))
            elif isinstance(item, h5py.h5d.DatasetID) and (known := _known(item)) is not None:
                found[name] = known
    return found


def _members(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Return the path and the identifier of each member of a group, links followed, by name."""
    h5py = import_h5py()
    names: list[tuple[bytes, int]] = []
    # One pass: to ask for the name of each by its number is quadratic.
    group.links.iterate(lambda name, info: names.append((name, info.type)), info=True)
    for name, kind in sorted(names):
        text = name.decode(errors="surrogateescape")
        # What fails is a link to a file that is not there, or to no file.
        with contextlib.suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
            if kind == h5py.h5l.TYPE_HARD:
                item = h5py.h5o.open(group, name)
            else:
                item = getattr(follow(h5py.Group(group), f"./{text}"), "id", None)
            if item is not None:
                yield f"{prefix}/{text}", item


def _known(item: Any) -> DataSet | None:
    """Describe a data set; None if it has no elements that NumPy has."""
    h5py = import_h5py()
    try:
        properties = item.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            check_sources(h5py.Dataset(item))  # so that no file is opened that is none
        if item.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return None
        chunks = properties.get_chunk() if layout == h5py.h5d.CHUNKED else None
        return DataSet(item.shape, item.dtype, chunks, _unit(item))
    except (OSError, RuntimeError, TypeError, ValueError):
        return None


def _unit(item: Any) -> str | None:
    h5py = import_h5py()
    for name in ("units", "unit"):
        if not h5py.h5a.exists(item, name.encode()):
            continue
        with contextlib.suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
            value = np.ravel(h5py.Dataset(item).attrs[name])
            if len(value) == 1:
                first = value[0]
                text = first.decode(errors="replace") if isinstance(first, bytes) else first
                if isinstance(text, str):
                    return text
    return None


@contextlib.contextmanager
def _dataset(path: str | os.PathLike[str], key: str) -> Iterator[Any]:
    """Open a data set named by its path."""
    h5py = import_h5py()
    with open_file(path) as file:
        try:
            item = follow(file, key)
        except (OSError, RuntimeError) as error:
            msg = f"{os.fspath(path)}: {key!r} can't be opened ({error})."
            raise OSError(msg) from error
        if isinstance(item, h5py.Dataset):
            check_sources(item)
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            why = (
                "is a link to what is not there"
                if item is None and _is_link(file, key)
                else ("is no data set")
            )
            has = listed(datasets(path, MOST + 1))
            msg = f"{os.fspath(path)}: {key!r} {why}. Its data sets: {has}."
            raise KeyError(msg)
        try:
            item.dtype  # noqa: B018
        except TypeError as error:
            msg = f"{os.fspath(path)}: {key!r} is of a type that NumPy lacks ({error})."
            raise ValueError(msg) from error
        yield item


def _is_link(file: Any, key: str) -> bool:
    folder, _, name = key.rstrip("/").rpartition("/")
    group = follow(file, folder or "/")
    try:
        return bool(group.id.links.exists(name.encode()))
    except (AttributeError, KeyError, RuntimeError, ValueError):
        return False


def array(path: str | os.PathLike[str], key: str) -> NDArray[Any]:
    """Read a data set.

    Raises
    ------
    KeyError
        If the file has none of that name.
    OSError
        If it can't be read, or a file of which it is made is missing.
    ValueError
        If it is far more than the file holds.

    Warns
    -----
    UserWarning
        If some of its elements were never written.
    """
    with _dataset(path, key) as item:
        name = f"{os.fspath(path)}: {key!r}"
        size = math.prod(item.shape) * item.dtype.itemsize
        raw = sum(most for _, _, most in external_files(item))
        held = max(item.id.get_storage_size(), raw)
        if size > LARGE and size > MOST_RATIO * held:
            msg = (
                f"{name} has shape {item.shape} of {item.dtype}, {size / 2**30:.3g} GiB, of which "
                f"the file holds {held} bytes. It was not read: is it the right one?"
            )
            raise ValueError(msg)
        _check_chunks(name, item)
        if missing := Parts(item).missing():
            warn(
                f"{name}: {missing} of {math.prod(item.shape)} numbers were never written; HDF5 "
                f"makes up {np.ravel(item.fillvalue)[0]} for them.",
            )
        try:
            return np.asarray(item[()])
        except (OSError, RuntimeError) as error:
            raise _unreadable(path, repr(key), error) from error


def _check_chunks(name: str, item: Any) -> None:
    """Refuse chunks that are far larger than what is in them."""
    if item.chunks is None:
        return
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    if chunk > MOST_CHUNK and chunk > math.prod(item.shape) * item.dtype.itemsize:
        msg = (
            f"{name} has shape {item.shape}, but chunks of {item.chunks}: to read anything of it "
            f"takes {chunk / 2**30:.3g} GiB. Write it again: h5repack -l CHUNK=..."
        )
        raise ValueError(msg)


def _unreadable(path: str | os.PathLike[str], what: str, error: Exception) -> OSError:
    reason = str(error)
    # How it is said depends on the version of HDF5; the directory is that of the plugins.
    if any(word in reason for word in ("plugin", "registered", "open directory")):
        hint = 'It is compressed with a filter that is not installed: pip install "hdf5plugin".'
    else:
        hint = "It is damaged or cut short. Copy or write it again."
    return OSError(f"{os.fspath(path)}: {what} can't be read ({reason}). {hint}")


def shape(path: str | os.PathLike[str], key: str) -> tuple[int, ...]:
    """Return the shape of a data set.

    Raises
    ------
    KeyError
        If the file has none of that name.
    """
    with _dataset(path, key) as item:
        return tuple(item.shape)


def frames(
    path: str | os.PathLike[str],
    key: str,
    recipe: Recipe | None = None,
    n: int | None = None,
    grid: tuple[int, ...] = (),
) -> Frames:
    """Open patterns (n, H, W), or in a layout of `stack_layout`; they stay in the file.

    Raises
    ------
    KeyError
        If the file has no such data set.
    ValueError
        If it is no stack of real numbers.
    OSError
        If a file of which it is made is missing or cut short.

    Warns
    -----
    UserWarning
        If patterns, or some pixels of all, were never written.
    """
    with _dataset(path, key) as item:
        name = f"{os.fspath(path)}: {key!r}"
        if item.dtype.kind not in "fiu":
            msg = (
                f"{name} must be frames (n, rows, columns) of real numbers, got shape "
                f"{item.shape} of {item.dtype}."
            )
            raise ValueError(msg)
        layout = stack_layout(name, item.shape, recipe or Recipe(), n, grid)
        _check_chunks(name, item)
        parts = Parts(item)
        holes = parts.holes(layout.shape[0], frames_last=layout.frames_last)
        _warn_of_holes(name, holes, layout)
        # The file it lies in, for an external link leads elsewhere.
        home = item.file.filename
        offset = item.id.get_offset()
        plain = item.chunks is None and offset is not None
        if plain and not (item.is_virtual or item.external or layout.frames_last):
            return FileFrames(home, offset, layout.shape, item.dtype)
        versions = {file: _stamp(file) for file in parts.files}
        missing = np.empty(0, np.int64) if holes is None else holes.frames
        found = HDF5Frames(home, item.name, layout, versions, missing)
        return Unpacked(Turned(found)) if layout.frames_last else found


def _warn_of_holes(name: str, holes: Holes | None, layout: Layout) -> None:
    if holes is None:
        return
    n, missing = layout.shape[0], holes.frames
    if len(missing) == n:
        msg = f"{name}: none of its {n} frames was ever written. Is it the right data set?"
        raise ValueError(msg)
    if len(missing):
        first = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        warn(
            f"{name}: {len(missing)} of {n} frames were never written, or not wholly: {first} "
            f"(counted from 0). HDF5 makes up {holes.fill:g} for what is missing. drop_dark=True "
            "(--drop-dark) leaves out frames that are all zero, first=N takes those before.",
        )
    if holes.pixels:
        warn(
            f"{name}: {holes.pixels} of {layout.shape[1] * layout.shape[2]} pixels lie in no file "
            f"in any frame; HDF5 makes up {holes.fill:g} for them. Unless that marks bad pixels, "
            "name a mask: mask=KEY.",
        )


class HDF5Frames(Frames):
    """Patterns in an HDF5 data set that h5py must read: chunked, compressed or virtual.

    Parameters
    ----------
    path : path
        The file.
    key : str
        The data set.
    layout : Layout, optional
        How its axes are read; (n, H, W) if not given.
    versions : dict, optional
        The files it is made of, with the size and time they must have.
    missing : ndarray, int, optional
        What `unwritten` returns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        layout: Layout | None = None,
        versions: dict[str, tuple[int, int]] | None = None,
        missing: NDArray[np.int64] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.key = key
        with open_file(self.path) as file:
            item = file[key]
            stored, chunks = item.shape, item.chunks
            self.dtype = item.dtype.newbyteorder("=")
            if versions is None:
                versions = {name: _stamp(name) for name in Parts(item).files}
        self.layout = Layout(stored, frames_last=False) if layout is None else layout
        self.shape = self.layout.shape
        self._stored = stored
        self._missing = np.empty(0, np.int64) if missing is None else missing
        self._versions = versions
        self._check_versions()
        self.amplification = 1.0
        """Bytes decoded for one pattern on its own, over its bytes."""
        cache, slots = LEAST_CACHE, 521
        if chunks is not None:
            counts = self._counting()
            each = math.prod(chunks[axis] for axis in range(counts.start, counts.stop))
            # How many chunks lie side by side in one frame, and what they hold of it: a last chunk
            # that is cut off is decoded whole.
            across = covered = 1
            for axis, (side, chunk) in enumerate(zip(stored, chunks, strict=True)):
                if axis not in counts:
                    across *= -(-side // chunk)
                    covered *= -(-side // chunk) * chunk
            self.amplification = each * covered / (self.shape[1] * self.shape[2])
            row = each * covered * self.dtype.itemsize
            cache = min(max(LEAST_CACHE, 2 * row), max(row, MOST_CACHE))
            # HDF5 asks for a prime of about 100 times the chunks that fit.
            slots = _prime_from(100 * max(1, cache * across // row))
        self._cache = {"rdcc_nbytes": cache, "rdcc_nslots": slots}
        self._opened: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that gets this opens the file anew, and it must be the same one.
        state = (self.path, self.key, self.layout, self._versions, self._missing)
        return HDF5Frames, state

    def _counting(self) -> range:
        """Return the axes of the data set that count frames."""
        if self.layout.frames_last:
            return range(len(self._stored) - 1, len(self._stored))
        n = self.shape[0]
        last = next(k for k in range(1, 3) if math.prod(self._stored[:k]) == n)
        return range(last)

    def unwritten(self) -> NDArray[np.int64]:
        """Return the patterns that were never written, or not wholly; HDF5 makes up the rest.

        Returns
        -------
        ndarray, (m,), int64
            Their numbers, ascending. Known without reading any.
        """
        return self._missing

    def _check_versions(self) -> None:
        """HDF5 makes up zeros where a file was cut off after it was opened."""
        for name, version in self._versions.items():
            if _stamp(name) != version:
                msg = (
                    f"{name} was changed since it was opened: its patterns may be others now. "
                    "Read the scan again."
                )
                raise OSError(msg)

    def _item(self) -> Any:
        """Return the data set, opened by this process: what a parent opened is not shared."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_file(self.path, **self._cache)[self.key]
        return self._opened[1]

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``; one call of h5py for each run of rows.

        h5py lets one thread at a time through.
        """
        rows = np.asarray(rows, np.int64)  # differences of unsigned ones would wrap
        if not len(rows):
            return
        counts, stored = self._counting(), self._stored
        # A run ends with a row of a grid.
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

    def _read(self, begin: list[int], extent: list[int], out: NDArray[Any], run: str) -> None:
        identifier = self._item().id
        space = identifier.get_space()
        space.select_hyperslab(tuple(begin), tuple(extent))
        simple = import_h5py().h5s.create_simple(tuple(extent))
        try:
            identifier.read(simple, space, out)
        except (OSError, RuntimeError) as error:
            what = f"{self.key!r}, pattern {run} of {len(self)},"
            raise _unreadable(self.path, what, error) from error

    def warn_of_amplification(self) -> None:
        """Warn if reading patterns at random decodes much more than it needs."""
        if self.amplification > AMPLIFICATION:
            warn(
                f"{self.path}: the chunks of {self.key!r} make each pattern that is read at "
                f"random cost {self.amplification:.3g} times its bytes. For training, convert "
                "the file once: ptycho-fast convert IN OUT.npz",
            )


class Turned:
    """Patterns (H, W, n), which can be read in order but, one by one, only in all their pieces.

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
        """Return the patterns in the cache."""
        key = f"{self.frames.key}[:,:,i]"
        return cache.unpacked(self.frames.path, key, self.shape, self.dtype, self.blocks)


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _prime_from(number: int) -> int:
    number = min(number, 10**6) | 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number
