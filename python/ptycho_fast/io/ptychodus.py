"""Products of ptychodus, and the patterns that they were made of."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ptycho_fast.io import hdf5, named
from ptycho_fast.io.masks import good_pixels
from ptycho_fast.io.prepare import as_ids, assemble, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.prepare import Recipe
    from ptycho_fast.scan import Scan

POSITIONS = ("probe_position_x_m", "probe_position_y_m")
GRID = ("pixel_width_m", "pixel_height_m", "center_x_m", "center_y_m")
"""Attributes of `object`."""

PATTERNS = ("patterns", "dp")
"""Where the patterns are if they are in the product's file."""


def recognises(file: Any) -> bool:
    """Tell whether an open HDF5 file is a product."""
    return all(key in file for key in ("object", *POSITIONS))


def read(path: str | os.PathLike[str], recipe: Recipe) -> Scan:
    """Read a product and its patterns; `ptycho_fast.read_scan` says how."""
    fixed = recipe.given(
        "x", "y", "unit", "energy_eV", "distance_m", "detector_pixel_m", "swap_xy", "flip_x",
        "flip_y",
    )  # fmt: skip
    if fixed:
        msg = (
            f"{os.fspath(path)} is a ptychodus product, which says itself where its positions lie "
            f"on its object; leave out {', '.join(fixed)}. (To read it as any HDF5 file, name "
            "diffraction, x, y and unit.)"
        )
        raise ValueError(msg)
    with hdf5.open_file(path) as file:
        grid = {name: file["object"].attrs.get(name) for name in GRID}
        inside = next((key for key in PATTERNS if key in file), None)
        numbered = "probe_position_indexes" in file
        has_probe = "probe" in file
        far_field = file.attrs.get("far_field", True)
    if not far_field:
        warn(
            f"{os.fspath(path)} says that its patterns are near-field ones (far_field is False), "
            "but they are treated as far-field ones: neither object nor probe will be right."
        )
    if absent := [name for name, value in grid.items() if value is None]:
        msg = (
            f"{os.fspath(path)}: the object lacks {', '.join(absent)}. To read the file as any "
            "HDF5 file, name diffraction, x, y and unit."
        )
        raise KeyError(msg)
    key = recipe.diffraction or inside
    if key is None:
        msg = (
            f"{os.fspath(path)} is a ptychodus product, which holds no patterns. Name those it was "
            "made of: diffraction='diffraction.h5:/patterns'."
        )
        raise KeyError(msg)
    source = named.frames(path, key, recipe)
    part = window(source.shape, recipe)
    frame_ids, mask = _beside(path, key, source, recipe)
    if recipe.index is not None:
        frame_ids = as_ids(named.array(path, recipe.index), recipe.index, recipe)
        if len(frame_ids) != len(source):
            msg = f"index={recipe.index!r} has {len(frame_ids)} numbers for {len(source)} frames."
            raise ValueError(msg)
    if recipe.mask is not None or mask is None:
        mask = named.mask(path, recipe, source.shape)
    position_ids = None
    if numbered:
        name = "probe_position_indexes"
        position_ids = as_ids(hdf5.array(path, name), name)

    object_ = hdf5.array(path, "object")
    probe = named.array(path, recipe.probe or "probe") if has_probe or recipe.probe else None
    if probe is not None and probe.ndim == 4:
        # The first is the probe, the others say how it varied over the scan.
        probe = probe[0]
    if probe is not None and probe.shape[-1] != part.N:
        msg = (
            f"{os.fspath(path)}: the probe has {probe.shape[-1]} pixels a side, but the patterns "
            f"have {part.N}, so they are not on the grid of the object. Pass "
            f"crop={probe.shape[-1] * part.bin} (and centre=)."
        )
        raise ValueError(msg)
    height, width = object_.shape[-2:]
    x, y = (named.coordinates(path, name, name) for name in POSITIONS)
    return assemble(
        source,
        (x - float(grid["center_x_m"])) / float(grid["pixel_width_m"]) + width / 2,
        (y - float(grid["center_y_m"])) / float(grid["pixel_height_m"]) + height / 2,
        recipe,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=None,
        part=part,
        frame_ids=frame_ids,
        position_ids=position_ids,
        mask=mask,
        probe=probe,
        object=_one_layer(path, object_),
    )


def _beside(
    path: str | os.PathLike[str], key: str, source: Frames, recipe: Recipe
) -> tuple[NDArray[np.int64] | None, NDArray[np.bool_] | None]:
    """Return the frames' numbers and the good pixels, which ptychodus writes by the patterns."""
    path, key = named.locate(path, key)
    folder, slash, name = key.rpartition("/")
    if name != "patterns":
        return None, None
    names = {name: f"{folder}{slash}{name}" for name in ("indexes", "bad_pixels")}
    there = {name: named.exists(path, place) for name, place in names.items()}
    ids = as_ids(named.array(path, names["indexes"]), "indexes") if there["indexes"] else None
    good = None
    if there["bad_pixels"]:
        name = names["bad_pixels"]
        good = good_pixels(name, named.array(path, name), source.shape, invert=recipe.invert_mask)
    return ids, good


def _one_layer(path: str | os.PathLike[str], object_: NDArray[Any]) -> NDArray[Any] | None:
    if object_.ndim == 3 and len(object_) == 1:
        object_ = object_[0]
    if object_.ndim != 2:
        warn(
            f"{os.fspath(path)}: the object has {len(object_)} layers, and patches are cut from "
            "one; it was left out.",
        )
        return None
    return object_
