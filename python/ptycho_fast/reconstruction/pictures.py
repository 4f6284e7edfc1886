"""Pictures of an object, a probe or an error map as PNG files, with NumPy and zlib alone."""

from __future__ import annotations

import functools
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.metrics.images import bounding_box
from ptycho_fast.reconstruction.resolution import SHOWN, lit, phase_ramp, ramp_phasor

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURS = ("grey", "perceptual", "cyclic")
"""Names of the colour maps."""

SPREAD = (0.5, 99.5)
"""Percentiles of the lit pixels between which colours change."""

WRAPS = 1.6 * math.pi
"""A phase that spreads over more than this is shown from -pi to pi, in colours that wrap."""

LEVEL = 4
"""Of the compression. Higher ones take several times as long and save a few percent."""

ABREAST = 4
"""Modes of a probe that stand in one row."""

GAP = 2
"""Pixels between modes."""


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


def phase_picture(image: NDArray[np.complexfloating], coverage: NDArray[np.floating]) -> Picture:
    """Draw the phase of an object where there is at least a tenth of the typical light.

    Its mean and its linear ramp are removed: they are not determined, because the probe can absorb
    them. If what remains spreads over more than 1.6 pi, colours wrap from -pi to pi.

    Parameters
    ----------
    image : ndarray, (H, W), complex
        The object.
    coverage : ndarray, (H, W), float
        How much light fell on each pixel.

    Returns
    -------
    Picture

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.pictures import phase_picture
    >>> made = phase_picture(np.exp(0.3j * np.eye(32)), np.ones((32, 32)))
    >>> made.png[1:4], made.size, made.colours, round(made.high - made.low, 2)
    (b'PNG', (32, 32), 'perceptual', 0.3)
    """
    seen, box = _seen(image, coverage)
    weight = np.where(seen, coverage[box], 0)
    product = np.zeros(seen.shape, np.complex128)
    product[seen] = image[box][seen] * weight[seen]
    product = product * ramp_phasor(seen.shape, phase_ramp(product)).conj()
    phase = np.angle(product * np.exp(-1j * np.angle(product.sum())))
    low, high = spread(phase[seen])
    if high - low > WRAPS:
        return _scaled(phase, seen, box, "cyclic", (-math.pi, math.pi))
    return _scaled(phase, seen, box, "perceptual", (low, high))


def amplitude_picture(
    image: NDArray[np.complexfloating], coverage: NDArray[np.floating]
) -> Picture:
    """Draw the modulus of an object in grey where there is at least a tenth of the typical light.

    Parameters
    ----------
    image, coverage
        As of `phase_picture`.
    """
    seen, box = _seen(image, coverage)
    modulus = np.abs(np.where(seen, image[box], 0))
    return _scaled(modulus, seen, box, "grey", spread(modulus[seen]))


def map_picture(values: NDArray[np.floating], coverage: NDArray[np.floating]) -> Picture:
    """Draw a map, such as one of errors, where there is at least a tenth of the typical light.

    Parameters
    ----------
    values : ndarray, (H, W), float
        The map.
    coverage
        As of `phase_picture`.
    """
    seen, box = _seen(values, coverage)
    return _scaled(
        np.where(seen, values[box], 0), seen, box, "perceptual", spread(values[box][seen])
    )


def probe_picture(probe: NDArray[np.complexfloating]) -> Picture:
    """Draw the modes of a probe: their modulus as brightness, their phase as colour.

    Each mode is as bright as its maximum allows. There are up to 4 modes in a row.

    Parameters
    ----------
    probe : ndarray, (modes, N, N), complex

    Returns
    -------
    Picture

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.pictures import probe_picture
    >>> probe_picture(np.ones((3, 16, 16), complex)).size
    (52, 16)
    """
    modes, height, width = probe.shape
    columns = min(ABREAST, modes)
    rows = -(-modes // columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4)
    pixels = np.zeros(shape, np.uint8)
    table = colour_table("cyclic")
    for number, mode in enumerate(probe):
        top, left = (
            n * (s + GAP) for n, s in zip(divmod(number, columns), mode.shape, strict=True)
        )
        brightness = np.abs(mode) / max(float(np.abs(mode).max()), 1e-300)
        turn = np.angle(mode) / (2 * math.pi) + 0.5
        hue = table[np.rint(turn * len(table)).astype(np.intp) % len(table)]
        tile = pixels[top : top + height, left : left + width]
        tile[..., :3] = np.rint(hue * brightness[..., np.newaxis])
        tile[..., 3] = 255
    return Picture(png(pixels), (shape[1], shape[0]), (0, 0))


def spread(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the percentiles 0.5 and 99.5 of some values, (0, 0) of none."""
    if values.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(values, SPREAD)
    return float(low), float(high)


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
    >>> from ptycho_fast.reconstruction.pictures import colour_table
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
    >>> from ptycho_fast.reconstruction.pictures import png
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


def _seen(
    image: NDArray[Any], coverage: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """Return which pixels are shown, and the box that holds them; the mask is cropped to it."""
    seen = lit(coverage, SHOWN) & np.isfinite(image)
    if not seen.any():
        return seen, (slice(0, seen.shape[0]), slice(0, seen.shape[1]))
    box = bounding_box(seen)
    return seen[box], box


def _scaled(
    values: NDArray[np.floating],
    seen: NDArray[np.bool_],
    box: tuple[slice, slice],
    colours: str,
    limits: tuple[float, float],
) -> Picture:
    """Return the picture of a map."""
    low, high = limits
    part = np.full(values.shape, 0.5)
    if high > low:
        part = np.clip((values - low) / (high - low), 0, 1)
    number = np.where(seen, 1 + np.rint(254 * part), 0).astype(np.uint8)
    made = png(number, colour_table(colours))
    return Picture(
        png=made,
        size=(seen.shape[1], seen.shape[0]),
        corner=(box[1].start, box[0].start),
        colours=colours,
        low=low,
        high=high,
    )
