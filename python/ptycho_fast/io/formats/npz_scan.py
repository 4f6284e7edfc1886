"""NPZ scans, whose keys have fixed names: read as they are stored, or prepared, and written."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.checks import as_real, join_coordinates
from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.assemble import Given, as_first, assemble, scaled
from ptycho_fast.io.formats import named
from ptycho_fast.io.geometry import rescaled
from ptycho_fast.io.layouts import as_layer, as_line, as_probe, grid_of, named_probe
from ptycho_fast.io.leading import leading
from ptycho_fast.io.listing import listed
from ptycho_fast.io.masks import good_pixels, read_mask
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.npz.metadata import read_metadata
from ptycho_fast.io.npz.scan_keys import (
    BAD_PIXEL_KEYS,
    ENERGIES_OF,
    ENERGY_SOURCES,
    METADATA_KEY,
    PATTERN_KEYS,
    POSITION_KEYS,
    SCAN_KEYS,
)
from ptycho_fast.io.npz.stack import NPZStack
from ptycho_fast.io.npz.writing import Writer, write_arrays
from ptycho_fast.io.recipe import Recipe, window
from ptycho_fast.io.unpacked import Unpacked
from ptycho_fast.notices import warn
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.container import Container
    from ptycho_fast.io.hdf5.writing import Outgoing
    from ptycho_fast.io.npz.archive import Member

suffix = ".npz"

logger = logging.getLogger("ptycho_fast")

Arrays = dict[str, "NDArray[Any]"]

STORED_AS_IT_IS = {"intensity", "drop_dark", "frames_axis", "reshape", "first", "loaded",
                   "allow_pickle"}  # fmt: skip
"""Options that leave the patterns and positions of an NPZ scan as they are stored."""


def recognises(container: Container) -> bool:
    """Tell whether a file is NPZ: what it lacks to be a scan is said by `read`."""
    return isinstance(container, NPZContainer)


def read(container: Container, recipe: Recipe) -> Scan:
    """Read an NPZ scan; `ptycho_fast.read_scan` explains how."""
    assert isinstance(container, NPZContainer)
    if recipe.intensity or recipe.given(*(set(vars(recipe)) - STORED_AS_IT_IS)):
        return _prepared(container, recipe)
    stored = as_stored(container, recipe)
    source, bad = stored.diffraction, stored.bad_pixels
    part = window(source.shape, recipe)
    frames = PreparedFrames(source, part, intensity=False, listed=bad, dtype=source.dtype)
    return replace(stored, diffraction=frames, bad_pixels=None)


def as_stored(container: NPZContainer, recipe: Recipe | None = None) -> Scan:
    """Read an NPZ scan as it is stored; its patterns stay in the file.

    Parameters
    ----------
    container : NPZContainer
        The file.
    recipe : Recipe, optional
        Its `frames_axis`, `reshape`, `first`, `allow_pickle` and `loaded` are used. Patterns that
        will all be read, in order, pass the file's checksum on the way, and nothing has to be
        unpacked to the disk. If it names a probe, that of the file is left out.

    Raises
    ------
    KeyError
        If a key of a scan is missing.
    ValueError
        If shapes do not fit one another, or a key needs unpickling.
    """
    recipe = recipe or Recipe()
    path, found = container.path, container.archive.members
    _require(path, found)
    pattern_keys = [key for key in PATTERN_KEYS if key in found]
    if len({found[key].checksum for key in pattern_keys}) == 1:
        del pattern_keys[1:]  # the same twice
    arrays = _all_but_patterns(container, recipe)
    grid = _flatten_positions(path, arrays, found[pattern_keys[0]].shape, recipe)
    positions = join_coordinates(arrays["xcoords"], arrays["ycoords"])
    start = join_coordinates(
        arrays.get("xcoords_start", arrays["xcoords"]),
        arrays.get("ycoords_start", arrays["ycoords"]),
    )
    stacks = [
        NPZStack(path, key, found[key], recipe, n=len(positions), grid=grid) for key in pattern_keys
    ]
    n = _used(stacks[0], len(positions), recipe)
    size = n * math.prod(stacks[0].shape[1:]) * stacks[0].dtype.itemsize
    patterns = _only_one(path, stacks, in_order=size < recipe.loaded)
    bad = None
    if all(key in arrays for key in BAD_PIXEL_KEYS):
        bad = BadPixels(*(arrays[key] for key in BAD_PIXEL_KEYS))
    if recipe.first is not None:
        positions, start = positions[:n], start[:n]
        for key in ("scan_index", "Y"):
            if key in arrays and arrays[key].ndim:
                arrays[key] = arrays[key][:n]
        arrays.pop("pattern_energies", None)
        bad = None if bad is None else bad.take(np.arange(n))
    shape = stacks[0].shape
    # A probe that the caller names is used instead.
    probe = None if recipe.probe is not None else _optional(arrays, "probeGuess")
    object_ = _optional(arrays, "objectGuess")
    mask = _optional(arrays, "detector_mask")
    metadata = {key: value[()] for key, value in arrays.items() if key not in SCAN_KEYS}
    if METADATA_KEY in found:
        metadata[METADATA_KEY] = _metadata(container, allow_pickle=recipe.allow_pickle)
    return Scan(
        positions=positions,
        positions_start=start,
        diffraction=leading(patterns, n),
        probe=None if probe is None else as_probe(f"{path}: 'probeGuess'", probe, shape[1:]),
        object=None if object_ is None else as_layer(f"{path}: 'objectGuess'", object_),
        scan_index=_optional(arrays, "scan_index"),
        mask=None if mask is None else good_pixels("detector_mask", mask, shape),
        energies=_energies(path, arrays, found),
        metadata=metadata,
        bad_pixels=bad,
    )


def _require(path: str, found: dict[str, Member]) -> None:
    missing = [key for key in ("xcoords", "ycoords") if key not in found]
    if not any(key in found for key in PATTERN_KEYS):
        missing.append("diff3d (or diffraction)")
    if missing:
        msg = f"{path} is not a scan: it lacks {', '.join(missing)}. Its keys: {listed(found)}."
        raise KeyError(msg)


def _all_but_patterns(container: NPZContainer, recipe: Recipe) -> Arrays:
    """Read all arrays but the patterns and `METADATA_KEY`."""
    wanted = []
    for key, member in container.archive.members.items():
        if key == METADATA_KEY:
            continue
        if member.dtype.hasobject and not recipe.allow_pickle:
            msg = (
                f"{container.path}: {key!r} is a pickled object, and unpickling runs code. "
                "If you trust the file, pass allow_pickle=True."
            )
            raise ValueError(msg)
        if key not in PATTERN_KEYS:
            wanted.append(key)
    return container.archive.read(wanted, allow_pickle=recipe.allow_pickle)


def _only_one(path: str, stacks: list[NPZStack], *, in_order: bool) -> Frames:
    """Return the first stack of patterns, with which all others must agree."""
    patterns = Unpacked(stacks[0]) if in_order else stacks[0].open()
    for other in stacks[1:]:
        if not other.equals(patterns):
            msg = (
                f"{path} has both 'diff3d' and 'diffraction', and they differ. "
                "Remove the one that is not meant."
            )
            raise ValueError(msg)
    return patterns


def _flatten_positions(
    path: str, arrays: Arrays, stack: tuple[int, ...], recipe: Recipe
) -> tuple[int, ...]:
    """Make what belongs to positions (n,), in place; return the grid (ny, nx) it was, if any."""
    shape = arrays["xcoords"].shape
    grid = grid_of(shape, stack) if shape == arrays["ycoords"].shape else ()
    if grid and not (recipe.reshape or (len(stack) == 4 and stack[:2] == grid)):
        msg = (
            f"{path}: xcoords and ycoords are grids of shape {grid}, but the patterns "
            f"have shape {stack}. If they belong together row by row, pass reshape=True "
            "(--reshape)."
        )
        raise ValueError(msg)
    for key in POSITION_KEYS:
        if key in arrays:
            line = as_line(arrays[key])
            arrays[key] = line.reshape(-1) if grid and line.shape == grid else line
    return grid


def _used(stack: NPZStack, n: int, recipe: Recipe) -> int:
    """Return how many frames and positions are used, if they fit one another."""
    frames, height, width = stack.shape
    name, shape = f"{stack.path}: {stack.key!r}", stack.member.shape
    if recipe.first is None and frames != n:
        msg = (
            f"{name} has shape {shape}, which holds no {n} square patterns, though there are {n} "
            f"positions: ({n}, N, N), (N, N, {n}) or ({n}, N, N, 1) is needed. If frame i belongs "
            f"to position i, first={min(frames, n)} (--first {min(frames, n)}) leaves out the "
            "others."
        )
        raise ValueError(msg)
    if height != width:
        msg = (
            f"{name} has shape {shape}, which holds no {n} square patterns: they are {height} rows "
            f"x {width} columns. Pass crop={min(height, width)} (--crop {min(height, width)}), and "
            "centre=(row, column) of the beam."
        )
        raise ValueError(msg)
    return as_first(recipe.first, frames, n) if recipe.first is not None else n


def _metadata(container: NPZContainer, *, allow_pickle: bool) -> Any:
    """Read what the file says about itself."""
    try:
        with container.archive.open(METADATA_KEY) as file:
            return read_metadata(file)
    except ValueError as error:
        if allow_pickle:
            arrays = container.archive.read([METADATA_KEY], allow_pickle=True)
            return arrays[METADATA_KEY][()]
        msg = (
            f"{container.path}: '_metadata' can't be read: {error}. JSON and pickles of numbers, "
            "text, lists, dicts and NumPy arrays are read. If you trust the file, "
            "read_scan(path, allow_pickle=True) runs the pickle."
        )
        raise ValueError(msg) from error


def _energies(path: str, arrays: Arrays, found: Mapping[str, Member]) -> NDArray[np.float64] | None:
    """Return the stored energies, if what they were computed from is what is in the file."""
    energies, then = (_optional(arrays, key) for key in ("pattern_energies", ENERGIES_OF))
    if energies is None:
        return None
    now = _energies_of({key: member.checksum for key, member in found.items()})
    if then is None or not np.array_equal(now, then):
        logger.info(
            "%s: pattern_energies are not used: they were computed from other patterns, or it is "
            "not known from which. They are computed again when they are needed; "
            "`ptycho-fast convert` stores them.",
            path,
        )
        return None
    return as_real("pattern_energies", energies)


def _energies_of(checksums: Mapping[str, tuple[int, int]]) -> NDArray[np.uint64]:
    """Return CRC and size, which the file's directory holds, of all that energies depend on."""
    return np.array([checksums.get(key, (0, 0)) for key in ENERGY_SOURCES], np.uint64)


