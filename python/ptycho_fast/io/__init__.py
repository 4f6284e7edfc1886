"""Scan files: one small module a format."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io import cxi, hdf5, named, npz, ptychodus
from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.masks import names_a_mask
from ptycho_fast.io.prepare import Recipe, window
from ptycho_fast.io.survey import Survey
from ptycho_fast.notices import warn
from ptycho_fast.patterns import brought_energies, pattern_energies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

ASKED_LATER = {"intensity", "drop_dark", "frames_axis", "reshape", "first"}
"""What the caller may say of an NPZ scan that is read as it is stored."""

__all__ = ["convert", "read_scan", "write_scan"]


def read_scan(
    path: str | os.PathLike[str],
    *,
    load: bool = True,
    allow_pickle: bool = False,
    intensity: bool | None = None,
    counts: bool | None = None,
    diffraction: str | None = None,
    x: str | None = None,
    y: str | None = None,
    probe: str | None = None,
    mask: str | None = None,
    index: str | None = None,
    unit: str | None = None,
    energy_eV: float | None = None,
    distance_m: float | None = None,
    detector_pixel_m: float | None = None,
    swap_xy: bool = False,
    flip_x: bool = False,
    flip_y: bool = False,
    crop: int | tuple[int, int] | None = None,
    centre: tuple[float, float] | None = None,
    bin: int | None = None,  # noqa: A002  # what everybody calls it
    fftshift: bool = False,
    invert_mask: bool = False,
    bad_value: float | None = None,
    drop_dark: bool = False,
    frames_axis: int | None = None,
    reshape: bool = False,
    first: int | None = None,
    index_base: int | None = None,
    average_positions: bool = False,
) -> Scan:
    """Read a scan file: NPZ, CXI, a ptychodus product, or any HDF5 file whose data sets you name.

    The format is told from the content. A file of which `diffraction`, `x` and `y` are named is
    read by these names, whatever it is.

    - **NPZ**: ``xcoords``, ``ycoords`` (n,), ``diff3d`` or ``diffraction`` ((n, N, N), (N, N, n) or
      (n, N, N, 1)) and, optionally, ``probeGuess``, ``objectGuess``, ``xcoords_start``,
      ``ycoords_start``, ``scan_index``; other keys are kept in ``Scan.metadata``. Positions are
      pixels and patterns amplitudes, unless you say otherwise.
    - **CXI**: counts, and how far the sample moved, in metres. Positions are minus that along the
      detector's ``basis_vectors``. Its mask is used.
    - **ptychodus product**: positions on the product's object. The counts are in another file:
      ``diffraction="diffraction.h5:/patterns"``; the ``indexes`` and ``bad_pixels`` that ptychodus
      writes beside ``patterns`` are used.
    - **Any HDF5 file**: `diffraction`, `x`, `y`, `unit`, and `counts` or not must be given.

    Parameters
    ----------
    path : path
        The file.
    load : bool
        Read the patterns into memory. False leaves them in the file (`ptycho_fast.frames.Frames`)
        until they are wanted, some at a time.
    allow_pickle : bool
        Unpickle what needs it. A pickle runs code: only for files you trust. ``_metadata`` of plain
        values is read without.
    intensity, counts : bool, optional
        True: the patterns are counts, whose square roots are taken. False: they are amplitudes.
        Two names for the same. It is never guessed.
    diffraction, x, y, probe, mask, index : str, optional
        Names of data sets. ``FILE:KEY`` is one in another file, ``KEY[:,0]`` one column and
        ``KEY[0]`` one row of it.
    mask
        (H, W) of the whole detector, or (n, H, W), one for each frame. Which way it counts:
        `ptycho_fast.io.masks`.
    index
        Whole numbers from 0: for each position its frame or, if there are as many as frames and
        not as positions, for each frame its position. Frames and positions without partner are
        left out, with a warning. Without `index` they belong together in order.
    unit : {"px", "m", "mm", "um", "nm"}, optional
        Of x and y. Metres become pixels of the object, which are wavelength * distance / (N *
        detector pixel), N that of the result times `bin`; the smallest x and y become ``N // 2``.
        Pixels are those of the uncropped pattern's object.
    energy_eV, distance_m, detector_pixel_m : float, optional
        Photon energy, distance of the detector, and side of its pixels, not binned.
    swap_xy, flip_x, flip_y : bool
        Of the positions, not of the patterns: exchange the axes of the motors, then mirror.
    crop : int or (rows, columns), optional
        Pixels of the detector to keep, a square.
    centre : (row, column), optional
        The pixel about which `crop` cuts, which becomes ``N // 2``; the middle by default.
    bin : int, optional
        Sum the counts of so many by so many pixels.
    fftshift : bool
        The patterns have zero frequency in their corner, at ``[0, 0]``: bring it to the middle.
    invert_mask : bool
        The mask counts the other way round.
    bad_value : float, optional
        A value, as it is stored, that marks bad pixels.
    drop_dark : bool
        Leave out patterns that hold nothing: all zero, or without a good pixel.
    frames_axis : {0, 2}, optional
        The axis of a stack (n, N, N) or (N, N, n) that counts the frames, where both are as long.
    reshape : bool
        Patterns (ny, nx, rows, columns) and positions (ny, nx) are taken row by row.
    first : int, optional
        Use the first so many frames and positions only.
    index_base : {0, 1}, optional
        The number of the first one in `index`: 0, unless the numbers look as if it were 1; then
        it must be said.
    average_positions : bool
        Where several positions belong to one frame, take their mean.

    Returns
    -------
    Scan
        Where anything but an amplitude NPZ was read, patterns are float32; those of one keep their
        dtype. A pixel was not
        measured if it is masked, holds the largest value of its integer dtype (saturated, or a
        gap), a negative integer (a flag), no finite float, or `bad_value`; with `bin`, its whole
        bin was not. Its amplitude is 0, and it is False in ``Scan.mask`` if that is so in every
        pattern; of the others `Scan.measured` tells. What does not fit the result (a probe of
        another size, an object on which the positions no longer lie) is left out with a warning.
        Where positions were metres, ``metadata["object_pixel_m"]`` is the width and height of an
        object pixel.

    Raises
    ------
    OSError
        If the file is missing, truncated, damaged, or of no known format.
    KeyError
        If a key is missing.
    ValueError
        If shapes do not fit one another, something that can't be guessed is not given, a key
        needs unpickling, or no pixel is measured in any pattern.
    ImportError
        If an HDF5 file is read without h5py.

    Warns
    -----
    UserWarning
        Of what is odd about the patterns, with numbers (``docs/formats.md`` lists it).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.npz"
    >>> pf.write_scan(pf.simulate_scan(n_positions=9, N=16, seed=0), path)
    >>> pf.read_scan(path).diffraction.shape
    (9, 16, 16)
    >>> pf.read_scan(path, load=False).diffraction[3:5].shape
    (2, 16, 16)
    """
    recipe = _recipe(
        intensity=intensity,
        counts=counts,
        diffraction=diffraction,
        x=x,
        y=y,
        probe=probe,
        mask=mask,
        index=index,
        unit=unit,
        energy_eV=energy_eV,
        distance_m=distance_m,
        detector_pixel_m=detector_pixel_m,
        swap_xy=swap_xy,
        flip_x=flip_x,
        flip_y=flip_y,
        crop=crop,
        centre=centre,
        bin=bin,
        fftshift=fftshift,
        invert_mask=invert_mask,
        bad_value=bad_value,
        drop_dark=drop_dark,
        frames_axis=frames_axis,
        reshape=reshape,
        first=first,
        index_base=index_base,
        average_positions=average_positions,
    )
    scan = _open(path, recipe, allow_pickle=allow_pickle, in_order=load)
    if load:
        scan, survey = _load(scan)
    else:
        survey = _survey(scan) if drop_dark else _look(scan)
        scan = _known(scan, survey)
    _say(path, scan, recipe, survey)
    if drop_dark:
        scan = _without(scan, survey, path)
    frames = scan.diffraction
    if isinstance(frames, PreparedFrames) and isinstance(frames.source, hdf5.HDF5Frames):
        frames.source.warn_of_amplification()
    return scan


def _recipe(*, intensity: bool | None = None, counts: bool | None = None, **options: Any) -> Recipe:
    if None not in (intensity, counts) and intensity != counts:
        msg = f"intensity={intensity} and counts={counts} are the same thing. Pass one of them."
        raise ValueError(msg)
    return Recipe(intensity=counts if intensity is None else intensity, **options)


def _open(
    path: str | os.PathLike[str], recipe: Recipe, *, allow_pickle: bool, in_order: bool
) -> Scan:
    """Let the module of the file's format open it; the patterns are `PreparedFrames`."""
    if None not in (recipe.diffraction, recipe.x, recipe.y):
        return named.read(path, recipe)
    if not hdf5.is_hdf5(path):
        if not recipe.intensity and not recipe.given(*(set(vars(recipe)) - ASKED_LATER)):
            stored = npz.read(path, recipe, allow_pickle=allow_pickle, in_order=in_order)
            source, listed = stored.diffraction, stored.bad_pixels
            part = window(source.shape, recipe)
            frames = PreparedFrames(
                source, part, intensity=False, listed=listed, dtype=source.dtype
            )
            return replace(stored, diffraction=frames, bad_pixels=None)
        return named.read_npz(path, recipe, allow_pickle=allow_pickle)
    with hdf5.open_file(path) as file:
        known = next((form for form in (cxi, ptychodus) if form.recognises(file)), named)
    scan: Scan = known.read(path, recipe)
    return scan


