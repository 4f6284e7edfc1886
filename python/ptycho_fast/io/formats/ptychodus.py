"""Products of ptychodus, HDF5 or NPZ, the patterns that they were made from, and training data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.canvas import canvas
from ptycho_fast.io.assemble import Given, as_ids, assemble
from ptycho_fast.io.formats.object_grid import ObjectGrid, one_layer
from ptycho_fast.io.geometry import Geometry, lengths_of
from ptycho_fast.io.hdf5.links import import_h5py
from ptycho_fast.io.hdf5.writing import (
    as_complex,
    frame_numbers,
    has_single_bad_pixels,
    hdf5_file,
    warn_of_loss,
    write_counts,
)
from ptycho_fast.io.layouts import as_complex_numbers, as_coordinates, as_probe
from ptycho_fast.io.masks import good_pixels, read_mask
from ptycho_fast.io.pairs import partner
from ptycho_fast.io.recipe import EV_METRE, NotGivenError, Recipe, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames, Window
    from ptycho_fast.io.container import Container
    from ptycho_fast.io.geometry import Lengths
    from ptycho_fast.io.hdf5.writing import Outgoing
    from ptycho_fast.scan import Scan

POSITIONS = ("probe_position_x_m", "probe_position_y_m")
PIXELS = ("probe_position_x_px", "probe_position_y_px")
"""Positions of training data."""

GRID = ("pixel_width_m", "pixel_height_m", "center_x_m", "center_y_m")
"""Attributes of `object`; in NPZ, arrays whose names begin with ``object_``."""

PRODUCT = ("photon_energy_eV", "detector_object_distance_m")
"""Attributes of a product."""

suffix = ""

NOT_KNOWN = "not_known"
"""An attribute of objects that stand for none, as ptychodus needs one to begin with."""

STANDARD = {"product": "diffraction"}
"""What ptychodus itself calls the product and the patterns of one scan."""

PATTERNS = ("patterns", "dp")
"""Where the patterns are if they are in the product's own file."""

FIXED = (
    "x", "y", "unit", "energy_eV", "distance_m", "detector_pixel_m", "swap_xy", "flip_x", "flip_y",
)  # fmt: skip
"""Options that a product leaves nothing to say about."""


def recognises(container: Container) -> bool:
    """Tell whether a file is a product, training data made of one, or the patterns of a pair."""
    return _is_product(container) or _product_beside(container) is not None


def _is_product(container: Container) -> bool:
    return "object" in container and any(
        all(key in container for key in keys) for keys in (POSITIONS, PIXELS)
    )


def _product_beside(container: Container) -> Container | None:
    """Return the product ``<name>_para.hdf5`` of patterns ``<name>_dp.hdf5``."""
    beside = partner(container.path) if PATTERNS[-1] in container else None
    if beside is None:
        return None
    product, _ = container.locate(f"{beside}:object")
    return product if _is_product(product) else None


def _patterns(container: Container, recipe: Recipe) -> str | None:
    """Return the name of the patterns: those that are named, in the file, or in its partner."""
    if recipe.diffraction is not None:
        return recipe.diffraction
    inside = next((key for key in PATTERNS if key in container), None)
    beside = partner(container.path)
    return inside or (None if beside is None else f"{beside}:{PATTERNS[-1]}")


