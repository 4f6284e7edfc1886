"""An HDF5 file as a container: its data sets by their paths, with links followed."""

from __future__ import annotations

import contextlib
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.hdf5.frames import HDF5Frames, Turned, file_stamp, unreadable
from ptycho_fast.io.hdf5.links import (
    check_sources,
    external_files,
    follow,
    import_h5py,
    open_file,
)
from ptycho_fast.io.hdf5.unwritten import Holes, Parts
from ptycho_fast.io.layouts import Layout, stack_layout
from ptycho_fast.io.listing import MOST, listed
from ptycho_fast.io.unpacked import Unpacked
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

MOST_CHUNK = 2**29
"""Bytes. A chunk is decoded whole, so a chunk larger than this, and than its array, is refused."""

LARGE, MOST_RATIO = 2**30, 20
"""An array of more than `LARGE` bytes is refused if it is more than `MOST_RATIO` times what the
file stores of it."""


class HDF5Container(Container):
    """An HDF5 file. It is opened with the first array that is asked for."""

    @cached_property
    def _file(self) -> Any:
        return open_file(self.path)

    def close(self) -> None:
        """Close the file and those that were opened through it."""
        super().close()
        if "_file" in vars(self):
            self._file.close()
            del self._file

    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return path -> what is known of each data set, links followed, reading none.

        A data set with several names is listed under the first of them, in alphabetical order.
        """
        h5py = import_h5py()
        found: dict[str, ArrayInfo] = {}
        seen = set()
        # The classes of h5py take several times as long as what lies below them.
        rest = [_members(self._file.id, "")]
        while rest and (most is None or len(found) < most):
            name, item = next(rest[-1], ("", None))
            if item is None:
                rest.pop()
                continue
            info = h5py.h5o.get_info(item)
            if (place := (info.fileno, info.addr)) in seen:
                continue
            seen.add(place)
            if isinstance(item, h5py.h5g.GroupID):
                rest.append(_members(item, name))
            elif isinstance(item, h5py.h5d.DatasetID) and (known := _known(item)) is not None:
                found[name] = known
        return found

    def __contains__(self, key: str) -> bool:
        return follow(self._file, key) is not None

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of a data set."""
        item = self._dataset(key)
        return ArrayInfo(tuple(item.shape), item.dtype, item.chunks)

    def read(self, key: str) -> NDArray[Any]:
        """Read a data set, and warn if some of its elements were never written."""
        item = self._dataset(key)
        name = f"{self.path}: {key!r}"
        size = math.prod(item.shape) * item.dtype.itemsize
        raw = sum(most for _, _, most in external_files(item))
        held = max(item.id.get_storage_size(), raw)
        if size > LARGE and size > MOST_RATIO * held:
            msg = (
                f"{name} has shape {item.shape} of {item.dtype}, {size / 2**30:.3g} GiB, of which "
                f"the file holds {held} bytes. It was not read: is it the right one?"
            )
            raise ValueError(msg)
        _check_chunks(name, item)
        if missing := Parts(item).missing():
            warn(
                f"{name}: {missing} of {math.prod(item.shape)} numbers were never written; HDF5 "
                f"fills them in with {np.ravel(item.fillvalue)[0]}.",
            )
        try:
            return np.asarray(item[()])
        except (OSError, RuntimeError) as error:
            raise unreadable(self.path, repr(key), error) from error

    def frames(
        self,
        key: str,
        recipe: Recipe,
        n: int | None = None,
        grid: tuple[int, ...] = (),
    ) -> Frames:
        """Open a stack of frames, which stay in the file.

        Raises
        ------
        OSError
            If a file of which the data set is made is missing or cut short.

        Warns
        -----
        UserWarning
            If some frames, or some pixels of all frames, were never written.
        """
        item = self._dataset(key)
        name = f"{self.path}: {key!r}"
        if item.dtype.kind not in "fiu":
            msg = (
                f"{name} must be frames (n, rows, columns) of real numbers, got shape "
                f"{item.shape} of {item.dtype}."
            )
            raise ValueError(msg)
        layout = stack_layout(name, item.shape, recipe, n, grid)
        _check_chunks(name, item)
        parts = Parts(item)
        holes = parts.holes(layout.shape[0], frames_last=layout.frames_last)
        _warn_of_holes(name, holes, layout)
        # An external link may have led to another file than this one.
        home = item.file.filename
        offset = item.id.get_offset()
        plain = item.chunks is None and offset is not None
        if plain and not (item.is_virtual or item.external or layout.frames_last):
            return FileFrames(home, offset, layout.shape, item.dtype)
        found = HDF5Frames(
            home,
            item.name,
            layout,
            ArrayInfo(item.shape, item.dtype, item.chunks),
            versions={file: file_stamp(file) for file in parts.files},
            missing=None if holes is None else holes.frames,
        )
        return Unpacked(Turned(found)) if layout.frames_last else found

    def attribute(self, key: str, name: str, default: Any = None) -> Any:
        """Return an attribute of a data set or group (``"/"`` for the file), or the default."""
        item = follow(self._file, key) if key != "/" else self._file
        return default if item is None else item.attrs.get(name, default)

    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read data sets that hold one number each, leaving out those that cannot be read."""
        found = {}
        for key in keys:
            with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):
                found[key] = float(np.ravel(follow(self._file, key)[()])[0])
        return found

    def _dataset(self, key: str) -> Any:
        """Return the data set of this path."""
        h5py = import_h5py()
        try:
            item = follow(self._file, key)
        except (OSError, RuntimeError) as error:
            msg = f"{self.path}: {key!r} can't be opened ({error})."
            raise OSError(msg) from error
        if isinstance(item, h5py.Dataset):
            check_sources(item)
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            why = (
                "is a broken link: its target does not exist"
                if item is None and _is_link(self._file, key)
                else "is not a data set of the file"
            )
            has = listed(self.arrays(MOST + 1))
            msg = f"{self.path}: {key!r} {why}. Its data sets: {has}."
            raise KeyError(msg)
        try:
            item.dtype  # noqa: B018
        except TypeError as error:
            msg = f"{self.path}: {key!r} has a type that NumPy does not have ({error})."
            raise ValueError(msg) from error
        return item


def _members(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Return path and identifier of each member of a group, sorted by name, links followed."""
    h5py = import_h5py()
    names: list[tuple[bytes, int]] = []
    # In one pass: to ask for each name by its number takes quadratic time.
    group.links.iterate(lambda name, info: names.append((name, info.type)), info=True)
    for name, kind in sorted(names):
        text = name.decode(errors="surrogateescape")
        # What fails here is a link to a missing file, or to something that is not a file.
        with contextlib.suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
            if kind == h5py.h5l.TYPE_HARD:
                item = h5py.h5o.open(group, name)
            else:
                item = getattr(follow(h5py.Group(group), f"./{text}"), "id", None)
            if item is not None:
                yield f"{prefix}/{text}", item