def _optional(arrays: Arrays, key: str) -> NDArray[Any] | None:
    """Return an array, or None where the key is absent or holds a saved None."""
    array = arrays.get(key)
    return None if array is None or (array.dtype.hasobject and array[()] is None) else array


def _prepared(container: NPZContainer, recipe: Recipe) -> Scan:
    """Read an NPZ scan and prepare it as any raw data."""
    if refused := recipe.given("diffraction", "x", "y", "index"):
        msg = (
            f"{container.path} is an NPZ file, whose keys have fixed names, so "
            f"{', '.join(refused)} can't be named alone. Name diffraction, x, y and unit to read "
            "it by other keys."
        )
        raise ValueError(msg)
    if recipe.crop is not None and (raw := _not_square(container, recipe)) is not None:
        return named.read(container, raw)
    stored = as_stored(container, replace(recipe, loaded=0))
    source = stored.diffraction
    part = window(source.shape, recipe)
    # The names of the file's keys say what has been done already.
    recipe = replace(recipe, unit=recipe.unit or "px", first=None)
    x, y = stored.positions.T
    x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    given = Given(
        source,
        x,
        y,
        intensity=bool(recipe.intensity),
        object_pixel=object_pixel,
        mask=_mask(container, recipe, stored),
        listed=stored.bad_pixels,
        probe=stored.probe if recipe.probe is None else named_probe(container, recipe, part.N),
    )
    scan = assemble(given, part, recipe)
    # All that belongs to a position follows the positions that are kept.
    rows = np.arange(len(stored)) if scan.diffraction.rows is None else scan.diffraction.rows
    bare = replace(stored, probe=None, mask=None, energies=None, bad_pixels=None)
    kept = bare.take(rows, scan.diffraction)
    lengths = rescaled(kept.metadata, part, source.shape)
    metadata = {**kept.metadata, **lengths, **scan.metadata}
    if np.array_equal(scan.positions, kept.positions):
        return replace(kept, probe=scan.probe, mask=scan.mask, metadata=metadata)
    if stored.object is not None:
        warn(
            "The positions no longer lie on the object of the file; it was left out.",
        )
    return replace(scan, scan_index=kept.scan_index, metadata=metadata)


