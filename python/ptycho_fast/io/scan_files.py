"""Scan files of any format are read, and written in some of them."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.examination import (
    loaded,
    open_scan,
    survey_all,
    survey_some,
    warn_of_oddities,
    with_findings,
    without_dark,
)
from ptycho_fast.io.hdf5.frames import HDF5Frames
from ptycho_fast.io.passing import Passing
from ptycho_fast.io.recipe import SHARE, as_recipe
from ptycho_fast.io.writing import format_to_write, write_as
from ptycho_fast.patterns import brought_energies

if TYPE_CHECKING:
    from collections.abc import Callable

    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")


def read_scan(
    path: str | os.PathLike[str],
    *,
    load: bool | Literal["auto"] = "auto",
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
    """Read a scan file: NPZ, CXI, one of another program, or any file whose arrays you name.

    The format is recognised by the content of the file, not by its name. If you name `diffraction`,
    `x` and `y`, the file is read by these names, whatever its format.

    - **NPZ**: positions ``xcoords`` and ``ycoords`` (n,), patterns ``diff3d`` or ``diffraction``
      ((n, N, N), (N, N, n) or (n, N, N, 1)) and, optionally, ``probeGuess``, ``objectGuess``,
      ``xcoords_start``, ``ycoords_start`` and ``scan_index``. Other keys are kept in
      ``Scan.metadata``. Positions are pixels and patterns are amplitudes, unless you say otherwise.
    - **CXI**: counts, and the motion of the sample in metres. The positions are minus this motion
      along the detector's ``basis_vectors``. The mask of the file is used.
    - **ptychodus product**: positions on the object of the product. The counts are in another file,
      which you name: ``diffraction="diffraction.h5:/patterns"``. The ``indexes`` and
      ``bad_pixels`` that ptychodus writes beside ``patterns`` are used.
    - **ptypy, fold_slice, PtychoShelves, PtyLab, tike, NXcxi_ptycho**: what their files hold;
      ``docs/formats.md`` has the rules.
    - **Any other HDF5 file**: `diffraction`, `x`, `y`, `unit` and `counts` must be given.
    - **NPY or TIFF** (with tifffile): patterns alone. `x`, `y`, `unit` and `counts` must be given;
      ``x="positions.csv:0"`` is the first column of a text file.

    Parameters
    ----------
    path : path
        The file.
    load : bool or "auto"
        Whether to read the patterns into memory. False leaves them in the file
        (`ptycho_fast.frames.Frames`), from which they are read when they are needed. "auto" leaves
        them there if they would take a quarter of the free memory or more, and logs that.
    allow_pickle : bool
        Whether arrays of Python objects may be unpickled. Unpickling runs code, so allow it only
        for files you trust. Plain values under ``_metadata`` are read without it.
    intensity, counts : bool, optional
        True: the patterns are counts, of which square roots are taken. False: they are amplitudes.
        These are two names for the same option. It is never guessed.
    diffraction, x, y, probe, mask, index : str, optional
        Names of arrays. ``FILE:KEY`` names one in another file, or a column of a text file, and
        ``FILE.npy`` the array of an NPY file; ``KEY[:,0]`` selects a column and
        ``KEY[0]`` a row of it.
    mask
        (H, W), one mask for the whole detector, or (n, H, W), one for each frame.
        `ptycho_fast.io.masks` says how good and bad pixels are marked.
    index
        Which frames and positions belong together, as whole numbers from 0. If there are as many
        numbers as positions, each is the frame of a position; else, if there are as many as
        frames, each is the position of a frame. Frames and positions without a partner are left
        out, with a warning. Without `index`, frame i belongs to position i.
    unit : {"px", "m", "mm", "um", "nm"}, optional
        The unit of x and y. Lengths are converted to pixels of the object, whose side is
        wavelength * distance / (N * detector pixel), where N is the side of the final patterns
        times `bin`; the smallest x and y become ``N // 2``. With ``px``, they are pixels of the
        object of the uncropped pattern.
    energy_eV, distance_m, detector_pixel_m : float, optional
        Photon energy, distance from sample to detector, and side of an unbinned detector pixel.
    swap_xy, flip_x, flip_y : bool
        Exchange x and y, then mirror x or y. Patterns are not changed.
    crop : int or (rows, columns), optional
        How many pixels of the detector to keep; the result must be square.
    centre : (row, column), optional
        The pixel in the middle of the part that `crop` keeps, which becomes pixel ``N // 2``. By
        default, the middle of the detector.
    bin : int, optional
        Sum the counts of squares of `bin` by `bin` pixels.
    fftshift : bool
        The patterns have zero frequency in their corner, at ``[0, 0]``: move it to the middle.
    invert_mask : bool
        The mask marks good pixels where the rule takes it to mark bad ones, or the reverse.
    bad_value : float, optional
        A value in the file that marks bad pixels.
    drop_dark : bool
        Leave out empty patterns: those that are all zero or have no good pixel.
    frames_axis : {0, 2}, optional
        The axis of the stack that counts frames, (n, N, N) or (N, N, n), if both would fit.
    reshape : bool
        Read patterns (ny, nx, rows, columns) and positions (ny, nx) row by row.
    first : int, optional
        Use only the first so many frames and positions.
    index_base : {0, 1}, optional
        The number in `index` that means the first frame or position. It is 0 by default, but must
        be given if the numbers look as if they counted from 1.
    average_positions : bool
        Where several positions belong to one frame, use their mean.

    Returns
    -------
    Scan
        Its patterns are float32, except that those of an amplitude NPZ keep their dtype.

        A pixel counts as not measured if it is masked, holds the largest value of its integer
        dtype (saturated, or a gap between modules), a negative integer (a flag), a float that is
        not finite, or `bad_value`. With `bin`, this spoils the whole bin. Its amplitude is 0. If
        it was not measured in any pattern, it is False in ``Scan.mask``; otherwise
        `Scan.measured` tells in which patterns it counts.

        A probe of another size than the patterns, and an object on which the positions no longer
        lie, are left out, with a warning. If positions were lengths,
        ``metadata["object_pixel_m"]`` holds the width and height of a pixel of the object. What is
        known of the geometry is ``energy_eV``, ``distance_m`` and ``detector_pixel_m`` there; the
        last is the width and height of a pixel of these patterns, cropped and binned.

    Raises
    ------
    OSError
        If the file is missing, truncated, damaged or of an unknown format.
    KeyError
        If a key is missing.
    ValueError
        If shapes do not fit one another, an option that cannot be guessed is not given, a key
        needs unpickling, or no pixel was measured in any pattern.
    ImportError
        If the file is HDF5 and h5py is not installed.

    Warns
    -----
    UserWarning
        If something about the patterns is odd (``docs/formats.md`` has a list).

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
    size = scan.diffraction.nbytes
    if size < recipe.loaded:
        scan, survey = loaded(scan)
    else:
        if load == "auto":
            logger.info(
                "%s: the patterns would take %.3g GB, a quarter of the free memory (%.3g GB) or "
                "more, so they stay in the file. load=True reads them into memory.",
                os.fspath(path),
                size / 1e9,
                recipe.loaded / SHARE / 1e9,
            )
        survey = survey_all(scan) if drop_dark else survey_some(scan)
        scan = with_findings(scan, survey)
    warn_of_oddities(path, scan, recipe, survey)
    if drop_dark:
        scan = without_dark(scan, survey, path)
    frames = scan.diffraction
    if isinstance(frames, PreparedFrames) and isinstance(frames.source, HDF5Frames):
        frames.source.warn_of_amplification()
    return scan


