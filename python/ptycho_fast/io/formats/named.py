"""Files of no known format, HDF5 or NPZ, whose arrays the caller names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_fast.io.assemble import Given, as_ids, assemble, scaled
from ptycho_fast.io.layouts import as_coordinates, grid_of, named_probe
from ptycho_fast.io.listing import MOST, listed
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.recipe import window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan


def recognises(container: Container) -> bool:
    """Return True: any file can be read if its arrays are named, and `read` asks for the names."""
    del container
    return True


def read(container: Container, recipe: Recipe) -> Scan:
    """Read a scan from the arrays that the caller names; `ptycho_fast.read_scan` explains how."""
    if recipe.diffraction is None or recipe.x is None or recipe.y is None:
        missing = [name for name in ("diffraction", "x", "y") if getattr(recipe, name) is None]
        msg = (
            f"{container.path} has no layout that is known, so its arrays must be named: "
            f"{', '.join(f'{name}=KEY' for name in missing)}. It has: "
            f"{listed(container.arrays(MOST + 1))}."
        )
        raise KeyError(msg)
    if recipe.intensity is None:
        msg = (
            f"Does {recipe.diffraction!r} hold counts or their square roots? It is never guessed: "
            "pass counts=True or counts=False (--counts or --amplitude)."
        )
        raise ValueError(msg)
    stack = container.shape_of_named(recipe.diffraction)
    read = {"x": container.read_named(recipe.x), "y": container.read_named(recipe.y)}
    x, y = (
        as_coordinates(name, str(getattr(recipe, name)), values, stack, recipe)
        for name, values in read.items()
    )
    if x.shape != y.shape:
        msg = f"x={recipe.x!r} has {len(x)} positions, but y={recipe.y!r} has {len(y)}."
        raise ValueError(msg)
    n = len(x) if recipe.index is None else None
    grid = grid_of(read["x"].shape, stack)
    source = container.named_frames(recipe.diffraction, recipe, n, grid)
    part = window(source.shape, recipe)
    x, y, object_pixel = scaled(x, y, recipe, part, source.shape)
    frame_ids, position_ids = _numbers(container, recipe, len(source), len(x))
    given = Given(
        source,
        x,
        y,
        intensity=recipe.intensity,
        object_pixel=object_pixel,
        frame_ids=frame_ids,
        position_ids=position_ids,
        mask=read_mask(container, recipe, source.shape),
        probe=named_probe(container, recipe, part.N),
    )
    return assemble(given, part, recipe)


def _numbers(
    container: Container, recipe: Recipe, n_frames: int, n_positions: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Return what `index` says: the numbers of the frames, or those of the positions."""
    if recipe.index is None:
        return None, None
    numbers: NDArray[Any] = container.read_named(recipe.index)
    if numbers.size == n_positions:
        return None, as_ids(numbers, recipe.index, recipe, n_frames)
    if numbers.size == n_frames:
        return as_ids(numbers, recipe.index, recipe, n_positions), None
    msg = (
        f"index={recipe.index!r} has {numbers.size} numbers, one for neither each of "
        f"{n_positions} positions nor each of {n_frames} frames."
    )
    raise ValueError(msg)
