"""Prepared data of ptypy, ``.ptyd``: frames, positions and weights in numbered chunks."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.io.assemble import Given, assemble
from ptycho_fast.io.geometry import geometry, lengths_of
from ptycho_fast.io.hdf5.writing import (
    frame_numbers,
    has_single_bad_pixels,
    hdf5_file,
    warn_of_loss,
    write_counts,
    write_marks,
)
from ptycho_fast.io.layouts import named_probe
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.oriented import Joined
from ptycho_fast.io.recipe import window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.container import ArrayInfo, Container
    from ptycho_fast.io.hdf5.writing import Outgoing
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan

CHUNK = re.compile(r"/chunks/([0-9]+)/.+")

LISTED = 5
"""How many chunks a message lists."""

suffix = ".ptyd"

FIXED = ("diffraction", "x", "y", "unit", "index", "reshape", "frames_axis")
"""Options that such a file leaves nothing to say about."""


def recognises(container: Container) -> bool:
    """Tell whether a file is prepared data of ptypy."""
    return "/chunks/0/data" in container and "/chunks/0/positions" in container


def read(container: Container, recipe: Recipe) -> Scan:
    """Read the frames of all chunks; `ptycho_fast.read_scan` explains how."""
    path = container.path
    recipe.refuse(path, "prepared data of ptypy", *FIXED)
    infos = container.arrays()
    chunks = _chunks(path, infos)
    parts = [container.frames(f"/chunks/{number}/data", recipe) for number in chunks]
    source = parts[0] if len(parts) == 1 else Joined(parts)
    y, x = _positions(container, chunks, parts).T
    part = window(source.shape, _centred(container, infos, recipe, source.shape))
    energy = _number(container, infos, "energy")
    lengths = geometry(
        path,
        recipe,
        energy_eV=None if energy is None else 1e3 * energy,  # ptypy counts in keV
        distance_m=_number(container, infos, "distance"),
        detector_pixel_m=_number(container, infos, "psize"),
    )
    _warn_of_missing(container, infos, len(source))
    mask, listed = _good(container, infos, chunks, source.shape, recipe)
    given = Given(
        source,
        x,
        y,
        intensity=True if recipe.intensity is None else recipe.intensity,
        object_pixel=lengths.object_pixel(part),
        geometry=lengths,
        mask=mask,
        listed=listed,
        probe=named_probe(container, recipe, part.N),
    )
    return assemble(given, part, recipe)


def _chunks(path: str, infos: dict[str, ArrayInfo]) -> list[int]:
    """Return the numbers of the chunks in order, of which none may be missing."""
    names = {match[1] for key in infos if (match := CHUNK.fullmatch(key))}
    if odd := sorted(name for name in names if name != str(int(name))):
        msg = (
            f"{path} has a chunk /chunks/{odd[0]}, but ptypy calls it {int(odd[0])}: its place "
            "among the others is not known. Rename it."
        )
        raise ValueError(msg)
    found = sorted(map(int, names))
    if count := found[-1] + 1 - len(found):
        # The first that are missing are not far beyond the number of those that are not.
        near = set(range(min(found[-1], len(found) + LISTED))).difference(found)
        listed = ", ".join(map(str, sorted(near)[:LISTED]))
        listed += f", ... ({count} in all)" if count > LISTED else ""
        msg = (
            f"{path} has chunks 0 .. {found[-1]}, but {listed} cannot be found. "
            "If a chunk is a file of its own, put it beside this one."
        )
        raise OSError(msg)
    return found


def _positions(container: Container, chunks: list[int], parts: list[Frames]) -> NDArray[np.float64]:
    """Return the positions of all frames in metres, (n, 2), rows first."""
    found = []
    for number, frames in zip(chunks, parts, strict=True):
        key = f"/chunks/{number}/positions"
        values = container.read(key)
        if values.shape != (len(frames), 2) or values.dtype.kind not in "fiu":
            msg = (
                f"{container.path}: {key} must be ({len(frames)}, 2), the position of each frame, "
                f"got {values.shape} of {values.dtype}."
            )
            raise ValueError(msg)
        found.append(values.astype(np.float64))
    return np.concatenate(found)


def _number(container: Container, infos: dict[str, ArrayInfo], name: str) -> NDArray[Any] | None:
    """Return an entry of ``meta`` if it is a number or two."""
    info = infos.get(f"/meta/{name}")
    return container.read(f"/meta/{name}") if info and info.dtype.kind in "fiu" else None


def _centred(
    container: Container, infos: dict[str, ArrayInfo], recipe: Recipe, shape: tuple[int, ...]
) -> Recipe:
    """Return the recipe with the centre of the light that the file names, where it crops."""
    stored = _number(container, infos, "center")
    if stored is None or recipe.centre is not None or stored.size != 2:
        return recipe
    row, column = (float(value) for value in stored.reshape(-1))
    margins = (row, shape[1] - row, column, shape[2] - column)
    place = f"row {row:g}, column {column:g} of {shape[1]} x {shape[2]} pixels"
    if not min(margins) >= 1 or not np.isfinite(margins).all():
        warn(
            f"{container.path} says that zero frequency is at {place}, about which nothing can be "
            "cut out. The middle is taken for it. Pass crop= and centre=(row, column) if it is "
            "elsewhere."
        )
        return recipe
    if recipe.crop is not None:
        return replace(recipe, centre=(row, column))
    if (round(row), round(column)) != (shape[1] // 2, shape[2] // 2):
        warn(
            f"{container.path} says that zero frequency is at {place}, not in the middle. Pass "
            f"crop={2 * int(min(margins))} (--crop) to cut the patterns out about it."
        )
    return recipe


def _warn_of_missing(container: Container, infos: dict[str, ArrayInfo], n: int) -> None:
    """Warn if the file has fewer frames than it announces."""
    planned = _number(container, infos, "num_frames")
    if planned is not None and planned.size == 1 and n < planned.item() < np.inf:
        warn(
            f"{container.path} was to hold {planned.item():.0f} frames, but its chunks "
            f"hold {n}: the preparation ended early, or the files of the last chunks are missing."
        )


def _good(
    container: Container,
    infos: dict[str, ArrayInfo],
    chunks: list[int],
    shape: tuple[int, int, int],
    recipe: Recipe,
) -> tuple[NDArray[np.bool_] | None, BadPixels | None]:
    """Return the pixels whose weight is more than 0, and those that lack it in some frames."""
    if recipe.mask is not None:
        return read_mask(container, recipe, shape), None
    keys = [f"/chunks/{number}/weights" for number in chunks]
    # Chunks without weights may hold an empty array.
    keys = [key if key in infos and 0 not in infos[key].shape else "" for key in keys]
    if not any(keys):
        for shared in ("/meta/weight2d", "/info/weight2d"):
            if shared in infos and infos[shared].shape == shape[1:]:
                return _lit(container, shared, shape, recipe), None
        return read_mask(container, recipe, shape), None
    # A stack of bools for all frames would be a quarter of the patterns' size.
    parts, ever = [], np.zeros(shape[1:], np.bool_)
    for number, key in zip(chunks, keys, strict=True):
        frames = container.info(f"/chunks/{number}/data").shape[0]
        good = np.ones(shape[1:], np.bool_)
        if key:
            good = _lit(container, key, (frames, *shape[1:]), recipe)
        ever |= good if good.ndim == 2 else good.any(axis=0)
        bad = BadPixels.of(~good.reshape(-1, *shape[1:]))
        parts.append((bad, np.arange(frames) if good.ndim == 3 else np.zeros(frames, np.int64)))
    listed = BadPixels.join(bad.without(ever).take(rows) for bad, rows in parts)
    return ever, listed if len(listed.pixels) else None


def _lit(
    container: Container, key: str, shape: tuple[int, int, int], recipe: Recipe
) -> NDArray[np.bool_]:
    """Return which weights, of each pixel or of each pixel of each frame, are more than 0."""
    weights = container.read(key)
    if weights.shape not in (shape, shape[1:]) or weights.dtype.kind not in "fiub":
        msg = (
            f"{container.path}: {key} must be {shape}, one weight for each pixel of each frame, "
            f"or {shape[1:]}, got {weights.shape} of {weights.dtype}."
        )
        raise ValueError(msg)
    good: NDArray[np.bool_] = weights > 0
    return ~good if recipe.invert_mask else good


def files(path: Path) -> list[Path]:
    """Return the file of a scan."""
    return [path]


def write(out: Outgoing, path: str | os.PathLike[str]) -> None:
    """Write a scan as prepared data; `ptycho_fast.write_scan` explains how."""
    scan, N = out.scan, out.scan.N
    lengths = lengths_of(scan, os.fspath(path), "a .ptyd file")
    meta = {
        "version": "0.1",
        "num_frames": len(scan),
        "shape": np.full(2, N),
        "center": np.full(2, N // 2),
        "energy": lengths.energy_eV / 1e3,  # ptypy counts in keV
        "distance": lengths.distance_m,
        "psize": np.array(lengths.detector_pixel[::-1]),
    }
    with hdf5_file(path) as file:
        for name, value in meta.items():
            file[f"meta/{name}"] = value
        file.create_group("info")
        file["chunks/0/positions"] = (scan.positions * lengths.object_pixel)[:, ::-1]
        file["chunks/0/indices"] = frame_numbers(scan)
        known = write_counts(file, "chunks/0/data", out)
        if has_single_bad_pixels(known):
            write_marks(file, "chunks/0/weights", known, bad=0)
        elif known.mask is not None:
            file["meta/weight2d"] = known.mask.astype(np.float32)
    warn_of_loss(path, scan, "a .ptyd file", without=("probe", "object"))
