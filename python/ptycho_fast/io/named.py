"""Arrays that the caller names, in HDF5 and NPZ files, and a scan made of them."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io import hdf5, npz
from ptycho_fast.io.layouts import as_coordinates, as_probe, grid_of
from ptycho_fast.io.links import follow
from ptycho_fast.io.listing import MOST, listed
from ptycho_fast.io.masks import good_pixels
from ptycho_fast.io.prepare import Recipe, as_ids, assemble, scaled, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.scan import Scan


def locate(path: str | os.PathLike[str], key: str) -> tuple[str | os.PathLike[str], str]:
    """Return file and key of what is named by ``KEY``, or ``FILE:KEY`` if in another file."""
    # Names of motors have colons too.
    for place, character in enumerate(key):
        if character == ":" and os.path.exists(key[:place]) and not os.path.isdir(key[:place]):
            return key[:place], key[place + 1 :]
    return path, key


def members(path: str | os.PathLike[str], most: int | None = None) -> dict[str, hdf5.DataSet]:
    """Return key -> what is known of each array of a file, or of the first few, reading none."""
    if hdf5.is_hdf5(path):
        return hdf5.datasets(path, most)
    return {
        key: hdf5.DataSet(member.shape, member.dtype, None, None)
        for key, member in npz.members(path).items()
    }


def exists(path: str | os.PathLike[str], key: str) -> bool:
    """Tell whether a file has an array of that name."""
    path, key = locate(path, key)
    if hdf5.is_hdf5(path):
        with hdf5.open_file(path) as file:
            return follow(file, key) is not None
    return key in npz.members(path)


def array(path: str | os.PathLike[str], key: str) -> NDArray[Any]:
    """Read an array; with ``KEY[1]``, ``KEY[:,1]`` or ``KEY[0,:,1]`` a part of it.

    Raises
    ------
    KeyError
        If the file has none of that name.
    ValueError
        If there is no such part.
    OSError
        If it can't be read.
    """
    path, whole = locate(path, key)
    name, part = _split(whole)
    values = hdf5.array(path, name) if hdf5.is_hdf5(path) else npz.read_array(path, name)
    if part is None:
        return values
    try:
        return np.asarray(values[part])
    except IndexError:
        msg = f"{key!r} can't be: {name!r} has shape {values.shape}."
        raise ValueError(msg) from None


def _split(key: str) -> tuple[str, tuple[int | slice, ...] | None]:
    """Return the name of an array, and which part of it is meant."""
    picked = re.fullmatch(r"(?P<name>.*)\[(?P<part>(:|\d+)(,(:|\d+))*)\]", key)
    if not picked:
        return key, None
    parts = picked["part"].split(",")
    return picked["name"], tuple(slice(None) if part == ":" else int(part) for part in parts)


def scalars(path: str | os.PathLike[str], keys: Iterable[str]) -> dict[str, float]:
    """Read single numbers of a file, which is opened once; what can't be read is left out."""
    found = {}
    if hdf5.is_hdf5(path):
        with hdf5.open_file(path) as file:
            for key in keys:
                with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):
                    found[key] = float(np.ravel(follow(file, key)[()])[0])
    else:
        arrays = npz.read_arrays(path, list(keys))
        found = {key: float(values.reshape(-1)[0]) for key, values in arrays.items()}
    return found


def shape(path: str | os.PathLike[str], key: str) -> tuple[int, ...]:
    """Return the shape of an array.

    Raises
    ------
    KeyError
        If the file has none of that name.
    """
    path, key = locate(path, key)
    if hdf5.is_hdf5(path):
        return hdf5.shape(path, key)
    return npz.member(path, key).shape


def frames(
    path: str | os.PathLike[str],
    key: str,
    recipe: Recipe | None = None,
    n: int | None = None,
    grid: tuple[int, ...] = (),
) -> Frames:
    """Open frames (n, H, W); they stay in the file.

    Parameters
    ----------
    path : path
        The file.
    key : str
        The stack, in a layout of `ptycho_fast.io.layouts.stack_layout`, of which the other
        arguments are.

    Raises
    ------
    KeyError
        If the file has no such array.
    ValueError
        If it is no stack of real numbers.
    """
    path, key = locate(path, key)
    if hdf5.is_hdf5(path):
        return hdf5.frames(path, key, recipe, n, grid)
    return npz.frames(path, key, recipe, n, grid)


def coordinates(path: str | os.PathLike[str], name: str, key: str) -> NDArray[np.float64]:
    """Read one coordinate of each position."""
    return as_coordinates(name, key, array(path, key), (), Recipe())


