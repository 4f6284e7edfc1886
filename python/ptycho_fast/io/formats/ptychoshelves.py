"""Prepared data of PtychoShelves: counts, windows on the object and modules of the detector."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.io.assemble import Given, assemble, scaled
from ptycho_fast.io.layouts import as_line, named_probe
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.recipe import NotGivenError, Recipe, window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.scan import Scan

SCAN = re.compile(r"/?measurement/n(\d+)/(data|diff)")


def recognises(container: Container) -> bool:
    """Tell whether a file is prepared data of PtychoShelves."""
    return "/measurement/n0/positions" in container and any(
        f"/measurement/n0/{name}" in container for name in ("data", "diff")
    )


def read(container: Container, recipe: Recipe) -> Scan:
    """Read one scan of the file; `ptycho_fast.read_scan` explains how."""
    path = container.path
    recipe.refuse(path, "prepared data of PtychoShelves", "x", "y", "unit", "index")
    key, number = _scan(container, recipe)
    source = container.frames(key, recipe)
    part = window(source.shape, recipe)
    name = f"/measurement/n{number}/positions"
    corners = container.read(name)
    if corners.shape != (len(source), 2) or corners.dtype.kind not in "fiu":
        msg = (
            f"{path}: {name} must be ({len(source)}, 2), row and column of the first pixel of each "
            f"window, got {corners.shape} of {corners.dtype}."
        )
        raise ValueError(msg)
    y, x = corners.astype(np.float64).T + np.array(source.shape[1:])[:, np.newaxis] // 2
    pixels = Recipe(unit="px")
    x, y, _ = scaled(x, y, pixels, part, source.shape)
    mask, listed = _good(container, number, source.shape)
    if recipe.mask is not None or mask is None:
        mask = read_mask(container, recipe, source.shape)
    elif recipe.invert_mask:
        mask = ~mask
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        mask=mask,
        listed=listed,
        probe=named_probe(container, recipe, part.N),
    )
    return assemble(given, part, recipe)


def _scan(container: Container, recipe: Recipe) -> tuple[str, int]:
    """Return the key and the number of the scan, of which the caller must name one of several."""
    keys = [key for key in container.arrays() if SCAN.fullmatch(key)]
    if recipe.diffraction is None and len(keys) > 1:
        msg = (
            f"{container.path} holds {len(keys)} scans. Name one of them: "
            f"diffraction={keys[0]} ... {keys[-1]} (--diffraction)."
        )
        raise NotGivenError(msg, "diffraction")
    if not keys:
        msg = (
            f"{container.path}: /measurement/n0 has positions, but its data is no array: the file "
            "holds no patterns."
        )
        raise ValueError(msg)
    key = recipe.diffraction or keys[0]
    named = SCAN.fullmatch(key)
    if named is None:
        msg = (
            f"{container.path} is prepared data of PtychoShelves, whose scans are "
            f"{', '.join(keys)}; diffraction={key!r} is none of them."
        )
        raise ValueError(msg)
    return key, int(named[1])


def _good(
    container: Container, number: int, shape: tuple[int, int, int]
) -> tuple[NDArray[np.bool_] | None, BadPixels | None]:
    """Return the good pixels of all frames, and those that are bad in single frames."""
    detector = _detector(container, number)
    modules, bad = f"{detector}/modules", f"{detector}/bad_pixels"
    good = None
    if modules in container:
        good = np.zeros(shape[1:], np.bool_)
        for rows, columns, row, column in _table(container, modules, 4).tolist():
            if row + rows > shape[1] or column + columns > shape[2]:
                msg = (
                    f"{container.path}: {modules} names a module of {rows} x {columns} pixels from "
                    f"row {row}, column {column}, beyond the detector's {shape[1]} x {shape[2]}."
                )
                raise ValueError(msg)
            good[row : row + rows, column : column + columns] = True
    if bad in container:
        good = np.ones(shape[1:], np.bool_) if good is None else good
        row, column = _pixels(container, bad, shape)
        good[row, column] = False
    return good, _listed(container, number, shape)


def _detector(container: Container, number: int) -> str:
    """Return the group of the detector that a scan names, which may be absent if it names none."""
    scan = f"/measurement/n{number}"
    named = container.attribute(scan, "detector")
    if named is None:
        return f"/detector/n{number}"
    values = np.ravel(np.asarray(named))
    whole = values.size == 1 and values.dtype.kind in "iuf" and values[0] == np.rint(values[0])
    group = f"/detector/n{values[0]:.0f}" if whole else f"/detector/n{named}"
    if "/detector" in container and not (whole and group in container):
        msg = (
            f"{container.path}: {scan} names {named!r} as its detector, but there is no {group}. "
            "Its modules and bad pixels are not known. Correct the attribute detector."
        )
        raise ValueError(msg)
    return group


def _listed(container: Container, number: int, shape: tuple[int, int, int]) -> BadPixels | None:
    """Return the pixels that are bad in single frames."""
    listed, ends = (f"/measurement/n{number}/bad_pixels{part}" for part in ("", "_index"))
    if listed not in container:
        return None
    if ends not in container:
        warn(
            f"{container.path}: {listed} lists bad pixels, but without {ends} it is not known of "
            "which frames they are. They are not used; a mask for all frames is mask= (--mask)."
        )
        return None
    row, column = _pixels(container, listed, shape)
    stored = as_line(container.read(ends))
    whole = stored.dtype.kind in "iu" and stored.shape == shape[:1]
    starts = np.concatenate([[0], stored.astype(np.int64)]) if whole else np.zeros(1, np.int64)
    if not whole or (np.diff(starts) < 0).any() or starts[-1] != len(row):
        msg = (
            f"{container.path}: {ends} must be {shape[0]} whole numbers that rise to {len(row)}, "
            f"how many pixels of {listed} belong to each frame and to those before it, got "
            f"{stored.shape} of {stored.dtype}{f' that ends in {starts[-1]}' if whole else ''}."
        )
        raise ValueError(msg)
    return BadPixels(starts, (row * shape[2] + column).astype(np.int32))


def _table(container: Container, key: str, width: int) -> NDArray[np.int64]:
    """Read whole numbers from 0, (m, width); m may be 0."""
    values = container.read(key)
    right = values.ndim == 2 and values.shape[1] == width and values.dtype.kind in "iu"
    if values.size and (not right or values.astype(np.int64).min() < 0):
        msg = (
            f"{container.path}: {key} must be whole numbers (m, {width}), none of them negative, "
            f"got {values.shape} of {values.dtype}."
        )
        raise ValueError(msg)
    return np.reshape(values, (-1, width)).astype(np.int64)


def _pixels(
    container: Container, key: str, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read rows and columns of pixels, which must lie on the detector."""
    row, column = _table(container, key, 2).T
    inside = (row < shape[1]) & (column < shape[2])
    if not inside.all():
        first = int(np.argmin(inside))
        msg = (
            f"{container.path}: {key} names row {row[first]}, column {column[first]} of a detector "
            f"of {shape[1]} x {shape[2]} pixels."
        )
        raise ValueError(msg)
    return row, column
