"""Which frames of an HDF5 data set were never written; HDF5 fills them in without a warning."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.io.hdf5.links import (
    external_files,
    follow,
    import_h5py,
    open_file,
    virtual_sources,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 2**26
"""Longer axes are not counted; the file is refused."""

DEEPEST = 32
"""Virtual data sets nested deeper than this are taken to lead in a circle."""


class Holes(NamedTuple):
    """What HDF5 fills in of a stack."""

    frames: NDArray[np.int64]
    """Frames of which less was written than of others, ascending."""
    pixels: int
    """How many pixels were written in no frame."""
    fill: float
    """The value that is filled in."""


class Parts:
    """The chunks and files of which a data set is made. No element is read.

    Parameters
    ----------
    item : h5py.Dataset
        The data set.

    Attributes
    ----------
    files : set of str
        The files, including that of the data set itself.

    Raises
    ------
    OSError
        If a file of which the data set is made is missing, damaged, cut short, or lacks its part.
    """

    def __init__(self, item: Any) -> None:
        self.item = item
        self.files = {os.path.abspath(item.file.filename)}
        self._known: dict[tuple[str, str, tuple[int, ...]], NDArray[np.int64] | None] = {}
        self.total = self._written(item, (), 0)

    def missing(self) -> int:
        """Return how many elements were never written."""
        return 0 if self.total is None else math.prod(self.item.shape) - int(self.total)

    def holes(self, n: int, *, frames_last: bool) -> Holes | None:
        """Return what was never written of n frames; None if everything was written.

        Parameters
        ----------
        n : int
            How many frames there are.
        frames_last : bool
            Whether the last axis counts them, and not the first (or the first two).
        """
        if self.missing() == 0:
            return None
        shape = self.item.shape
        first = next(k for k in range(1, len(shape)) if math.prod(shape[:k]) == n or frames_last)
        lead = (len(shape) - 1,) if frames_last else tuple(range(first))
        written = self._written(self.item, lead, 0)
        if written is None:
            return None
        written = written.reshape(-1)
        fill = np.ravel(self.item.fillvalue)[0]
        most = written.max()
        return Holes(
            # If nothing at all was written, every frame is missing.
            np.flatnonzero(written < max(most, 1)),
            math.prod(shape) // n - int(most) if most else 0,
            float(fill),
        )

    def _written(self, item: Any, lead: tuple[int, ...], depth: int) -> NDArray[np.int64] | None:
        """Return how many elements were written for each index along some axes; None for all.

        Parameters
        ----------
        item : h5py.Dataset
            The data set, or one of which it is made.
        lead : tuple of int
            The axes.
        depth : int
            Through how many virtual data sets it was reached.
        """
        if 0 in item.shape:
            return None
        if math.prod(item.shape[axis] for axis in lead) > MOST:
            msg = (
                f"{item.file.filename}: {item.name!r} has shape {item.shape}, which is too long "
                "to be read."
            )
            raise OSError(msg)
        if item.is_virtual:
            return self._mapped(item, lead, depth)
        if item.external:
            self._check_external(item)
            return None
        shape = item.shape
        if item.chunks is None:
            h5d = import_h5py().h5d
            contiguous = item.id.get_create_plist().get_layout() == h5d.CONTIGUOUS
            if not contiguous or item.id.get_offset() is not None:
                return None
            return np.zeros([shape[axis] for axis in lead], np.int64)
        each = [-(-side // chunk) for side, chunk in zip(shape, item.chunks, strict=True)]
        if item.id.get_num_chunks() == math.prod(each):
            return None
        written = np.zeros([shape[axis] for axis in lead], np.int64)
        for offset in _chunks(item):
            sides = [
                min(chunk, side - start)
                for start, chunk, side in zip(offset, item.chunks, shape, strict=True)
            ]
            if min(sides) > 0:
                place = tuple(slice(offset[axis], offset[axis] + sides[axis]) for axis in lead)
                written[place] += math.prod(sides) // math.prod(sides[axis] for axis in lead)
        return written

    def _check_external(self, item: Any) -> None:
        """Refuse raw files that are missing or too short: HDF5 would read zeros."""
        name = f"{item.file.filename}: {item.name!r}"
        needed = math.prod(item.shape) * item.dtype.itemsize
        for path, first, most in external_files(item):
            if not path.exists():
                msg = (
                    f"{name} is made of {path}, which is missing. Copy it too. (HDF5 looks for it "
                    "from the current folder; where HDF5_EXTFILE_PREFIX='${ORIGIN}' is set, in "
                    "that of the HDF5 file.)"
                )
                raise OSError(msg)
            part = min(needed, most)
            size = path.stat().st_size
            if size < first + part:
                msg = (
                    f"{path} is cut short: {name} needs {part} bytes from byte {first}, but the "
                    f"file ends at {size}. Copy it again."
                )
                raise OSError(msg)
            self.files.add(os.path.abspath(path))
            needed -= part

    def _mapped(self, item: Any, lead: tuple[int, ...], depth: int) -> NDArray[np.int64] | None:
        """Return the same as `_written`, for a virtual data set."""
        name = f"{item.file.filename}: {item.name!r}"
        if depth > DEEPEST:
            msg = (
                f"{name} is a virtual data set of virtual data sets, nested more than {DEEPEST} "
                "deep: do they form a circle?"
            )
            raise OSError(msg)
        shape = item.shape
        written = np.zeros([shape[axis] for axis in lead], np.int64)
        maps = item.virtual_sources()
        for (called, path), mapping in zip(virtual_sources(item), maps, strict=True):
            if path is None:
                msg = f"{name} is made of {called}, which is missing. Copy it too."
                raise OSError(msg)
            for chosen in _selected(mapping.vspace, shape):
                place = np.ix_(*(chosen[axis] for axis in lead)) if lead else ()
                frames = math.prod(len(chosen[axis]) for axis in lead)
                each = math.prod(map(len, chosen)) // max(1, frames)
                if "%b" in called or "%b" in mapping.dset_name:
                    written[place] += each
                    continue
                whole = (name, called, path, mapping)
                sides = [len(axis) for axis in chosen]
                amount = self._of_source(item, whole, sides, lead, depth)
                written[place] += amount
        return None if (written == math.prod(shape) // max(1, written.size)).all() else written

    def _of_source(
        self,
        item: Any,
        whole: tuple[str, str, Path, Any],
        sides: list[int],
        leading: tuple[int, ...],
        depth: int,
    ) -> NDArray[np.int64] | int:
        """Return how many elements of a mapping were written, for each index along some axes.

        Parameters
        ----------
        item : h5py.Dataset
            The virtual data set.
        whole : tuple
            Its name, the name and the place of the file of the source, and the mapping.
        sides : list of int
            The extent of the mapping along each axis.
        leading, depth
            As `lead` and `depth` of `_written`.
        """
        name, called, path, mapping = whole
        file = item.file if path == Path(item.file.filename) else open_file(path)
        source = follow(file, mapping.dset_name)
        if not isinstance(source, import_h5py().Dataset):
            msg = f"{name} is made of {mapping.dset_name!r} of {called}, "
            raise OSError(msg + "which has no such data set.")
        self.files.add(os.path.abspath(source.file.filename))
        counts = [sides[axis] for axis in leading]
        each = math.prod(sides) // max(1, math.prod(counts))
        frames = math.prod(counts)
        picked = list(_selected(mapping.src_space, source.shape))
        if len(picked) != 1:
            return each
        axes = picked[0]
        if math.prod(map(len, axes)) < math.prod(sides) and len(axes) == len(sides):
            # All of a source that is smaller now than it should be.
            axes = [np.arange(side) for side in sides]
        # Which axes of the source count these frames: its first ones or, failing that, its last.
        first = [
            k for k in range(len(axes) + 1) if math.prod(len(axis) for axis in axes[:k]) == frames
        ]
        if first:
            lead = tuple(range(first[0]))
        elif len(axes[-1]) == frames:
            lead = (len(axes) - 1,)
        else:
            lead = ()
        key = os.path.abspath(source.file.filename), source.name, lead
        if key not in self._known:
            self._known[key] = self._written(source, lead, depth + 1)
        known = self._known[key]
        inside = [axis[axis < side] for axis, side in zip(axes, source.shape, strict=True)]
        cut = any(len(a) < len(b) for a, b in zip(inside, axes, strict=True))
        if known is None and not cut:
            return each
        full = math.prod(side for axis, side in enumerate(source.shape) if axis not in lead)
        left = math.prod(len(inside[axis]) for axis in range(len(axes)) if axis not in lead)
        amount = np.zeros([len(axes[axis]) for axis in lead], np.int64)
        there = tuple(slice(len(inside[axis])) for axis in lead)
        if known is None:
            amount[there] = left
        else:
            some = known[np.ix_(*(inside[axis] for axis in lead))] if lead else known
            # A frame of which the source lacks something is taken to lack as much here.
            amount[there] = np.where(some == full, left, np.minimum(left, some))
        if math.prod(amount.shape) != frames:
            return min(each, int(amount.sum()) // max(1, frames))
        return amount.reshape(counts)


def _chunks(item: Any) -> list[tuple[int, ...]]:
    """Return where each chunk that was written begins."""
    if hasattr(item.id, "chunk_iter"):
        found: list[tuple[int, ...]] = []
        item.id.chunk_iter(lambda chunk: found.append(chunk.chunk_offset))
        return found
    count = item.id.get_num_chunks()
    return [item.id.get_chunk_info(number).chunk_offset for number in range(count)]


def _selected(space: Any, shape: tuple[int, ...]) -> list[list[NDArray[np.int64]]]:
    """Return the blocks of a selection, each as its indices along every axis."""
    h5s = import_h5py().h5s
    kind = space.get_select_type()
    if kind == h5s.SEL_NONE:
        return []
    if kind == h5s.SEL_ALL:
        return [[_indices(range(side), 1) for side in shape]]
    if kind == h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
        axes = []
        for first, step, count, block, side in zip(
            *space.get_regular_hyperslab(), shape, strict=True
        ):
            # Of unlimited extent: to the present end of the data set.
            open_ended = h5s.UNLIMITED in (count, block) or count >= 2**63 or block >= 2**63
            if open_ended:
                steps, width = (range(first, side, step), 1) if block == 1 else ([first], side)
            else:
                steps, width = range(first, first + step * count, step), block
            rows = _indices(steps, width)
            axes.append(rows[rows < side] if open_ended else rows)
        return [axes]
    if kind == h5s.SEL_HYPERSLABS:
        blocks = space.get_select_hyper_blocklist()
        return [
            [_indices([low], high + 1 - low) for low, high in zip(start, end, strict=True)]
            for start, end in blocks
        ]
    points = space.get_select_elem_pointlist()
    return [[np.array([place]) for place in point] for point in points]


def _indices(starts: range | list[int], width: int) -> NDArray[np.int64]:
    """Return `width` consecutive indices from each start."""
    if len(starts) * width > MOST:
        msg = f"A virtual data set is made of {len(starts)} x {width} rows, too many to be read."
        raise OSError(msg)
    steps = np.asarray(starts, np.int64)
    return (steps[:, np.newaxis] + np.arange(width)).reshape(-1)
