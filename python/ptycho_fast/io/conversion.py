"""Scan files of any format become uncompressed NPZ files."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptycho_fast.io.examination import (
    open_scan,
    survey_all,
    warn_of_oddities,
    without_dark,
)
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.passing import Passing
from ptycho_fast.io.recipe import as_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from ptycho_fast.scan import Scan


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    allow_pickle: bool = False,
    progress: Callable[[float], object] | None = None,
    **options: Any,
) -> Scan:
    """Read a scan file of any format and write it as an uncompressed NPZ file.

    The patterns are copied in one pass, a block at a time, so they need not fit in memory. Their
    energies are summed on the way and stored, so that normalisation need not read them again.

    Parameters
    ----------
    path : path
        The file.
    out : path
        The file to write. It appears whole or not at all.
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
    if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
        msg = f"{os.fspath(out)} is the scan itself. Write to another file."
        raise ValueError(msg)
    recipe = as_recipe(allow_pickle=allow_pickle, **options)
    scan = open_scan(path, recipe)
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
    passing = Passing(scan.diffraction, scan.mask, progress)

    def found() -> Scan:
        warn_of_oddities(path, scan, recipe, passing.survey)
        return replace(scan, mask=passing.survey.mask, energies=passing.energies)

    npz_scan.write(
        replace(scan, diffraction=passing),
        out,
        found=lambda: replace(found(), bad_pixels=passing.survey.bad),
    )
    return found()
