"""Scan files: one small module a format."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io import cxi, hdf5, named, npz, ptychodus
from ptycho_fast.io.prepare import PreparedFrames, Recipe
from ptycho_fast.patterns import brought_energies, pattern_energies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.scan import Scan

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
    index_base: int = 0,
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
        (H, W) of the whole detector. Of bools: True is good; of numbers: 0 is good (NeXus, CXI).
        Bad pixels become 0 and False in ``Scan.mask``.
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
    index_base : {0, 1}
        The number of the first one in `index`.
    average_positions : bool
        Where several positions belong to one frame, take their mean.

    Returns
    -------
    Scan
        Where anything but an amplitude NPZ was read, patterns are float32. Pixels have weight 0,
        which is amplitude 0, if they are masked, of the largest value of their integer dtype
        (saturated, or gaps), negative integers (flags), or no finite float; with `bin`, the whole
        bin has. What does not fit the result (a probe of another size, an object on which the
        positions no longer lie) is left out with a warning. Where positions were metres,
        ``metadata["object_pixel_m"]`` is the width and height of an object pixel.

    Raises
    ------
    OSError
        If the file is missing, truncated, damaged, or of no known format.
    KeyError
        If a key is missing.
    ValueError
        If shapes do not fit one another, something that can't be guessed is not given, or a key
        needs unpickling.
    ImportError
        If an HDF5 file is read without h5py.

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
    scan = _read(path, recipe, load=load, allow_pickle=allow_pickle)
    source = scan.diffraction
    source = source.source if isinstance(source, PreparedFrames) else source
    if isinstance(source, hdf5.HDF5Frames) and not load:
        source.warn_of_amplification()
    return scan


def _recipe(*, intensity: bool | None = None, counts: bool | None = None, **options: Any) -> Recipe:
    if None not in (intensity, counts) and intensity != counts:
        msg = f"intensity={intensity} and counts={counts} are the same thing. Pass one of them."
        raise ValueError(msg)
    return Recipe(intensity=counts if intensity is None else intensity, **options)


def _read(
    path: str | os.PathLike[str], recipe: Recipe, *, load: bool, allow_pickle: bool = False
) -> Scan:
    """Let the module of the file's format read it."""
    scan = None
    if None not in (recipe.diffraction, recipe.x, recipe.y):
        scan = named.read(path, recipe)
    elif not hdf5.is_hdf5(path):
        if not recipe.intensity and not recipe.given(*(set(vars(recipe)) - {"intensity"})):
            return npz.read(path, allow_pickle=allow_pickle, load=load)
        scan = named.read_npz(path, recipe, allow_pickle=allow_pickle)
    else:
        with hdf5.open_file(path) as file:
            known = next((form for form in (cxi, ptychodus) if form.recognises(file)), named)
        scan = known.read(path, recipe)
    if not load:
        return scan
    return replace(scan, diffraction=np.asarray(scan.diffraction))


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
    npz.write(replace(scan, energies=brought_energies(scan)), path)


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
    scan = _read(path, _recipe(**options), load=False, allow_pickle=allow_pickle)
    folder = os.path.dirname(os.path.abspath(out))
    free = shutil.disk_usage(folder).free
    if free < scan.diffraction.nbytes:
        msg = (
            f"{os.fspath(out)} needs {scan.diffraction.nbytes / 2**20:.1f} MiB, but {folder} has "
            f"{free / 2**20:.1f} MiB free. Make room, write elsewhere, or crop."
        )
        raise OSError(msg)
    passing = Passing(scan.diffraction, scan.mask, progress)
    # The array of energies is full by the time it is written: the patterns come before it.
    npz.write(replace(scan, diffraction=passing, energies=passing.energies), out)
    return replace(scan, energies=passing.energies)


class Passing(Frames):
    """Patterns on their way into a file: how far they are, and their energies.

    Parameters
    ----------
    source : Frames
        The patterns.
    mask : ndarray, (N, N), bool, optional
        False for pixels that do not count.
    progress : callable, optional
        Called with shares that sum to 1.
    """

    def __init__(
        self,
        source: Frames,
        mask: NDArray[np.bool_] | None,
        progress: Callable[[float], object] | None,
    ) -> None:
        self.source, self.mask, self.progress = source, mask, progress
        self.shape, self.dtype = source.shape, source.dtype
        self.energies = np.full(len(source), np.nan)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with pattern ``rows[i]``."""
        self.source.read(rows, out)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all patterns, some at a time, and the next ones while these are written."""
        source = self.source.blocks()

        def read_next() -> tuple[slice, NDArray[Any]] | None:
            rows, block = next(source, (slice(0), None))
            if block is None:
                return None
            self.energies[rows] = pattern_energies(block, mask=self.mask)
            return rows, block.copy()  # for the source reads the next into the same memory

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read_next)
            while (item := coming.result()) is not None:
                coming = reader.submit(read_next)
                yield item
                if self.progress is not None:
                    self.progress(len(item[1]) / len(self))