def read(container: Container, recipe: Recipe) -> Scan:
    """Read a product and its patterns; `ptycho_fast.read_scan` explains how."""
    if not _is_product(container):
        product = _product_beside(container)
        assert product is not None  # it was recognised by this
        container = product
    path = container.path
    recipe.refuse(path, "a ptychodus product", *FIXED)
    _warn_of_near_field(container)
    grid = {} if PIXELS[0] in container else _grid(container)
    key = _patterns(container, recipe)
    if key is None:
        msg = (
            f"{path} is a ptychodus product, which holds no patterns. Name those it was "
            "made of: diffraction='diffraction.h5:/patterns'."
        )
        raise NotGivenError(msg, "diffraction")
    source = container.named_frames(key, recipe)
    part = window(source.shape, recipe)
    frame_ids, mask = _beside(container, key, source, recipe)
    if recipe.index is not None:
        frame_ids = as_ids(container.read_named(recipe.index), recipe.index, recipe)
        if len(frame_ids) != len(source):
            msg = f"index={recipe.index!r} has {len(frame_ids)} numbers for {len(source)} frames."
            raise ValueError(msg)
    if recipe.mask is not None or mask is None:
        mask = read_mask(container, recipe, source.shape)
    position_ids = None
    if (name := "probe_position_indexes") in container:
        position_ids = as_ids(container.read(name), name)
    object_ = _object(container)
    probe = _probe(container, recipe, part)
    x, y, object_pixel = _positions(container, grid, object_.shape, part.N)
    if object_pixel is not None:
        warn(
            f"{path} does not say where its object lies (center_x_m, center_y_m): it was left out."
        )
    known = object_pixel is None and container.attribute("object", NOT_KNOWN) is None
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=object_pixel,
        frame_ids=frame_ids,
        position_ids=position_ids,
        mask=mask,
        probe=probe,
        object=one_layer(path, object_) if known else None,
        geometry=_geometry(container, grid, part),
    )
    return assemble(given, part, recipe)


def _warn_of_near_field(container: Container) -> None:
    """Warn if the file says that its patterns are near-field ones."""
    stored = container.attribute("/", "far_field", True)
    if "far_field" in container:
        stored = container.read("far_field")
    said = np.ravel(np.asarray(stored)).tolist()
    words = [
        value.decode(errors="replace") if isinstance(value, bytes) else value for value in said
    ]
    if any(str(word).lower() in ("false", "0", "0.0") for word in words):
        warn(
            f"{container.path} says that its patterns are near-field ones (far_field is {stored}), "
            "but they are treated as far-field ones: neither object nor probe will be right."
        )


def _positions(
    container: Container, grid: dict[str, float], shape: tuple[int, ...], N: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float] | None]:
    """Return x and y of pixel N // 2 of each window, in pixels of the object.

    If it is not known where the object lies, they are in metres, and the size of its pixels is
    returned, too.
    """
    if not grid:
        x, y = (_line(container, name) for name in PIXELS)
        return *ObjectGrid((1, 1), (1.0, 1.0), (0.0, 0.0)).places(x, y, N), None
    x, y = (_line(container, name) for name in POSITIONS)
    pixel = grid["pixel_width_m"], grid["pixel_height_m"]
    if "center_x_m" not in grid or "center_y_m" not in grid:
        return x, y, pixel
    centre = grid["center_x_m"], grid["center_y_m"]
    return *ObjectGrid((shape[-2], shape[-1]), pixel, centre).places(x, y, N), None


def _line(container: Container, name: str) -> NDArray[np.float64]:
    return as_coordinates(name, name, container.read(name), (), Recipe())


def _grid(container: Container) -> dict[str, float]:
    """Return where the object lies, in metres."""
    grid = {}
    for name in GRID:
        stored = container.attribute("object", name)
        if stored is None and f"object_{name}" in container:
            stored = container.read(f"object_{name}")
        if stored is not None:
            grid[name] = _length(container.path, name, stored)
    for one, other in (GRID[:2], GRID[1::-1]):
        if one in grid:
            grid.setdefault(other, grid[one])  # pixels are square, where one side is given
    if absent := [name for name in GRID[:2] if name not in grid]:
        msg = (
            f"{container.path}: the object lacks {', '.join(absent)}. To read the file as any "
            "other file, name diffraction, x, y and unit."
        )
        raise KeyError(msg)
    return grid


