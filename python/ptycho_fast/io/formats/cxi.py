"""CXI, the format of cxidb.org, and NXcxi_ptycho, the one of NeXus with the same names.

Both hold frames, the motion of the sample and the geometry: CXI in SI units, NeXus in those that
the attribute ``units`` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.assemble import Given, assemble
from ptycho_fast.io.layouts import as_complex_numbers
from ptycho_fast.io.masks import good_pixels, read_mask
from ptycho_fast.io.recipe import EV_METRE, NotGivenError, window
from ptycho_fast.io.units import ELECTRONVOLTS, METRES, unit_of
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
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

HAS_SIGNAL = 0x1000
"""The one bit of a CXI mask that is no fault: the pixel is above the background."""

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
    slow, fast, lengths = _directions(path, basis, len(source))
    height, width = _detector_pixel(beside, recipe, lengths)
    _warn_of_near_field(path, metres, distance, (height, width))
    # Where the sample moves by the translation, the beam moves on it by minus the translation.
    moved = -_translation(container, translation)
    if len(slow) not in (1, len(moved)):
        msg = f"{path}: {len(slow)} basis_vectors, but {len(moved)} translations."
        raise ValueError(msg)
    side = part.N * part.bin
    given = Given(
        source,
        np.einsum("ni,ni->n", moved, np.broadcast_to(fast, moved.shape)),
        np.einsum("ni,ni->n", moved, np.broadcast_to(slow, moved.shape)),
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=(metres * distance / (side * width), metres * distance / (side * height)),
        mask=_mask(container, beside[0], recipe, source.shape),
        probe=_probe(container, recipe),
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
    if bits.dtype.kind in "iu":
        bits = bits.astype(np.int64) & ~HAS_SIGNAL
    return good_pixels(key, bits, shape, invert=recipe.invert_mask)
