"""The canvas of an object: which pixels the windows of a scan reach, wherever their origin is."""

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
"""Of the free memory that one canvas may take: its weights and what moves it are as large."""

PIXEL_BYTES = 8
"""Complex64."""

MOST_LIE = 0.95
"""So many of the positions say how large a scan is."""

STRAY = 10
"""Times as far from the middle as most: such a position is named."""


@dataclass(frozen=True)
class Canvas:
    """A rectangle of the object's grid.

    Parameters
    ----------
    origin : (int, int)
        The object's pixel (x, y) at which it begins: what pixel [0, 0] of the canvas is there.
    shape : (int, int)
        Rows and columns (H, W).
    """

    origin: tuple[int, int]
    shape: tuple[int, int]

    def local(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions in pixels of the canvas.

        Parameters
        ----------
        positions : ndarray, (n, 2), float64
            x and y in pixels of the object.

        Returns
        -------
        ndarray, (n, 2), float64
        """
        return positions - np.array(self.origin, np.float64)


def canvas(positions: ArrayLike, N: int) -> Canvas:
    """Return the canvas that an image of a scan needs: no window leaves it, and no more.

    From row ``floor(min y) - N//2`` to row ``floor(max y) - N//2 + N``, columns alike, so that
    each window lies inside with the pixel to which it interpolates.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        x and y in pixels of the object; they may be negative, or far from 0.
    N : int
        Pixels per side of a window.

    Returns
    -------
    Canvas

    Raises
    ------
    ValueError
        If positions are not finite, there is none, or the canvas (complex64) would take more than
        a quarter of the free memory: the position farthest from the others is named.

    Warns
    -----
    UserWarning
        If a few positions lie far from all others, which makes the canvas large and empty.

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
        "If it is not right, leave such positions out, or repair them; are all in pixels of the "
        "object?"
    )
    needed, free = math.prod(whole.shape) * PIXEL_BYTES, available()
    if needed > SHARE * free:
        msg = (
            f"The canvas of these {len(positions)} positions would be {size} ({needed / 1e9:.4g} "
            f"GB), and it may take a quarter of the {free / 1e9:.4g} GB of memory that are free. "
            f"The farthest from the others is {where}, {away[farthest]:.6g} pixels from their "
            f"middle. {cure}"
        )
        raise ValueError(msg)
    typical = float(np.quantile(away, MOST_LIE, method="lower")) + N
    strays = np.count_nonzero(away > STRAY * typical)
    if strays:
        lie = "lies" if strays == 1 else "lie"
        warn(
            f"{strays} of {len(positions)} positions {lie} far from all others: {where}, is the "
            f"farthest, {away[farthest]:.6g} pixels from the middle, while {MOST_LIE:.0%} are "
            f"within {typical - N:.4g}. The canvas is {size} for that. {cure}"
        )
    return whole


def span(positions: ArrayLike, N: int) -> Canvas:
    """Return the same rectangle as `canvas`, whatever memory it would take.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        x and y in pixels.
    N : int
        Pixels per side of a window.

    Returns
    -------
    Canvas

    Raises
    ------
    ValueError
        If positions are not finite, or there is none.
    """
    N = as_count("N", N)
    positions = as_valid_positions(positions)
    lowest, highest = np.floor(positions.min(axis=0)), np.floor(positions.max(axis=0))
    width, height = (int(size) + N + 1 for size in highest - lowest)
    return Canvas((int(lowest[0]) - N // 2, int(lowest[1]) - N // 2), (height, width))


def place(image: NDArray[Any], origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[Any]:
    """Lay an image onto another grid of the same pixels, where it belongs.

    Parameters
    ----------
    image : ndarray, (h, w)
        What is laid down.
    origin : (int, int)
        Column x and row y of the grid on which ``image[0, 0]`` lies; they may be negative.
    shape : (int, int)
        Rows and columns of the grid (H, W).

    Returns
    -------
    ndarray, (H, W), of the dtype of `image`
        0 where the image does not reach; what of it lies outside is left out.

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
    """Return which of ``0..length-1`` an axis covers that begins at `first`, and by what of it."""
    begin, end = min(max(first, 0), length), max(min(first + size, length), 0)
    end = max(begin, end)
    return slice(begin, end), slice(begin - first, end - first) if end > begin else slice(0)


def overhang(
    positions: NDArray[np.float64],
    N: int,
    shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
) -> str:
    """Say by how much windows reach beyond an object.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        x and y in pixels.
    N : int
        Pixels per side of a window.
    shape : (int, int)
        Rows and columns of the object (H, W).
    origin : (int, int)
        The pixel (x, y) of object [0, 0], on the grid of the positions.

    Returns
    -------
    str
        Such as "12 pixels on the left and 3 pixels at the bottom"; empty if none does.

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
    # A position that was rounded to float32 may stand out by a trifle.
    beyond = [(math.ceil(by - 1e-3), side) for by, side in zip(reach, sides, strict=True)]
    told = [f"{by} pixel{'s' * (by > 1)} {side}" for by, side in beyond if by > 0]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
