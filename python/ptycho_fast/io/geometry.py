"""The far-field geometry: how large a pixel of the object is, as the file or the caller says.

What is known of it is kept in ``Scan.metadata``, under the names of the options of `read_scan`, so
that the scan can be written for other programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.io.recipe import EV_METRE, NotGivenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.frames import Window
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan

WORDS = {
    "energy_eV": "photon energy",
    "distance_m": "distance from sample to detector",
    "detector_pixel_m": "size of a detector pixel",
}


PAIRS = ("detector_pixel_m",)
"""Numbers that may differ between rows and columns."""

OBJECT_PIXEL = "object_pixel_m"
"""Width and height of a pixel of the object."""

GEOMETRY = (*WORDS, OBJECT_PIXEL)
"""Entries of ``Scan.metadata``. Pairs are (width, height), and of the pixels of the patterns."""

TOLERANCE = 1e-4
"""By what share the size of a pixel of the object may differ from what the geometry gives."""


class Geometry(NamedTuple):
    """What makes lengths on the sample pixels of the object."""

    wavelength: float
    """In metres."""
    distance: float
    """From sample to detector, in metres."""
    pixel: tuple[float, float]
    """Height and width of a detector pixel, in metres."""

    def object_pixel(self, part: Window) -> tuple[float, float]:
        """Return width and height of a pixel of the object, in metres.

        Examples
        --------
        >>> from ptycho_fast.io.geometry import Geometry
        >>> from ptycho_fast.io.recipe import Recipe, window
        >>> Geometry(1e-10, 2.0, (1e-4, 5e-5)).object_pixel(window((9, 100, 100), Recipe()))
        (4e-08, 2e-08)
        """
        height, width = (
            self.wavelength * self.distance / (part.N * part.bin * side) for side in self.pixel
        )
        return width, height

    def recorded(self, part: Window) -> dict[str, Any]:
        """Return what ``Scan.metadata`` keeps of it."""
        height, width = (part.bin * side for side in self.pixel)
        return {
            "energy_eV": EV_METRE / self.wavelength,
            "distance_m": self.distance,
            "detector_pixel_m": np.array((width, height)),
        }


def geometry(path: str, recipe: Recipe, **stored: Any) -> Geometry:
    """Return the geometry: what the caller says or, failing that, what the file says.

    Parameters
    ----------
    path : str
        The file, for messages.
    recipe : Recipe
        Its `energy_eV`, `distance_m` and `detector_pixel_m` are used.
    **stored : number, array or None
        These options as the file has them: each one number, any number of times, and the detector
        pixel perhaps height and width.

    Raises
    ------
    NotGivenError
        If neither says one of them.
    ValueError
        If the file says something that is no positive number.
    """
    found: dict[str, tuple[float, float]] = {}
    for option in WORDS:
        told = getattr(recipe, option)
        value = stored.get(option) if told is None else told
        if value is not None:
            found[option] = _positive(path, option, value)
    if missing := [option for option in WORDS if option not in found]:
        words = " and the ".join(WORDS[option] for option in missing)
        msg = (
            f"{path} does not say the {words}. Pass {', '.join(f'{name}=' for name in missing)} "
            f"({', '.join('--' + name.replace('_', '-') for name in missing)})."
        )
        raise NotGivenError(msg, *missing)
    energy, distance = found["energy_eV"][0], found["distance_m"][0]
    return Geometry(EV_METRE / energy, distance, found["detector_pixel_m"])


def energy_of(wavelength: Any) -> NDArray[np.float64]:
    """Return the photon energy, in electronvolts, of wavelengths in metres."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return EV_METRE / np.asarray(wavelength, np.float64)


def _positive(path: str, option: str, value: Any) -> tuple[float, float]:
    """Return the one number that an array repeats or, of a pixel, its two sides."""
    numbers = np.ravel(np.asarray(value))
    good = numbers.dtype.kind in "fiu" and ((numbers > 0) & np.isfinite(numbers)).all()
    alike = numbers.size > 0 and (numbers == numbers[0]).all()
    if not (good and (alike or (option in PAIRS and numbers.size == 2))):
        msg = (
            f"{path}: the {WORDS[option]} is {value}, which is no positive number. Pass {option}=."
        )
        raise ValueError(msg)
    return float(numbers[0]), float(numbers[-1])


def told(recipe: Recipe, part: Window) -> dict[str, Any]:
    """Return what the caller says of the geometry, as ``Scan.metadata`` keeps it."""
    said = {name: getattr(recipe, name) for name in WORDS}
    found = {name: value for name, value in said.items() if value is not None}
    if "detector_pixel_m" in found:
        found["detector_pixel_m"] = np.full(2, part.bin * found["detector_pixel_m"])
    if len(found) == len(WORDS):
        wavelength, side = EV_METRE / found["energy_eV"], part.N * found["detector_pixel_m"]
        found[OBJECT_PIXEL] = wavelength * found["distance_m"] / side
    return found


