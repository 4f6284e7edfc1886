"""CXI, the format of cxidb.org: raw frames, how the sample moved, and the geometry; SI units."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io import hdf5, named
from ptycho_fast.io.masks import good_pixels
from ptycho_fast.io.prepare import EV_METRE, assemble, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.prepare import Recipe
    from ptycho_fast.scan import Scan

DETECTOR = "/entry_1/instrument_1/detector_1"
SOURCE = "/entry_1/instrument_1/source_1"

# In the order in which they are looked for.
DATA = ("/entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "/entry_1/sample_1/geometry_1/translation",
    "/entry_1/data_1/translation",
    f"{DETECTOR}/translation",
)
MASK = (f"{DETECTOR}/mask", "/entry_1/data_1/mask")
PROBE = (f"{SOURCE}/illumination", f"{SOURCE}/probe", f"{DETECTOR}/data_illumination")

HAS_SIGNAL = 0x1000
"""The one bit of a CXI mask that is no fault: the pixel is above the background."""

EV_JOULE = 1.602176634e-19


def recognises(file: Any) -> bool:
    """Tell whether an open HDF5 file is CXI."""
    return any(key in file for key in DATA) and (
        "cxi_version" in file or any(key in file for key in TRANSLATION)
    )


def read(path: str | os.PathLike[str], recipe: Recipe) -> Scan:
    """Read a CXI file; `ptycho_fast.read_scan` says how."""
    if refused := recipe.given("x", "y", "index"):
        msg = (
            f"{os.fspath(path)} is CXI, which says itself where its positions are, so "
            f"{', '.join(refused)} can't be named alone. Name diffraction, x, y and unit to read "
            "it as any HDF5 file."
        )
        raise ValueError(msg)
    if recipe.unit not in (None, "m"):
        msg = f"CXI positions are in metres, so unit={recipe.unit!r} can't be. Leave unit out."
        raise ValueError(msg)
    with hdf5.open_file(path) as file:

        def first(*keys: str) -> str | None:
            return next((key for key in keys if key in file), None)

        data = recipe.diffraction or first(*DATA)
        translation = first(*TRANSLATION)
        mask = first(*MASK)
        probe = recipe.probe or first(*PROBE)
        names = {name for name in ("distance", "x_pixel_size", "y_pixel_size", "basis_vectors")
                 if f"{DETECTOR}/{name}" in file}  # fmt: skip
        wavelength = first(f"{SOURCE}/wavelength")
        energy = first(f"{SOURCE}/energy")
    assert data is not None
    if translation is None:
        msg = f"{os.fspath(path)} has no positions: no {TRANSLATION[0]}."
        raise KeyError(msg)

    source = named.frames(path, data, recipe)
    part = window(source.shape, recipe)
    known = {name: hdf5.array(path, f"{DETECTOR}/{name}") for name in names}
    metres = _wavelength(path, wavelength, energy, recipe)
    distance = recipe.distance_m or _positive(path, "distance", known.get("distance"))
    slow, fast, lengths = _directions(path, known.get("basis_vectors"), len(source))
    height, width = (
        recipe.detector_pixel_m
        or (_positive(path, name, known[name]) if name in known else length)
        or _positive(path, name, None)
        for name, length in zip(("y_pixel_size", "x_pixel_size"), lengths, strict=True)
    )
    _warn_of_near_field(path, metres, distance, (height, width))
    # The sample moves by the translation, so the beam moves on it by minus that.
    moved = -_translation(path, translation)
    if len(slow) not in (1, len(moved)):
        msg = f"{os.fspath(path)}: {len(slow)} basis_vectors, but {len(moved)} translations."
        raise ValueError(msg)
    side = part.N * part.bin
    return assemble(
        source,
        np.einsum("ni,ni->n", moved, np.broadcast_to(fast, moved.shape)),
        np.einsum("ni,ni->n", moved, np.broadcast_to(slow, moved.shape)),
        recipe,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=(metres * distance / (side * width), metres * distance / (side * height)),
        part=part,
        mask=_mask(path, mask, recipe, source.shape),
        probe=None if probe is None else named.array(path, probe),
    )


def _warn_of_near_field(
    path: str | os.PathLike[str], metres: float, distance: float, pixels: tuple[float, float]
) -> None:
    """Say so where the far field, which all that follows computes with, may be no model.

    The window of a far-field object is ``wavelength * distance / pixel`` wide, so its Fresnel
    number, width**2 / (wavelength * distance), is ``wavelength * distance / pixel**2``.
    """
    fresnel = metres * distance / (pixels[0] * pixels[1])
    if fresnel > 1:
        warn(
            f"{os.fspath(path)}: a wavelength of {metres:.4g} m, a distance of {distance:.4g} m "
            f"and detector pixels of {pixels[1]:.4g} x {pixels[0]:.4g} m make a Fresnel number of "
            f"{fresnel:.3g} over the window. Above 1 these are near-field patterns, but they are "
            "treated as far-field ones. Check distance_m and detector_pixel_m."
        )


def _positive(path: str | os.PathLike[str], name: str, value: NDArray[Any] | None) -> float:
    """Return a length; detectors also write it once for each frame."""
    options = {"distance": "distance_m", "wavelength": "energy_eV", "energy": "energy_eV"}
    option = options.get(name, "detector_pixel_m")
    if value is None:
        msg = f"{os.fspath(path)} has no {name}. Pass {option}=."
        raise KeyError(msg)
    number = np.unique(value)
    if value.dtype.kind not in "fiu" or len(number) != 1 or not 0 < number[0] < np.inf:
        msg = f"{os.fspath(path)}: {name} is {value}, no positive number. Pass {option}=."
        raise ValueError(msg)
    return float(number[0])


def _wavelength(
    path: str | os.PathLike[str], wavelength: str | None, energy: str | None, recipe: Recipe
) -> float:
    if recipe.energy_eV is not None:
        return EV_METRE / recipe.energy_eV
    if wavelength is not None:
        return _positive(path, "wavelength", hdf5.array(path, wavelength))
    joules = _positive(path, "energy", None if energy is None else hdf5.array(path, energy))
    if joules > 1e-10:  # 0.6 GeV: this is no photon
        msg = (
            f"{os.fspath(path)}: {energy} is {joules:g}; CXI says joules, and no photon has so "
            "many. Pass energy_eV=."
        )
        raise ValueError(msg)
    return EV_METRE * EV_JOULE / joules


def _directions(
    path: str | os.PathLike[str], basis: NDArray[Any] | None, n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Return the directions of the slow and the fast axis, (1 or n, 3), and their pixel sizes.

    `basis` is (3, 2), its columns the two axes, or (2, 3), its rows; also one for each frame.
    Without it rows run downwards and columns to the right as seen from the sample, against CXI's
    y (upwards) and x (to the left).
    """
    if basis is None:
        return np.array([[0.0, -1.0, 0.0]]), np.array([[-1.0, 0.0, 0.0]]), (0.0, 0.0)
    axes = np.asarray(basis, np.float64)
    axes = axes[np.newaxis] if axes.ndim == 2 else axes
    if axes.ndim == 3 and axes.shape[1:] == (3, 2):
        axes = axes.transpose(0, 2, 1)
    lengths = np.linalg.norm(axes, axis=2) if axes.ndim == 3 else np.zeros((1, 1))
    if axes.ndim != 3 or axes.shape[1:] != (2, 3) or not (lengths > 0).all():
        msg = (
            f"{os.fspath(path)}: basis_vectors must be two directions, (3, 2) or (2, 3), or that "
            f"for each of {n} frames, got shape {basis.shape}."
        )
        raise ValueError(msg)
    slow, fast = (axes / lengths[..., np.newaxis]).transpose(1, 0, 2)
    return slow, fast, (float(lengths[0, 0]), float(lengths[0, 1]))


def _translation(path: str | os.PathLike[str], key: str) -> NDArray[np.float64]:
    """Return the motion of the sample, (n, 3); some programs write (3, n)."""
    moved = np.asarray(hdf5.array(path, key))
    if moved.ndim == 2 and moved.shape[0] == 3 != moved.shape[1]:
        moved = moved.T
    if moved.ndim != 2 or moved.shape[1] != 3 or moved.dtype.kind not in "fiu":
        msg = f"{os.fspath(path)}: {key} must be (n, 3), got {moved.shape} of {moved.dtype}."
        raise ValueError(msg)
    return moved.astype(np.float64)


def _mask(
    path: str | os.PathLike[str], key: str | None, recipe: Recipe, shape: tuple[int, ...]
) -> NDArray[np.bool_] | None:
    """Read the mask, in which any bit but `HAS_SIGNAL` is a fault."""
    if recipe.mask is not None or key is None:
        return named.mask(path, recipe, shape)
    bits = hdf5.array(path, key)
    if bits.dtype.kind in "iu":
        bits = bits.astype(np.int64) & ~HAS_SIGNAL
    return good_pixels(key, bits, shape, invert=recipe.invert_mask)