def _load(scan: Scan) -> tuple[Scan, Survey]:
    """Read all patterns into memory, and look at them on the way."""
    frames = scan.diffraction
    patterns, survey = np.empty(frames.shape, frames.dtype), Survey(frames, scan.mask)
    for piece in frames.pieces():
        patterns[piece.rows] = piece.amplitudes
        survey.add(piece)
    return replace(scan, diffraction=patterns, mask=survey.mask, bad_pixels=survey.bad), survey


def _survey(scan: Scan, progress: Callable[[float], object] | None = None) -> Survey:
    """Look at all patterns; they stay in their file."""
    survey = Survey(scan.diffraction, scan.mask)
    for piece in scan.diffraction.pieces():
        survey.add(piece)
        if progress is not None:
            progress(len(piece.rows) / survey.n)
    return survey


def _look(scan: Scan) -> Survey:
    """Look at patterns that show what the others are like; they stay in their file."""
    survey = Survey(scan.diffraction, scan.mask)
    try:
        for piece in scan.diffraction.pieces(everything=False):
            survey.add(piece)
    except (OSError, ValueError) as error:
        # Who reads such a pattern gets this error; others may be whole.
        logger.info("The look at the patterns ended at one that can't be read: %s", error)
    return survey


def _known(scan: Scan, survey: Survey) -> Scan:
    """Return a scan whose patterns stay in their file with what was found about them."""
    frames, scan = scan.diffraction, replace(scan, mask=survey.mask)
    if survey.complete and not survey.found:
        plain = frames.unchanged()
        if plain is not None and not survey.never_measured:
            return replace(scan, diffraction=plain, bad_pixels=frames.listed)
        frames.may_be_bad = survey.bad is not None
    return scan


