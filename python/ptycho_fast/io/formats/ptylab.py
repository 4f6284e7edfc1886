"""Data of PtyLab: counts, the encoder of the stage, rows first, and the geometry in metres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.assemble import Given, assemble
from ptycho_fast.io.geometry import energy_of, geometry
from ptycho_fast.io.layouts import named_probe
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.oriented import Oriented, turned_with
from ptycho_fast.io.recipe import window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan

PATTERNS, POSITIONS = "/ptychogram", "/encoder"

FIXED = ("diffraction", "x", "y", "unit", "index")
"""Options that such a file leaves nothing to say about."""


def recognises(container: Container) -> bool:
    """Tell whether a file is data of PtyLab."""
    return PATTERNS in container and POSITIONS in container


def read(container: Container, recipe: Recipe) -> Scan:
    """Read patterns and encoder; `ptycho_fast.read_scan` explains how."""
    path = container.path
    if "/zled" in container:
        msg = (
            f"{path} was measured with the light of LEDs from several directions (zled): it is "
            "Fourier ptychography, whose images of the object are no diffraction patterns."
        )
        raise ValueError(msg)
    recipe.refuse(path, "data of PtyLab", *FIXED)
    stored = container.frames(PATTERNS, recipe)
    source = _turned(container, stored)
    part = window(source.shape, recipe)
    wavelength = _entry(container, "/wavelength")
    lengths = geometry(
        path,
        recipe,
        energy_eV=None if wavelength is None else energy_of(wavelength),
        distance_m=_entry(container, "/zo"),
        detector_pixel_m=_entry(container, "/dxd"),
    )
    encoder = container.read(POSITIONS)
    if encoder.ndim == 2 and encoder.shape[0] == 2 != encoder.shape[1]:
        encoder = encoder.T
    if encoder.ndim != 2 or encoder.shape[1] != 2 or encoder.dtype.kind not in "fiu":
        msg = (
            f"{path}: encoder must be (n, 2), row and column of each position in metres, got "
            f"{encoder.shape} of {encoder.dtype}."
        )
        raise ValueError(msg)
    y, x = encoder.astype(np.float64).T
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=lengths.object_pixel(part),
        geometry=lengths,
        mask=turned_with(source, read_mask(container, recipe, stored.shape)),
        probe=named_probe(container, recipe, part.N),
    )
    return assemble(given, part, recipe)


def _entry(container: Container, key: str) -> NDArray[Any] | None:
    return container.read(key) if key in container else None


def _turned(container: Container, source: Frames) -> Frames:
    """Return the frames in the orientation that the file names, if it names one.

    1 reverses the columns, 2 the rows, and 4 exchanges rows and columns before; they add up.
    """
    stored = _entry(container, "/orientation")
    if stored is None:
        return source
    if stored.size != 1 or stored.dtype.kind not in "fiu" or stored.item() not in range(8):
        msg = (
            f"{container.path}: orientation must be one number, 0 to 7, got {stored} of shape "
            f"{stored.shape}."
        )
        raise ValueError(msg)
    turns = int(stored.item())
    if not turns:
        return source
    return Oriented(
        source,
        transposed=bool(turns & 4),
        rows_reversed=bool(turns & 2),
        columns_reversed=bool(turns & 1),
    )
