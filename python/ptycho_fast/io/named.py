"""Arrays that the caller names, in HDF5 and NPZ files, and a scan made of them."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import FileFrames
from ptycho_fast.io import hdf5, npz
from ptycho_fast.io.masks import good_pixels
from ptycho_fast.io.prepare import as_ids, assemble, scaled, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.prepare import Recipe
    from ptycho_fast.scan import Scan


def locate(path: str | os.PathLike[str], key: str) -> tuple[str | os.PathLike[str], str]:
    """Return file and key of what is named by ``KEY``, or ``FILE:KEY`` if in another file."""
    # Names of motors have colons too.
    for place, character in enumerate(key):
        if character == ":" and os.path.isfile(key[:place]):
            return key[:place], key[place + 1 :]
    return path, key


def members(path: str | os.PathLike[str]) -> dict[str, hdf5.DataSet]:
    """Return key -> what is known of each array of a file, reading none."""
    if hdf5.is_hdf5(path):
        return hdf5.datasets(path)
    return {
        key: hdf5.DataSet(member.shape, member.dtype, None, None)
        for key, member in npz.members(path).items()
    }


def exists(path: str | os.PathLike[str], key: str) -> bool:
    """Tell whether a file has an array of that name."""
    path, key = locate(path, key)
    if hdf5.is_hdf5(path):
        with hdf5.open_file(path) as file:
            return key in file
    return key in npz.members(path)


def array(path: str | os.PathLike[str], key: str) -> NDArray[Any]:
    """Read an array; with ``KEY[1]`` or ``KEY[:,1]`` a row or column of it.

    Raises
    ------
    KeyError
        If the file has none of that name.
    ValueError
        If there is no such row or column.
    OSError
        If it can't be read.
    """
    path, whole = locate(path, key)
    picked = re.fullmatch(r"(?P<key>.*)\[(?P<column>:,)?(?P<number>\d+)\]", whole)
    name = picked["key"] if picked else whole
    values = hdf5.array(path, name) if hdf5.is_hdf5(path) else npz.read_array(path, name)
    if not picked:
        return values
    axis, number = (1 if picked["column"] else 0), int(picked["number"])
    if values.ndim <= axis or values.shape[axis] <= number:
        msg = f"{key!r} can't be: {name!r} has shape {values.shape}."
        raise ValueError(msg)
    return np.asarray(values.take(number, axis=axis))


def frames(path: str | os.PathLike[str], key: str) -> Frames:
    """Open frames (n, H, W); they stay in the file.

    Raises
    ------
    KeyError
        If the file has no such array.
    ValueError
        If it is no stack of real numbers.
    """
    path, key = locate(path, key)
    if hdf5.is_hdf5(path):
        return hdf5.frames(path, key)
    found = npz.members(path)
    if key not in found:
        has = ", ".join(f"{name} {member.shape}" for name, member in found.items())
        msg = f"{os.fspath(path)} has no {key!r}. It has: {has or 'none'}."
        raise KeyError(msg)
    member = found[key]
    if len(member.shape) != 3 or member.dtype.kind not in "fiu" or 0 in member.shape:
        msg = (
            f"{os.fspath(path)}: {key!r} must be frames (n, rows, columns) of real numbers, got "
            f"shape {member.shape} of {member.dtype}."
        )
        raise ValueError(msg)
    if member.offset is None or member.fortran_order:
        msg = (
            f"{os.fspath(path)}: {key!r} is compressed or in Fortran order. Write it again with "
            "numpy.savez."
        )
        raise ValueError(msg)
    n, height, width = member.shape
    return FileFrames(path, member.offset, (n, height, width), member.dtype)


def coordinates(path: str | os.PathLike[str], name: str, key: str) -> NDArray[np.float64]:
    """Read one coordinate of each position."""
    values = array(path, key)
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        hint = f" Name one column: {name}='{key}[:,0]'." if values.ndim == 2 else ""
        msg = (
            f"{name}={key!r} must be real numbers (n,), got shape {values.shape} of "
            f"{values.dtype}.{hint}"
        )
        raise ValueError(msg)
    return values.astype(np.float64)


def mask(
    path: str | os.PathLike[str], recipe: Recipe, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Read the mask that the caller names, True for good pixels: (H, W), or that of each frame."""
    if recipe.mask is None:
        if recipe.invert_mask:
            msg = "invert_mask turns a mask over, so it needs mask=KEY."
            raise ValueError(msg)
        return None
    return good_pixels(recipe.mask, array(path, recipe.mask), shape, invert=recipe.invert_mask)


def read(path: str | os.PathLike[str], recipe: Recipe) -> Scan:
    """Read any file whose arrays the caller names; `ptycho_fast.read_scan` says how."""
    if recipe.diffraction is None or recipe.x is None or recipe.y is None:
        missing = [name for name in ("diffraction", "x", "y") if getattr(recipe, name) is None]
        has = ", ".join(f"{name} {found.shape}" for name, found in members(path).items())
        msg = (
            f"{os.fspath(path)} has no layout that is known, so its arrays must be named: "
            f"{', '.join(f'{name}=KEY' for name in missing)}. It has: {has or 'none'}."
        )
        raise KeyError(msg)
    if recipe.intensity is None:
        msg = (
            f"Does {recipe.diffraction!r} hold counts or their square roots? It is never guessed: "
            "pass counts=True or counts=False (--counts or --amplitude)."
        )
        raise ValueError(msg)
    source = frames(path, recipe.diffraction)
    part = window(source.shape, recipe)
    x, y = coordinates(path, "x", recipe.x), coordinates(path, "y", recipe.y)
    if x.shape != y.shape:
        msg = f"x={recipe.x!r} has {len(x)} positions, but y={recipe.y!r} has {len(y)}."
        raise ValueError(msg)
    x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    frame_ids = position_ids = None
    if recipe.index is not None:
        ids = as_ids(array(path, recipe.index), recipe.index)
        if len(ids) == len(x):
            position_ids = ids
        elif len(ids) == len(source):
            frame_ids = ids
        else:
            msg = (
                f"index={recipe.index!r} has {len(ids)} numbers, one for neither each of {len(x)} "
                f"positions nor each of {len(source)} frames."
            )
            raise ValueError(msg)
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
        probe=None if recipe.probe is None else array(path, recipe.probe),
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
    stored = npz.read(path, allow_pickle=allow_pickle)
    source = stored.diffraction
    part = window(source.shape, recipe)
    recipe = replace(recipe, unit=recipe.unit or "px")
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
    metadata = {**stored.metadata, **scan.metadata}
    if np.array_equal(scan.positions, stored.positions):
        return replace(
            stored, diffraction=scan.diffraction, probe=scan.probe, mask=scan.mask, energies=None,
            metadata=metadata, bad_pixels=None,
        )  # fmt: skip
    if stored.object is not None:
        warn(
            "The positions no longer lie on the object of the file; it was left out.",
        )
    rows, labels = scan.diffraction.rows, stored.scan_index
    labels = labels if labels is None or rows is None else labels[rows]
    return replace(scan, scan_index=labels, metadata=metadata)


def _stored_mask(
    path: str | os.PathLike[str], recipe: Recipe, stored: Scan
) -> NDArray[np.bool_] | None:
    """Return the mask that the caller names, or the one that NPZ scans have."""
    if recipe.mask is not None or stored.mask is None:
        return mask(path, recipe, stored.diffraction.shape)
    return ~stored.mask if recipe.invert_mask else stored.mask