def rescaled(metadata: Mapping[str, Any], part: Window, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what metadata say of the geometry, for patterns that are cropped and binned."""
    side = part.N * part.bin
    scales = {
        OBJECT_PIXEL: np.array((shape[2] / side, shape[1] / side)),
        "detector_pixel_m": part.bin,
    }
    return {
        name: metadata[name] * scales.get(name, 1)
        for name in GEOMETRY
        if name in metadata and np.asarray(metadata[name]).dtype.kind in "fiu"
    }


class Lengths(NamedTuple):
    """The geometry of a scan that is written in metres."""

    energy_eV: float  # noqa: N815  # the unit is eV
    distance_m: float
    detector_pixel: tuple[float, float]
    """Width and height of a pixel of the patterns, in metres."""
    object_pixel: tuple[float, float]
    """Width and height of a pixel of the object, in metres."""

    @property
    def wavelength(self) -> float:
        """In metres."""
        return EV_METRE / self.energy_eV


def lengths_of(scan: Scan, path: str, what: str) -> Lengths:
    """Return the geometry of a scan, as its metadata have it.

    Of energy, distance and detector pixel, one that is missing follows from the size of a pixel of
    the object, if that is known.

    Parameters
    ----------
    scan : Scan
    path, what : str
        The file that is to be written, and its format, for messages.

    Raises
    ------
    NotGivenError
        If too little is known.
    ValueError
        If something is no positive number, or one contradicts the others.
    """
    found = {
        name: np.broadcast_to(_pair(path, name, scan.metadata[name]), (2,))
        for name in GEOMETRY
        if name in scan.metadata
    }
    pixel = found.pop(OBJECT_PIXEL, None)
    missing = [name for name in WORDS if name not in found]
    if pixel is not None and len(missing) == 1:
        found[missing[0]] = _third(found, pixel, scan.N)
        missing = []
    if missing:
        asked = missing if pixel is None else missing[:-1]
        words = " and the ".join(WORDS[name] for name in asked)
        msg = (
            f"{path}: {what} has positions in metres, so the {words} must be known. Pass "
            f"{', '.join(f'{name}=' for name in asked)} "
            f"({', '.join('--' + name.replace('_', '-') for name in asked)})."
        )
        raise NotGivenError(msg, *asked)
    energy, distance = float(found["energy_eV"][0]), float(found["distance_m"][0])
    sides = found["detector_pixel_m"]
    expected = EV_METRE / energy * distance / (scan.N * sides)
    if pixel is None:
        pixel = expected
    elif (np.abs(pixel - expected) > TOLERANCE * expected).any():
        msg = (
            f"{path}: the scan says that a pixel of its object is {pixel[0]:.6g} x {pixel[1]:.6g} "
            f"m, but {energy:g} eV, {distance:g} m and a detector pixel of {sides[0]:g} x "
            f"{sides[1]:g} m make it {expected[0]:.6g} x {expected[1]:.6g} m. Correct energy_eV, "
            "distance_m or detector_pixel_m."
        )
        raise ValueError(msg)
    return Lengths(
        energy,
        distance,
        (float(sides[0]), float(sides[1])),
        (float(pixel[0]), float(pixel[1])),
    )


def _third(
    found: Mapping[str, NDArray[np.float64]], pixel: NDArray[np.float64], N: int
) -> NDArray[np.float64]:
    """Return the one of energy, distance and detector pixel that follows from the other two."""
    if "detector_pixel_m" not in found:
        return EV_METRE / found["energy_eV"] * found["distance_m"] / (N * pixel)
    product = N * found["detector_pixel_m"] * pixel  # wavelength * distance
    if "distance_m" not in found:
        return product / EV_METRE * found["energy_eV"]
    return EV_METRE * found["distance_m"] / product


def _pair(path: str, name: str, value: Any) -> NDArray[np.float64]:
    """Return one or two positive numbers."""
    numbers = np.ravel(np.asarray(value))
    if (
        numbers.dtype.kind not in "fiu"
        or numbers.size not in ((1, 2) if name in (*PAIRS, OBJECT_PIXEL) else (1,))
        or not ((numbers > 0) & np.isfinite(numbers)).all()
    ):
        msg = f"{path}: metadata[{name!r}] is {value!r}, which is no positive number. Correct it."
        raise ValueError(msg)
    return numbers.astype(np.float64)
