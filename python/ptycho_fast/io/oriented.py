"""Frames whose rows and columns are exchanged or reversed, and stacks that are parts of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class Oriented(Frames):
    """Frames that are transposed, and then mirrored.

    Parameters
    ----------
    source : Frames, (n, H, W)
        The frames as they are stored.
    transposed : bool
        Exchange rows and columns.
    rows_reversed, columns_reversed : bool
        Then reverse the order of the rows, or that of the columns.
    """

    def __init__(
        self,
        source: Frames,
        *,
        transposed: bool = False,
        rows_reversed: bool = False,
        columns_reversed: bool = False,
    ) -> None:
        n, height, width = source.shape
        self.source = source
        self.shape = (n, width, height) if transposed else source.shape
        self.dtype = source.dtype
        self._transposed = transposed
        self._steps = (-1 if rows_reversed else 1, -1 if columns_reversed else 1)

    def turned(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return images, (..., H, W), in the orientation of these frames, without a copy."""
        images = images.swapaxes(-1, -2) if self._transposed else images
        rows, columns = self._steps
        return images[..., ::rows, ::columns]

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with frame ``rows[i]``."""
        raw = np.empty((len(rows), *self.source.shape[1:]), self.dtype)
        self.source.read(rows, raw)
        out[...] = self.turned(raw)

    def files(self) -> set[str]:
        """Return those of the source."""
        return self.source.files()

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of the source."""
        return self.source.unwritten()

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all frames in the way that suits the source."""
        for rows, block in self.source.blocks():
            yield rows, np.ascontiguousarray(self.turned(block))

    def look(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Read some frames in the way that suits the source."""
        for rows, block in self.source.look():
            yield rows, np.ascontiguousarray(self.turned(block))


def turned_with(frames: Frames, images: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return images, such as a mask, as the frames are turned: they are stored as those are.

    Parameters
    ----------
    frames : Frames, (n, rows, columns)
    images : ndarray, (..., H, W), or None
        As stored.
    """
    return frames.turned(images) if images is not None and isinstance(frames, Oriented) else images


class Joined(Frames):
    """The frames of several stacks, one stack after another.

    Parameters
    ----------
    parts : sequence of Frames, (n_i, H, W)
        The stacks, whose frames have the same shape.

    Raises
    ------
    ValueError
        If they have not.
    """

    def __init__(self, parts: Sequence[Frames]) -> None:
        frames = {part.shape[1:] for part in parts}
        if len(frames) != 1:
            several = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(frames))
            msg = f"The parts of the scan have frames of different shapes: {several}."
            raise ValueError(msg)
        self.parts = tuple(parts)
        self.shape = (sum(map(len, parts)), *parts[0].shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self._ends = np.cumsum([len(part) for part in parts])

    def _firsts(self) -> Iterator[tuple[int, Frames]]:
        """Go through the stacks, with the number of the first frame of each."""
        yield from zip([0, *self._ends.tolist()], self.parts, strict=False)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        """Fill ``out[i]`` with frame ``rows[i]``."""
        rows = np.asarray(rows, np.int64)
        of = np.searchsorted(self._ends, rows, side="right")
        for number, (first, part) in enumerate(self._firsts()):
            places = np.flatnonzero(of == number)
            if not len(places):
                continue
            whole = len(places) == len(rows) and part.dtype == self.dtype
            target = out if whole else np.empty((len(places), *self.shape[1:]), part.dtype)
            part.read(rows[places] - first, target)
            if not whole:
                out[places] = target

    def unwritten(self) -> NDArray[np.int64]:
        """Return those of all stacks."""
        return np.concatenate([part.unwritten() + first for first, part in self._firsts()])

    def files(self) -> set[str]:
        """Return those of all stacks."""
        return set().union(*(part.files() for part in self.parts))

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Read all frames, stack by stack."""
        for first, part in self._firsts():
            for where, block in part.blocks():
                yield (
                    slice(where.start + first, where.stop + first),
                    block.astype(self.dtype, copy=False),
                )
