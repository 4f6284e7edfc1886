"""NPZ scan files, and safe reading of any NPZ file."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.checks import STACK_DTYPES, as_mask, as_real, join_coordinates
from ptycho_fast.frames import BLOCK_BYTES, FileFrames, Frames
from ptycho_fast.io import about, cache
from ptycho_fast.io.atomic import replacing
from ptycho_fast.io.npy import read_header, write_stack
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")

COPY_BYTES = 2**20
"""What is unpacked at a time: it stays in the processor's cache."""

GATHERED_BYTES = 2**25
"""Patterns of (N, N, n) are gathered this many at a time: the more, the longer the pieces read."""

PATTERN_KEYS = ("diff3d", "diffraction")
"""The first wins where a file has both."""

ENERGIES_OF = "pattern_energies_of"
"""Checksums of what the energies were computed from, and of themselves, beside them in a file."""

SCAN_KEYS = (
    "xcoords", "ycoords", *PATTERN_KEYS, "probeGuess", "objectGuess",
    "xcoords_start", "ycoords_start", "scan_index", "detector_mask", "pattern_energies",
    ENERGIES_OF,
)  # fmt: skip

ENERGY_SOURCES = (
    *PATTERN_KEYS, "detector_mask", "bad_pixel_starts", "bad_pixel_numbers", "pattern_energies",
)  # fmt: skip


class Member(NamedTuple):
    """An array in an NPZ file, as its header tells, and where it lies."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int | None
    """Where its numbers begin in the file; None if they are compressed."""
    checksum: tuple[int, int]
    """CRC and size: what has both in common is the same."""


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what zip, zlib and NumPy raise on damaged files into OSError."""
    try:
        yield
    # RuntimeError: encrypted, or (NotImplementedError) compressed in an unknown way.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        msg = (
            f"{os.fspath(path)} is no NPZ file, or it is damaged or cut short ({error}). "
            "Copy or write it again."
        )
        raise OSError(msg) from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name in archive.namelist():
        if name.endswith(".npy"):
            yield name.removesuffix(".npy"), name


def _damaged(path: str | os.PathLike[str], key: str, error: Exception) -> OSError:
    return OSError(f"{os.fspath(path)}: {key!r} can't be read ({error}). Write the file again.")


def members(path: str | os.PathLike[str]) -> dict[str, Member]:
    """Return key -> what is known of the array, reading headers only.

    Raises
    ------
    OSError
        If the file is missing, truncated, or no NPZ file.
    """
    found = {}
    with _reading(path), zipfile.ZipFile(path) as archive:
        for key, name in _members(archive):
            with archive.open(name) as file:
                try:
                    shape, fortran_order, dtype = read_header(file)
                except ValueError as error:
                    raise _damaged(path, key, error) from error
                header = file.tell()
            entry = archive.getinfo(name)
            needed = header + math.prod(shape) * dtype.itemsize
            if entry.file_size < needed and not dtype.hasobject:
                what = f"{entry.file_size} of its {needed} bytes are there"
                raise _damaged(path, key, ValueError(what))
            stored = entry.compress_type == zipfile.ZIP_STORED
            offset = _start(archive, entry) + header if stored else None
            checksum = entry.CRC, entry.file_size
            found[key] = Member(shape, dtype, fortran_order, offset, checksum)
    return found


def _start(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Return where a member begins in the file."""
    # The directory at the end has another "extra" than the header before the member.
    file = archive.fp
    assert file is not None
    file.seek(entry.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return int(entry.header_offset + 30 + name + extra)


def read_array(
    path: str | os.PathLike[str], key: str, *, allow_pickle: bool = False
) -> NDArray[Any]:
    """Read one array of an NPZ file.

    Raises
    ------
    OSError
        If the file is missing, truncated, or no NPZ file.
    KeyError
        If the file has no such key.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        names = dict(_members(archive))
        if key not in names:
            msg = f"{os.fspath(path)} has no {key!r}; it has {sorted(names)}."
            raise KeyError(msg)
        with archive.open(names[key]) as file:
            try:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=allow_pickle)
            except ValueError as error:  # a header or a payload cut short
                raise _damaged(path, key, error) from error
            # The end of the member must be reached for its checksum to be compared.
            file.read()
            return array


