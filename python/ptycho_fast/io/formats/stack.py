"""Stacks of patterns alone, NPY or TIFF: positions are named, and lie in other files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ptycho_fast.io.formats import named
from ptycho_fast.io.recipe import NotGivenError
from ptycho_fast.io.single import KEY, OneArray

if TYPE_CHECKING:
    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan


def recognises(container: Container) -> bool:
    """Tell whether a file holds one array."""
    return isinstance(container, OneArray)


def read(container: Container, recipe: Recipe) -> Scan:
    """Read the patterns, and the positions that the caller names."""
    if recipe.x is None or recipe.y is None:
        container.frames(KEY, recipe)  # which says so if it is no stack
        msg = (
            f"{container.path} holds patterns alone. Name their positions, such as the columns of "
            "a text file: x='positions.csv:0', y='positions.csv:1' (--x, --y), with their unit= "
            "and counts=True or False."
        )
        raise NotGivenError(msg, "counts", "x", "y", "unit")
    return named.read(container, replace(recipe, diffraction=recipe.diffraction or KEY))
