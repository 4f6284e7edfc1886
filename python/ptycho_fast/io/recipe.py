"""What the caller of `read_scan` says about a file, and which part of the detector that keeps."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ptycho_fast import memory
from ptycho_fast.checks import as_count
from ptycho_fast.frames import Window

EV_METRE = 1.2398419843320026e-06
"""h c / e: the wavelength, in metres, of a photon of 1 eV."""

METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
"""The units of length in which positions may be given, in metres. The other unit is ``px``."""

SHARE = 1 / 4
"""With ``load="auto"``, patterns of at most this share of the free memory are loaded."""

UNITS = (*METRES, "px")
"""Units in which positions can be given."""


class NotGivenError(KeyError):
    """What a file does not say, and the options that say it.

    Parameters
    ----------
    message : str
        A sentence that names the options.
    *options : str
        Options of `ptycho_fast.read_scan`.
    """

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


@dataclass(frozen=True)
class Recipe:
    """Everything the caller says about a file; `ptycho_fast.read_scan` explains each option.

    Parameters
    ----------
    intensity : bool, optional
        The patterns are counts (``counts=True`` of `read_scan`).
    loaded : float
        Patterns of fewer bytes than this will be read into memory, in order.

    Raises
    ------
    ValueError
        If the unit is unknown, or the energy, distance or detector pixel is not positive.
    """

    intensity: bool | None = None
    diffraction: str | None = None
    x: str | None = None
    y: str | None = None
    probe: str | None = None
    mask: str | None = None
    index: str | None = None
    unit: str | None = None
    energy_eV: float | None = None  # noqa: N815  # the unit is eV
    distance_m: float | None = None
    detector_pixel_m: float | None = None
    swap_xy: bool = False
    flip_x: bool = False
    flip_y: bool = False
    crop: int | tuple[int, int] | None = None
    centre: tuple[float, float] | None = None
    bin: int | None = None
    fftshift: bool = False
    invert_mask: bool = False
    bad_value: float | None = None
    drop_dark: bool = False
    frames_axis: int | None = None
    reshape: bool = False
    first: int | None = None
    index_base: int | None = None
    average_positions: bool = False
    loaded: float = 0
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.unit not in (None, *UNITS):
            msg = f"unit must be one of {', '.join(METRES)} or px, got {self.unit!r}."
            raise ValueError(msg)
        for name in ("energy_eV", "distance_m", "detector_pixel_m"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                msg = f"{name} must be a positive number, got {value!r}."
                raise ValueError(msg)

    def given(self, *names: str) -> list[str]:
        """Return those of the named options that the caller set."""
        return [name for name in names if getattr(self, name) != getattr(Recipe, name)]

    def files(self) -> list[str]:
        """Return the files that names lead to: ``FILE``, or that of each ``FILE:KEY``."""
        names = (self.diffraction, self.x, self.y, self.probe, self.mask, self.index)
        # A key may contain colons, too.
        return [
            name[:place]
            for name in names
            if name is not None
            for place, character in enumerate(f"{name}:")
            if character == ":"
        ]

    def refuse(self, path: str, what: str, *names: str) -> None:
        """Refuse options that a file leaves nothing to say about.

        Parameters
        ----------
        path : str
            The file.
        what : str
            Its format, with an article.
        *names : str
            Such options.

        Raises
        ------
        ValueError
            If the caller set one of them.
        """
        if fixed := self.given(*names):
            msg = (
                f"{path} is {what}, which says itself where its positions lie; leave out "
                f"{', '.join(fixed)}. (To read it as any other file, name diffraction, x, y and "
                "unit.)"
            )
            raise ValueError(msg)

    @property
    def names_everything(self) -> bool:
        """Whether the caller named the patterns and both coordinates."""
        return None not in (self.diffraction, self.x, self.y)


def as_recipe(
    *,
    intensity: bool | None = None,
    counts: bool | None = None,
    load: bool | Literal["auto"] = False,
    **options: Any,
) -> Recipe:
    """Return the recipe that the arguments of `ptycho_fast.read_scan` make.

    Raises
    ------
    ValueError
        If `intensity` and `counts`, two names for one option, contradict each other, `load` is
        none of True, False and "auto"; or as `Recipe`.
    """
    if None not in (intensity, counts) and intensity != counts:
        msg = f"intensity={intensity} and counts={counts} are the same thing. Pass one of them."
        raise ValueError(msg)
    if load not in (True, False, "auto"):
        msg = f"load must be True, False or 'auto', got {load!r}."
        raise ValueError(msg)
    loaded = SHARE * memory.available() if load == "auto" else math.inf if load else 0
    intensity = counts if intensity is None else intensity
    return Recipe(intensity=intensity, loaded=loaded, **options)


def window(shape: tuple[int, ...], recipe: Recipe) -> Window:
    """Return the part of the detector that `crop`, `centre` and `bin` select.

    The pixel nearest to `centre` becomes pixel ``N // 2``, where a Fourier transform has its zero
    frequency.

    Parameters
    ----------
    shape : tuple of int, (n, rows, columns)
        The shape of the frames as they are stored.
    recipe : Recipe
        Its `crop`, `centre` and `bin` are used.

    Raises
    ------
    ValueError
        If the part reaches beyond the detector, is not square, or is no multiple of the bin.

    Examples
    --------
    >>> from ptycho_fast.io.recipe import Recipe, window
    >>> window((100, 256, 256), Recipe(crop=128, bin=2)).N
    64
    """
    detector = shape[1:]
    b = 1 if recipe.bin is None else as_count("bin", recipe.bin)
    crop = detector if recipe.crop is None else recipe.crop
    try:
        size = (operator.index(crop),) * 2 if not isinstance(crop, tuple) else crop
        sizes = [as_count("crop", side) for side in size]
        middle = [side // 2 for side in detector]
        centre = [round(c) for c in (middle if recipe.centre is None else recipe.centre)]
        if len(sizes) != 2 or len(centre) != 2:
            raise TypeError
    except (TypeError, OverflowError):
        msg = (
            "crop must be a number of pixels or (rows, columns), and centre (row, column), got "
            f"crop={recipe.crop!r}, centre={recipe.centre!r}."
        )
        raise ValueError(msg) from None
    if recipe.centre is not None and recipe.crop is None:
        msg = "centre says where to crop, so it needs crop, the number of pixels to keep."
        raise ValueError(msg)
    if sizes[0] != sizes[1]:
        msg = (
            f"Patterns must be square, but these are {sizes[0]} rows x {sizes[1]} columns. Pass "
            f"crop={min(sizes) // b * b} (and centre=(row, column) of the beam)."
        )
        raise ValueError(msg)
    if sizes[0] % b:
        most = sizes[0] // b * b
        msg = (
            f"Patterns of {sizes[0]} pixels can't be binned by {b}: pass crop={most} "
            f"(--crop {most})."
        )
        raise ValueError(msg)
    firsts = [c - side // 2 for c, side in zip(centre, sizes, strict=True)]
    for first, side, length in zip(firsts, sizes, detector, strict=True):
        if first < 0 or first + side > length:
            whole = "x".join(map(str, detector))
            msg = (
                f"crop={recipe.crop} about centre={tuple(centre)} reaches from row {firsts[0]}, "
                f"column {firsts[1]} to row {firsts[0] + sizes[0] - 1}, column "
                f"{firsts[1] + sizes[1] - 1}, beyond the detector's {whole} pixels. Crop less."
            )
            raise ValueError(msg)
    rows, columns = (slice(first, first + side) for first, side in zip(firsts, sizes, strict=True))
    return Window(rows, columns, b)
