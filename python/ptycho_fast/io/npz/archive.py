"""An NPZ file that is open for reading: its arrays are listed and read, never trusted."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import struct
import zipfile
import zlib
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.io.foreign import what_it_is
from ptycho_fast.io.npy import Header, read_header
from ptycho_fast.io.npz.bzip2 import decompressed
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

MOST_DEFLATED = 1100
"""NumPy's compression never makes more bytes than this of one; a header that says so is wrong."""

LARGE, MOST_RATIO = 2**30, 20
"""Arrays of more than `LARGE` bytes, patterns aside, are refused if they are more than `MOST_RATIO`
times as large as what the file holds of them."""

MOST_NAMES, MOST_REASON = 24, 200
"""How many names, and how many characters of a reason, an error message repeats."""


class Member(NamedTuple):
    """An array in an NPZ file, as its header describes it, and where it lies."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int | None
    """The byte of the file at which its numbers begin; None if it, or the file, is compressed."""
    checksum: tuple[int, int]
    """CRC and size. Arrays that agree in both are taken to be the same."""


class Archive:
    """An NPZ file, opened once. Close it, or use it in a ``with`` statement.

    Parameters
    ----------
    path : path
        The file.
    file : binary file, optional
        The file, already open; it is closed with the archive.

    Raises
    ------
    OSError
        Here or in any method, if the file is missing, truncated, damaged or no NPZ file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from ptycho_fast.io.npz import Archive
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "arrays.npz"
    >>> np.savez(path, x=np.arange(3))
    >>> with Archive(path) as archive:
    ...     archive.members["x"].shape, archive.read(["x"])["x"]
    ((3,), array([0, 1, 2]))
    """

    def __init__(self, path: str | os.PathLike[str], file: IO[bytes] | None = None) -> None:
        self.path = path
        self._file = open_regular(path) if file is None else file
        try:
            with self._damage_is_an_os_error():
                self._packed = decompressed(self._file, path)
                self._zip = zipfile.ZipFile(self._packed or self._file)
                self._names = {
                    name.removesuffix(".npy"): name
                    for name in self._zip.namelist()
                    if name.endswith(".npy")
                }
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()
        if self._packed is not None:
            self._packed.close()

    def __contains__(self, key: str) -> bool:
        return key in self._names

    @cached_property
    def members(self) -> dict[str, Member]:
        """Key -> what the header of the array says. Only headers are read."""
        found = {}
        with self._damage_is_an_os_error():
            for key, name in self._names.items():
                (shape, fortran_order, dtype), header = self._header(key)
                entry = self._zip.getinfo(name)
                stored = entry.compress_type == zipfile.ZIP_STORED and self._packed is None
                offset = self._start(entry) + header if stored else None
                checksum = entry.CRC, entry.file_size
                found[key] = Member(shape, dtype, fortran_order, offset, checksum)
        return found

    def read(self, keys: Collection[str], *, allow_pickle: bool = False) -> dict[str, NDArray[Any]]:
        """Read some of the arrays.

        Raises
        ------
        OSError
            If the file or one of these arrays is damaged.
        KeyError
            If the file lacks one of the keys.
        ValueError
            If the arrays claim to be far larger than the file.
        """
        for key in keys:
            if key not in self._names:
                some = sorted(self._names)
                rest = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
                msg = f"{os.fspath(self.path)} has no {key!r}; it has {some[:MOST_NAMES]}{rest}."
                raise KeyError(msg)
        self._check_size(keys)
        arrays = {}
        with self._damage_is_an_os_error():
            for key in keys:
                self._header(key)
                with self._zip.open(self._names[key]) as file:
                    try:
                        arrays[key] = np.lib.format.read_array(file, allow_pickle=allow_pickle)
                    # The header or the numbers are cut short, or a pickle is damaged.
                    except (ValueError, pickle.UnpicklingError) as error:
                        raise self._damaged(key, error) from error
                    # zipfile compares the checksum at the end of the member.
                    file.read()
        return arrays

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """Open the NPY file of an array."""
        with self._damage_is_an_os_error(), self._zip.open(self._names[key]) as file:
            yield file

    @contextlib.contextmanager
    def _damage_is_an_os_error(self) -> Iterator[None]:
        """Turn what zipfile, zlib and NumPy raise on damaged files into OSError."""
        try:
            yield
        # RuntimeError: encrypted, or (NotImplementedError) compressed in an unknown way.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            msg = what_it_is(self.path) or (
                f"{os.fspath(self.path)} is not an NPZ file, or it is damaged or cut short "
                f"({error}). "
                "Copy or write it again."
            )
            raise OSError(msg) from error

    def _check_size(self, keys: Collection[str]) -> None:
        """Refuse arrays that would unpack to far more than the file holds."""
        entries = [self._zip.getinfo(self._names[key]) for key in keys]
        total = sum(entry.file_size for entry in entries)
        if total > LARGE and total > MOST_RATIO * sum(entry.compress_size for entry in entries):
            largest = max(entries, key=lambda entry: entry.file_size)
            msg = (
                f"{os.fspath(self.path)}: {', '.join(list(keys)[:MOST_NAMES])} would unpack to "
                f"{total / 2**30:.3g} GiB ({largest.filename!r} from {largest.compress_size} bytes "
                f"to {largest.file_size}), and was not read. Write the file without what is not "
                "needed."
            )
            raise ValueError(msg)

    def _header(self, key: str) -> tuple[Header, int]:
        """Return the header of an array and its length in bytes, if the header can be true."""
        with self._zip.open(self._names[key]) as file:
            try:
                header = read_header(file)
            except ValueError as error:
                raise self._damaged(key, error) from error
            length = file.tell()
        entry = self._zip.getinfo(self._names[key])
        if header.dtype.hasobject:
            return header, length
        needed = length + math.prod(header.shape) * header.dtype.itemsize
        if entry.file_size < needed:
            what = f"{entry.file_size} of its {needed} bytes are there"
            raise self._damaged(key, ValueError(what))
        if entry.file_size > MOST_DEFLATED * (entry.compress_size + 64):
            what = f"{entry.compress_size} bytes can't hold {entry.file_size}"
            raise self._damaged(key, ValueError(what))
        return header, length

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Return the byte of the file at which a member begins."""
        # The "extra" field of the directory at the end differs from that before the member.
        self._file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", self._file.read(4))
        return int(entry.header_offset + 30 + name + extra)

    def _damaged(self, key: str, error: Exception) -> OSError:
        reason = str(error)
        reason = reason if len(reason) <= MOST_REASON else f"{reason[:MOST_REASON]}..."
        path = os.fspath(self.path)
        return OSError(f"{path}: {key!r} can't be read ({reason}). Write the file again.")


def read_array(
    path: str | os.PathLike[str], key: str, *, allow_pickle: bool = False
) -> NDArray[Any]:
    """Read one array of an NPZ file; as `read_arrays`."""
    return read_arrays(path, [key], allow_pickle=allow_pickle)[key]


def read_arrays(
    path: str | os.PathLike[str], keys: Collection[str], *, allow_pickle: bool = False
) -> dict[str, NDArray[Any]]:
    """Read some arrays of an NPZ file, which is opened once.

    Raises
    ------
    OSError
        If the file is missing, truncated, damaged or no NPZ file.
    KeyError
        If the file lacks one of the keys.
    ValueError
        If the arrays claim to be far larger than the file.
    """
    with Archive(path) as archive:
        return archive.read(keys, allow_pickle=allow_pickle)
