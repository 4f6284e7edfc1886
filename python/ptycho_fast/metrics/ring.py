"""Fourier ring correlation: up to which spatial frequency two images agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.metrics.extras import ndimage
from ptycho_fast.metrics.images import as_mask, as_pair, bounding_box, check_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.metrics.images import Image


def fourier_ring_correlation(
    image: ArrayLike, reference: ArrayLike, mask: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the correlation of two complex images as a function of spatial frequency.

    It is ``Re sum(F conj(G)) / sqrt(sum |F|**2 * sum |G|**2)``, summed over rings of the Fourier
    plane. F and G are the Fourier transforms of the images, after their means were subtracted and
    both were multiplied by one window. The window is 1 deep inside the mask and falls to 0 at its
    rim along a cosine, over half of the mask's greatest depth. The correlation of a ring without
    power is 0.

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Aligned images, see `align`.
    mask : array_like, (H, W), bool
        The pixels to compare, at least 64.

    Returns
    -------
    frequencies : ndarray, (rings,), float64
        Spatial frequencies as fractions of Nyquist (half a cycle per pixel), from above 0 up to 1.
    correlation : ndarray, (rings,), float64
        -1..1.

    Raises
    ------
    ValueError
        If the shapes differ, or if within the mask an image is not finite or is 0 everywhere.
    ImportError
        If SciPy is not installed.

    References
    ----------
    W. O. Saxton and W. Baumeister, "The correlation averaging of a regularly arranged bacterial
    cell envelope protein", Journal of Microscopy 127, 127-138 (1982).

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.metrics import first_crossing, fourier_ring_correlation
    >>> rng = np.random.default_rng(0)
    >>> image = rng.normal(size=(64, 64)) + 1j * rng.normal(size=(64, 64))
    >>> frequencies, correlation = fourier_ring_correlation(image, image, np.ones((64, 64), bool))
    >>> first_crossing(frequencies, correlation)
    1.0
    """
    image, reference = as_pair(image, reference)
    mask = as_mask(mask, image.shape)
    check_values(image, reference, mask)
    # Padding makes the rim of the array a rim of the mask.
    depth = ndimage().distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    window = 0.5 - 0.5 * np.cos(np.pi * np.minimum(2 * depth / depth.max(), 1))
    frequencies, correlation, _ = windowed_correlation(image, reference, window)
    return frequencies, correlation


def windowed_correlation(
    image: Image, reference: Image, window: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the Fourier ring correlation of two images through a window. SciPy is not needed.

    Parameters
    ----------
    image, reference : ndarray, (H, W), complex128
        Aligned images. They may hold anything, NaN too, where the window is 0.
    window : ndarray, (H, W), float64
        At least 0; not 0 everywhere. What it does not reach is cropped.

    Returns
    -------
    frequencies, correlation : ndarray, (rings,), float64
        As `fourier_ring_correlation` returns them.
    pixels : ndarray, (rings,), int64
        Number of pixels of the Fourier plane in each ring.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.metrics.ring import windowed_correlation
    >>> image = np.random.default_rng(0).normal(size=(8, 8)) + 0j
    >>> frequencies, correlation, pixels = windowed_correlation(image, 2 * image, np.ones((8, 8)))
    >>> frequencies, np.allclose(correlation, 1), pixels
    (array([0.25, 0.5 , 0.75, 1.  ]), True, array([ 8, 12, 16, 22]))
    """
    inside = window > 0
    box = bounding_box(inside)
    inside, window, n = inside[box], window[box], max(inside[box].shape)

    def spectrum(values: Image) -> tuple[Image, float]:
        values = np.where(inside, values[box], 0)
        size = float(np.linalg.norm(values[inside]))
        values = values - np.vdot(window, values) / window.sum()
        return np.fft.fft2(window * values, (n, n)), size

    frequency = np.fft.fftfreq(n, 1 / n)
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(np.intp).ravel()

    def power(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: Any = np.bincount(ring, values.ravel())[1 : n // 2 + 1]
        return np.asarray(sums, np.float64)

    of_image, size = spectrum(image)
    of_reference, of_size = spectrum(reference)
    both = power(np.abs(of_image) ** 2) * power(np.abs(of_reference) ** 2)
    shared = power((of_image * of_reference.conj()).real)
    # A constant image leaves rounding errors, which are not structure.
    least = (1e-12 * of_size * size) ** 2
    correlation = np.where(both > least, shared / np.sqrt(np.where(both > least, both, 1)), 0)
    frequencies: NDArray[np.float64] = np.arange(1, n // 2 + 1) * (2 / n)
    return frequencies, correlation, np.bincount(ring)[1 : n // 2 + 1]


def first_crossing(
    frequencies: NDArray[np.float64], correlation: NDArray[np.float64], threshold: float = 0.5
) -> float:
    """Return the spatial frequency at which a correlation first falls below a threshold.

    Parameters
    ----------
    frequencies, correlation : ndarray, (rings,), float64
        As `fourier_ring_correlation` returns them.
    threshold : float
        0.5 by default.

    Returns
    -------
    float
        As a fraction of Nyquist, interpolated linearly between two rings. 0 if the first ring is
        below the threshold already, 1 if no ring is.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.metrics import first_crossing
    >>> first_crossing(np.array([0.2, 0.4, 0.6]), np.array([0.9, 0.75, 0.25]))
    0.5
    """
    below = np.flatnonzero(correlation < threshold)
    if len(below) == 0:
        return 1.0
    ring = int(below[0])
    if ring == 0:
        return 0.0
    high, low = correlation[ring - 1], correlation[ring]
    part = (high - threshold) / (high - low)
    return float(frequencies[ring - 1] + part * (frequencies[ring] - frequencies[ring - 1]))