def _not_square(container: NPZContainer, recipe: Recipe) -> Recipe | None:
    """Return the recipe that reads the patterns of a detector that is not square; else None."""
    found = container.archive.members
    key = next((key for key in PATTERN_KEYS if key in found), None)
    if key is None or "xcoords" not in found or "ycoords" not in found:
        return None
    shape = found[key].shape
    if len(shape) != 3 or shape[1] == shape[2] or shape[0] == shape[1]:
        return None
    return replace(
        recipe,
        diffraction=key,
        x="xcoords",
        y="ycoords",
        probe=recipe.probe or ("probeGuess" if "probeGuess" in found else None),
        mask=recipe.mask or ("detector_mask" if "detector_mask" in found else None),
        unit=recipe.unit or "px",
        intensity=bool(recipe.intensity),
    )


def _mask(container: NPZContainer, recipe: Recipe, stored: Scan) -> NDArray[np.bool_] | None:
    """Return the mask that the caller names, or the one that NPZ scans have."""
    if recipe.mask is not None or stored.mask is None:
        return read_mask(container, recipe, stored.diffraction.shape)
    return ~stored.mask if recipe.invert_mask else stored.mask


def files(path: Path) -> list[Path]:
    """Return the file of a scan."""
    return [path]


def write(out: Outgoing, path: str | os.PathLike[str]) -> None:
    """Write an NPZ scan; `ptycho_fast.write_scan` explains how."""
    scan = out.scan

    def finish(writer: Writer) -> None:
        known = out.found()
        bad = known.bad_pixels
        later = {
            "detector_mask": known.mask,
            "pattern_energies": known.energies,
            BAD_PIXEL_KEYS[0]: None if bad is None else bad.starts,
            BAD_PIXEL_KEYS[1]: None if bad is None else bad.pixels,
        }
        for key, value in later.items():
            if value is not None:
                writer.add(key, np.asarray(value))
        if known.energies is not None:
            writer.add(ENERGIES_OF, _energies_of(writer.checksums()))

    fields = {
        "xcoords": scan.positions[:, 0],
        "ycoords": scan.positions[:, 1],
        "xcoords_start": scan.positions_start[:, 0],
        "ycoords_start": scan.positions_start[:, 1],
        "diff3d": scan.diffraction,
        "probeGuess": scan.probe,
        "objectGuess": scan.object,
        "scan_index": scan.scan_index,
    }
    write_arrays(path, fields, scan.metadata, finish=finish)