def read(
    path: str | os.PathLike[str],
    *,
    intensity: bool = False,
    allow_pickle: bool = False,
    load: bool = True,
) -> Scan:
    """Read an NPZ scan; `ptycho_fast.read_scan` says how."""
    found = members(path)
    _require(path, found)
    pattern_keys = [key for key in PATTERN_KEYS if key in found]
    if len({found[key].checksum for key in pattern_keys}) == 1:
        del pattern_keys[1:]  # the same twice
    arrays = {}
    for key, member in found.items():
        if key == about.KEY:
            continue
        if member.dtype.hasobject and not allow_pickle:
            msg = (
                f"{os.fspath(path)}: {key!r} is a pickled object, and unpickling runs code. "
                "If you trust the file, pass allow_pickle=True."
            )
            raise ValueError(msg)
        if key not in PATTERN_KEYS:
            arrays[key] = read_array(path, key, allow_pickle=allow_pickle)

    positions = join_coordinates(arrays["xcoords"], arrays["ycoords"])
    start = join_coordinates(
        arrays.get("xcoords_start", arrays["xcoords"]),
        arrays.get("ycoords_start", arrays["ycoords"]),
    )
    stacks = [_Stack(path, key, found[key], len(positions)) for key in pattern_keys]
    patterns = stacks[0].load() if load else stacks[0].open()
    for other in stacks[1:]:
        if not (np.array_equal(other.load(), patterns) if load else other.equals(patterns)):
            msg = (
                f"{os.fspath(path)} has both 'diff3d' and 'diffraction', and they differ. "
                "Remove the one that is not meant."
            )
            raise ValueError(msg)
    mask = _optional(arrays, "detector_mask")
    # They are those of the patterns as they are stored.
    energies = None if intensity else _energies(path, arrays, found)
    return Scan(
        positions=positions,
        positions_start=start,
        diffraction=_amplitudes(patterns, intensity=intensity),
        probe=_optional(arrays, "probeGuess"),
        object=_optional(arrays, "objectGuess"),
        scan_index=_optional(arrays, "scan_index"),
        mask=None if mask is None else as_mask(mask, stacks[0].N),
        energies=energies,
        metadata={
            **{key: value[()] for key, value in arrays.items() if key not in SCAN_KEYS},
            **({about.KEY: _metadata(path, allow_pickle)} if about.KEY in found else {}),
        },
    )


def _metadata(path: str | os.PathLike[str], allow_pickle: bool) -> Any:
    """Read what the file tells about itself."""
    try:
        with (
            _reading(path),
            zipfile.ZipFile(path) as archive,
            archive.open(f"{about.KEY}.npy") as file,
        ):
            return about.read(file)
    except ValueError as error:
        if allow_pickle:
            return read_array(path, about.KEY, allow_pickle=True)[()]
        msg = (
            f"{os.fspath(path)}: '_metadata' can't be read: {error}. JSON and pickles of numbers, "
            "text, lists, dicts and NumPy arrays are read. If you trust the file, "
            "read_scan(path, allow_pickle=True) runs the pickle."
        )
        raise ValueError(msg) from error


def _energies(
    path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]], found: Mapping[str, Member]
) -> NDArray[np.float64] | None:
    """Return the stored energies, if what they were computed from is what is in the file."""
    energies, then = (_optional(arrays, key) for key in ("pattern_energies", ENERGIES_OF))
    if energies is None:
        return None
    now = _energies_of({key: member.checksum for key, member in found.items()})
    if then is None or not np.array_equal(now, then):
        logger.info(
            "%s: pattern_energies are not used: they were computed from other patterns, or it is "
            "not known from which. They are computed again when they are needed; "
            "`ptycho-fast convert` stores them.",
            os.fspath(path),
        )
        return None
    return as_real("pattern_energies", energies)


