"""Scans become HDF5 files of counts, some patterns at a time, that appear whole or not at all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.frames import Frames
from ptycho_fast.io.amplitudes import PIECE_BYTES
from ptycho_fast.io.geometry import GEOMETRY
from ptycho_fast.io.hdf5.links import import_h5py
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

    from ptycho_fast.scan import Scan

COUNTS = tuple(map(np.dtype, ("int32", "float32", "float64")))
"""What counts are written as: the first of these whose roots are the amplitudes, to the bit.

Most programs read 32-bit integers, which not all do of unsigned ones.
"""


class InexactError(ValueError):
    """Counts of this dtype do not give the amplitudes back."""


@dataclass(frozen=True, eq=False)
class Outgoing:
    """A scan on its way into a file.

    Parameters
    ----------
    scan : Scan
        What is to be written.
    passed : callable, optional
        Called once all patterns have been written: returns the scan with the mask and the bad
        pixels that were found on the way.
    counts : dtype
        One of `COUNTS`.
    """

    scan: Scan
    passed: Callable[[], Scan] | None = None
    counts: np.dtype[Any] = COUNTS[0]

    def found(self) -> Scan:
        """Return the scan with what was found as its patterns passed."""
        return self.scan if self.passed is None else self.passed()


@contextlib.contextmanager
def hdf5_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open an HDF5 file for writing, which appears at the end, and not after an error."""
    h5py = import_h5py()
    with replacing(path) as file, h5py.File(file, "w") as made:
        yield made


def write_counts(file: Any, key: str, out: Outgoing) -> Scan:
    """Write the squares of the amplitudes, 0 where a pixel was not measured.

    Returns
    -------
    Scan
        With the mask and the bad pixels that were found.

    Raises
    ------
    InexactError
        If the counts have no such dtype.
    ValueError
        If amplitudes are negative or not finite.
    """
    data = file.create_dataset(key, out.scan.diffraction.shape, out.counts)
    for first, amplitudes in _pieces(out.scan):
        data[first : first + len(amplitudes)] = _squares(amplitudes, out.counts, first)
    return out.found()


def _pieces(scan: Scan) -> Iterator[tuple[int, NDArray[Any]]]:
    """Read all patterns, some at a time, with 0 where a pixel is known to be bad."""
    frames, N = scan.diffraction, scan.N
    each = max(1, PIECE_BYTES // (N * N * frames.dtype.itemsize))
    whole = [(slice(0, len(scan)), frames)]
    for rows, block in frames.blocks() if isinstance(frames, Frames) else whole:
        for start in range(0, len(block), each):
            piece, first = block[start : start + each], rows.start + start
            good = scan.mask
            if scan.bad_pixels is not None:
                good = scan.bad_pixels.good(np.arange(first, first + len(piece)), N)
                good = good if scan.mask is None else good & scan.mask
            yield first, piece if good is None else np.where(good, piece, 0)


def _squares(amplitudes: NDArray[Any], dtype: np.dtype[Any], first: int) -> NDArray[Any]:
    """Return counts whose roots are the amplitudes."""
    with np.errstate(over="ignore"):
        squares: NDArray[Any] = np.square(amplitudes, dtype=np.float64)
    sound = (amplitudes >= 0) & np.isfinite(squares)
    if not sound.all():
        row = int(np.argmin(sound.all(axis=(1, 2))))
        value = amplitudes[row][~sound[row]][0]
        msg = (
            f"The amplitude {value:g} in pattern {first + row} is the root of no count. If it "
            "marks pixels that were not measured, pass bad_value= (--bad-value) where the scan is "
            "read, or list them in Scan.bad_pixels."
        )
        raise ValueError(msg)
    if dtype == np.float64:
        return squares
    if dtype.kind == "i":
        np.rint(squares, out=squares)
        # The largest integer of a dtype marks bad pixels.
        if squares.max(initial=0) >= np.iinfo(dtype).max:
            raise InexactError
    with np.errstate(over="ignore", under="ignore"):
        counts: NDArray[Any] = squares.astype(dtype)
        roots = np.sqrt(counts, dtype=np.result_type(amplitudes.dtype, np.float32))
    if not np.array_equal(roots, amplitudes):
        raise InexactError
    return counts


def write_marks(file: Any, key: str, scan: Scan, *, bad: int, dtype: DTypeLike = np.uint8) -> None:
    """Write which pixels of each pattern were measured: 0 and 1, of which `bad` is one."""
    n, N = len(scan), scan.N
    each = max(1, PIECE_BYTES // N**2)
    marks = file.create_dataset(
        key, (n, N, N), dtype, chunks=(min(each, n), N, N), compression="gzip", compression_opts=1
    )
    assert scan.bad_pixels is not None
    for first in range(0, n, each):
        rows = np.arange(first, min(first + each, n))
        good = scan.bad_pixels.good(rows, N)
        good = good if scan.mask is None else good & scan.mask
        marks[first : first + len(rows)] = good if bad == 0 else ~good


def as_complex(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return a probe or an object as complex numbers of its own precision; None stays None."""
    return None if values is None else values.astype(np.result_type(values.dtype, np.complex64))


def has_single_bad_pixels(scan: Scan) -> bool:
    """Tell whether some pixels were measured in some of the patterns only."""
    return scan.bad_pixels is not None and len(scan.bad_pixels.pixels) > 0


def frame_numbers(scan: Scan) -> NDArray[np.int64]:
    """Return the number of each frame: that of the scan, if it numbers them, else 0, 1, 2, ..."""
    index = scan.scan_index
    if index is None or index.dtype.kind not in "iu" or len(np.unique(index)) < len(index):
        return np.arange(len(scan))
    inside = index.min() >= 0 and index.max() < 2**63
    return index.astype(np.int64) if inside else np.arange(len(scan))


def warn_of_loss(
    path: str | os.PathLike[str], scan: Scan, what: str, *, without: tuple[str, ...] = ()
) -> None:
    """Warn of what a scan has and a format has no place for.

    Parameters
    ----------
    path : path
        The file.
    scan : Scan
    what : str
        The format.
    without : tuple of str
        Attributes of the scan, of ``probe``, ``object`` and ``scan_index``, that it does not hold.
    """
    lost = [f"Scan.{name}" for name in without if getattr(scan, name) is not None]
    numbered = scan.scan_index is None or np.array_equal(scan.scan_index, frame_numbers(scan))
    if not numbered and "scan_index" not in without:
        lost.append("Scan.scan_index")
    if not np.array_equal(scan.positions_start, scan.positions):
        lost.append("Scan.positions_start")
    lost += [f"metadata[{key!r}]" for key in scan.metadata if key not in GEOMETRY]
    if lost:
        warn(f"{path}: {what} has no place for {', '.join(lost)}: left out. NPZ holds everything.")
