"""A folder that fills with files while a scan is measured."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.container import other_file
from ptycho_fast.io.layouts import named_probe
from ptycho_fast.io.listing import listed
from ptycho_fast.io.masks import read_mask
from ptycho_fast.io.recipe import as_recipe, window
from ptycho_fast.io.single import KEY
from ptycho_fast.live.growing import open_growing, said
from ptycho_fast.live.positions import GrowingPositions, Places, other_files
from ptycho_fast.live.source import News, ScanSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container

ENDINGS = (".npy", ".npz", ".tif", ".tiff", ".h5", ".hdf5", ".nxs", ".cxi", ".mat")
"""How the names of files with frames end."""

MOST_BYTES = 2**26
"""Bytes of frames that are read at a time, at least one file."""


class FolderSource(ScanSource):
    """A folder that fills with files, each with one frame or a stack of them.

    The last number in the name of a file says which it is: ``frame_0012.tif`` is file 12. If files
    hold k frames each, file f has the frames ``f k ... f k + k - 1``; only the last may have fewer.
    A file is read when its size has not changed since the last look.

    A folder does not say when the scan has ended: with `first`, it has when so many frames and
    positions are there, else when nothing new has come for the patience of `follow`.

    Parameters
    ----------
    path : path
        The folder. It need not exist yet.
    **reading
        Arguments of `ptycho_fast.read_scan`: `x` and `y` (``FILE:COLUMN`` of a table of text that
        grows, ``FILE:KEY``, or names of arrays in each file), and `diffraction`, where a file holds
        named arrays. `index_base` is the number of the first file.
    """

    def __init__(self, path: str | os.PathLike[str], **reading: Any) -> None:
        self.name = os.fspath(path)
        self.recipe = as_recipe(**reading)
        if missing := [name for name in ("x", "y") if not self.recipe.given(name)]:
            named = ", ".join(f"{name}=FILE:COLUMN" for name in missing)
            msg = f"{self.name}: name the positions: {named}, or the arrays in each file."
            raise ValueError(msg)
        if self.recipe.index is not None and self._inside:
            msg = "Where each file has its own positions, index has no meaning. Leave it out."
            raise ValueError(msg)
        self._positions = GrowingPositions(self.recipe)
        self._stamps: dict[str, tuple[int, int]] = {}
        self._done: dict[int, int] = {}
        """How many frames each file has that was read, by its number."""
        self._fixed = False

    def poll(self) -> News:
        """Return what has come since the last call."""
        try:
            files = self._files()
        except OSError as error:
            return News(waits_for=said(self.name, error))
        if self.recipe.index_base is None and files and files[0][0] > 0:
            late = (
                f"The first file is number {files[0][0]} so far, and there is no number 0. If they "
                "count from 1, pass index_base=1 (--index-base 1), else index_base=0."
            )
            return News(waits_for=late)
        frames: list[NDArray[np.int64]] = []
        patterns: list[NDArray[Any]] = []
        places: list[Places] = []
        probe = mask = None
        late, size = "", 0
        for number, path in files:
            if number in self._done or not self._is_still(path):
                continue
            try:
                with open_growing(path) as container:
                    stack = self._stack(container)
                    if not self._fixed:
                        probe, mask = self._fixtures(container, stack.shape)
                        self._fixed = True
                    numbers = self._numbers(number, len(stack), path)
                    if self._inside:
                        places.append(self._of_file(container, numbers))
            except (OSError, RuntimeError, KeyError) as error:
                late = said(self.name, error)
                continue
            self._done[number] = len(stack)
            frames.append(numbers)
            patterns.append(stack)
            size += stack.nbytes
            if size >= MOST_BYTES:
                break
        if not self._inside:
            places = [self._beside()]
            late = late or places[0].late
        return News(
            frames=np.concatenate([np.empty(0, np.int64), *frames]),
            patterns=np.concatenate(patterns) if patterns else None,
            places=np.concatenate([np.empty(0, np.int64), *(some.numbers for some in places)]),
            x=np.concatenate([np.empty(0), *(some.x for some in places)]),
            y=np.concatenate([np.empty(0), *(some.y for some in places)]),
            probe=probe,
            mask=mask,
            waits_for=late,
            ended=self._end(),
        )

    @property
    def _inside(self) -> bool:
        """Whether each file has the positions of its frames."""
        return other_file(str(self.recipe.x)) is None

    def _files(self) -> list[tuple[int, str]]:
        """Return number and path of each file with frames, by ascending number."""
        others = {os.path.abspath(name) for name in other_files(self.recipe)}
        found: dict[int, str] = {}
        for entry in os.scandir(self.name):
            stem, ending = os.path.splitext(entry.name)
            digits = re.findall(r"\d+", stem)
            if not digits or ending.lower() not in ENDINGS or entry.name.startswith("."):
                continue
            if os.path.abspath(entry.path) in others:
                continue
            number = int(digits[-1])
            if number in found:
                msg = (
                    f"{entry.path} and {found[number]} have the same number, {number}. Follow a "
                    "folder with the files of one scan."
                )
                raise ValueError(msg)
            found[number] = entry.path
        return sorted(found.items())

    def _is_still(self, path: str) -> bool:
        """Tell whether a file is as large and as old as it was at the last look."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        stamp = status.st_size, status.st_mtime_ns
        before, self._stamps[path] = self._stamps.get(path), stamp
        return stamp == before

    def _stack(self, container: Container) -> NDArray[Any]:
        """Return the frames of a file, (k, H, W)."""
        key = self.recipe.diffraction
        arrays = container.arrays()
        if key is None and KEY not in arrays:
            msg = (
                f"{container.path} holds named arrays, so pass diffraction=KEY. It has: "
                f"{listed(arrays)}."
            )
            raise ValueError(msg)
        values = container.read_named(KEY if key is None else key)
        return values[np.newaxis] if values.ndim == 2 else values

    def _fixtures(
        self, container: Container, shape: tuple[int, ...]
    ) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None]:
        """Return the probe and the mask that the caller names."""
        probe = named_probe(container, self.recipe, window(shape, self.recipe).N)
        mask = read_mask(container, self.recipe, shape)
        if mask is not None and mask.ndim == 3:
            msg = "A mask for each frame can't be followed. Name one mask (H, W) for all."
            raise ValueError(msg)
        return probe, mask

    def _numbers(self, number: int, k: int, path: str) -> NDArray[np.int64]:
        """Return the numbers of the frames of a file; refuse one that holds too few or too many."""
        file = number - (self.recipe.index_base or 0)
        done = {**self._done, number: k}
        each = max(done.values())
        short = [one for one, held in done.items() if held < each and one < max(done)]
        # What was counted with a smaller number of frames a file would be counted wrongly.
        if short or (self._done and max(self._done.values()) < each):
            few = short[0] if short else max(self._done)
            msg = (
                f"{path} is file {number} and holds {k} frames, but file {few} holds "
                f"{done[few]}: only the last file may hold fewer than the others."
            )
            raise ValueError(msg)
        return file * each + np.arange(k)

    def _of_file(self, container: Container, numbers: NDArray[np.int64]) -> Places:
        """Return the positions of the frames of a file, which it holds itself."""
        x, y = (
            np.ravel(container.read_named(str(name))).astype(np.float64)
            for name in (self.recipe.x, self.recipe.y)
        )
        if len(x) != len(numbers) or len(y) != len(numbers):
            msg = (
                f"{container.path} holds {len(numbers)} frames, but {len(x)} numbers x and "
                f"{len(y)} numbers y."
            )
            raise ValueError(msg)
        return Places(numbers, x, y, "")

    def _beside(self) -> Places:
        """Return new positions, which are in files of their own."""
        try:
            with open_growing(other_files(self.recipe)[0]) as container:
                return self._positions.read(container)
        except (OSError, RuntimeError) as error:
            return Places.none(said(self.name, error))

    def _end(self) -> str:
        first = self.recipe.first
        frames = sum(self._done.values())
        positions = frames if self._inside else self._positions.known
        if first is None or min(frames, positions) < first:
            return ""
        return f"All {first} frames and positions are there (first={first})."
