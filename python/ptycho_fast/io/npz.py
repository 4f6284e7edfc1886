"""NPZ scan files, and safe reading of any NPZ file."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.checks import as_real, join_coordinates
from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import about, cache
from ptycho_fast.io.atomic import replacing
from ptycho_fast.io.foreign import what_it_is
from ptycho_fast.io.layouts import as_layer, as_line, as_probe, grid_of, stack_layout
from ptycho_fast.io.leading import leading
from ptycho_fast.io.listing import listed
from ptycho_fast.io.masks import good_pixels
from ptycho_fast.io.npy import Header, read_header, write_stack
from ptycho_fast.io.prepare import Recipe, as_first
from ptycho_fast.io.regular import open_regular
from ptycho_fast.io.unpacked import Unpacked
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")

COPY_BYTES = 2**20
"""What is unpacked at a time: it stays in the processor's cache."""

GATHERED_BYTES = 2**25
"""Patterns of (N, N, n) are gathered this many at a time: the more, the longer the pieces read."""

MOST_DEFLATED = 1100
"""No compression of NumPy's makes so many bytes of one; a header that says so is wrong."""

LARGE, MOST_RATIO = 2**30, 20
"""Arrays of more bytes than `LARGE`, patterns aside, are refused if they are so many times those of
the file."""

MOST_NAMES, MOST_REASON = 24, 200
"""How much of what a file says is said again."""

PATTERN_KEYS = ("diff3d", "diffraction")
"""The first wins where a file has both."""

POSITION_KEYS = ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "scan_index")

BAD_PIXEL_KEYS = ("bad_pixel_starts", "bad_pixel_numbers")
"""As of `BadPixels`."""
ENERGIES_OF = "pattern_energies_of"
"""Checksums of what the energies were computed from, and of themselves, beside them in a file."""

SCAN_KEYS = (
    "xcoords", "ycoords", *PATTERN_KEYS, "probeGuess", "objectGuess",
    "xcoords_start", "ycoords_start", "scan_index", "detector_mask", "pattern_energies",
    *BAD_PIXEL_KEYS, ENERGIES_OF,
)  # fmt: skip