def _say(
    path: str | os.PathLike[str], scan: Scan, recipe: Recipe, survey: Survey, *, told: bool = False
) -> None:
    """Warn of what is odd about the patterns; refuse them if nothing can be known from them."""
    if survey.mask is not None and not survey.mask.any():
        msg = (
            f"{os.fspath(path)}: no pixel holds a measurement in any of {survey.looked_at} "
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


def _without(scan: Scan, survey: Survey, path: str | os.PathLike[str]) -> Scan:
    """Leave out the patterns that hold nothing."""
    if not len(survey.dark):
        return scan
    rows = np.setdiff1d(np.arange(len(scan)), survey.dark)
    if not len(rows):
        msg = f"{os.fspath(path)}: all {len(scan)} patterns hold nothing. There is nothing to keep."
        raise ValueError(msg)
    logger.info("%s: %d patterns that hold nothing were left out", path, len(survey.dark))
    patterns = scan.diffraction
    if isinstance(patterns, PreparedFrames):
        return scan.take(rows, patterns.take(rows))
    return scan.take(rows, patterns[rows])


def examine(
    path: str | os.PathLike[str],
    *,
    allow_pickle: bool = False,
    progress: Callable[[float], object] | None = None,
    **options: Any,
) -> tuple[Scan, Survey]:
    """Look at every pattern of a scan file; they stay there.

    Parameters
    ----------
    path, allow_pickle, **options
        As of `read_scan`.
    progress : callable, optional
        Called with the share of the work that was done since the last call.

    Returns
    -------
    scan : Scan
        As of ``read_scan(path, load=False)``.
    survey : Survey
        What its patterns look like.
    """
    recipe = _recipe(**options)
    scan = _open(path, recipe, allow_pickle=allow_pickle, in_order=False)
    survey = _survey(scan, progress)
    scan = _known(scan, survey)
    _say(path, scan, recipe, survey, told=True)  # `Survey.may_be_counts` is the caller's to say
    return (_without(scan, survey, path) if recipe.drop_dark else scan), survey


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
    scan = replace(scan, energies=brought_energies(scan))
    if not isinstance(scan.diffraction, PreparedFrames):
        npz.write(scan, path)
        return
    # What was not measured is found as the patterns are read.
    passing = Passing(scan.diffraction, scan.mask)
    npz.write(
        replace(scan, diffraction=passing),
        path,
        found=lambda: replace(scan, mask=passing.survey.mask, bad_pixels=passing.survey.bad),
    )


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    allow_pickle: bool = False,
    progress: Callable[[float], object] | None = None,
    **options: Any,
) -> Scan:
    """Read a scan file of any format and write it as an uncompressed NPZ file.

    The patterns pass through a block at a time, in one pass, in which their energies are summed
    for normalisation.

    Parameters
    ----------
    path : path
        The file.
    out : path
        The file to write. It appears whole or not at all.
    allow_pickle : bool
        As of `read_scan`.
    progress : callable, optional
        Called with the share of the work that was done since the last call.
    **options
        All other arguments of `read_scan`.

    Returns
    -------
    Scan
        What was written; its patterns are in `path` still.

    Raises
    ------
    OSError
        If the disk has no room for it.
    Exception
        As `read_scan` and `write_scan`.

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
    recipe = _recipe(**options)
    scan = _open(path, recipe, allow_pickle=allow_pickle, in_order=False)
    if recipe.drop_dark:
        scan = _without(scan, _survey(scan), path)
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
        _say(path, scan, recipe, passing.survey)
        return replace(scan, mask=passing.survey.mask, energies=passing.energies)

    npz.write(
        replace(scan, diffraction=passing),
        out,
        found=lambda: replace(found(), bad_pixels=passing.survey.bad),
    )
    return found()


class Passing(Frames):
    """Patterns on their way into a file: how far they are, and what is found about them.

    Parameters
    ----------
    source : PreparedFrames
        The patterns.
    mask : ndarray, (N, N), bool, optional
        False for pixels that do not count.
    progress : callable, optional
        Called with shares that sum to 1.
    """

    def __init__(
        self,
        source: PreparedFrames,
        mask: NDArray[np.bool_] | None,
        progress: Callable[[float], object] | None = None,
    ) -> None:
        self.source, self.mask, self.progress = source, mask, progress
        self.shape, self.dtype = source.shape, source.dtype
        self.energies = np.full(len(source), np.nan)
        self.survey = Survey(source, mask)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self.source.read(rows, out)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns, some at a time, and the next ones while these are written."""
        source = self.source.pieces()

        def read_next() -> NDArray[Any] | None:
            piece = next(source, None)
            if piece is None:
                return None
            self.energies[piece.rows] = pattern_energies(piece.amplitudes, mask=self.mask)
            self.survey.add(piece)
            return piece.amplitudes

        first = 0
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read_next)
            while (patterns := coming.result()) is not None:
                coming = reader.submit(read_next)
                yield slice(first, first + len(patterns)), patterns
                first += len(patterns)
                if self.progress is not None:
                    self.progress(len(patterns) / len(self))
