"""Scan files of any format are written in another one."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.io.examination import (
    open_scan,
    survey_all,
    warn_of_oddities,
    without_dark,
)
from ptycho_fast.io.passing import Passing
from ptycho_fast.io.recipe import as_recipe
from ptycho_fast.io.writing import files_to_write, format_to_write, write_as

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ptycho_fast.scan import Scan


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str | None = None,
    allow_pickle: bool = False,
    progress: Callable[[float], object] | None = None,
    **options: Any,
) -> Scan:
    """Read a scan file of any format and write it as an uncompressed NPZ file, or in another one.

    The patterns are copied in one pass, a block at a time, so they need not fit in memory. Their
    energies are summed on the way, and stored in NPZ, so that normalisation need not read them
    again.

    Parameters
    ----------
    path : path
        The file.
    out : path
        The file to write. It appears whole or not at all.
    to : {"npz", "cxi", "ptychodus", "ptypy"}, optional
        As of `ptycho_fast.write_scan`.
    allow_pickle : bool
        As of `ptycho_fast.read_scan`.
    progress : callable, optional
        Called with the share of the work done since the last call.
    **options
        All other arguments of `ptycho_fast.read_scan`.

    Returns
    -------
    Scan
        What was written; its patterns are still read from `path`.

    Raises
    ------
    OSError
        If the disk has too little room for it.
    Exception
        As `ptycho_fast.read_scan` and `ptycho_fast.write_scan`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.io import convert
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> pf.write_scan(pf.simulate_scan(n_positions=9, N=16, seed=0), folder / "scan.npz")
    >>> scan = convert(folder / "scan.npz", folder / "again.npz")
    >>> bool((pf.read_scan(folder / "again.npz").energies == scan.energies).all())
    True
    """
    recipe = as_recipe(allow_pickle=allow_pickle, **options)
    sources = [os.fspath(path), *recipe.files()]
    _check_others([out], sources)
    to = format_to_write(out, to)
    scan = open_scan(path, recipe)
    _check_others(files_to_write(out, to), [*sources, *scan.diffraction.files()])
    if recipe.drop_dark:
        scan = without_dark(scan, survey_all(scan), path)
    folder = os.path.dirname(os.path.abspath(out))
    free = shutil.disk_usage(folder).free
    if free < scan.diffraction.nbytes:
        msg = (
            f"{os.fspath(out)} needs {scan.diffraction.nbytes / 2**20:.1f} MiB, but {folder} has "
            f"{free / 2**20:.1f} MiB free. Make room, write elsewhere, or crop."
        )
        raise OSError(msg)
    found: list[Scan] = []

    def begin() -> tuple[Scan, Callable[[], Scan]]:
        passing = Passing(scan.diffraction, scan.mask, progress)

        def passed() -> Scan:
            warn_of_oddities(path, scan, recipe, passing.survey)
            found.append(replace(scan, mask=passing.survey.mask, energies=passing.energies))
            return replace(found[-1], bad_pixels=passing.survey.bad)

        return replace(scan, diffraction=passing), passed

    write_as(out, to, begin, {})
    return found[-1]


def files_read(path: str | os.PathLike[str], **options: Any) -> list[Path]:
    """Return the files that a scan is read from: its own, those of its patterns and of options.

    Parameters
    ----------
    path, **options
        As of `ptycho_fast.read_scan`.
    """
    recipe = as_recipe(load=True, **options)  # so that nothing is unpacked to the disk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who reads the scan is told
        patterns = open_scan(path, recipe).diffraction
    return list(map(Path, [path, *recipe.files(), *patterns.files()]))


def _check_others(
    targets: Sequence[str | os.PathLike[str]], sources: Sequence[str | os.PathLike[str]]
) -> None:
    """Refuse to write a file that is read."""
    for file in filter(os.path.exists, targets):
        if any(os.path.exists(source) and os.path.samefile(source, file) for source in sources):
            msg = f"{os.fspath(file)} is the scan itself, or a part of it. Write to another file."
            raise ValueError(msg)
