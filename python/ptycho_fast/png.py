"""PNG files with NumPy and zlib alone: pixels, colour maps, and a map in the colours of a scale."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ("grey", "perceptual", "cyclic")
"""Names of the colour maps."""

SPREAD = (0.5, 99.5)
"""Percentiles of the lit pixels between which colours change."""

LEVEL = 4
"""Of the compression. Higher ones take several times as long and save a few percent."""


@dataclass(frozen=True)
class Picture:
    """A picture and what its colours mean.

    Parameters
    ----------
    png : bytes
        The PNG file. Pixels without light are transparent.
    size : (int, int)
        Width and height in pixels.
    corner : (int, int)
        The pixel (x, y) of the image that is the top left pixel of the picture.
    colours : str
        One of `COLOURS`; "" if colours are no scale.
    low, high : float
        The values that the first and the last colour stand for.
    """

    png: bytes
    size: tuple[int, int]
    corner: tuple[int, int]
    colours: str = ""
    low: float = 0.0
    high: float = 0.0


def scaled(
    values: NDArray[np.floating],
    seen: NDArray[np.bool_],
    colours: str,
    limits: tuple[float, float],
    corner: tuple[int, int] = (0, 0),
) -> Picture:
    """Draw a map in colours of a scale.

    Parameters
    ----------
    values : ndarray, (H, W), float
        The map.
    seen : ndarray, (H, W), bool
        Pixels that are shown; the others are transparent.
    colours : str
        One of `COLOURS`.
    limits : (float, float)
        The values that the first and the last colour stand for.
    corner : (int, int)
        As of `Picture`.

    Returns
    -------
    Picture
    """
    low, high = limits
    part = np.full(values.shape, 0.5)
    if high > low:
        part = np.clip((np.where(seen, values, low) - low) / (high - low), 0, 1)
    number = np.where(seen, 1 + np.rint(254 * part), 0).astype(np.uint8)
    made = png(number, colour_table(colours))
    size = (seen.shape[1], seen.shape[0])
    return Picture(png=made, size=size, corner=corner, colours=colours, low=low, high=high)


def spread(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the percentiles 0.5 and 99.5 of some values, (0, 0) of none."""
    if values.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(values, SPREAD)
    return float(low), float(high)


def averaged(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Average squares of pixels, so that an image has at most so many pixels a side.

    Parameters
    ----------
    values : ndarray, (H, W), float or complex
    most : int

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.png import averaged
    >>> averaged(np.array([[1.0, 3.0, 5.0], [1.0, 3.0, 7.0]]), most=2)
    array([[2., 6.]])
    """
    step = -(-max(values.shape) // most)
    if step <= 1 or not values.size:
        return values
    for axis, length in enumerate(values.shape):
        first = np.arange(0, length, step)
        values = np.add.reduceat(values, first, axis=axis)
        count = np.minimum(step, length - first)
        values = values / (count if axis else count[:, np.newaxis])
    return values


@functools.cache
def colour_table(colours: str) -> NDArray[np.uint8]:
    """Return a colour map.

    The colours are computed in OKLab, whose lightness and hue are those that are seen: "perceptual"
    has lightness in equal steps, "cyclic" has one lightness and hues in equal steps.

    Parameters
    ----------
    colours : {"grey", "perceptual", "cyclic"}

    Returns
    -------
    ndarray, (255, 3), uint8
        Red, green and blue.

    References
    ----------
    B. Ottosson, "A perceptual color space for image processing" (2020),
    https://bottosson.github.io/posts/oklab.

    Examples
    --------
    >>> from ptycho_fast.png import colour_table
    >>> colour_table("grey")[[0, -1]]
    array([[  0,   0,   0],
           [255, 255, 255]], dtype=uint8)
    """
    part = np.arange(255) / 254
    if colours == "grey":
        return np.repeat(np.rint(255 * part).astype(np.uint8), 3).reshape(-1, 3)
    if colours == "perceptual":
        # From dark violet over blue and green to light yellow.
        return _srgb(0.22 + 0.72 * part, 0.08 + 0.06 * part**3, 295 - 190 * part)
    return _srgb(0.74 + 0 * part, 0.12 + 0 * part, 360 * np.arange(255) / 255)


def _srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return colours of OKLab, given with their hue in degrees, as bytes of sRGB."""
    angle = np.radians(hue)
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    linear = (
        np.array(
            [
                [4.0767416621, -3.3077115913, 0.2309699292],
                [-1.2684380046, 2.6097574011, -0.3413193965],
                [-0.0041960863, -0.7034186147, 1.7076147010],
            ]
        )
        @ cones**3
    )
    linear = np.clip(linear.T, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.rint(255 * curved).astype(np.uint8)
    return colours


def png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """Encode an image as a PNG file.

    Parameters
    ----------
    pixels : ndarray, (H, W), (H, W, 3) or (H, W, 4), uint8
        Grey values, or numbers of colours in the palette; red, green and blue; or these and alpha.
    palette : ndarray, (colours, 3), uint8, optional
        At most 255 colours. Number 0 is transparent, and number 1 the first of these.

    Returns
    -------
    bytes

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.png import png
    >>> png(np.zeros((2, 3), np.uint8))[1:4]
    b'PNG'
    """
    height, width = pixels.shape[:2]
    kind = (
        3 if palette is not None else {1: 0, 3: 2, 4: 6}[pixels.reshape(height, width, -1).shape[2]]
    )
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    # Each row as its difference to the row above, which compresses better. Filter 2 is that.
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if palette is not None:
        chunks += [(b"PLTE", bytes(3) + palette.tobytes()), (b"tRNS", bytes(1))]
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), LEVEL)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
