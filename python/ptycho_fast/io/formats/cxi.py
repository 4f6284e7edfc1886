"""CXI, the format of cxidb.org, and NXcxi_ptycho, the one of NeXus with the same names.

Both hold frames, the motion of the sample and the geometry: CXI in SI units, NeXus in those that
the attribute ``units`` names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.assemble import Given, assemble
from ptycho_fast.io.formats.object_grid import ObjectGrid, one_layer
from ptycho_fast.io.geometry import TOLERANCE, Geometry, lengths_of
from ptycho_fast.io.hdf5.links import import_h5py
from ptycho_fast.io.hdf5.writing import (
    as_complex,
    has_single_bad_pixels,
    hdf5_file,
    warn_of_loss,
    write_counts,
    write_marks,
)
from ptycho_fast.io.layouts import as_complex_numbers
from ptycho_fast.io.masks import good_pixels, read_mask
from ptycho_fast.io.recipe import EV_METRE, NotGivenError, window
from ptycho_fast.io.units import ELECTRONVOLTS, METRES, unit_of
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.hdf5.writing import Outgoing
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan

DETECTOR = "/entry_1/instrument_1/detector_1"
SOURCE = "/entry_1/instrument_1/source_1"
BEAM = "/entry_1/instrument_1/beam_1"

# Where each is looked for, in this order.
DATA = ("/entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "/entry_1/sample_1/geometry_1/translation",
    "/entry_1/data_1/translation",
    f"{DETECTOR}/translation",
)
MASK = (f"{DETECTOR}/mask", "/entry_1/data_1/mask")
PROBE = (f"{SOURCE}/illumination", f"{SOURCE}/probe", f"{DETECTOR}/data_illumination")

PHOTON_ENERGY = (
    f"{BEAM}/incident_beam_energy", f"{BEAM}/incident_energy", f"{BEAM}/energy", f"{SOURCE}/energy",
)  # fmt: skip
"""In NeXus, the energy of the source is that of its electrons."""

INVALID = 0x1
"""The bit of a CXI mask that marks a pixel as unusable."""

HAS_SIGNAL = 0x1000
"""The one bit of a CXI mask that is no fault: the pixel is above the background."""

VERSION = 160
"""Of CXI, times 100."""

OBJECT = "/entry_1/image_2/data"
GRID = tuple(
    f"/entry_1/ptychodus/object_{name}_m"
    for name in ("pixel_width", "pixel_height", "center_x", "center_y")
)
"""Where ptychodus has the object in CXI, and says where it lies."""

PROBE_PIXEL = tuple(f"/entry_1/ptychodus/probe_pixel_{side}_m" for side in ("width", "height"))

suffix = ".cxi"

EV_JOULE = 1.602176634e-19
JOULES = {unit: EV_JOULE * size for unit, size in ELECTRONVOLTS.items()}


def recognises(container: Container) -> bool:
    """Tell whether a file is CXI, with patterns or with positions of patterns elsewhere."""
    signs = (
        "cxi_version" in container,
        _first(container, TRANSLATION) is not None,
        _first(container, DATA) is not None,
    )
    return sum(signs) > 1


def read(container: Container, recipe: Recipe) -> Scan:
    """Read a CXI file; `ptycho_fast.read_scan` explains how."""
    path = container.path
    _check_options(path, recipe)
    data = recipe.diffraction or _first(container, DATA)
    if data is None:
        msg = (
            f"{path} holds no patterns. Name those that its positions belong to: "
            f"diffraction='FILE:{DATA[0]}' (--diffraction)."
        )
        raise NotGivenError(msg, "diffraction")
    translation = _first(container, TRANSLATION)
    if translation is None:
        msg = f"{path} has no positions: no {TRANSLATION[0]}."
        raise KeyError(msg)
    source = container.named_frames(data, recipe)
    part = window(source.shape, recipe)
    metres = _wavelength(container, recipe)
    # What is said of the detector lies beside its patterns.
    beside = [container.locate(data)[0], container]
    distance = recipe.distance_m or _positive(path, "distance", _detector(beside, "distance"))
    basis = _detector(beside, "basis_vectors")
    slow, fast, sides = _directions(path, basis, len(source))
    height, width = _detector_pixel(beside, recipe, sides)
    _warn_of_near_field(path, metres, distance, (height, width))
    # Where the sample moves by the translation, the beam moves on it by minus the translation.
    moved = -_translation(container, translation)
    if len(slow) not in (1, len(moved)):
        msg = f"{path}: {len(slow)} basis_vectors, but {len(moved)} translations."
        raise ValueError(msg)
    lengths = Geometry(metres, distance, (height, width))
    x = np.einsum("ni,ni->n", moved, np.broadcast_to(fast, moved.shape))
    y = np.einsum("ni,ni->n", moved, np.broadcast_to(slow, moved.shape))
    pixel: tuple[float, float] | None = lengths.object_pixel(part)
    grid, object_ = None, None
    if np.allclose(slow, (0, -1, 0)) and np.allclose(fast, (-1, 0, 0)):
        grid, object_ = _object(container, lengths.object_pixel(part))
    if grid is not None:
        (x, y), pixel = grid.places(x, y, part.N), None
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=pixel,
        mask=_mask(container, beside[0], recipe, source.shape),
        probe=_probe(container, recipe),
        object=object_,
        geometry=lengths,
    )
    return assemble(given, part, recipe)


def _check_options(path: str, recipe: Recipe) -> None:
    """Refuse options that say what a CXI file says itself."""
    if refused := recipe.given("x", "y", "index"):
        msg = (
            f"{path} is CXI, which says itself where its positions are, so "
            f"{', '.join(refused)} can't be named alone. Name diffraction, x, y and unit to read "
            "it as any HDF5 file."
        )
        raise ValueError(msg)
    if recipe.unit not in (None, "m"):
        msg = f"CXI positions are in metres; unit={recipe.unit!r} cannot be right. Leave unit out."
        raise ValueError(msg)


def _first(container: Container, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in container), None)


def _detector(files: list[Container], name: str) -> NDArray[Any] | None:
    """Read what the first of some files that says it says of the detector; else None."""
    key = f"{DETECTOR}/{name}"
    return next((_in_si(file, key, METRES) for file in files if key in file), None)


def _in_si(container: Container, key: str, sizes: Mapping[str, float]) -> NDArray[Any]:
    """Read numbers and convert them from the unit that the file names, if it names one."""
    values = container.read(key)
    if values.dtype.kind not in "fiu":
        return values  # to be refused by name
    said = container.attribute(key, "units")
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    unit = unit_of([text]) if isinstance(text, str) else None
    if unit is None:
        return values
    if unit not in sizes:
        msg = (
            f"{container.path}: {key} is said to be in {text!r}, which is not one of "
            f"{', '.join(sizes)}. Name diffraction, x, y and unit to read it as any HDF5 file."
        )
        raise ValueError(msg)
    return np.asarray(values * sizes[unit])


def _warn_of_near_field(
    path: str, metres: float, distance: float, pixels: tuple[float, float]
) -> None:
    """Warn where the far field, in which everything here computes, may be no valid model.

    The window of a far-field object is ``wavelength * distance / pixel`` wide, so its Fresnel
    number, width**2 / (wavelength * distance), is ``wavelength * distance / pixel**2``.
    """
    fresnel = metres * distance / (pixels[0] * pixels[1])
    if fresnel > 1:
        warn(
            f"{path}: a wavelength of {metres:.4g} m, a distance of {distance:.4g} m "
            f"and detector pixels of {pixels[1]:.4g} x {pixels[0]:.4g} m make a Fresnel number of "
            f"{fresnel:.3g} over the window. Above 1 these are near-field patterns, but they are "
            "treated as far-field ones. Check distance_m and detector_pixel_m."
        )


def _positive(path: str, name: str, value: NDArray[Any] | None) -> float:
    """Return a length or an energy, which some detectors write once for each frame."""
    options = {"distance": "distance_m", "wavelength": "energy_eV", "energy": "energy_eV"}
    option = options.get(name, "detector_pixel_m")
    if value is None:
        msg = f"{path} has no {name}. Pass {option}=."
        raise NotGivenError(msg, option)
    number = np.unique(value) if value.dtype.kind in "fiu" else np.zeros(0)
    if len(number) != 1 or not 0 < number[0] < np.inf:
        msg = f"{path}: {name} is {value}, which is no positive number. Pass {option}=."
        raise ValueError(msg)
    return float(number[0])


def _detector_pixel(
    files: list[Container], recipe: Recipe, lengths: tuple[float, float]
) -> tuple[float, float]:
    """Return height and width of a detector pixel in metres.

    They are what the caller says, what the file says or, failing both, the lengths of the basis
    vectors.
    """
    if recipe.detector_pixel_m:
        return recipe.detector_pixel_m, recipe.detector_pixel_m
    sides = []
    for name, length in zip(("y_pixel_size", "x_pixel_size"), lengths, strict=True):
        stored = _detector(files, name)
        sides.append(
            length if stored is None and length else _positive(files[-1].path, name, stored)
        )
    return sides[0], sides[1]


def _wavelength(container: Container, recipe: Recipe) -> float:
    """Return the wavelength in metres."""
    path, wavelength = container.path, f"{SOURCE}/wavelength"
    if recipe.energy_eV is not None:
        return EV_METRE / recipe.energy_eV
    if wavelength in container:
        return _positive(path, "wavelength", _in_si(container, wavelength, METRES))
    energy = _first(container, PHOTON_ENERGY)
    stored = None if energy is None else _in_si(container, energy, JOULES)
    joules = _positive(path, "energy", stored)
    if joules > 1e-10:  # 0.6 GeV
        msg = (
            f"{path}: {energy} is {joules:g} J, and no photon has so many (CXI says joules, unless "
            "the attribute units names another unit). Pass energy_eV=."
        )
        raise ValueError(msg)
    return EV_METRE * EV_JOULE / joules


def _directions(
    path: str, basis: NDArray[Any] | None, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Return the directions of the slow and the fast axis, (1 or n, 3), and their pixel sizes.

    `basis` is (3, 2), its columns the two axes, or (2, 3), its rows; or one of these for each
    frame. Without it, rows run downwards and columns to the right as seen from the sample, against
    CXI's y (upwards) and x (to the left).
    """
    if basis is None:
        return np.array([[0.0, -1.0, 0.0]]), np.array([[-1.0, 0.0, 0.0]]), (0.0, 0.0)
    axes = basis.astype(np.float64) if basis.dtype.kind in "fiu" else np.zeros(())
    axes = axes[np.newaxis] if axes.ndim == 2 else axes
    if axes.ndim == 3 and axes.shape[1:] == (3, 2):
        axes = axes.transpose(0, 2, 1)
    lengths = np.linalg.norm(axes, axis=2) if axes.ndim == 3 else np.zeros((1, 1))
    if (
        axes.ndim != 3
        or axes.shape[1:] != (2, 3)
        or not np.all((lengths > 0) & np.isfinite(lengths))
    ):
        msg = (
            f"{path}: basis_vectors must be two directions, (3, 2) or (2, 3), or that "
            f"for each of {n} frames, got shape {basis.shape} of {basis.dtype}."
        )
        raise ValueError(msg)
    slow, fast = (axes / lengths[..., np.newaxis]).transpose(1, 0, 2)
    return slow, fast, (float(lengths[0, 0]), float(lengths[0, 1]))


