"""Positions that grow in a file of their own, or in that of the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.io.assemble import as_ids
from ptycho_fast.io.container import other_file
from ptycho_fast.io.layouts import as_line
from ptycho_fast.live.growing import GrowingHDF5

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.recipe import Recipe


class Places(NamedTuple):
    """Positions that have arrived since the last time."""

    numbers: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    late: str
    """What is not there yet, in a sentence; "" if nothing is known to be late."""

    @classmethod
    def none(cls, late: str) -> Places:
        """Return no position, and why."""
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0), late)


class GrowingPositions:
    """Reads positions that are new, by the names that the caller gives.

    Parameters
    ----------
    recipe : Recipe
        Its `x`, `y`, `index`, `index_base`, `first` are used. `index` numbers the frame of each
        position.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.known = 0
        """How many positions the file has."""
        self._sent = np.empty(0, np.bool_)

    def read(self, container: Container) -> Places:
        """Return the positions that are new.

        As long as an HDF5 file is being written, zeros at the end of x, y or the index are taken
        for what is not written yet. Positions that are not finite are not there.

        Parameters
        ----------
        container : Container
            The file in which names without ``FILE:`` are.

        Raises
        ------
        OSError
            If a file is not there yet, or can't be read.
        KeyError
            If it has no array of that name.
        ValueError
            If the positions are no numbers (n,).
        """
        recipe = self.recipe
        assert recipe.x is not None
        assert recipe.y is not None
        keys = [key for key in (recipe.x, recipe.y, recipe.index) if key is not None]
        files = [container.locate(key)[0] for key in keys]
        complete = all(not isinstance(file, GrowingHDF5) or file.finished for file in files)
        x, y = (self._coordinate(container, key) for key in (recipe.x, recipe.y))
        n = min(len(x), len(y))
        there = np.isfinite(x[:n]) & np.isfinite(y[:n])
        if not complete:
            # One of them is written before the other.
            there[min(map(_written, (x[:n], y[:n]))) :] = False
        numbers = np.arange(n)
        if recipe.index is not None:
            numbers = as_ids(container.read_named(recipe.index), recipe.index, recipe)
            end = len(numbers) if complete else _written(numbers)
            known = numbers[:end]
            if recipe.index_base is None and len(known) and not (known == 0).any():
                late = (
                    f"index={recipe.index!r} holds {known.min()} .. {known.max()} so far, and "
                    "no 0. If the numbers count from 1, pass index_base=1 (--index-base 1), else "
                    "index_base=0."
                )
                return Places.none(late)
            if len(numbers) != n:
                # Numbers of frames would put the positions that are there at wrong frames.
                late = (
                    f"index={recipe.index!r} holds {len(numbers)} numbers so far, but there are "
                    f"{n} positions. While a scan grows, index must be the frame of each position; "
                    "an index that numbers the frames can be read once the file is finished."
                )
                return Places.none(late)
            there[end:] = False
        n = n if recipe.first is None else min(n, recipe.first)
        x, y, numbers, there = x[:n], y[:n], numbers[:n], there[:n]
        self.known = n
        sent = np.zeros(n, np.bool_)
        few = min(n, len(self._sent))
        sent[:few] = self._sent[:few]
        new = np.flatnonzero(there & ~sent & (numbers >= 0))
        sent[new] = True
        self._sent = sent
        return Places(numbers[new], x[new], y[new], "")

    @staticmethod
    def _coordinate(container: Container, name: str) -> NDArray[np.float64]:
        values = as_line(container.read_named(name))
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            msg = (
                f"{name!r} must be real numbers (n,), got shape {values.shape} of {values.dtype}. "
                "If it holds several rows or columns, name one: KEY[0] or KEY[:,0]."
            )
            raise ValueError(msg)
        return values.astype(np.float64)


def _written(values: NDArray[Any]) -> int:
    """Return how many values there are without the zeros at the end."""
    lit = np.flatnonzero(values)
    return int(lit[-1]) + 1 if len(lit) else 0


def other_files(recipe: Recipe) -> list[str]:
    """Return the files that names of a recipe lie in, where they are not those of the frames."""
    names = (recipe.x, recipe.y, recipe.index, recipe.probe, recipe.mask)
    return [file for name in names if name and (file := other_file(name)) is not None]