def _energies_of(checksums: Mapping[str, tuple[int, int]]) -> NDArray[np.uint64]:
    """Return CRC and size of all that energies depend on; the file's directory has them anyway."""
    return np.array([checksums.get(key, (0, 0)) for key in ENERGY_SOURCES], np.uint64)


def _require(path: str | os.PathLike[str], found: dict[str, Member]) -> None:
    missing = [key for key in ("xcoords", "ycoords") if key not in found]
    if not any(key in found for key in PATTERN_KEYS):
        missing.append("diff3d (or diffraction)")
    if missing:
        keys = ", ".join(f"{key} {member.shape}" for key, member in found.items()) or "none"
        msg = f"{os.fspath(path)} is no scan: it lacks {', '.join(missing)}. Its keys: {keys}."
        raise KeyError(msg)


def _optional(arrays: dict[str, NDArray[Any]], key: str) -> NDArray[Any] | None:
    """Return an array, or None where the key is absent or holds a saved None."""
    array = arrays.get(key)
    return None if array is None or (array.dtype.hasobject and array[()] is None) else array


class _Stack:
    """The patterns in an NPZ file, in whichever layout they came."""

    def __init__(self, path: str | os.PathLike[str], key: str, member: Member, n: int) -> None:
        self.path, self.key, self.member, self.n = path, key, member, n
        if member.dtype.kind not in "fiub":
            msg = f"Patterns must be real numbers, got {member.dtype}."
            raise ValueError(msg)
        shape = member.shape
        if len(shape) == 4 and shape[3] == 1:
            shape = shape[:3]
        if len(shape) == 3 and shape[0] == n and shape[1] == shape[2]:
            frames_first = True
        elif len(shape) == 3 and shape[2] == n and shape[0] == shape[1]:
            frames_first = False
        else:
            msg = (
                f"{key!r} has shape {member.shape}, which holds no {n} square patterns, though "
                f"there are {n} positions: ({n}, N, N), (N, N, {n}) or ({n}, N, N, 1) is needed."
            )
            raise ValueError(msg)
        self.N = shape[1]
        self.shape = n, self.N, self.N
        # In the file; Fortran order turns the axes round, and so the two of each pattern.
        self.frames_first = frames_first != member.fortran_order
        self.transposed = member.fortran_order

    def load(self) -> NDArray[Any]:
        """Return all patterns."""
        stack = read_array(self.path, self.key)
        if stack.shape != self.member.shape:
            raise _damaged(self.path, self.key, ValueError("it has changed meanwhile"))
        if stack.ndim == 4:
            stack = stack[..., 0]
        # Where both layouts fit, the first axis is the frames.
        stack = stack if stack.shape == self.shape else stack.transpose(2, 0, 1)
        return np.ascontiguousarray(stack)

    def open(self) -> Frames:
        """Return the patterns where they lie or, if they don't lie one by one, to be unpacked."""
        if self.frames_first and not self.transposed and self.member.offset is not None:
            return FileFrames(self.path, self.member.offset, self.shape, self.member.dtype)
        return Unpacked(self)

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache."""
        dtype = self.member.dtype.newbyteorder("=")
        both = not self.frames_first and self.member.offset is None
        return cache.unpacked(
            self.path,
            self.key,
            self.shape,
            dtype,
            self.blocks,
            checksum=self.member.checksum,
            scratch=math.prod(self.shape) * dtype.itemsize if both else 0,
        )

    def equals(self, patterns: NDArray[Any] | Frames) -> bool:
        """Compare with other patterns, a block at a time."""
        first = 0
        for block in self.blocks():
            if not np.array_equal(block, patterns[first : first + len(block)]):
                return False
            first += len(block)
        return True

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all patterns in order, some at a time, into one buffer."""
        with _reading(self.path), zipfile.ZipFile(self.path) as archive:
            if not self.frames_first and self.member.offset is not None:
                with open(self.path, "rb", buffering=0) as file:
                    yield from self._gathered(file, self.member.offset)
                return
            with archive.open(f"{self.key}.npy") as member:
                read_header(member)
                if self.frames_first:
                    for block in self._consecutive(member):
                        yield block.transpose(0, 2, 1) if self.transposed else block
                    # The end must be reached for the checksum to be compared.
                    member.read()
                    return
                # A pattern is spread over all of it, and a compressed member can't be sought in.
                with tempfile.TemporaryFile(dir=cache.make_folder()) as whole:
                    shutil.copyfileobj(member, whole, COPY_BYTES)
                    yield from self._gathered(whole, 0)

    def _consecutive(self, file: IO[bytes]) -> Iterator[NDArray[Any]]:
        each = self._each()
        buffer = np.empty((each, *self.shape[1:]), self.member.dtype)
        for first in range(0, self.n, each):
            block = buffer[: self.n - first]
            _fill(file, block)
            yield block

    def _gathered(self, file: IO[bytes], offset: int) -> Iterator[NDArray[Any]]:
        """Read patterns of which the file holds pixel after pixel, (N, N, n)."""
        each, pixels, dtype = self._each(), self.N**2, self.member.dtype
        for first in range(0, self.n, each):
            gathered = np.empty((pixels, min(each, self.n - first)), dtype)
            for pixel, values in enumerate(gathered):
                file.seek(offset + (pixel * self.n + first) * dtype.itemsize)
                _fill(file, values)
            block = gathered.T.reshape(-1, *self.shape[1:])
            yield block.transpose(0, 2, 1) if self.transposed else block

    def _each(self) -> int:
        return max(1, GATHERED_BYTES // max(1, self.N**2 * self.member.dtype.itemsize))


class Unpacked(Frames):
    """Patterns that can't be read where they lie: unpacked when the first of them is wanted.

    What wants all of them in order, as `convert`, gets them straight from the file.

    Parameters
    ----------
    stack : _Stack
        Where they are.
    """

    def __init__(self, stack: _Stack) -> None:
        self.stack = stack
        self.shape, self.dtype = stack.shape, stack.member.dtype.newbyteorder("=")

    @cached_property
    def _unpacked(self) -> FileFrames:
        return self.stack.unpack()

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self._unpacked.read(rows, out)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns in order, some at a time."""
        first = 0
        for block in self.stack.blocks():
            yield slice(first, first + len(block)), np.ascontiguousarray(block, self.dtype)
            first += len(block)


def _fill(file: IO[bytes], array: NDArray[Any]) -> None:
    """Fill a C-contiguous array from where the file stands."""
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = file.readinto(rest[:COPY_BYTES])  # type: ignore[attr-defined]
        if not count:
            msg = "it ends too early"
            raise EOFError(msg)
        rest = rest[count:]


def _amplitudes(patterns: Any, *, intensity: bool) -> Any:
    """Return patterns, in memory or in their file, as amplitudes that the engine takes."""
    if not isinstance(patterns, Frames):
        return _amplitude(patterns, intensity=intensity)
    if not intensity and patterns.dtype in STACK_DTYPES:
        return patterns
    return Amplitudes(patterns, intensity=intensity)


class Amplitudes(Frames):
    """Patterns that become amplitudes of a dtype that the engine takes as they are read.

    Parameters
    ----------
    frames : Frames
        Patterns.
    intensity : bool
        They are intensities: take their square roots.
    """

    def __init__(self, frames: Frames, *, intensity: bool) -> None:
        self.frames, self.intensity = frames, intensity
        self.shape, self.dtype = frames.shape, np.dtype(np.float32)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with the amplitudes of pattern ``rows[i]``."""
        stored = self.frames.dtype
        each = max(1, BLOCK_BYTES // max(1, self.shape[1] ** 2 * stored.itemsize))
        buffer = np.empty((min(each, len(rows)), *self.shape[1:]), stored)
        for first in range(0, len(rows), each):
            some = rows[first : first + each]
            self.frames.read(some, buffer[: len(some)])
            out[first : first + each] = _amplitude(buffer[: len(some)], intensity=self.intensity)


def _amplitude(stack: NDArray[Any], *, intensity: bool) -> NDArray[Any]:
    """Return amplitudes of a dtype that the engine takes."""
    if intensity:
        lowest = stack.min(initial=0)
        if lowest < 0:
            msg = f"Intensities can't be negative; the lowest is {lowest}. Subtract no background."
            raise ValueError(msg)
        amplitude: NDArray[np.float32] = np.sqrt(stack, dtype=np.float32)
        return amplitude
    if stack.dtype.newbyteorder("=") in STACK_DTYPES:
        return np.ascontiguousarray(stack, dtype=stack.dtype.newbyteorder("="))
    return stack.astype(np.float32)


def write(scan: Scan, path: str | os.PathLike[str]) -> None:
    """Write an NPZ scan; `ptycho_fast.write_scan` says how."""
    fields = {
        "xcoords": scan.positions[:, 0],
        "ycoords": scan.positions[:, 1],
        "xcoords_start": scan.positions_start[:, 0],
        "ycoords_start": scan.positions_start[:, 1],
        "diff3d": scan.diffraction,
        "probeGuess": scan.probe,
        "objectGuess": scan.object,
        "scan_index": scan.scan_index,
        "detector_mask": scan.mask,
        "pattern_energies": scan.energies,
    }
    write_arrays(path, fields, scan.metadata)


def _as_json(value: Any) -> str:
    try:
        return value if isinstance(value, str) else about.as_json(value)
    except ValueError as error:
        msg = (
            f"'_metadata' can't be written as JSON: {error}. Use numbers, text, lists and dicts of "
            "them."
        )
        raise ValueError(msg) from error


def write_arrays(
    path: str | os.PathLike[str],
    fields: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write named arrays to an uncompressed NPZ file, which appears whole or not at all.

    Parameters
    ----------
    path : path
        The file.
    fields : mapping of str to array_like or Frames
        What the format has; what is None is left out. Frames are copied some at a time.
    metadata : mapping of str to array_like, optional
        Further keys. What is under ``_metadata`` is written as JSON.

    Raises
    ------
    OSError
        If the file can't be written.
    ValueError
        If a value would need pickling, or an entry of `metadata` has the name of a field.
    """
    # np.savez, by which others write such files again, takes the two last for arguments of its own.
    taken = {*fields, *SCAN_KEYS, "file", "allow_pickle"}
    arrays: dict[str, NDArray[Any] | Frames] = {
        key: value if isinstance(value, Frames) else np.asarray(value)
        for key, value in fields.items()
        if value is not None
    }
    for key, value in (metadata or {}).items():
        if key in taken:
            msg = f"metadata[{key!r}] can't be written: the name is taken. Rename it."
            raise ValueError(msg)
        arrays[key] = np.asarray(_as_json(value) if key == about.KEY else value)
    for key, array in arrays.items():
        if array.dtype.hasobject:
            msg = (
                f"{key!r} can't be written: it would need pickling. Use an array of numbers, text, "
                "or a dict of such under '_metadata'."
            )
            raise ValueError(msg)
    # Not np.savez: it would hold all of the patterns.
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                if isinstance(array, Frames):
                    blocks = (block for _, block in array.blocks())
                    write_stack(member, array.shape, array.dtype, blocks)
                else:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        if "pattern_energies" in arrays:
            checksums = {
                key: (archive.getinfo(name).CRC, archive.getinfo(name).file_size)
                for key, name in _members(archive)
            }
            with archive.open(f"{ENERGIES_OF}.npy", "w") as member:
                np.lib.format.write_array(member, _energies_of(checksums), allow_pickle=False)