ENERGY_SOURCES = (
    *PATTERN_KEYS, "detector_mask", *BAD_PIXEL_KEYS, "pattern_energies",
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
def _archive(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a file; what zip, zlib and NumPy raise on damaged ones becomes OSError."""
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        # RuntimeError: encrypted, or (NotImplementedError) compressed in an unknown way.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            msg = what_it_is(path) or (
                f"{os.fspath(path)} is no NPZ file, or it is damaged or cut short ({error}). "
                "Copy or write it again."
            )
            raise OSError(msg) from error


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name in archive.namelist():
        if name.endswith(".npy"):
            yield name.removesuffix(".npy"), name


def _damaged(path: str | os.PathLike[str], key: str, error: Exception) -> OSError:
    reason = str(error)
    reason = reason if len(reason) <= MOST_REASON else f"{reason[:MOST_REASON]}..."
    return OSError(f"{os.fspath(path)}: {key!r} can't be read ({reason}). Write the file again.")


def members(path: str | os.PathLike[str]) -> dict[str, Member]:
    """Return key -> what is known of the array, reading headers only.

    Raises
    ------
    OSError
        If the file is missing, truncated, or no NPZ file.
    """
    found = {}
    with _archive(path) as archive:
        for key, name in _members(archive):
            (shape, fortran_order, dtype), header = _header(path, key, archive, name)
            entry = archive.getinfo(name)
            stored = entry.compress_type == zipfile.ZIP_STORED
            offset = _start(archive, entry) + header if stored else None
            checksum = entry.CRC, entry.file_size
            found[key] = Member(shape, dtype, fortran_order, offset, checksum)
    return found


def _header(
    path: str | os.PathLike[str], key: str, archive: zipfile.ZipFile, name: str
) -> tuple[Header, int]:
    """Return what the header of a member tells, and how long it is, if that can be true."""
    with archive.open(name) as file:
        try:
            header = read_header(file)
        except ValueError as error:
            raise _damaged(path, key, error) from error
        length = file.tell()
    entry = archive.getinfo(name)
    if header.dtype.hasobject:
        return header, length
    needed = length + math.prod(header.shape) * header.dtype.itemsize
    if entry.file_size < needed:
        what = f"{entry.file_size} of its {needed} bytes are there"
        raise _damaged(path, key, ValueError(what))
    if entry.file_size > MOST_DEFLATED * (entry.compress_size + 64):
        what = f"{entry.compress_size} bytes can't hold {entry.file_size}"
        raise _damaged(path, key, ValueError(what))
    return header, length


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
    ValueError
        If it is far more than the file holds.
    """
    return read_arrays(path, [key], allow_pickle=allow_pickle)[key]


def read_arrays(
    path: str | os.PathLike[str], keys: Collection[str], *, allow_pickle: bool = False
) -> dict[str, NDArray[Any]]:
    """Read some arrays of an NPZ file, which is opened once.

    Raises
    ------
    Exception
        As `read_array`.
    """
    arrays = {}
    with _archive(path) as archive:
        names = dict(_members(archive))
        for key in keys:
            if key not in names:
                some = sorted(names)
                rest = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
                msg = f"{os.fspath(path)} has no {key!r}; it has {some[:MOST_NAMES]}{rest}."
                raise KeyError(msg)
        entries = [archive.getinfo(names[key]) for key in keys]
        total = sum(entry.file_size for entry in entries)
        if total > LARGE and total > MOST_RATIO * sum(entry.compress_size for entry in entries):
            largest = max(entries, key=lambda entry: entry.file_size)
            msg = (
                f"{os.fspath(path)}: {', '.join(list(keys)[:MOST_NAMES])} would unpack to "
                f"{total / 2**30:.3g} GiB ({largest.filename!r} from {largest.compress_size} bytes "
                f"to {largest.file_size}), and was not read. Write the file without what is not "
                "needed."
            )
            raise ValueError(msg)
        for key in keys:
            _header(path, key, archive, names[key])
            with archive.open(names[key]) as file:
                try:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=allow_pickle)
                # A header or a payload cut short, or a pickle that is none.
                except (ValueError, pickle.UnpicklingError) as error:
                    raise _damaged(path, key, error) from error
                # The end of the member must be reached for its checksum to be compared.
                file.read()
    return arrays


def member(path: str | os.PathLike[str], key: str) -> Member:
    """Return what is known of an array.

    Raises
    ------
    KeyError
        If the file has none of that name.
    """
    found = members(path)
    if key not in found:
        msg = f"{os.fspath(path)} has no {key!r}. It has: {listed(found)}."
        raise KeyError(msg)
    return found[key]


def frames(
    path: str | os.PathLike[str],
    key: str,
    recipe: Recipe | None = None,
    n: int | None = None,
    grid: tuple[int, ...] = (),
) -> Frames:
    """Open patterns in a layout of `stack_layout`; they stay in the file.

    Raises
    ------
    KeyError
        If the file has no such array.
    ValueError
        If it is no stack of real numbers.
    """
    found = member(path, key)
    if found.dtype.kind not in "fiu":
        msg = (
            f"{os.fspath(path)}: {key!r} must be frames (n, rows, columns) of real numbers, got "
            f"{found.dtype} of shape {found.shape}."
        )
        raise ValueError(msg)
    return _Stack(path, key, found, n=n, recipe=recipe or Recipe(), grid=grid).open()


def read(
    path: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    allow_pickle: bool = False,
    in_order: bool = False,
) -> Scan:
    """Read an NPZ scan as it is stored; its patterns stay in the file.

    Parameters
    ----------
    path : path
        The file.
    recipe : Recipe, optional
        Of which `frames_axis`, `reshape` and `first` count here.
    allow_pickle : bool
        As of `ptycho_fast.read_scan`.
    in_order : bool
        The patterns will all be read, in order: they pass the file's checksum on the way, and
        nothing has to be unpacked to the disk.
    """
    recipe = recipe or Recipe()
    found = members(path)
    _require(path, found)
    pattern_keys = [key for key in PATTERN_KEYS if key in found]
    if len({found[key].checksum for key in pattern_keys}) == 1:
        del pattern_keys[1:]  # the same twice
    wanted = []
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
            wanted.append(key)
    arrays = read_arrays(path, wanted, allow_pickle=allow_pickle)
    grid = _flatten_positions(path, arrays, found[pattern_keys[0]].shape, recipe)
    positions = join_coordinates(arrays["xcoords"], arrays["ycoords"])
    start = join_coordinates(
        arrays.get("xcoords_start", arrays["xcoords"]),
        arrays.get("ycoords_start", arrays["ycoords"]),
    )
    stacks = [
        _Stack(path, key, found[key], n=len(positions), recipe=recipe, grid=grid)
        for key in pattern_keys
    ]
    n = _used(path, stacks[0], len(positions), recipe)
    patterns = Unpacked(stacks[0]) if in_order else stacks[0].open()
    for other in stacks[1:]:
        if not other.equals(patterns):
            msg = (
                f"{os.fspath(path)} has both 'diff3d' and 'diffraction', and they differ. "
                "Remove the one that is not meant."
            )
            raise ValueError(msg)
    bad = None
    if all(key in arrays for key in BAD_PIXEL_KEYS):
        bad = BadPixels(*(arrays[key] for key in BAD_PIXEL_KEYS))
    patterns = leading(patterns, n)
    if recipe.first is not None:
        positions, start = positions[:n], start[:n]
        for key in ("scan_index", "Y"):
            if key in arrays and arrays[key].ndim:
                arrays[key] = arrays[key][:n]
        arrays.pop("pattern_energies", None)
        bad = None if bad is None else bad.take(np.arange(n))
    name, shape = os.fspath(path), stacks[0].shape
    probe, object_ = _optional(arrays, "probeGuess"), _optional(arrays, "objectGuess")
    mask = _optional(arrays, "detector_mask")
    if probe is not None:
        probe = as_probe(f"{name}: 'probeGuess'", probe, shape[1:])
    if object_ is not None:
        object_ = as_layer(f"{name}: 'objectGuess'", object_)
    return Scan(
        positions=positions,
        positions_start=start,
        diffraction=patterns,
        probe=probe,
        object=object_,
        scan_index=_optional(arrays, "scan_index"),
        mask=None if mask is None else good_pixels("detector_mask", mask, shape),
        energies=_energies(path, arrays, found),
        metadata={
            **{key: value[()] for key, value in arrays.items() if key not in SCAN_KEYS},
            **({about.KEY: _metadata(path, allow_pickle)} if about.KEY in found else {}),
        },
        bad_pixels=bad,
    )


def _flatten_positions(
    path: str | os.PathLike[str],
    arrays: dict[str, NDArray[Any]],
    stack: tuple[int, ...],
    recipe: Recipe,
) -> tuple[int, ...]:
    """Make what belongs to positions (n,), in place; return the grid (ny, nx) it was, if any."""
    shape = arrays["xcoords"].shape
    grid = grid_of(shape, stack) if shape == arrays["ycoords"].shape else ()
    if grid and not (recipe.reshape or (len(stack) == 4 and stack[:2] == grid)):
        msg = (
            f"{os.fspath(path)}: xcoords and ycoords are grids of shape {grid}, but the patterns "
            f"have shape {stack}. If they belong together row by row: reshape=True (--reshape)."
        )
        raise ValueError(msg)
    for key in POSITION_KEYS:
        if key in arrays:
            line = as_line(arrays[key])
            arrays[key] = line.reshape(-1) if grid and line.shape == grid else line
    return grid


def _used(path: str | os.PathLike[str], stack: _Stack, n: int, recipe: Recipe) -> int:
    """Return how many frames and positions are used, if they fit one another."""
    frames, height, width = stack.shape
    name, shape = f"{os.fspath(path)}: {stack.key!r}", stack.member.shape
    if recipe.first is None and frames != n:
        msg = (
            f"{name} has shape {shape}, which holds no {n} square patterns, though there are {n} "
            f"positions: ({n}, N, N), (N, N, {n}) or ({n}, N, N, 1) is needed. If frame i belongs "
            f"to position i, first={min(frames, n)} (--first {min(frames, n)}) leaves out the "
            "others."
        )
        raise ValueError(msg)
    if height != width:
        msg = (
            f"{name} has shape {shape}, which holds no {n} square patterns: they are {height} rows "
            f"x {width} columns. Pass crop={min(height, width)} (--crop {min(height, width)}), and "
            "centre=(row, column) of the beam."
        )
        raise ValueError(msg)
    return as_first(recipe.first, frames, n) if recipe.first is not None else n


def _metadata(path: str | os.PathLike[str], allow_pickle: bool) -> Any:
    """Read what the file tells about itself."""
    try:
        with _archive(path) as archive, archive.open(f"{about.KEY}.npy") as file:
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
        msg = (
            f"{os.fspath(path)} is no scan: it lacks {', '.join(missing)}. Its keys: "
            f"{listed(found)}."
        )
        raise KeyError(msg)


def _optional(arrays: dict[str, NDArray[Any]], key: str) -> NDArray[Any] | None:
    """Return an array, or None where the key is absent or holds a saved None."""
    array = arrays.get(key)
    return None if array is None or (array.dtype.hasobject and array[()] is None) else array


class _Stack:
    """The patterns in an NPZ file, in whichever layout they came."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        member: Member,
        *,
        n: int | None,
        recipe: Recipe,
        grid: tuple[int, ...] = (),
    ) -> None:
        self.path, self.key, self.member = path, key, member
        if member.dtype.kind not in "fiub":
            msg = (
                f"{os.fspath(path)}: {key!r} must be frames (n, rows, columns) of real numbers, "
                f"got {member.dtype} of shape {member.shape}."
            )
            raise ValueError(msg)
        layout = stack_layout(f"{os.fspath(path)}: {key!r}", member.shape, recipe, n, grid)
        if member.fortran_order and len(member.shape) == 4 and 1 not in member.shape:
            msg = (
                f"{os.fspath(path)}: {key!r} is a grid of frames in Fortran order. Write it again "
                "as numpy.ascontiguousarray makes it."
            )
            raise ValueError(msg)
        self.layout = layout
        self.shape = layout.shape
        self.dtype = member.dtype.newbyteorder("=")
        # In the file; Fortran order turns the axes round, and so the two of each pattern.
        self.frames_first = layout.frames_last == member.fortran_order
        self.transposed = member.fortran_order
        n, height, width = self.shape
        self.n, self.stored = n, (width, height) if self.transposed else (height, width)

    def open(self) -> Frames:
        """Return the patterns where they lie or, if they don't lie one by one, to be unpacked."""
        if self.frames_first and not self.transposed and self.member.offset is not None:
            return FileFrames(self.path, self.member.offset, self.shape, self.member.dtype)
        return Unpacked(self)

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache."""
        both = not self.frames_first and self.member.offset is None
        return cache.unpacked(
            self.path,
            # What the same numbers are when they are read another way is something else.
            f"{self.key}[:,:,i]" if self.layout.frames_last else self.key,
            self.shape,
            self.dtype,
            self.blocks,
            checksum=self.member.checksum,
            scratch=math.prod(self.shape) * self.dtype.itemsize if both else 0,
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
        with _archive(self.path) as archive:
            if not self.frames_first and self.member.offset is not None:
                with open_regular(self.path) as file:
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
        buffer = np.empty((each, *self.stored), self.member.dtype)
        for first in range(0, self.n, each):
            block = buffer[: self.n - first]
            _fill(file, block)
            yield block

    def _gathered(self, file: IO[bytes], offset: int) -> Iterator[NDArray[Any]]:
        """Read patterns of which the file holds pixel after pixel, (N, N, n)."""
        each, pixels, dtype = self._each(), math.prod(self.stored), self.member.dtype
        for first in range(0, self.n, each):
            gathered = np.empty((pixels, min(each, self.n - first)), dtype)
            for pixel, values in enumerate(gathered):
                file.seek(offset + (pixel * self.n + first) * dtype.itemsize)
                _fill(file, values)
            block = gathered.T.reshape(-1, *self.stored)
            yield block.transpose(0, 2, 1) if self.transposed else block

    def _each(self) -> int:
        return max(1, GATHERED_BYTES // max(1, math.prod(self.stored) * self.dtype.itemsize))


def _fill(file: IO[bytes], array: NDArray[Any]) -> None:
    """Fill a C-contiguous array from where the file stands."""
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = file.readinto(rest[:COPY_BYTES])  # type: ignore[attr-defined]
        if not count:
            msg = "it ends too early"
            raise EOFError(msg)
        rest = rest[count:]


def write(
    scan: Scan, path: str | os.PathLike[str], *, found: Callable[[], Scan] | None = None
) -> None:
    """Write an NPZ scan; `ptycho_fast.write_scan` says how.

    Parameters
    ----------
    scan : Scan
        What to write.
    path : path
        The file.
    found : callable, optional
        Called once the patterns are written; returns the scan with the mask, the energies and the
        bad pixels that were found on the way.
    """

    def later() -> dict[str, Any]:
        told = scan if found is None else found()
        bad = told.bad_pixels
        lists = (None, None) if bad is None else (bad.starts, bad.pixels)
        return {
            "detector_mask": told.mask,
            "pattern_energies": told.energies,
            **dict(zip(BAD_PIXEL_KEYS, lists, strict=True)),
        }

    fields = {
        "xcoords": scan.positions[:, 0],
        "ycoords": scan.positions[:, 1],
        "xcoords_start": scan.positions_start[:, 0],
        "ycoords_start": scan.positions_start[:, 1],
        "diff3d": scan.diffraction,
        "probeGuess": scan.probe,
        "objectGuess": scan.object,
        "scan_index": scan.scan_index,
    }
    write_arrays(path, fields, scan.metadata, later=later)


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
    *,
    later: Callable[[], Mapping[str, Any]] | None = None,
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
    later : callable, optional
        Called when all others are written; returns more of `fields`, which were not known before.

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
            _write_member(archive, key, array)
        for key, value in (later() if later is not None else {}).items():
            if value is not None:
                _write_member(archive, key, np.asarray(value))
        names = archive.NameToInfo
        if "pattern_energies.npy" in names:
            checksums = {
                name.removesuffix(".npy"): (entry.CRC, entry.file_size)
                for name, entry in names.items()
            }
            _write_member(archive, ENERGIES_OF, _energies_of(checksums))


def _write_member(archive: zipfile.ZipFile, key: str, array: NDArray[Any] | Frames) -> None:
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        if isinstance(array, Frames):
            blocks = (block for _, block in array.blocks())
            write_stack(member, array.shape, array.dtype, blocks)
        else:
            np.lib.format.write_array(member, array, allow_pickle=False)
