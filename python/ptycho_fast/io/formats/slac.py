"""NPZ scans of SLAC: patterns with the planned positions alone, and perhaps the geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptycho_fast.io.formats import named
from ptycho_fast.io.layouts import as_layer
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.recipe import NotGivenError, Recipe

if TYPE_CHECKING:
    from ptycho_fast.io.container import Container
    from ptycho_fast.scan import Scan

PATTERNS, X, Y = "diffraction", "xcoords_start", "ycoords_start"

PROBE, OBJECT = "probeGuess", "objectGuess"

GEOMETRY = {
    "energy_eV": ("photon_energy_eV", "probe_energy_ev"),
    "distance_m": ("detector_distance_m",),
    "detector_pixel_m": ("detector_pixel_size_m",),
}
"""Options, and the numbers of the file that say the same; the first that is there counts."""


def recognises(container: Container) -> bool:
    """Tell whether a file holds planned positions, but none that were refined."""
    return (
        isinstance(container, NPZContainer)
        and all(key in container for key in (PATTERNS, X, Y))
        and "xcoords" not in container
        and "ycoords" not in container
    )


def read(container: Container, recipe: Recipe) -> Scan:
    """Read the scan; `ptycho_fast.read_scan` explains how.

    Such files do not say whether their positions are pixels or metres, nor whether their patterns
    are counts.
    """
    path = container.path
    recipe.refuse(path, "an NPZ scan of SLAC", "diffraction", "x", "y")
    recipe = _with_geometry(container, recipe)
    needed = ("unit", "intensity", *(() if recipe.unit == "px" else GEOMETRY))
    options = ["counts" if name == "intensity" else name
               for name in needed if getattr(recipe, name) is None]  # fmt: skip
    if options:
        words = ", ".join(f"{name}=" for name in options)
        typed = ", ".join(
            "--counts or --amplitude" if name == "counts" else f"--{name.replace('_', '-')}"
            for name in options
        )
        msg = (
            f"{path} is an NPZ scan of SLAC, which does not say all that is needed: pass {words} "
            f"({typed}). Its positions are metres (unit=m) or pixels of the object (unit=px), its "
            "patterns counts (counts=True) or amplitudes (False)."
        )
        raise NotGivenError(msg, *options)
    probe = recipe.probe or (PROBE if PROBE in container else None)
    scan = named.read(container, replace(recipe, diffraction=PATTERNS, x=X, y=Y, probe=probe))
    moved = recipe.given("crop", "bin", "swap_xy", "flip_x", "flip_y")
    if recipe.unit != "px" or moved or OBJECT not in container:
        return scan
    return replace(scan, object=as_layer(f"{path}: {OBJECT!r}", container.read(OBJECT)))


def _with_geometry(container: Container, recipe: Recipe) -> Recipe:
    """Return the recipe with the geometry of the file, where the caller gives none."""
    found: dict[str, Any] = {}
    for option, keys in GEOMETRY.items():
        key = next((key for key in keys if key in container), None)
        if getattr(recipe, option) is None and key is not None:
            found[option] = container.numbers([key])[key]
    return replace(recipe, **found)