def _geometry(container: Container, grid: dict[str, float], part: Window) -> Geometry | None:
    """Return the geometry, if the product says it."""
    stored = [np.ravel(np.asarray(container.attribute("/", name, 0))) for name in PRODUCT]
    if not grid or any(value.size != 1 or value.dtype.kind not in "fiu" for value in stored):
        return None
    energy, distance = (abs(float(value[0])) for value in stored)
    if not (0 < energy < np.inf and 0 < distance < np.inf):  # 0 stands for what is not known
        return None
    wavelength, side = EV_METRE / energy, part.N * part.bin
    width, height = (
        wavelength * distance / (side * grid[name]) for name in ("pixel_width_m", "pixel_height_m")
    )
    return Geometry(wavelength, distance, (height, width))


def _length(path: str, name: str, stored: Any) -> float:
    """Return a length in metres; one of a pixel must be positive."""
    values = np.ravel(np.asarray(stored))
    good = values.size == 1 and values.dtype.kind in "fiu" and bool(np.isfinite(values[0]))
    if not good or (name in GRID[:2] and values[0] <= 0):
        msg = (
            f"{path}: {name} of the object is {stored}, which is no "
            f"{'positive ' if name in GRID[:2] else ''}number. To read the file as any other file, "
            "name diffraction, x, y and unit."
        )
        raise ValueError(msg)
    return float(values[0])


def _object(container: Container) -> NDArray[Any]:
    """Read the object, (H, W) or (layers, H, W)."""
    values = as_complex_numbers(container.read("object"))
    if values.ndim < 2 or values.dtype.kind not in "fiuc":
        msg = (
            f"{container.path}: the object has shape {values.shape} of {values.dtype}, but (H, W) "
            "or (layers, H, W) complex is needed. To read the file as any other file, name "
            "diffraction, x, y and unit."
        )
        raise ValueError(msg)
    return values


def _probe(container: Container, recipe: Recipe, part: Window) -> NDArray[Any] | None:
    """Read the probe, which must be on the grid of the object."""
    if not (recipe.probe or "probe" in container):
        return None
    key = recipe.probe or "probe"
    probe = container.read_named(key)
    if probe.ndim == 4 and len(probe):
        # The first is the probe; the others say how it varied over the scan.
        probe = probe[0]
    probe = as_probe(f"{container.path}: {key!r}", probe, (part.N, part.N))
    if probe.shape[-1] != part.N:
        msg = (
            f"{container.path}: the probe has {probe.shape[-1]} pixels a side, but the patterns "
            f"have {part.N}, so they are not on the grid of the object. Pass "
            f"crop={probe.shape[-1] * part.bin} (and centre=)."
        )
        raise ValueError(msg)
    return probe


def _beside(
    container: Container, name: str, source: Frames, recipe: Recipe
) -> tuple[NDArray[np.int64] | None, NDArray[np.bool_] | None]:
    """Return the numbers of the frames and the good pixels, which lie beside the patterns."""
    container, key = container.locate(name)
    folder, slash, last = key.rpartition("/")
    if last != "patterns":
        return None, None
    numbers, bad = (f"{folder}{slash}{name}" for name in ("indexes", "bad_pixels"))
    ids = as_ids(container.read(numbers), "indexes") if numbers in container else None
    good = None
    if bad in container:
        good = good_pixels(bad, container.read(bad), source.shape, invert=recipe.invert_mask)
    return ids, good


def files(path: Path) -> list[Path]:
    """Return the product and the file of its patterns."""
    stem = STANDARD.get(path.stem, f"{path.stem}_diffraction")
    return [path, path.with_name(f"{stem}{path.suffix or '.h5'}")]


