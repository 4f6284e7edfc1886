"""HDF5: data sets by their paths, and patterns that stay in them. The only file that names h5py."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


SIGNATURE = b"\x89HDF\r\n\x1a\n"

AMPLIFICATION = 4
"""Warn of chunks from which random patterns read more than this times what they need."""

LEAST_CACHE = 2**24
"""Bytes; two rows of chunks always fit."""


class DataSet(NamedTuple):
    """An array in an HDF5 file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    unit: str | None
    """What its attribute ``units`` says."""


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Tell from its content whether a file is HDF5; a user block may come before it.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = 0
        while start < size:
            file.seek(start)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            start = max(512, 2 * start)
    return False


def _h5py() -> Any:
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        msg = f'HDF5 files need h5py ({error}): pip install "ptycho_fast[hdf5]"'
        raise ImportError(msg) from error
    # Registers what detectors compress with (bitshuffle, LZ4, Blosc, ...), if it is installed.
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401, PLC0415
    return h5py


def open_file(path: str | os.PathLike[str], **cache: Any) -> Any:
    """Open an HDF5 file to read it.

    Raises
    ------
    OSError
        If it is missing, damaged, cut short or no HDF5 file.
    ImportError
        If there is no h5py.
    """
    h5py = _h5py()
    Path(path).stat()  # a missing file speaks for itself
    try:
        return h5py.File(path, "r", **cache)
    except (OSError, RuntimeError) as error:
        msg = f"{os.fspath(path)} is no HDF5 file, or it is damaged or cut short ({error})."
        raise OSError(msg) from error


def datasets(path: str | os.PathLike[str]) -> dict[str, DataSet]:
    """Return path -> what is known of each data set, links followed, reading no array.

    One that has several names is listed by the first.
    """
    h5py = _h5py()
    found: dict[str, DataSet] = {}
    seen = set()

    def walk(group: Any, prefix: str) -> None:
        for name in group:
            try:
                item = group[name]
                info = h5py.h5o.get_info(item.id)
            except (KeyError, OSError, RuntimeError, TypeError):
                continue  # a link to a file that isn't there; a named type
            if (place := (info.fileno, info.addr)) in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.Group):
                walk(item, f"{prefix}/{name}")
            elif item.shape is not None:
                unit = item.attrs.get("units", item.attrs.get("unit"))
                unit = unit.decode(errors="replace") if isinstance(unit, bytes) else unit
                found[f"{prefix}/{name}"] = DataSet(
                    item.shape, item.dtype, item.chunks, unit if isinstance(unit, str) else None
                )

    with open_file(path) as file:
        walk(file, "")
    return found


@contextlib.contextmanager
def _dataset(path: str | os.PathLike[str], key: str) -> Iterator[Any]:
    """Open a data set named by its path."""
    h5py = _h5py()
    with open_file(path) as file:
        try:
            item = file.get(key)
        except (OSError, RuntimeError) as error:
            msg = f"{os.fspath(path)}: {key!r} can't be opened ({error})."
            raise OSError(msg) from error
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            has = ", ".join(f"{name} {found.shape}" for name, found in datasets(path).items())
            why = (
                "is a link to what is not there"
                if item is None and _is_link(file, key)
                else ("is no data set")
            )
            msg = f"{os.fspath(path)}: {key!r} {why}. Its data sets: {has or 'none'}."
            raise KeyError(msg)
        yield item


def _is_link(file: Any, key: str) -> bool:
    try:
        return file.get(key, getlink=True) is not None
    except (KeyError, RuntimeError, ValueError):
        return False


def array(path: str | os.PathLike[str], key: str) -> NDArray[Any]:
    """Read a data set.

    Raises
    ------
    KeyError
        If the file has none of that name.
    OSError
        If it can't be read.
    """
    with _dataset(path, key) as item:
        try:
            return np.asarray(item[()])
        except (OSError, RuntimeError) as error:
            raise _unreadable(path, repr(key), error) from error


def _unreadable(path: str | os.PathLike[str], what: str, error: Exception) -> OSError:
    reason = str(error)
    # How it is said depends on the version of HDF5; the directory is that of the plugins.
    if any(word in reason for word in ("plugin", "registered", "open directory")):
        hint = 'It is compressed with a filter that is not installed: pip install "hdf5plugin".'
    else:
        hint = "It is damaged or cut short. Copy or write it again."
    return OSError(f"{os.fspath(path)}: {what} can't be read ({reason}). {hint}")