def mask(
    path: str | os.PathLike[str], recipe: Recipe, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Read the mask that the caller names, True for good pixels: (H, W), or that of each frame."""
    if recipe.mask is None:
        if recipe.invert_mask:
            msg = "invert_mask turns a mask over, so it needs mask=KEY."
            raise ValueError(msg)
        return None
    return masked(path, recipe.mask, shape, invert=recipe.invert_mask)


def masked(
    path: str | os.PathLike[str], key: str, shape: tuple[int, ...], *, invert: bool = False
) -> NDArray[np.bool_]:
    """Read a mask by its name, True for good pixels."""
    return good_pixels(key, array(path, key), shape, invert=invert)


def read(path: str | os.PathLike[str], recipe: Recipe) -> Scan:
    """Read any file whose arrays the caller names; `ptycho_fast.read_scan` says how."""
    if recipe.diffraction is None or recipe.x is None or recipe.y is None:
        missing = [name for name in ("diffraction", "x", "y") if getattr(recipe, name) is None]
        msg = (
            f"{os.fspath(path)} has no layout that is known, so its arrays must be named: "
            f"{', '.join(f'{name}=KEY' for name in missing)}. It has: "
            f"{listed(members(path, MOST + 1))}."
        )
        raise KeyError(msg)
    if recipe.intensity is None:
        msg = (
            f"Does {recipe.diffraction!r} hold counts or their square roots? It is never guessed: "
            "pass counts=True or counts=False (--counts or --amplitude)."
        )
        raise ValueError(msg)
    stack = shape(path, recipe.diffraction)
    read = {"x": array(path, recipe.x), "y": array(path, recipe.y)}
    x, y = (
        as_coordinates(name, str(getattr(recipe, name)), values, stack, recipe)
        for name, values in read.items()
    )
    if x.shape != y.shape:
        msg = f"x={recipe.x!r} has {len(x)} positions, but y={recipe.y!r} has {len(y)}."
        raise ValueError(msg)
    n = len(x) if recipe.index is None else None
    source = frames(path, recipe.diffraction, recipe, n, grid_of(read["x"].shape, stack))
    part = window(source.shape, recipe)
    x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    frame_ids = position_ids = None
    if recipe.index is not None:
        numbers = array(path, recipe.index)
        if numbers.size == len(x):
            position_ids = as_ids(numbers, recipe.index, recipe, len(source))
        elif numbers.size == len(source):
            frame_ids = as_ids(numbers, recipe.index, recipe, len(x))
        else:
            msg = (
                f"index={recipe.index!r} has {numbers.size} numbers, one for neither each of "
                f"{len(x)} positions nor each of {len(source)} frames."
            )
            raise ValueError(msg)
    probe = None
    if recipe.probe is not None:
        what = f"{os.fspath(path)}: {recipe.probe!r}"
        probe = as_probe(what, array(path, recipe.probe), (part.N, part.N))
    return assemble(
        source,
        x,
        y,
        recipe,
        intensity=recipe.intensity,
        object_pixel=object_pixel,
        part=part,
        frame_ids=frame_ids,
        position_ids=position_ids,
        mask=mask(path, recipe, source.shape),
        probe=probe,
    )


def read_npz(path: str | os.PathLike[str], recipe: Recipe, *, allow_pickle: bool) -> Scan:
    """Read an NPZ scan and prepare it as any raw data."""
    if refused := recipe.given("diffraction", "x", "y", "probe", "index"):
        msg = (
            f"{os.fspath(path)} is an NPZ file, whose keys have fixed names, so "
            f"{', '.join(refused)} can't be named alone. Name diffraction, x, y and unit to read "
            "it by other keys."
        )
        raise ValueError(msg)
    if recipe.crop is not None and (raw := _as_raw(path, recipe)) is not None:
        return raw
    stored = npz.read(path, recipe, allow_pickle=allow_pickle)
    source = stored.diffraction
    part = window(source.shape, recipe)
    # What the file's own names say has been done.
    recipe = replace(recipe, unit=recipe.unit or "px", first=None)
    x, y = stored.positions.T
    x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    scan = assemble(
        source,
        x,
        y,
        recipe,
        intensity=bool(recipe.intensity),
        object_pixel=object_pixel,
        part=part,
        mask=_stored_mask(path, recipe, stored),
        listed=stored.bad_pixels,
        probe=stored.probe,
    )
    # All that belongs to a position follows those that are kept.
    rows = np.arange(len(stored)) if scan.diffraction.rows is None else scan.diffraction.rows
    bare = replace(stored, probe=None, mask=None, energies=None, bad_pixels=None)
    kept = bare.take(rows, scan.diffraction)
    metadata = {**kept.metadata, **scan.metadata}
    if np.array_equal(scan.positions, kept.positions):
        return replace(kept, probe=scan.probe, mask=scan.mask, metadata=metadata)
    if stored.object is not None:
        warn(
            "The positions no longer lie on the object of the file; it was left out.",
        )
    return replace(scan, scan_index=kept.scan_index, metadata=metadata)


def _as_raw(path: str | os.PathLike[str], recipe: Recipe) -> Scan | None:
    """Read an NPZ scan of a detector that is not square, of which a square is cut; else None."""
    found = npz.members(path)
    key = next((key for key in npz.PATTERN_KEYS if key in found), None)
    if key is None or "xcoords" not in found or "ycoords" not in found:
        return None
    shape = found[key].shape
    if len(shape) != 3 or shape[1] == shape[2] or shape[0] == shape[1]:
        return None
    probe = recipe.probe or ("probeGuess" if "probeGuess" in found else None)
    mask = recipe.mask or ("detector_mask" if "detector_mask" in found else None)
    raw = replace(
        recipe,
        diffraction=key,
        x="xcoords",
        y="ycoords",
        probe=probe,
        mask=mask,
        unit=recipe.unit or "px",
        intensity=bool(recipe.intensity),
    )
    return read(path, raw)


def _stored_mask(
    path: str | os.PathLike[str], recipe: Recipe, stored: Scan
) -> NDArray[np.bool_] | None:
    """Return the mask that the caller names, or the one that NPZ scans have."""
    if recipe.mask is not None or stored.mask is None:
        return mask(path, recipe, stored.diffraction.shape)
    return ~stored.mask if recipe.invert_mask else stored.mask
