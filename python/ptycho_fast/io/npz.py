"""NPZ scan files, and safe reading of any NPZ file."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.checks import STACK_DTYPES, join_coordinates
from ptycho_fast.io.atomic import replacing
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")

PATTERN_KEYS = ("diff3d", "diffraction")
"""The first wins where a file has both."""

SCAN_KEYS = (
    "xcoords", "ycoords", *PATTERN_KEYS, "probeGuess", "objectGuess",
    "xcoords_start", "ycoords_start", "scan_index",
)  # fmt: skip


class Member(NamedTuple):
    """An array in an NPZ file, as its header tells."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what zip, zlib and NumPy raise on damaged files into OSError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        msg = (
            f"{os.fspath(path)} is no NPZ file, or it is damaged or cut short ({error}). "
            "Copy or write it again."
        )
        raise OSError(msg) from error


def _header(file: IO[bytes]) -> Member:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return Member(shape, dtype)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name in archive.namelist():
        if name.endswith(".npy"):
            yield name.removesuffix(".npy"), name


def _damaged(path: str | os.PathLike[str], key: str, error: Exception) -> OSError:
    return OSError(f"{os.fspath(path)}: {key!r} can't be read ({error}). Write the file again.")


def members(path: str | os.PathLike[str]) -> dict[str, Member]:
    """Return key -> (shape, dtype) of an NPZ file, reading headers only.

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
                    found[key] = _header(file)
                except ValueError as error:
                    raise _damaged(path, key, error) from error
    return found


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
    path: str | os.PathLike[str], *, intensity: bool = False, allow_pickle: bool = False
) -> Scan:
    """Read an NPZ scan; `ptycho_fast.read_scan` says how."""
    found = members(path)
    _require(path, found)
    arrays = {}
    for key, member in found.items():
        if member.dtype.hasobject and not allow_pickle:
            if key != "_metadata":
                msg = (
                    f"{os.fspath(path)}: {key!r} is a pickled object, and unpickling runs code. "
                    "If you trust the file, pass allow_pickle=True."
                )
                raise ValueError(msg)
            warnings.warn(
                f"{os.fspath(path)}: '_metadata' is a pickled object and was skipped. "
                "If you trust the file, pass allow_pickle=True.",
                stacklevel=4,
            )
            continue
        arrays[key] = read_array(path, key, allow_pickle=allow_pickle)

    positions = join_coordinates(arrays["xcoords"], arrays["ycoords"])
    start = join_coordinates(
        arrays.get("xcoords_start", arrays["xcoords"]),
        arrays.get("ycoords_start", arrays["ycoords"]),
    )
    stacks = [
        _frames_first(key, arrays[key], len(positions)) for key in PATTERN_KEYS if key in arrays
    ]
    if len(stacks) == 2 and not np.array_equal(stacks[0], stacks[1]):
        msg = (
            f"{os.fspath(path)} has both 'diff3d' and 'diffraction', and they differ. "
            "Remove the one that is not meant."
        )
        raise ValueError(msg)
    return Scan(
        positions=positions,
        positions_start=start,
        diffraction=_amplitude(stacks[0], intensity=intensity),
        probe=_optional(arrays, "probeGuess"),
        object=_optional(arrays, "objectGuess"),
        scan_index=_optional(arrays, "scan_index"),
        metadata={key: value[()] for key, value in arrays.items() if key not in SCAN_KEYS},
    )


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


def _frames_first(key: str, stack: NDArray[Any], n: int) -> NDArray[Any]:
    """Return a stack as (n, N, N), whichever layout it came in."""
    given = stack.shape
    if stack.ndim == 4 and stack.shape[3] == 1:
        stack = stack[..., 0]
    if stack.ndim == 3:
        if stack.shape[0] == n and stack.shape[1] == stack.shape[2]:
            return stack
        if stack.shape[2] == n and stack.shape[0] == stack.shape[1]:
            return np.ascontiguousarray(stack.transpose(2, 0, 1))
    msg = (
        f"{key!r} has shape {given}, which holds no {n} square patterns, though there are {n} "
        f"positions: ({n}, N, N), (N, N, {n}) or ({n}, N, N, 1) is needed."
    )
    raise ValueError(msg)


def _amplitude(stack: NDArray[Any], *, intensity: bool) -> NDArray[Any]:
    """Return amplitudes of a dtype that the engine takes."""
    if stack.dtype.kind not in "fiub":
        msg = f"Patterns must be real numbers, got {stack.dtype}."
        raise ValueError(msg)
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
    }
    write_arrays(path, fields, scan.metadata)


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
    fields : mapping of str to array_like
        What the format has; what is None is left out.
    metadata : mapping of str to array_like, optional
        Further keys.

    Raises
    ------
    OSError
        If the file can't be written.
    ValueError
        If a value would need pickling, or an entry of `metadata` has the name of a field.
    """
    # np.savez takes the two last names for arguments of its own.
    taken = {*fields, *SCAN_KEYS, "file", "allow_pickle"}
    arrays = {key: np.asarray(value) for key, value in fields.items() if value is not None}
    for key, value in (metadata or {}).items():
        if key in taken:
            msg = f"metadata[{key!r}] can't be written: the name is taken. Rename it."
            raise ValueError(msg)
        arrays[key] = np.asarray(value)
    for key, array in arrays.items():
        if array.dtype.hasobject:
            msg = (
                f"{key!r} can't be written: it would need pickling. Use an array of numbers, or "
                "text (json.dumps makes one)."
            )
            raise ValueError(msg)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # no key is allow_pickle