def _translation(container: Container, key: str) -> NDArray[np.float64]:
    """Return the motion of the sample in metres, (n, 3); some programs write (3, n)."""
    moved = _in_si(container, key, METRES)
    if moved.ndim == 2 and moved.shape[0] == 3 != moved.shape[1]:
        moved = moved.T
    if moved.ndim != 2 or moved.shape[1] != 3 or moved.dtype.kind not in "fiu":
        msg = f"{container.path}: {key} must be (n, 3), got {moved.shape} of {moved.dtype}."
        raise ValueError(msg)
    return moved.astype(np.float64)


def _object(
    container: Container, expected: tuple[float, float]
) -> tuple[ObjectGrid | None, NDArray[Any] | None]:
    """Read the object, if the file says where it lies; (None, None) if not."""
    if OBJECT not in container or not all(key in container for key in GRID):
        return None, None
    stored = as_complex_numbers(container.read(OBJECT))
    numbers = [container.read(key) for key in GRID]
    sound = all(value.size == 1 and value.dtype.kind in "fiu" for value in numbers)
    width, height, x, y = (float(value.item()) if sound else np.nan for value in numbers)
    fits = np.allclose((width, height), expected, rtol=TOLERANCE, atol=0)
    if stored.ndim not in (2, 3) or stored.dtype.kind not in "fiuc" or not fits:
        warn(
            f"{container.path}: its object has pixels of {width:g} x {height:g} m, and the "
            f"patterns make them {expected[0]:g} x {expected[1]:g} m; the object was left out."
        )
        return None, None
    object_ = one_layer(container.path, stored)
    return ObjectGrid((stored.shape[-2], stored.shape[-1]), (width, height), (x, y)), object_


