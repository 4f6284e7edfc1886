"""Scan files: one small module a format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.io import npz

if TYPE_CHECKING:
    import os

    from ptycho_fast.scan import Scan

__all__ = ["read_scan", "write_scan"]


def read_scan(
    path: str | os.PathLike[str], *, intensity: bool = False, allow_pickle: bool = False
) -> Scan:
    """Read a scan file.

    Parameters
    ----------
    path : path
        An NPZ file with ``xcoords``, ``ycoords`` (n,), ``diff3d`` or ``diffraction`` ((n, N, N),
        (N, N, n) or (n, N, N, 1)) and, optionally, ``probeGuess``, ``objectGuess``,
        ``xcoords_start``, ``ycoords_start``, ``scan_index``. Other keys are kept in
        ``Scan.metadata``.
    intensity : bool
        The file holds intensities (counts): take their square roots, as float32. It is never
        guessed.
    allow_pickle : bool
        Unpickle what needs it. A pickle runs code: only for files you trust.

    Returns
    -------
    Scan

    Raises
    ------
    OSError
        If the file is missing, truncated, or no NPZ file.
    KeyError
        If a key is missing.
    ValueError
        If shapes do not fit one another, or a key needs unpickling.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.npz"
    >>> pf.write_scan(pf.simulate_scan(n_positions=9, N=16, seed=0), path)
    >>> pf.read_scan(path).diffraction.shape
    (9, 16, 16)
    """
    return npz.read(path, intensity=intensity, allow_pickle=allow_pickle)


def write_scan(scan: Scan, path: str | os.PathLike[str]) -> None:
    """Write a scan as an uncompressed NPZ file that `read_scan` reads back as it was.

    Parameters
    ----------
    scan : Scan
        What to write. ``metadata`` is written as further keys.
    path : path
        The file. It appears whole or not at all.

    Raises
    ------
    OSError
        If the file can't be written.
    ValueError
        If an entry of ``metadata`` is no array of numbers or text.
    """
    npz.write(scan, path)
