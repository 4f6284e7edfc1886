"""Pictures of an object, a probe or an error map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.metrics.images import bounding_box
from ptycho_fast.png import Picture, averaged, colour_table, png, scaled, spread
from ptycho_fast.reconstruction.resolution import SHOWN, lit, phase_ramp, ramp_phasor

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRAPS = 1.6 * math.pi
"""A phase that spreads over more than this is shown from -pi to pi, in colours that wrap."""

ABREAST = 4
"""Modes of a probe that stand in one row."""

GAP = 2
"""Pixels between modes."""


def phase_picture(
    image: NDArray[np.complexfloating], coverage: NDArray[np.floating], most: int | None = None
) -> Picture:
    """Draw the phase of an object where there is at least a tenth of the typical light.

    Its mean and its linear ramp are removed: they are not determined, because the probe can absorb
    them. If what remains spreads over more than 1.6 pi, colours wrap from -pi to pi.

    Parameters
    ----------
    image : ndarray, (H, W), complex
        The object.
    coverage : ndarray, (H, W), float
        How much light fell on each pixel.
    most : int, optional
        Pixels that the picture may have a side: several of the image are averaged to one.

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
    if most is not None:
        product = averaged(product, most)
        seen = product != 0
    phase = np.angle(product * np.exp(-1j * np.angle(product.sum())))
    low, high = spread(phase[seen])
    if high - low > WRAPS:
        return scaled(phase, seen, "cyclic", (-math.pi, math.pi), _corner(box))
    return scaled(phase, seen, "perceptual", (low, high), _corner(box))


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
    return scaled(modulus, seen, "grey", spread(modulus[seen]), _corner(box))


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
    return scaled(values[box], seen, "perceptual", spread(values[box][seen]), _corner(box))


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


def _seen(
    image: NDArray[Any], coverage: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], tuple[slice, slice]]:
    """Return which pixels are shown, and the box that holds them; the mask is cropped to it."""
    seen = lit(coverage, SHOWN) & np.isfinite(image)
    if not seen.any():
        return seen, (slice(0, seen.shape[0]), slice(0, seen.shape[1]))
    box = bounding_box(seen)
    return seen[box], box


def _corner(box: tuple[slice, slice]) -> tuple[int, int]:
    """Return the pixel (x, y) at which a box begins."""
    return box[1].start, box[0].start