def _probe(container: Container, recipe: Recipe) -> NDArray[Any] | None:
    """Read the illumination, without what it has of a leading axis of length 1."""
    key = recipe.probe or _first(container, PROBE)
    if key is None:
        return None
    stored = container.read_named(key)
    values = as_complex_numbers(stored)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.dtype.kind not in "fiuc" or not values.size:
        msg = (
            f"{container.path}: {key!r} is the illumination, but it has shape {stored.shape} of "
            f"{stored.dtype}, and (N, N) or (modes, N, N) complex is needed. Name another: "
            "probe=KEY (--probe)."
        )
        raise ValueError(msg)
    return values


def _mask(
    container: Container, beside: Container, recipe: Recipe, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Read the mask beside the patterns; in it, any bit but `HAS_SIGNAL` is a fault."""
    key = _first(beside, MASK)
    if recipe.mask is not None or key is None:
        return read_mask(container, recipe, shape)
    bits = beside.read(key)
    if bits.dtype.kind in "iu" and bits.dtype.itemsize > 1:
        bits = bits.astype(np.int64) & ~HAS_SIGNAL
    return good_pixels(key, bits, shape, invert=recipe.invert_mask)


def files(path: Path) -> list[Path]:
    """Return the file of a scan."""
    return [path]


def write(out: Outgoing, path: str | os.PathLike[str]) -> None:
    """Write a scan as CXI; `ptycho_fast.write_scan` explains how."""
    scan = out.scan
    lengths = lengths_of(scan, os.fspath(path), "CXI")
    width, height = lengths.detector_pixel
    # Rows run downwards and columns to the right as seen from the sample; CXI's y is upwards and
    # its x to the left. So the sample moves by the positions.
    moved = np.pad(scan.positions * lengths.object_pixel, ((0, 0), (0, 1)))
    entries: dict[str, Any] = {
        "cxi_version": VERSION,
        "number_of_entries": 1,
        "entry_1/program_name": "ptycho_fast",
        f"{SOURCE}/energy": lengths.energy_eV * EV_JOULE,
        f"{SOURCE}/wavelength": lengths.wavelength,
        f"{DETECTOR}/distance": lengths.distance_m,
        f"{DETECTOR}/x_pixel_size": width,
        f"{DETECTOR}/y_pixel_size": height,
        f"{DETECTOR}/basis_vectors": np.array([[0, -height, 0], [-width, 0, 0]]).T,
        TRANSLATION[0]: moved,
        PROBE[0]: as_complex(scan.probe),
        **dict(zip(PROBE_PIXEL, lengths.object_pixel, strict=True)),
    }
    if scan.object is not None:
        grid = ObjectGrid.of(scan.object.shape, lengths.object_pixel, scan.N)
        entries[OBJECT] = as_complex(scan.object)
        entries |= dict(zip(GRID, (*grid.pixel, *grid.centre), strict=True))
    with hdf5_file(path) as file:
        for key, value in entries.items():
            if value is not None:
                file[key] = value
        for key, target in (("data", f"{DETECTOR}/data"), ("translation", TRANSLATION[0])):
            file[f"entry_1/data_1/{key}"] = import_h5py().SoftLink(target)
        known = write_counts(file, f"{DETECTOR}/data", out)
        if has_single_bad_pixels(known):
            write_marks(file, MASK[0], known, bad=INVALID)
        elif known.mask is not None:
            file[MASK[0]] = np.where(known.mask, 0, INVALID).astype(np.uint32)
    if has_single_bad_pixels(known):
        assert known.bad_pixels is not None
        warn(
            f"{path}: in some patterns there are pixels that were not measured "
            f"({len(known.bad_pixels.pixels)} in all), so there is a mask for each pattern. "
            "Programs that know only one for all, such as ptychodus and cdtools, can't read that."
        )
    warn_of_loss(path, scan, "CXI", without=("scan_index",))