def write(out: Outgoing, path: str | os.PathLike[str]) -> None:
    """Write a product and its patterns; `ptycho_fast.write_scan` explains how."""
    scan, (product_path, diffraction_path) = out.scan, files(Path(path))
    lengths = lengths_of(scan, os.fspath(path), "a ptychodus product")
    if scan.probe is None:
        msg = (
            f"{path}: a ptychodus product holds a probe, and the scan has none. Name one where the "
            "scan is read (probe=, --probe), write the scan with that of its reconstruction "
            "(Reconstruction.on), or write CXI."
        )
        raise ValueError(msg)
    numbers = frame_numbers(scan)
    with hdf5_file(product_path) as product, hdf5_file(diffraction_path) as diffraction:
        known = write_counts(diffraction, "patterns", out)
        width, height = lengths.detector_pixel
        diffraction["patterns"].attrs["detector_pixel_width_m"] = width
        diffraction["patterns"].attrs["detector_pixel_height_m"] = height
        diffraction["indexes"] = numbers
        bad, merged = _bad_pixels(known)
        diffraction["bad_pixels"] = bad
        _write_product(product, scan, lengths, numbers)
        for name in ("patterns", "indexes", "bad_pixels"):
            product[name] = import_h5py().ExternalLink(diffraction_path.name, f"/{name}")
    if merged:
        assert known.bad_pixels is not None
        warn(
            f"{path}: ptychodus has one mask for all patterns. {merged} pixels that were not "
            f"measured in some of {len(scan)} patterns ({len(known.bad_pixels.pixels)} times in "
            "all) are bad in every pattern there."
        )
    if scan.object is None:
        warn(f"{path}: the scan has no object, so that of the product is 1 everywhere.")
    warn_of_loss(path, scan, "a ptychodus product")


def _bad_pixels(scan: Scan) -> tuple[NDArray[np.bool_], int]:
    """Return the pixels that are bad in any pattern, and how many are good in others."""
    bad = np.zeros((scan.N, scan.N), np.bool_) if scan.mask is None else ~scan.mask
    if not has_single_bad_pixels(scan):
        return bad, 0
    assert scan.bad_pixels is not None
    single = np.zeros(bad.size, np.bool_)
    single[scan.bad_pixels.pixels] = True
    merged = np.count_nonzero(single.reshape(bad.shape) & ~bad)
    bad = bad | single.reshape(bad.shape)
    if bad.all():
        msg = (
            "ptychodus has one mask for all patterns, and each pixel of these was not measured in "
            "one of them. Write CXI or .ptyd, which have a mask for each pattern."
        )
        raise ValueError(msg)
    return bad, int(merged)


def _write_product(file: Any, scan: Scan, lengths: Lengths, numbers: NDArray[np.int64]) -> None:
    """Write everything but the patterns."""
    positions, object_ = scan.positions, as_complex(scan.object)
    if object_ is None:
        where = canvas(positions, scan.N)
        positions = where.local(positions)
        object_ = np.ones(where.shape, np.complex64)
    grid = ObjectGrid.of((object_.shape[0], object_.shape[1]), lengths.object_pixel, scan.N)
    probe = as_complex(scan.probe)
    assert probe is not None
    file["probe"] = probe.reshape(1, -1, scan.N, scan.N)
    file["object"] = object_[np.newaxis]
    if scan.object is None:
        file["object"].attrs[NOT_KNOWN] = 1
    file["object_layer_spacing_m"] = np.zeros(0)
    for name in ("probe", "object"):
        for key, value in zip(GRID[:2], grid.pixel, strict=True):
            file[name].attrs[key] = value
    for key, value in zip(GRID[2:], grid.centre, strict=True):
        file["object"].attrs[key] = value
    file["probe_position_indexes"] = numbers
    for key, metres in zip(POSITIONS, grid.metres(positions), strict=True):
        file[key] = metres
    for key in ("loss_epochs", "loss_values"):
        file[key] = np.zeros(0)
    said = dict(zip(PRODUCT, (lengths.energy_eV, lengths.distance_m), strict=True))
    file.attrs.update({"name": "scan", "comments": "Written by ptycho_fast.", **said})
    # ptychodus takes 0 to be unknown.
    for name in ("probe_photon_count", "exposure_time_s", "mass_attenuation_m2_per_kg",
                 "tomography_angle_deg"):  # fmt: skip
        file.attrs[name] = 0.0
