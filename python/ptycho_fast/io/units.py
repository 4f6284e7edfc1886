"""The names that people give to units, and the size of each in metres or electronvolts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = {
    "m": ("m", "meter", "meters", "metre", "metres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "um": (
        "um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre",
        "micrometres", "mum", r"\mum",
    ),
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "px": ("px", "pixel", "pixels", "pix"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "pm": ("pm", "picometer", "picometers", "picometre", "picometres"),
    "km": ("km", "kilometer", "kilometre"),
    "angstrom": ("angstrom", "angstroms", "ångström", "ångstrom", "å", "å", "ang", "a"),
    "inch": ("inch", "inches", "in"),
    "ev": ("ev", "electronvolt", "electronvolts"),
    "kev": ("kev", "kiloelectronvolt", "kiloelectronvolts"),
    "mev": ("mev",),
    "j": ("j", "joule", "joules"),
}  # fmt: skip

METRES = {
    "m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "cm": 1e-2, "pm": 1e-12, "km": 1e3,
    "angstrom": 1e-10, "inch": 0.0254,
}  # fmt: skip

ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3, "j": 1 / 1.602176634e-19}


def unit_of(said: Iterable[str | None]) -> str | None:
    """Return the unit that the first of several texts names.

    Parameters
    ----------
    said : iterable of str or None
        The value of an attribute, or the last part of a name. None and blanks are skipped.

    Returns
    -------
    str or None
        A key of `NAMES`; ``"?"`` if the text is not the name of a unit; None without a text.

    Examples
    --------
    >>> from ptycho_fast.io.units import unit_of
    >>> unit_of([None, "Micrometers"]), unit_of(["furlong", "m"]), unit_of([None])
    ('um', '?', None)
    """
    text = next((text for text in said if text and text.strip()), None)
    if text is None:
        return None
    text = text.strip().strip("[]()").lower()
    return next((unit for unit, names in NAMES.items() if text in names), "?")