def frames(path: str | os.PathLike[str], key: str) -> Frames:
    """Open patterns (n, H, W); they stay in the file.

    Raises
    ------
    KeyError
        If the file has no such data set.
    ValueError
        If it is no stack of real numbers.
    """
    with _dataset(path, key) as item:
        if item.ndim != 3 or item.dtype.kind not in "fiu" or 0 in item.shape:
            msg = (
                f"{os.fspath(path)}: {key!r} must be frames (n, rows, columns) of real numbers, "
                f"got shape {item.shape} of {item.dtype}."
            )
            raise ValueError(msg)
        # The file it lies in, for an external link leads elsewhere.
        home = item.file.filename
        offset = item.id.get_offset()
        if item.chunks is None and offset is not None and not item.is_virtual and not item.external:
            return FileFrames(home, offset, item.shape, item.dtype)
        return HDF5Frames(home, item.name)


class HDF5Frames(Frames):
    """Patterns in an HDF5 data set that h5py must read: chunked, compressed or virtual.

    Parameters
    ----------
    path : path
        The file.
    key : str
        The data set, (n, H, W).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        versions: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.key = key
        with open_file(self.path) as file:
            item = file[key]
            self.shape = item.shape
            self.stored = item.dtype
            chunks = item.chunks
            files = {self.path}
            if item.is_virtual:
                files |= self._sources(item)
        self._versions = {name: _stamp(name) for name in files} if versions is None else versions
        self._check_versions()
        self.dtype = self.stored.newbyteorder("=")
        self.amplification = 1.0
        """Bytes decoded for one pattern on its own, over its bytes."""
        cache, slots = LEAST_CACHE, 521
        if chunks is not None:
            # How many chunks lie side by side in one frame.
            across = [-(-side // c) for side, c in zip(self.shape[1:], chunks[1:], strict=True)]
            covered = across[0] * chunks[1] * across[1] * chunks[2]
            # A last chunk that is cut off is decoded whole.
            self.amplification = chunks[0] * covered / (self.shape[1] * self.shape[2])
            row = chunks[0] * covered * self.dtype.itemsize
            cache = max(LEAST_CACHE, 2 * row)
            # HDF5 asks for a prime of about 100 times the chunks that fit.
            slots = _prime_from(100 * max(1, cache * across[0] * across[1] // row))
        self._cache = {"rdcc_nbytes": cache, "rdcc_nslots": slots}
        self._opened: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that gets this opens the file anew, and it must be the same one.
        return HDF5Frames, (self.path, self.key, self._versions)

    def _sources(self, item: Any) -> set[str]:
        """Return the files a virtual data set is made of; for one it lacks HDF5 makes up zeros."""
        folder, files = Path(self.path).parent, set()
        for source in item.virtual_sources():
            name = source.file_name
            if name == "." or "%b" in name:
                continue
            tried = (folder / name, Path(name), folder / Path(name).name)
            found = next((path for path in tried if path.exists()), None)
            if found is None:
                msg = f"{self.path}: {self.key!r} is made of {name}, which is missing. Copy it too."
                raise OSError(msg)
            with open_file(found) as file:
                if source.dset_name not in file:
                    msg = f"{self.path}: {self.key!r} is made of {source.dset_name!r} of {name}, "
                    raise OSError(msg + "which has no such data set.")
            files.add(os.path.abspath(found))
        return files

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
        h5py = _h5py()
        identifier = self._item().id
        rows = np.asarray(rows)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        space = identifier.get_space()
        for first, last in zip(starts, [*starts[1:], len(rows)], strict=True):
            extent = (last - first, *self.shape[1:])
            space.select_hyperslab((int(rows[first]), 0, 0), extent)
            try:
                identifier.read(h5py.h5s.create_simple(extent), space, out[first:last])
            except (OSError, RuntimeError) as error:
                run = f"{rows[first]}..{rows[last - 1]}" if last - first > 1 else f"{rows[first]}"
                what = f"{self.key!r}, pattern {run} of {len(self)},"
                raise _unreadable(self.path, what, error) from error
        self._check_versions()

    def warn_of_amplification(self) -> None:
        """Warn if reading patterns at random decodes much more than it needs."""
        if self.amplification > AMPLIFICATION:
            warn(
                f"{self.path}: the chunks of {self.key!r} make each pattern that is read at "
                f"random cost {self.amplification:.3g} times its bytes. For training, convert "
                "the file once: ptycho-fast convert IN OUT.npz",
            )


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _prime_from(number: int) -> int:
    number = min(number, 10**6) | 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number
