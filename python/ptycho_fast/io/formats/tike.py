"""Data of tike, NPZ: counts with zero frequency in the corner, and the corners of the windows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.amplitudes import Shifted
from ptycho_fast.io.assemble import Given, assemble, scaled
from ptycho_fast.io.layouts import as_layer, as_probe, is_complex
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.npz.scan_keys import PATTERN_KEYS
from ptycho_fast.io.recipe import Recipe, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.scan import Scan

PATTERNS, CORNERS, PROBE, OBJECT = "data", "scan", "probe", "psi"

LOOKED_AT = 8
"""As many patterns show where the light is."""


def recognises(container: Container) -> bool:
    """Tell whether a file holds the arrays that tike's functions take, in their shapes."""
    if not isinstance(container, NPZContainer):
        return False
    infos = container.arrays()
    if not {PATTERNS, CORNERS, PROBE} <= infos.keys():
        return False
    if {"xcoords", "ycoords"} <= infos.keys() and not infos.keys().isdisjoint(PATTERN_KEYS):
        return False  # an NPZ scan, which may hold further arrays of any name
    data, corners, probe = (infos[key] for key in (PATTERNS, CORNERS, PROBE))
    return (
        len(data.shape) > 2
        and corners.shape == (*data.shape[:-2], 2)
        and probe.shape[-2:] == data.shape[-2:]
        and is_complex(probe.dtype)
    )


def read(container: Container, recipe: Recipe) -> Scan:
    """Read patterns, windows, probe and object; `ptycho_fast.read_scan` explains how."""
    path = container.path
    recipe.refuse(path, "data of tike", "diffraction", "x", "y", "unit", "index")
    source = Shifted(container.frames(PATTERNS, recipe))
    part = window(source.shape, recipe)
    corners = container.read(CORNERS)
    if corners.dtype.kind not in "fiu":
        msg = (
            f"{path}: {CORNERS!r} must be real numbers, row and column of the first pixel of each "
            f"window, got {corners.dtype}."
        )
        raise ValueError(msg)
    corners = corners.reshape(-1, 2).astype(np.float64)
    y, x = corners.T + np.array(source.shape[1:])[:, np.newaxis] // 2
    x, y, _ = scaled(x, y, Recipe(unit="px"), part, source.shape)
    whole = part.N == source.shape[1] == source.shape[2]
    object_ = None
    if OBJECT in container and whole:
        object_ = as_layer(f"{path}: {OBJECT!r}", container.read(OBJECT))
    mask = read_mask(container, recipe, source.shape)
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        mask=None if mask is None else np.fft.fftshift(mask, axes=(-2, -1)),
        probe=_probe(container, recipe, part.N),
        object=object_,
    )
    scan = assemble(given, part, recipe)
    _warn_of_light_in_the_corner(path, scan)
    return scan


def _warn_of_light_in_the_corner(path: str, scan: Scan) -> None:
    """Warn if the light, moved from the corner to the middle, was in the middle before."""
    rows = np.linspace(0, len(scan) - 1, min(LOOKED_AT, len(scan))).astype(int)
    try:
        light = (np.asarray(scan.diffraction[rows], np.float64) ** 2).sum(axis=0)
    except (OSError, ValueError):
        return  # Whoever reads these patterns gets this error; the others may be whole.
    quarter = scan.N // 4
    middle = slice(quarter, scan.N - quarter)
    # Light that is spread evenly would leave a quarter of it there.
    if light[middle, middle].sum() < light.sum() / 16:
        warn(
            f"{path} was read as data of tike, whose zero frequency is in the corner, [0, 0], but "
            "its light is in the middle. If it is no such data, name its arrays: diffraction=, "
            "x=, y=, unit= and counts= (--diffraction, --x, --y, --unit, --counts)."
        )


def _probe(container: Container, recipe: Recipe, N: int) -> NDArray[Any] | None:
    """Return the probe, (modes, N, N): the first of those that vary over the scan."""
    name = recipe.probe or PROBE
    values = container.read_named(name)
    if recipe.probe is None:
        modes = values.shape[-3] if values.ndim > 2 else 1
        several = math.prod(values.shape[:-3])
        if several != 1 or values.shape[-1] != N:
            return values  # which does not fit, as is said where the scan is assembled
        values = values.reshape(modes, *values.shape[-2:])
    return as_probe(f"{container.path}: {name!r}", values, (N, N))
