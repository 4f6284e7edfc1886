"""The patterns in an NPZ file, in whichever layout they were stored."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import cache
from ptycho_fast.io.layouts import stack_layout
from ptycho_fast.io.npy import read_header
from ptycho_fast.io.npz.archive import Archive, Member
from ptycho_fast.io.regular import open_regular
from ptycho_fast.io.unpacked import Unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

COPY_BYTES = 2**20
"""Bytes that are unpacked at a time, which stay in the processor's cache."""

GATHERED_BYTES = 2**25
"""Patterns of (N, N, n) are gathered so many bytes at a time. More makes longer runs to read."""


class NPZStack:
    """A stack of patterns in an NPZ file; satisfies `ptycho_fast.io.unpacked.Packed`.

    Parameters
    ----------
    path : path
        The file.
    key : str
        Its array.
    member : Member
        What is known of the array.
    recipe, n, grid
        As of `ptycho_fast.io.layouts.stack_layout`.

    Raises
    ------
    ValueError
        If the array is no stack of real numbers, or its layout cannot be told.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        member: Member,
        recipe: Recipe,
        *,
        n: int | None,
        grid: tuple[int, ...] = (),
    ) -> None:
        self.path, self.key, self.member = path, key, member
        name = f"{os.fspath(path)}: {key!r}"
        if member.dtype.kind not in "fiub":
            msg = (
                f"{name} must be frames (n, rows, columns) of real numbers, "
                f"got {member.dtype} of shape {member.shape}."
            )
            raise ValueError(msg)
        layout = stack_layout(name, member.shape, recipe, n, grid)
        if member.fortran_order and len(member.shape) == 4 and 1 not in member.shape:
            msg = (
                f"{name} is a grid of frames in Fortran order. Write it again "
                "as numpy.ascontiguousarray makes it."
            )
            raise ValueError(msg)
        self.layout = layout
        self.shape = layout.shape
        self.dtype = member.dtype.newbyteorder("=")
        # Fortran order reverses the axes, so also the two of each pattern.
        self.frames_first = layout.frames_last == member.fortran_order
        self.transposed = member.fortran_order
        n, height, width = self.shape
        self.n, self.stored = n, (width, height) if self.transposed else (height, width)

    def open(self) -> Frames:
        """Return the patterns where they lie or, if none can be read on its own, to be unpacked."""
        if self.frames_first and not self.transposed and self.member.offset is not None:
            return FileFrames(self.path, self.member.offset, self.shape, self.member.dtype)
        return Unpacked(self)

    def unpack(self) -> FileFrames:
        """Return the patterns in the cache, where they lie one after another."""
        both = not self.frames_first and self.member.offset is None
        return cache.unpacked(
            self.path,
            # The same numbers, read in another layout, are other patterns.
            f"{self.key}[:,:,i]" if self.layout.frames_last else self.key,
            self.shape,
            self.dtype,
            self.blocks,
            checksum=self.member.checksum,
            scratch=math.prod(self.shape) * self.dtype.itemsize if both else 0,
        )

    def equals(self, patterns: NDArray[Any] | Frames) -> bool:
        """Compare with other patterns, a block at a time."""
        first = 0
        for block in self.blocks():
            if not np.array_equal(block, patterns[first : first + len(block)]):
                return False
            first += len(block)
        return True

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all patterns in order, some at a time, into one buffer."""
        with Archive(self.path) as archive, archive.open(self.key) as member:
            if not self.frames_first and self.member.offset is not None:
                with open_regular(self.path) as file:
                    yield from self._gathered(file, self.member.offset)
                return
            read_header(member)
            if self.frames_first:
                for block in self._consecutive(member):
                    yield block.transpose(0, 2, 1) if self.transposed else block
                # zipfile compares the checksum at the end of the member.
                member.read()
                return
            # A pattern is spread over all of the member, and there is no seeking in a compressed
            # one.
            with tempfile.TemporaryFile(dir=cache.make_folder()) as whole:
                shutil.copyfileobj(member, whole, COPY_BYTES)
                yield from self._gathered(whole, 0)

    def _consecutive(self, file: IO[bytes]) -> Iterator[NDArray[Any]]:
        each = self._each()
        buffer = np.empty((each, *self.stored), self.member.dtype)
        for first in range(0, self.n, each):
            block = buffer[: self.n - first]
            _fill(file, block)
            yield block

    def _gathered(self, file: IO[bytes], offset: int) -> Iterator[NDArray[Any]]:
        """Read patterns whose pixels are stored one after another, each for all patterns."""
        each, pixels, dtype = self._each(), math.prod(self.stored), self.member.dtype
        for first in range(0, self.n, each):
            gathered = np.empty((pixels, min(each, self.n - first)), dtype)
            for pixel, values in enumerate(gathered):
                file.seek(offset + (pixel * self.n + first) * dtype.itemsize)
                _fill(file, values)
            block = gathered.T.reshape(-1, *self.stored)
            yield block.transpose(0, 2, 1) if self.transposed else block

    def _each(self) -> int:
        return max(1, GATHERED_BYTES // max(1, math.prod(self.stored) * self.dtype.itemsize))


def _fill(file: IO[bytes], array: NDArray[Any]) -> None:
    """Fill a C-contiguous array from the current place in a file."""
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = file.readinto(rest[:COPY_BYTES])  # type: ignore[attr-defined]
        if not count:
            msg = "it ends too early"
            raise EOFError(msg)
        rest = rest[count:]