def write_scan(
    scan: Scan,
    path: str | os.PathLike[str],
    to: str | None = None,
    *,
    energy_eV: float | None = None,
    distance_m: float | None = None,
    detector_pixel_m: float | None = None,
) -> None:
    """Write a scan: as uncompressed NPZ, which `read_scan` reads back unchanged, or for others.

    Patterns that are in a file are copied some at a time.

    Parameters
    ----------
    scan : Scan
        The scan. In NPZ, the entries of its ``metadata`` become further keys.
    path : path
        The file. It appears whole or not at all.
    to : {"npz", "cxi", "ptychodus", "ptypy"}, optional
        The format; by default what the name of the file says: ``.npz``, ``.cxi`` or ``.ptyd``
        (ptypy). "ptychodus" writes two HDF5 files, the product and, beside it, the patterns:
        ``run.h5`` and ``run_diffraction.h5``, or ``product.h5`` and ``diffraction.h5``.
    energy_eV, distance_m : float, optional
        Photon energy, and distance from sample to detector. Other formats than NPZ have positions
        in metres. If the scan was read from a file with lengths, its metadata have them already.
    detector_pixel_m : float, optional
        Side of a pixel of the patterns as they are, cropped and binned.

    Raises
    ------
    OSError
        If the file cannot be written.
    KeyError
        If the geometry is not known that the format needs.
    ValueError
        If the name does not say the format, an entry of ``metadata`` is not an array of numbers or
        text, a ptychodus product is to be written without a probe, or amplitudes are the root of
        no count.
    ImportError
        If the file is HDF5 and h5py is not installed.

    Warns
    -----
    UserWarning
        If the format has no place for something that the scan has.

    Notes
    -----
    All formats but NPZ hold counts: 32-bit integers if the amplitudes are their roots, to the bit,
    else float32, or else float64. Pixels that were not measured are 0 and marked in the mask.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.npz"
    >>> scan = pf.simulate_scan(n_positions=9, N=16, seed=0)
    >>> pf.write_scan(scan, path)
    >>> bool((pf.read_scan(path).diffraction == scan.diffraction).all())
    True
    """
    to = format_to_write(path, to)
    scan = replace(scan, energies=brought_energies(scan))

    def begin() -> tuple[Scan, Callable[[], Scan]]:
        if not isinstance(scan.diffraction, PreparedFrames):
            return scan, lambda: scan
        # Which pixels were not measured is found as the patterns are read.
        passing = Passing(scan.diffraction, scan.mask)

        def found() -> Scan:
            bad, listed = passing.survey.bad, scan.bad_pixels
            if bad is not None and listed is not None:
                bad = bad.union(listed)
            bad = listed if bad is None else bad
            return replace(scan, mask=passing.survey.mask, bad_pixels=bad)

        return replace(scan, diffraction=passing), found

    told = {
        "energy_eV": energy_eV, "distance_m": distance_m, "detector_pixel_m": detector_pixel_m,
    }  # fmt: skip
    write_as(path, to, begin, told)
