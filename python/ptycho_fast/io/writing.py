"""A scan is written in the format that is asked for, or that the name of the file tells."""

from __future__ import annotations

import os
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.formats import WRITERS
from ptycho_fast.io.geometry import OBJECT_PIXEL, WORDS, lengths_of
from ptycho_fast.io.hdf5.writing import COUNTS, InexactError, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ptycho_fast.scan import Scan


NAMES = {"npz": "scan.npz", "cxi": "scan.cxi", "ptychodus": "product.h5", "ptypy": "scan.ptyd"}
"""What a scan is called in each format, if nobody gives it a name."""

SAID = {
    ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".nxs": "hdf5", ".npy": "npy", ".mat": "matlab",
    ".tif": "tiff", ".tiff": "tiff", ".png": "png", ".csv": "csv", ".txt": "text",
}  # fmt: skip
"""The formats that other names of files tell. All of `WRITERS` but NPZ are HDF5."""


def format_to_write(path: str | os.PathLike[str], to: str | None = None) -> str:
    """Return the format of a file that is to be written.

    Parameters
    ----------
    path : path
        The file.
    to : str, optional
        A key of `ptycho_fast.io.formats.WRITERS`. By default, what the name of the file tells.

    Raises
    ------
    ValueError
        If it is no such key, if the name tells no format, or if it tells another one.

    Examples
    --------
    >>> from ptycho_fast.io.writing import format_to_write
    >>> format_to_write("scan.cxi"), format_to_write("product.h5", "ptychodus")
    ('cxi', 'ptychodus')
    """
    name, known = os.fspath(path), ", ".join(WRITERS)
    if to is not None and to not in WRITERS:
        msg = f"to must be one of {known}, got {to!r}."
        raise ValueError(msg)
    suffix = Path(path).suffix.lower()
    told = next((key for key, writer in WRITERS.items() if suffix == writer.suffix != ""), None)
    if to is None and told is None:
        msg = f"{name} does not say its format by its name. Pass to= (--to), one of {known}."
        raise ValueError(msg)
    said = told or SAID.get(suffix)
    if None not in (to, said) and said not in (to, "npz" if to == "npz" else "hdf5"):
        cure = f", or write a scan with to={told!r} (convert --to {told})" if told else ""
        msg = (
            f"{name} is named as a file of the format {said!r}, but is to be written as {to!r}. "
            f"Name it otherwise{cure}."
        )
        raise ValueError(msg)
    return to or told or ""


def files_to_write(path: str | os.PathLike[str], to: str | None = None) -> list[Path]:
    """Return the files that a scan in this format consists of.

    Parameters
    ----------
    path, to
        As of `format_to_write`.

    Examples
    --------
    >>> from ptycho_fast.io.writing import files_to_write
    >>> [file.name for file in files_to_write("run7.h5", "ptychodus")]
    ['run7.h5', 'run7_diffraction.h5']
    """
    return WRITERS[format_to_write(path, to)].files(Path(path))


def path_in(folder: Path, to: str) -> Path:
    """Return what a scan in this format is called in a folder of its own."""
    return folder / NAMES[to]


def check_geometry(scan: Scan, path: str | os.PathLike[str], to: str) -> None:
    """Refuse a scan that does not say the geometry that the format needs, before any work.

    Raises
    ------
    KeyError, ValueError
        As `ptycho_fast.write_scan`.
    """
    if to != "npz":
        lengths_of(scan, os.fspath(path), f"the format {to}")


def write_as(
    path: str | os.PathLike[str],
    to: str,
    begin: Callable[[], tuple[Scan, Callable[[], Scan]]],
    told: Mapping[str, float | None],
) -> None:
    """Write a scan.

    Parameters
    ----------
    path : path
        The file.
    to : str
        A key of `ptycho_fast.io.formats.WRITERS`.
    begin : callable
        Called at each pass through the patterns: returns the scan, and what returns it with what
        was found once the patterns have passed. There is one pass, but for counts that are whole
        numbers at first and none later.
    told : mapping of str to float or None
        What is known of the geometry besides the metadata.
    """
    for counts in COUNTS:
        scan, found = begin()
        outgoing = Outgoing(_told_of(scan, os.fspath(path), told), found, counts)
        try:
            WRITERS[to].write(outgoing, path)
        except InexactError:
            continue
        return


def _told_of(scan: Scan, path: str, told: Mapping[str, float | None]) -> Scan:
    """Return the scan with what is known of its geometry."""
    given: dict[str, Any] = {}
    for name in WORDS:
        value = told.get(name)
        if value is None:
            continue
        if not (isinstance(value, Real) and 0 < value < np.inf):
            msg = f"{name} must be a positive number, got {value!r}."
            raise ValueError(msg)
        given[name] = np.full(2, value) if name == "detector_pixel_m" else float(value)
    if not given:
        return scan
    scan = replace(scan, metadata={**scan.metadata, **given})
    if not all(name in scan.metadata for name in WORDS):
        return scan
    pixel = np.array(lengths_of(scan, path, "the scan").object_pixel)
    return replace(scan, metadata={**scan.metadata, OBJECT_PIXEL: pixel})
