"""Files that are read while another program writes them: HDF5 and tables of text."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.io.foreign import HEAD_BYTES, is_text
from ptycho_fast.io.hdf5.container import HDF5Container
from ptycho_fast.io.hdf5.links import SIGNATURE, has_signature, import_h5py, open_file
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.regular import open_regular
from ptycho_fast.io.text import TextContainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.container import Container

WRITING, SWMR = 1, 4
"""Bits of the superblock's flags: open for writing; open for one writer and many readers."""

LATEST = 3
"""The version of the superblock from which on it has such flags (h5py: ``libver="latest"``)."""


def open_growing(path: str | os.PathLike[str]) -> Container:
    """Open a file that may be growing, whose kind is told from its content.

    Raises
    ------
    OSError
        If the file is missing, or can't be read yet.
    """
    with open_regular(path) as file:
        is_hdf5 = has_signature(file)
        file.seek(0)
        head = file.read(HEAD_BYTES)
    if is_hdf5:
        return GrowingHDF5(path, open_growing)
    # Without a line's end, a binary file may still be that short.
    if is_text(head + b"\n"):
        return GrowingText(path, open_growing)
    return open_container(path)


class GrowingText(TextContainer):
    """A table of text that grows. A line counts once it has ended."""

    def content(self) -> bytes:
        """Return all lines that have ended."""
        whole = super().content()
        return whole[: whole.rfind(b"\n") + 1]


class GrowingHDF5(HDF5Container):
    """An HDF5 file that grows. To see what is new, open it again.

    Raises
    ------
    BlockingIOError
        When something is read, if another program has it open for writing without SWMR.
    """

    @cached_property
    def _file(self) -> Any:
        flags = self._flags
        if flags & SWMR:
            h5py = import_h5py()
            try:
                # A lock would keep others from writing the file anew.
                return h5py.File(self.path, "r", libver="latest", swmr=True, locking=False)
            except (OSError, RuntimeError) as error:
                msg = f"{self.path} can't be opened yet ({error})."
                raise OSError(msg) from error
        if flags & WRITING:
            msg = (
                f"{self.path} is open for writing, but not in SWMR mode, so it can only be read "
                "once it is closed. (In h5py: libver='latest', then file.swmr_mode = True.)"
            )
            raise BlockingIOError(msg)
        # HDF5 checks these flags, too. A lock would keep the writer from opening the file again.
        lock = {"locking": False} if says_who_writes(self.path) else {}
        return open_file(self.path, **lock)

    @cached_property
    def _flags(self) -> int:
        return write_flags(self.path)

    @property
    def finished(self) -> bool:
        """Whether no program was writing the file when it was opened, as far as it says."""
        return not self._flags

    def growing(self, key: str) -> Any:
        """Return a data set (h5py)."""
        return self._dataset(key)

    def read(self, key: str) -> NDArray[Any]:
        """Read an array, of which parts may not be written yet."""
        return np.asarray(self.growing(key)[()])


def write_flags(path: str | os.PathLike[str]) -> int:
    """Return how an HDF5 file says that it is open for writing: `WRITING`, `SWMR`; 0 if it is not.

    Raises
    ------
    OSError
        If the file is missing or not (yet) an HDF5 file.
    """
    version, flags = _superblock(path)
    return flags if version >= LATEST else 0


def says_who_writes(path: str | os.PathLike[str]) -> bool:
    """Tell whether an HDF5 file is of a version that says whether it is open for writing."""
    return _superblock(path)[0] >= LATEST


def _superblock(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the version of an HDF5 file, and its flags."""
    with open_regular(path) as file:
        size, start = file.seek(0, os.SEEK_END), 0
        while start < size:
            file.seek(start)
            head = file.read(len(SIGNATURE) + 4)
            if head.startswith(SIGNATURE) and len(head) == len(SIGNATURE) + 4:
                return head[8], head[11]
            start = max(512, 2 * start)
    msg = f"{os.fspath(path)} is no HDF5 file yet."
    raise OSError(msg)


def said(name: str, error: Exception) -> str:
    """Return what an error says of what is not there yet, in a sentence.

    Parameters
    ----------
    name : str
        Of the source, which need not be told again.
    error : Exception
    """
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{os.fspath(error.filename)} is not there yet."
    what = error.args[0] if isinstance(error, KeyError) and error.args else error
    return str(what).removeprefix(f"{name}: ")
