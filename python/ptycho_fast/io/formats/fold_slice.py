"""Scans of fold_slice and PtychoShelves: patterns in ``<name>_dp.hdf5``, ``<name>_para.hdf5``."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

from ptycho_fast.io.assemble import Given, assemble, scaled
from ptycho_fast.io.layouts import as_coordinates, named_probe
from ptycho_fast.io.listing import MOST, listed
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.oriented import Oriented, turned_with
from ptycho_fast.io.pairs import name_of_partner, partner
from ptycho_fast.io.recipe import NotGivenError, Recipe, window

if TYPE_CHECKING:
    from ptycho_fast.io.container import Container
    from ptycho_fast.scan import Scan

PATTERNS, POSITIONS, PIXEL = "/dp", ("/ppX", "/ppY"), "/dx"


class _Names(NamedTuple):
    """What is read, as `Container.locate` takes it."""

    patterns: str
    positions: tuple[str, str]
    pixel: str


def recognises(container: Container) -> bool:
    """Tell whether a file is one of the two, and the other lies beside it or in it.

    One that is called as they are is recognised without the other, and `read` says what is missing.
    """
    if _names(container) is not None:
        return True
    return any(_has(container)) and name_of_partner(container.path) is not None


def _has(container: Container) -> tuple[bool, bool]:
    """Tell whether a file holds the patterns, and whether it holds the positions."""
    return PATTERNS in container, all(key in container for key in POSITIONS)


def _names(container: Container) -> _Names | None:
    """Return where patterns and positions are; None if this file is neither of the two."""
    has = _has(container)
    if not any(has):
        return None
    dp = para = ""
    if not all(has):
        other = partner(container.path)
        if other is None:
            return None
        dp, para = ("", f"{other}:") if has[0] else (f"{other}:", "")
    names = _Names(
        f"{dp}{PATTERNS}", (f"{para}{POSITIONS[0]}", f"{para}{POSITIONS[1]}"), f"{para}{PIXEL}"
    )
    there = (container.locate(name) for name in (names.patterns, *names.positions))
    return names if all(key in file for file, key in there) else None


def read(container: Container, recipe: Recipe) -> Scan:
    """Read both files; `ptycho_fast.read_scan` explains how."""
    names = _names(container)
    if names is None:
        raise _half(container)
    recipe.refuse(container.path, "a scan of fold_slice", "diffraction", "x", "y", "index")
    x, y = (
        as_coordinates(name, name, container.read_named(name), (), Recipe())
        for name in names.positions
    )
    stored = source = container.named_frames(names.patterns, recipe, len(x))
    home, key = container.locate(names.patterns)
    if home.attribute(key, "MATLAB_class") is not None:
        # MATLAB's version 7.3 writes dp(row, column, frame) with its axes reversed.
        source = Oriented(stored, transposed=True)
    part = window(source.shape, recipe)
    beside, pixel = container.locate(names.pixel)
    object_pixel: tuple[float, float] | None
    if recipe.unit is None and pixel in beside:
        dx = _positive(beside, pixel)
        side = part.N * part.bin
        object_pixel = dx * source.shape[2] / side, dx * source.shape[1] / side
    else:
        _ask_for_unit(beside.path, recipe)
        x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=object_pixel,
        mask=turned_with(source, read_mask(container, recipe, stored.shape)),
        probe=named_probe(container, recipe, part.N),
    )
    return assemble(given, part, recipe)


def _half(container: Container) -> KeyError:
    """Return the error that says which file of a pair is missing."""
    beside = name_of_partner(container.path)
    assert beside is not None  # it was recognised
    mine, others = "dp", "ppX and ppY"
    if PATTERNS not in container:
        mine, others = others, mine
    lack = f"does not hold {others}" if os.path.exists(beside) else "is missing. Copy it too"
    return KeyError(
        f"{container.path} is half of a scan of fold_slice: it holds {mine}, but {beside} {lack}. "
        "Or name its arrays: diffraction=KEY, x=KEY, y=KEY. It has: "
        f"{listed(container.arrays(MOST + 1))}."
    )


def _positive(container: Container, key: str) -> float:
    values = container.read(key)
    if values.size != 1 or values.dtype.kind not in "fiu" or not 0 < values.item() < math.inf:
        msg = (
            f"{container.path}: dx, the size of a pixel of the object, is {values}, which is no "
            "positive number. Pass unit= of ppX and ppY, which then decides."
        )
        raise ValueError(msg)
    return float(values.item())


def _ask_for_unit(path: str, recipe: Recipe) -> None:
    if recipe.unit is None:
        msg = (
            f"{path} does not say dx, the size of a pixel of the object, nor the unit of ppX and "
            "ppY. Pass unit=px, or unit=m (mm, um, nm) with energy_eV=, distance_m= and "
            "detector_pixel_m= (--unit, --energy-eV, --distance-m, --detector-pixel-m)."
        )
        raise NotGivenError(msg, "unit", "energy_eV", "distance_m", "detector_pixel_m")
