"""The canvas of a scan: the rectangle of object pixels that its patches cover.

Each scan position is the centre of a window of N x N pixels. Images, maps and pictures all ask this
module which pixels those windows reach, so the origin of the positions can be anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions
from ptycho_fast.memory import available
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SHARE = 1 / 4
"""Largest fraction of the free memory that one canvas may take. Reconstruction needs several arrays
of its size."""

PIXEL_BYTES = 8
"""Size of one pixel (complex64)."""

MOST_LIE = 0.95
"""The size of a scan is judged from this fraction of its positions, the innermost."""

STRAY = 10
"""A position this many times farther from the median than `MOST_LIE` of all others is reported."""


@dataclass(frozen=True)
class Canvas:
    """A rectangle on the pixel grid of the object.

    Parameters
    ----------
    origin : (int, int)
        The object pixel (x, y) that is pixel ``[0, 0]`` of the canvas.
    shape : (int, int)
        Rows and columns (H, W).
    """

    origin: tuple[int, int]
    shape: tuple[int, int]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """The outer edges (left, right, bottom, top) in object pixels, as matplotlib takes them.

        y points downwards, so ``bottom > top``; pixel centres have whole coordinates.
        """
        left, top = self.origin[0] - 0.5, self.origin[1] - 0.5
        return left, left + self.shape[1], top + self.shape[0], top

    def local(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions relative to pixel ``[0, 0]`` of the canvas.

        Parameters
        ----------
        positions : ndarray, (n, 2), float64
            x and y in object pixels.

        Returns
        -------
        ndarray, (n, 2), float64
        """
        # In float64: the origin may be so far from 0 that float32 would lose the fractions.
        return positions - np.array(self.origin, np.float64)


def canvas(positions: ArrayLike, N: int) -> Canvas:
    """Return the smallest canvas that contains every window of a scan.

    It runs from row ``floor(min y) - N//2`` to row ``floor(max y) - N//2 + N`` inclusive, and
    likewise in columns. That is one more row and column than the windows themselves, because a
    window at a fractional position is interpolated with the next pixel.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Scan positions x and y in object pixels. They may be negative or far from 0.
    N : int
        Pixels per side of a window (and of a diffraction pattern).

    Returns
    -------
    Canvas

    Raises
    ------
    ValueError
        If there are no positions, if some are not finite, or if an image (complex64) of the canvas
        would take more than a quarter of the free memory. The message names the position that lies
        farthest from the others.

    Warns
    -----
    UserWarning
        If a few positions lie far from all others, so that most of the canvas would be empty.

    Examples
    --------
    >>> from ptycho_fast.canvas import canvas
    >>> canvas([[-10.5, 3.0], [20.0, 4.5]], N=8)
    Canvas(origin=(-15, -1), shape=(10, 40))
    """
    positions = as_valid_positions(positions)
    whole = span(positions, N)
    away = np.abs(positions - np.median(positions, axis=0)).max(axis=1)
    farthest = int(away.argmax())
    x, y = positions[farthest]
    size = f"{whole.shape[0]:.12g} x {whole.shape[1]:.12g} pixels"
    where = f"position {farthest}, x = {x:.6g} and y = {y:.6g}"
    cure = (
        "If that is wrong, leave such positions out or correct them. Are all positions in pixels "
        "of the object?"
    )
    needed, free = math.prod(whole.shape) * PIXEL_BYTES, available()
    if needed > SHARE * free:
        msg = (
            f"An image of these {len(positions)} positions would have {size} ({needed / 1e9:.4g} "
            f"GB), but it may take at most a quarter of the {free / 1e9:.4g} GB of free memory. "
            f"The position farthest from the others is {where}, {away[farthest]:.6g} pixels from "
            f"the median position. {cure}"
        )
        raise ValueError(msg)
    typical = float(np.quantile(away, MOST_LIE, method="lower")) + N
    strays = np.count_nonzero(away > STRAY * typical)
    if strays:
        lie = "lies" if strays == 1 else "lie"
        warn(
            f"{strays} of {len(positions)} positions {lie} far from all others. The farthest is "
            f"{where}, {away[farthest]:.6g} pixels from the median position; {MOST_LIE:.0%} of all "
            f"positions are within {typical - N:.4g} pixels. The image has {size} because of this. "
            f"{cure}"
        )
    return whole


