"""A scan file is opened, its patterns are looked at, and what is odd about them is said."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.formats import format_of
from ptycho_fast.io.masks import names_a_mask
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.recipe import Recipe, as_recipe
from ptycho_fast.io.survey import Survey
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")


def open_scan(path: str | os.PathLike[str], recipe: Recipe) -> Scan:
    """Open a scan file of any format.

    Returns
    -------
    Scan
        Its patterns stay in the file, as `ptycho_fast.io.amplitudes.PreparedFrames`.
    """
    with open_container(path) as container:
        return format_of(container, recipe).read(container, recipe)


def examine(
    path: str | os.PathLike[str],
    *,
    allow_pickle: bool = False,
    progress: Callable[[float], object] | None = None,
    **options: Any,
) -> tuple[Scan, Survey]:
    """Look at every pattern of a scan file; the patterns stay in the file.

    Parameters
    ----------
    path, allow_pickle, **options
        As of `ptycho_fast.read_scan`.
    progress : callable, optional
        Called with the share of the work done since the last call.

    Returns
    -------
    scan : Scan
        As of ``read_scan(path, load=False)``.
    survey : Survey
        What its patterns look like.

    Raises
    ------
    Exception
        As `ptycho_fast.read_scan`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.io import examine
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.npz"
    >>> pf.write_scan(pf.simulate_scan(n_positions=9, N=16, seed=0), path)
    >>> scan, survey = examine(path)
    >>> survey.looked_at, len(survey.dark)
    (9, 0)
    """
    recipe = as_recipe(allow_pickle=allow_pickle, **options)
    scan = open_scan(path, recipe)
    survey = survey_all(scan, progress)
    scan = with_findings(scan, survey)
    # The caller says `Survey.may_be_counts` in its own words.
    warn_of_oddities(path, scan, recipe, survey, told=True)
    return (without_dark(scan, survey, path) if recipe.drop_dark else scan), survey


def loaded(scan: Scan) -> tuple[Scan, Survey]:
    """Read all patterns of a scan from `open_scan` into memory, and look at them on the way."""
    frames = scan.diffraction
    patterns, survey = np.empty(frames.shape, frames.dtype), Survey(frames, scan.mask)
    for piece in frames.pieces(out=patterns):
        survey.add(piece)
    return replace(scan, diffraction=patterns, mask=survey.mask, bad_pixels=survey.bad), survey


def survey_all(scan: Scan, progress: Callable[[float], object] | None = None) -> Survey:
    """Look at all patterns of a scan from `open_scan`; they stay in their file."""
    survey = Survey(scan.diffraction, scan.mask)
    for piece in scan.diffraction.pieces():
        survey.add(piece)
        if progress is not None:
            progress(len(piece.rows) / survey.n)
    return survey


def survey_some(scan: Scan) -> Survey:
    """Look at patterns that show what the others are like; they stay in their file."""
    survey = Survey(scan.diffraction, scan.mask)
    try:
        for piece in scan.diffraction.pieces(everything=False):
            survey.add(piece)
    except (OSError, ValueError) as error:
        # Whoever reads that pattern gets this error; the others may be whole.
        logger.info("The look at the patterns ended at one that can't be read: %s", error)
    return survey


def with_findings(scan: Scan, survey: Survey) -> Scan:
    """Return the scan with what was found about its patterns, which stay in their file."""
    frames, scan = scan.diffraction, replace(scan, mask=survey.mask)
    if survey.complete and not survey.found:
        plain = frames.unchanged()
        if plain is not None and not survey.never_measured:
            return replace(scan, diffraction=plain, bad_pixels=frames.listed)
        frames.may_be_bad = survey.bad is not None
    return scan


def warn_of_oddities(
    path: str | os.PathLike[str], scan: Scan, recipe: Recipe, survey: Survey, *, told: bool = False
) -> None:
    """Warn of what is odd about the patterns.

    Parameters
    ----------
    path, scan, recipe, survey
        The file, what was read of it and how, and what its patterns look like.
    told : bool
        The caller knows already whether the patterns are counts or amplitudes.

    Raises
    ------
    ValueError
        If no pixel was measured in any pattern.
    """
    if survey.mask is not None and not survey.mask.any():
        msg = (
            f"{os.fspath(path)}: no pixel was measured in any of {survey.looked_at} "
            "patterns: all are masked, flagged or not finite. Check the mask and the dtype."
        )
        raise ValueError(msg)
    told = told or recipe.intensity is not None
    for sentence in survey.oddities(told=told, dropped=recipe.drop_dark):
        warn(f"{os.fspath(path)}: {sentence}")
    for key, value in scan.metadata.items():
        fits = recipe.mask is None and np.shape(value)[-2:] == scan.diffraction.shape[1:]
        if fits and names_a_mask(key):
            warn(
                f"{os.fspath(path)}: {key!r} {np.shape(value)} looks like a mask of the detector "
                f"and is not used. To use it, pass mask={key!r} (--mask {key})."
            )


def without_dark(scan: Scan, survey: Survey, path: str | os.PathLike[str]) -> Scan:
    """Leave out the empty patterns.

    Raises
    ------
    ValueError
        If that is all of them.
    """
    if not len(survey.dark):
        return scan
    rows = np.setdiff1d(np.arange(len(scan)), survey.dark)
    if not len(rows):
        msg = f"{os.fspath(path)}: all {len(scan)} patterns are empty, so drop_dark keeps none."
        raise ValueError(msg)
    logger.info("%s: %d empty patterns were left out", path, len(survey.dark))
    return scan.subset(rows)
