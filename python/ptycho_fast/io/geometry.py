"""The far-field geometry: how large a pixel of the object is, as the file or the caller says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.io.recipe import EV_METRE, NotGivenError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.frames import Window
    from ptycho_fast.io.recipe import Recipe

WORDS = {
    "energy_eV": "photon energy",
    "distance_m": "distance from sample to detector",
    "detector_pixel_m": "size of a detector pixel",
}


PAIRS = ("detector_pixel_m",)
"""Numbers that may differ between rows and columns."""


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