def span(positions: ArrayLike, N: int) -> Canvas:
    """Return the same rectangle as `canvas`, without looking at the memory it would take.

    Use it where no image of that size is made, as for a coarse map.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Scan positions x and y in object pixels.
    N : int
        Pixels per side of a window.

    Returns
    -------
    Canvas

    Raises
    ------
    ValueError
        If there are no positions, or some are not finite.
    """
    N = as_count("N", N)
    positions = as_valid_positions(positions)
    lowest, highest = np.floor(positions.min(axis=0)), np.floor(positions.max(axis=0))
    width, height = (int(size) + N + 1 for size in highest - lowest)
    return Canvas((int(lowest[0]) - N // 2, int(lowest[1]) - N // 2), (height, width))


def fast_length(length: int) -> int:
    """Return the next length that is a product of 2, 3 and 5: its Fourier transform is fast.

    Parameters
    ----------
    length : int

    Returns
    -------
    int

    Examples
    --------
    >>> from ptycho_fast.canvas import fast_length
    >>> fast_length(151)
    160
    """
    rest = length
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return length if rest == 1 else fast_length(length + 1)


def stack_canvases(
    positions: NDArray[np.float64], N: int
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Give each group of positions a small canvas, and stack these canvases in one image.

    The canvases all have the size that the widest and the tallest group need, and lie below each
    other. So one call lays down or cuts out the patches of a whole batch of groups.

    Parameters
    ----------
    positions : ndarray, (B, 2, C), float64
        x, then y, of the C positions of B groups, in object pixels.
    N : int
        Pixels per side of a window.

    Returns
    -------
    positions : ndarray, (B, 2, C), float64
        The same positions in pixels of the stacked image.
    shape : (int, int)
        Rows and columns of the stacked image.
    """
    first = np.floor(positions.min(axis=2, keepdims=True))
    height = math.ceil(float((positions - first)[:, 1].max())) + N + 1
    width = math.ceil(float((positions - first)[:, 0].max())) + N + 1
    local = positions - first + N // 2
    local[:, 1] += np.arange(len(positions))[:, np.newaxis] * height
    return local, (len(positions) * height, width)


def place(image: NDArray[Any], origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[Any]:
    """Copy an image onto a grid of another origin and shape with the same pixel size.

    Use it to bring a reconstruction onto the grid of a known object before comparing the two.

    Parameters
    ----------
    image : ndarray, (h, w)
        The image to copy.
    origin : (int, int)
        Column x and row y of the grid at which ``image[0, 0]`` lies; both may be negative.
    shape : (int, int)
        Rows and columns of the grid (H, W).

    Returns
    -------
    ndarray, (H, W), of the dtype of `image`
        0 where the image does not reach. The part of the image outside the grid is dropped.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.canvas import place
    >>> place(np.array([[1, 2, 3]]), (-1, 1), (2, 4))
    array([[0, 0, 0, 0],
           [2, 3, 0, 0]])
    """
    placed = np.zeros(shape, image.dtype)
    (rows, from_rows), (columns, from_columns) = (
        _shared(first, size, length)
        for first, size, length in zip(origin[::-1], image.shape, shape, strict=True)
    )
    placed[rows, columns] = image[from_rows, from_columns]
    return placed


def _shared(first: int, size: int, length: int) -> tuple[slice, slice]:
    """Return the slices of ``0..length`` and of ``0..size`` where the two overlap along an axis.

    The second axis begins at `first` on the first one.
    """
    begin, end = min(max(first, 0), length), max(min(first + size, length), 0)
    end = max(begin, end)
    return slice(begin, end), slice(begin - first, end - first) if end > begin else slice(0)


def overhang(
    positions: NDArray[np.float64],
    N: int,
    shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
) -> str:
    """Describe by how many pixels the windows of a scan reach beyond an object.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Scan positions x and y in pixels.
    N : int
        Pixels per side of a window.
    shape : (int, int)
        Rows and columns of the object (H, W).
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions.

    Returns
    -------
    str
        For example "12 pixels on the left and 3 pixels at the bottom"; empty if every window lies
        on the object.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.canvas import overhang
    >>> overhang(np.array([[3.0, 4.0]]), 8, (6, 20))
    '1 pixel on the left and 2 pixels at the bottom'
    """
    first = positions.min(axis=0) - N // 2 - np.array(origin, np.float64)
    last = positions.max(axis=0) - N // 2 + N - np.array(origin, np.float64)
    reach = (-first[0], last[0] - shape[1], -first[1], last[1] - shape[0])
    sides = ("on the left", "on the right", "at the top", "at the bottom")
    # Positions rounded to float32 may reach beyond the edge by a rounding error.
    beyond = [(math.ceil(by - 1e-3), side) for by, side in zip(reach, sides, strict=True)]
    told = [f"{by} pixel{'s' * (by > 1)} {side}" for by, side in beyond if by > 0]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