def _known(item: Any) -> ArrayInfo | None:
    """Describe a data set; None if it is empty or its elements are of no type that NumPy has."""
    h5py = import_h5py()
    try:
        properties = item.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            check_sources(h5py.Dataset(item))  # before HDF5 opens a pipe or a device
        if item.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return None
        chunks = properties.get_chunk() if layout == h5py.h5d.CHUNKED else None
        return ArrayInfo(item.shape, item.dtype, chunks, _unit(item))
    except (OSError, RuntimeError, TypeError, ValueError):
        return None


def _unit(item: Any) -> str | None:
    h5py = import_h5py()
    for name in ("units", "unit"):
        if not h5py.h5a.exists(item, name.encode()):
            continue
        with contextlib.suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):
            value = np.ravel(h5py.Dataset(item).attrs[name])
            if len(value) == 1:
                first = value[0]
                text = first.decode(errors="replace") if isinstance(first, bytes) else first
                if isinstance(text, str):
                    return text
    return None


def _is_link(file: Any, key: str) -> bool:
    folder, _, name = key.rstrip("/").rpartition("/")
    group = follow(file, folder or "/")
    try:
        return bool(group.id.links.exists(name.encode()))
    except (AttributeError, KeyError, RuntimeError, ValueError):
        return False


def _check_chunks(name: str, item: Any) -> None:
    """Refuse chunks that are far larger than the array they hold."""
    if item.chunks is None:
        return
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    if chunk > MOST_CHUNK and chunk > math.prod(item.shape) * item.dtype.itemsize:
        msg = (
            f"{name} has shape {item.shape}, but chunks of {item.chunks}: to read anything of it "
            f"takes {chunk / 2**30:.3g} GiB. Write it again: h5repack -l CHUNK=..."
        )
        raise ValueError(msg)


def _warn_of_holes(name: str, holes: Holes | None, layout: Layout) -> None:
    """Warn of frames and pixels that were never written; refuse a stack without any."""
    if holes is None:
        return
    n, missing = layout.shape[0], holes.frames
    if len(missing) == n:
        msg = f"{name}: none of its {n} frames was ever written. Is it the right data set?"
        raise ValueError(msg)
    if len(missing):
        first = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        warn(
            f"{name}: {len(missing)} of {n} frames were never written, or not wholly: {first} "
            f"(counted from 0). HDF5 fills them in with {holes.fill:g}. drop_dark=True "
            "(--drop-dark) leaves out frames that are all zero; first=N uses only the first N.",
        )
    if holes.pixels:
        warn(
            f"{name}: {holes.pixels} of {layout.shape[1] * layout.shape[2]} pixels lie in no file "
            f"in any frame; HDF5 fills them in with {holes.fill:g}. Unless that value marks bad "
            "pixels, name a mask: mask=KEY.",
        )
