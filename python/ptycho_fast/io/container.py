"""A scan file that is opened once: its arrays, their shapes, attributes and contents.

The formats (`ptycho_fast.io.formats`) are written against `Container`, so they need not know
whether the arrays lie in an HDF5 or in an NPZ file.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ptycho_fast.frames import Frames
    from ptycho_fast.io.recipe import Recipe

PART = re.compile(r"(?P<key>.*)\[(?P<part>(:|\d+)(,(:|\d+))*)\]")
"""``KEY[0]``, ``KEY[:,1]``, ..."""

FILE = re.compile(r"(?P<file>[^:]+\.\w+):")
"""What looks like the ``FILE:`` of ``FILE:KEY``."""

ALONE = re.compile(
    r"(?P<file>[^:\[]+\.(npy|tiff?|csv|tsv|txt|dat))(\[.*\])?", re.IGNORECASE
)  # fmt: skip
"""A file of one array, or one column, which needs no ``:KEY``: ``FILE.npy``, ``FILE.npy[:,0]``."""

OF_ARRAYS = (".npz", ".h5", ".hdf5", ".hdf", ".nxs", ".cxi", ".ptyd", ".mat")
"""How the names of files end that hold several arrays."""


def other_file(name: str) -> str | None:
    """Return FILE, if a name looks like ``FILE:KEY`` or ``FILE``, an array in another file."""
    found = FILE.match(name) or ALONE.fullmatch(name)
    return None if found is None else found["file"]


class ArrayInfo(NamedTuple):
    """What is known of an array without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None
    unit: str | None = None
    """What the file says of its unit (in HDF5 the attribute ``units``)."""


class Container(ABC):
    """A file of named arrays, open for reading. Close it, or use it in a ``with`` statement.

    A *key* is the name of an array in this file. A *name* is what a caller of `read_scan` writes:
    ``KEY``, ``FILE:KEY`` for an array in another file, ``FILE`` for an NPY or TIFF file, or, where
    one coordinate of many is meant, ``KEY[:,0]`` or ``KEY[0]``. The other files are opened once,
    too, and closed with this one.

    Parameters
    ----------
    path : path
        The file.
    open_other : callable
        Opens the container of another path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        open_other: Callable[[str | os.PathLike[str]], Container],
    ) -> None:
        self.path = os.fspath(path)
        self._open_other = open_other
        self._others: dict[str, Container] = {}

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and those that were opened through it."""
        for other in self._others.values():
            other.close()
        self._others.clear()

    # What each kind of container provides.

    @abstractmethod
    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return key -> what is known of the array, reading none; only the first `most` if given.

        Raises
        ------
        OSError
            If the file is damaged, cut short, or of no known kind.
        """

    @abstractmethod
    def __contains__(self, key: str) -> bool:
        """Tell whether there is an array (or, in HDF5, a group) of this name."""

    @abstractmethod
    def info(self, key: str) -> ArrayInfo:
        """Return what is known of an array.

        Raises
        ------
        KeyError
            If the file has no array of this name; the message lists those it has.
        """

    @abstractmethod
    def read(self, key: str) -> NDArray[Any]:
        """Read an array.

        Raises
        ------
        KeyError
            If the file has no array of this name.
        OSError
            If the array cannot be read.
        ValueError
            If the array claims to be far larger than what the file holds.
        """

    @abstractmethod
    def frames(
        self,
        key: str,
        recipe: Recipe,
        n: int | None = None,
        grid: tuple[int, ...] = (),
    ) -> Frames:
        """Open a stack of frames, which stay in the file.

        Parameters
        ----------
        key : str
            The stack, in a layout of `ptycho_fast.io.layouts.stack_layout`, which explains the
            other parameters.

        Raises
        ------
        KeyError
            If the file has no array of this name.
        ValueError
            If the array is no stack of real numbers.
        """

    def attribute(self, key: str, name: str, default: Any = None) -> Any:
        """Return an attribute of an array or group, or the default. NPZ files have none."""
        return default

    @abstractmethod
    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read arrays of one number each; in HDF5, those that cannot be read are left out."""

    # What callers name.

    def locate(self, name: str) -> tuple[Container, str]:
        """Return the container and the key of what is named ``KEY``, ``FILE:KEY`` or ``FILE``."""
        # Names of motors contain colons, too: only an existing file makes one a separator.
        for place, character in enumerate(name):
            file = name[:place]
            if character == ":" and os.path.exists(file) and not os.path.isdir(file):
                return self._other(file), name[place + 1 :]
        named, alone, part = FILE.match(name), ALONE.fullmatch(name), PART.fullmatch(name)
        if name not in self and (part is None or part["key"] not in self):
            if named:
                msg = f"There is no file {named['file']}, in which {name!r} would be."
                raise FileNotFoundError(msg)
            if alone:
                return self._other(alone["file"]), name[alone.end("file") :]
            if os.path.isfile(name):
                msg = f"{name} is a file. Name an array of it, too: {name}:KEY."
                raise KeyError(msg)
            if name.lower().endswith(OF_ARRAYS):
                msg = (
                    f"There is no file {name}. An array in another file is named FILE:KEY, as in "
                    f"{name}:KEY."
                )
                raise FileNotFoundError(msg)
        return self, name

    def _other(self, file: str) -> Container:
        """Return the container of another file, which is opened once."""
        if file not in self._others:
            self._others[file] = self._open_other(file)
        return self._others[file]

    def shape_of_named(self, name: str) -> tuple[int, ...]:
        """Return the shape of a named array, of which no part is selected."""
        container, key = self.locate(name)
        return container.info(key).shape

    def read_named(self, name: str) -> NDArray[Any]:
        """Read a named array, or the part of it that the name selects.

        Raises
        ------
        KeyError, OSError
            As `read`.
        ValueError
            If the array has no such part; or as `read`.
        """
        container, whole = self.locate(name)
        picked = PART.fullmatch(whole)
        if not picked:
            return container.read(whole)
        values = container.read(picked["key"])
        part = tuple(
            slice(None) if index == ":" else int(index) for index in picked["part"].split(",")
        )
        try:
            return np.asarray(values[part])
        except IndexError:
            array = picked["key"] or container.path
            msg = (
                f"Cannot select {whole!r}: {array!r} has shape {values.shape}. Count "
                "indices from 0, and write ':' for a whole axis."
            )
            raise ValueError(msg) from None

    def named_frames(
        self, name: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> Frames:
        """Open a named stack of frames; as `frames`."""
        container, key = self.locate(name)
        return container.frames(key, recipe, n, grid)
