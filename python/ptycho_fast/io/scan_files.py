"""Scan files of any format are read, and written as NPZ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.examination import (
    open_scan,
    survey_all,
    survey_some,
    warn_of_oddities,
    with_findings,
    without_dark,
)
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.hdf5.frames import HDF5Frames
from ptycho_fast.io.passing import Passing
from ptycho_fast.io.recipe import as_recipe
from ptycho_fast.io.survey import Survey
from ptycho_fast.patterns import brought_energies

if TYPE_CHECKING:
    import os

    from ptycho_fast.scan import Scan


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
    options = dict(locals())  # all arguments, as no other name is local yet
    del options["path"]
    recipe = as_recipe(**options)
    scan = open_scan(path, recipe)
    if load:
        scan, survey = _loaded(scan)
    else:
        survey = survey_all(scan) if drop_dark else survey_some(scan)
        scan = with_findings(scan, survey)
    warn_of_oddities(path, scan, recipe, survey)
    if drop_dark:
        scan = without_dark(scan, survey, path)
    frames = scan.diffraction
    if isinstance(frames, PreparedFrames) and isinstance(frames.source, HDF5Frames):
        frames.source.warn_of_amplification()
    return scan


def _loaded(scan: Scan) -> tuple[Scan, Survey]:
    """Read all patterns into memory, and look at them on the way."""
    frames = scan.diffraction
    patterns, survey = np.empty(frames.shape, frames.dtype), Survey(frames, scan.mask)
    for piece in frames.pieces():
        patterns[piece.rows] = piece.amplitudes
        survey.add(piece)
    return replace(scan, diffraction=patterns, mask=survey.mask, bad_pixels=survey.bad), survey


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
        npz_scan.write(scan, path)
        return
    # What was not measured is found as the patterns are read.
    passing = Passing(scan.diffraction, scan.mask)
    npz_scan.write(
        replace(scan, diffraction=passing),
        path,
        found=lambda: replace(scan, mask=passing.survey.mask, bad_pixels=passing.survey.bad),
    )
