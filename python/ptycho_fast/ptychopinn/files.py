"""A record and its file: the fields that a scan file holds, and how they are written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io import read_scan
from ptycho_fast.io.npz import write_arrays
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan


def read_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of a record from a scan file.

    Parameters
    ----------
    path : path
        What `ptycho_fast.read_scan` reads.

    Returns
    -------
    dict
        The arguments of `RawData`. A missing ``scan_index`` is zeros.

    Raises
    ------
    OSError, KeyError, ValueError
        As `ptycho_fast.read_scan`.

    Warns
    -----
    UserWarning
        If the file has bad pixels, for which a record has no place.
    """
    scan = read_scan(path, load=True)  # a record holds arrays
    _warn_of_bad_pixels(path, scan)
    metadata = dict(scan.metadata)
    stored = metadata.pop("_metadata", {})
    metadata.update(stored if isinstance(stored, dict) else {"_metadata": stored})
    scan_index: NDArray[Any] | None = scan.scan_index
    return {
        "xcoords": scan.positions[:, 0].copy(),
        "ycoords": scan.positions[:, 1].copy(),
        "xcoords_start": scan.positions_start[:, 0].copy(),
        "ycoords_start": scan.positions_start[:, 1].copy(),
        "diff3d": scan.diffraction,
        "probeGuess": scan.probe,
        "scan_index": np.zeros(len(scan), np.int64) if scan_index is None else scan_index,
        "objectGuess": scan.object,
        "Y": metadata.pop("Y", None),
        "norm_Y_I": metadata.pop("norm_Y_I", None),
        "metadata": metadata or None,
    }


def write_fields(
    path: str | os.PathLike[str], fields: Mapping[str, Any], metadata: Mapping[str, Any] | None
) -> None:
    """Write the fields of a record to an NPZ file, which appears whole or not at all.

    Parameters
    ----------
    path : path
        The file; ``.npz`` is added if it is missing.
    fields : mapping
        Arrays by key; those that are None are left out.
    metadata : mapping, optional
        Arrays in it become further keys; everything else is written as JSON under ``_metadata``.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If a field is not an array of numbers or text, or `metadata` holds something that JSON
        cannot store or that has the name of a field.
    """
    rest = dict(metadata or {})
    arrays = {key: rest.pop(key) for key in [*rest] if _is_array(rest[key])}
    for key in rest:
        if key in fields:
            msg = (
                f"metadata[{key!r}] can't be written: the name is taken by a field of the record. "
                "Rename it."
            )
            raise ValueError(msg)
    path = os.fspath(path)
    path = path if path.endswith(".npz") else f"{path}.npz"
    write_arrays(path, fields, {**arrays, **({"_metadata": rest} if rest else {})})


def _is_array(value: Any) -> bool:
    """Tell whether a value is stored as an array because JSON cannot store it."""
    if isinstance(value, np.generic):
        return value.dtype.kind not in "biufU"
    return isinstance(value, np.ndarray | complex | bytes)


def _warn_of_bad_pixels(path: str | os.PathLike[str], scan: Scan) -> None:
    """Warn that a record cannot hold the bad pixels of a scan."""
    lost = []
    if scan.mask is not None and not scan.mask.all():
        lost.append(f"masks {np.count_nonzero(~scan.mask)} pixels of the detector")
    bad = scan.bad_pixels
    if bad is not None and len(bad.pixels):
        some = np.count_nonzero(np.diff(bad.starts))
        lost.append(f"has {len(bad.pixels)} more bad pixels in {some} of {len(bad)} patterns")
    if lost:
        warn(
            f"{os.fspath(path)} {' and '.join(lost)}, but RawData has no place for a mask: all "
            "pixels are used as they are, and bad ones are 0 where they were recognised. "
            "ptycho_fast.GroupedDataset honours the mask.",
        )
