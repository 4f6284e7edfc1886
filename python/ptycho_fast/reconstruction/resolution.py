"""How fine an image is, without a reference: the correlation of two images from half the counts.

The counts of a scan are split at random into two halves, and each half makes an image. Both show
the same object, but their noise is independent. So the rings of the Fourier plane in which they
agree hold structure, and those in which they do not hold noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.metrics.images import FEWEST, as_pair, bounding_box, check_values
from ptycho_fast.metrics.ring import windowed_correlation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

HALF_BIT = "half-bit"
"""The criterion of van Heel and Schatz (2005): a threshold that falls with the ring's pixels."""

FIXED = 0.143
"""The threshold of Rosenthal and Henderson (2003)."""

LIT = 1 / 4
"""A pixel is compared if it has this fraction of the typical light: there the noise is twice that
of a typical pixel."""

SHOWN = 1 / 10
"""A pixel is shown in pictures if it has this fraction of the typical light."""

RIM = 1 / 4
"""The window falls from 1 to 0 over this fraction of the side of the area (if it were a square)."""

RINGS = 3
"""The images agree up to the first of so many rings, one after another, in which they do not. One
ring by chance is no limit."""

STEPS = 20
"""Largest number of Newton's steps."""


@dataclass(frozen=True, eq=False)
class Resolution:
    """The Fourier ring correlation of two images from half the counts each.

    Parameters
    ----------
    frequencies : ndarray, (rings,), float64
        Spatial frequencies in cycles per pixel, from above 0 up to 0.5.
    correlation : ndarray, (rings,), float64
        -1..1. If the signal-to-noise ratio of one of the images in a ring is S, the expected
        correlation is S / (1 + S).
    half_bit : ndarray, (rings,), float64
        The threshold above which a ring of the image from all counts holds more than half a bit of
        information a pixel.
    pixel_size : float, optional
        Side of a pixel of the object in metres, if it is known.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.resolution import Resolution
    >>> found = Resolution(np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
    ...                    np.array([1.0, 0.9, 0.1, 0.0, 0.0]), np.full(5, 0.5), 20e-9)
    >>> found.pixels(), found.metres()
    (2.0, 4e-08)
    >>> found
    Resolution(half-bit: 2 pixels = 40 nm, 0.143: 1.7 pixels = 33.9 nm)
    """

    frequencies: NDArray[np.float64]
    correlation: NDArray[np.float64]
    half_bit: NDArray[np.float64]
    pixel_size: float | None = None

    def __repr__(self) -> str:
        told = (f"{name}: {self.text(name)}" for name in (HALF_BIT, FIXED))
        return f"Resolution({', '.join(told)})"

    def pixels(self, criterion: str | float = HALF_BIT) -> float:
        """Return the resolution: half a period, in pixels, of the finest structure that agrees.

        The two images agree up to the first of 3 rings in succession in which the correlation is
        below the threshold. Between two rings it is interpolated linearly.

        Parameters
        ----------
        criterion : {"half-bit"} or float
            "half-bit", or a fixed threshold such as 0.143. Both are meant for two images from half
            the counts each, and both tell the resolution of the image from all counts.

        Returns
        -------
        float
            1 (for an odd number of pixels a side, a little more) if all rings agree, and infinity
            if the first ones do not.

        Raises
        ------
        ValueError
            If the criterion is another word.
        """
        if isinstance(criterion, str):
            if criterion != HALF_BIT:
                msg = f"criterion must be {HALF_BIT!r} or a number such as {FIXED}, "
                msg += f"got {criterion!r}."
                raise ValueError(msg)
            above = self.correlation - self.half_bit
        else:
            above = self.correlation - criterion
        below = above < 0
        run = min(RINGS, len(below))
        starts = np.lib.stride_tricks.sliding_window_view(below, run).all(axis=1)
        # The last rings are too few for such a run; below the threshold, they end the agreement.
        trailing = len(below) - (len(below) if below.all() else int(np.argmin(below[::-1])))
        ring = int(starts.argmax()) if starts.any() else trailing
        if ring == len(below):
            return float(0.5 / self.frequencies[-1])
        if ring == 0:
            return float("inf")
        high, low = above[ring - 1], above[ring]
        step = self.frequencies[ring] - self.frequencies[ring - 1]
        return float(0.5 / (self.frequencies[ring - 1] + step * high / (high - low)))

    def metres(self, criterion: str | float = HALF_BIT) -> float | None:
        """Return the same as `pixels` in metres; None if the size of a pixel is not known.

        Parameters
        ----------
        criterion : {"half-bit"} or float
            As of `pixels`.
        """
        return None if self.pixel_size is None else self.pixels(criterion) * self.pixel_size

    def text(self, criterion: str | float = HALF_BIT) -> str:
        """Return the resolution as words with its units.

        Parameters
        ----------
        criterion : {"half-bit"} or float
            As of `pixels`.
        """
        pixels, metres = self.pixels(criterion), self.metres(criterion)
        if np.isinf(pixels):
            return "none, the halves do not agree"
        number = f"{pixels:.3g}"
        told = f"{number} pixel{'s' * (number != '1')}"
        return told if metres is None else f"{told} = {length_text(metres)}"


def ring_correlation(
    first: ArrayLike, second: ArrayLike, coverage: ArrayLike, *, pixel_size: float | None = None
) -> Resolution:
    """Compare two images that were made from half the counts each.

    Their phase and their phase ramp relative to each other are free: the probe can absorb them. So
    both are removed first. Then the images are multiplied by `coverage_window` and correlated in
    rings of the Fourier plane (`ptycho_fast.metrics.fourier_ring_correlation` defines that).

    Parameters
    ----------
    first, second : array_like, (H, W), complex
        The two images, on the same canvas.
    coverage : array_like, (H, W), real
        How much light fell on each pixel, in any unit.
    pixel_size : float, optional
        Side of a pixel in metres.

    Returns
    -------
    Resolution

    Raises
    ------
    ValueError
        If the shapes differ, if fewer than 64 pixels are lit, or if on these an image is not
        finite or is 0 everywhere.

    References
    ----------
    M. van Heel and M. Schatz, "Fourier shell correlation threshold criteria", Journal of
    Structural Biology 151, 250-262 (2005).

    P. B. Rosenthal and R. Henderson, "Optimal determination of particle orientation, absolute
    hand, and contrast loss in single-particle electron cryomicroscopy", Journal of Molecular
    Biology 333, 721-745 (2003).

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.resolution import ring_correlation
    >>> rng = np.random.default_rng(0)
    >>> def white():
    ...     return rng.normal(size=(128, 128)) + 1j * rng.normal(size=(128, 128))
    >>> image = white()
    >>> found = ring_correlation(image + white(), image + white(), np.ones((128, 128)))
    >>> bool(abs(found.correlation.mean() - 0.5) < 0.05)  # S = 1, and S / (1 + S) = 0.5
    True
    """
    images = as_pair(first, second)
    window = coverage_window(coverage)
    if window.shape != images[0].shape:
        msg = f"coverage must be {images[0].shape} like the images, got {window.shape}."
        raise ValueError(msg)
    check_values(*images, window > 0)
    box = bounding_box(window > 0)
    one, other, window = images[0][box], images[1][box], window[box]
    inside = window > 0
    product = np.zeros_like(one)
    product[inside] = window[inside] * one[inside] * other[inside].conj()
    ramp = ramp_phasor(one.shape, phase_ramp(product))
    other = other * ramp * np.exp(1j * np.angle((product * ramp.conj()).sum()))
    frequencies, correlation, pixels = windowed_correlation(one, other, window)
    # A window correlates neighbouring pixels of the Fourier plane. Sums of squares over the plane
    # vary as if there were only this fraction of the pixels, and sums over a ring a little less.
    fraction = (window**2).sum() ** 2 / (max(window.shape) ** 2 * (window**4).sum())
    return Resolution(frequencies / 2, correlation, half_bit(pixels * fraction), pixel_size)


def half_bit(pixels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the correlation above which a ring holds more than half a bit of information a pixel.

    Parameters
    ----------
    pixels : ndarray, (rings,), float
        Number of independent pixels of each ring.

    Returns
    -------
    ndarray, (rings,), float64

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.resolution import half_bit
    >>> half_bit(np.array([1.0, 100.0, 1e12])).round(4)
    array([1.    , 0.3067, 0.1716])
    """
    # Half a bit is log2(1 + S) for the whole, and each half has half the signal-to-noise ratio.
    signal = (np.sqrt(2) - 1) / 2
    noise = 1 / np.sqrt(np.maximum(pixels, 1))
    above = signal + 2 * np.sqrt(signal) * noise + noise
    threshold: NDArray[np.float64] = above / (signal + 2 * np.sqrt(signal) * noise + 1)
    return threshold


def lit(coverage: ArrayLike, share: float) -> NDArray[np.bool_]:
    """Return the pixels that have at least a fraction of the typical light.

    The typical light is the mean over all pixels, weighted by the light itself, so that a wide dark
    rim does not count.

    Parameters
    ----------
    coverage : array_like, (H, W), real
        How much light fell on each pixel, in any unit. What is not above 0 is dark.
    share : float
        The fraction.

    Returns
    -------
    ndarray, (H, W), bool

    Examples
    --------
    >>> from ptycho_fast.reconstruction.resolution import lit
    >>> lit([[0, 1, 10, 10]], 0.25)
    array([[False, False,  True,  True]])
    """
    light = np.asarray(coverage, np.float64)
    light = np.where(light > 0, light, 0)
    total = light.sum()
    if total == 0:
        return np.zeros(light.shape, np.bool_)
    bright: NDArray[np.bool_] = light >= share * (light * (light / total)).sum()
    return bright & (light > 0)


def coverage_window(coverage: ArrayLike) -> NDArray[np.float64]:
    """Return a smooth window, 1 in the middle of the area that the scan lit and 0 at its rim.

    Pixels with less than a quarter of the typical light are outside, since their noise is more than
    twice the typical one. The light itself would be no good window: its grain, from spot to spot,
    would carry the strong low frequencies of both images to higher ones, where they would pass for
    agreement. So the area is eroded by half the width of the rim, and then smoothed by a bell
    (a Hann window along each axis) of that half width. This stays within the area, however ragged
    that is, and leaks little: the transform of the bell falls with the third power of the
    frequency.

    Parameters
    ----------
    coverage : array_like, (H, W), real
        How much light fell on each pixel, in any unit.

    Returns
    -------
    ndarray, (H, W), float64
        0..1.

    Raises
    ------
    ValueError
        If fewer than 64 pixels are lit.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.resolution import coverage_window
    >>> coverage_window(np.ones((9, 9)))[4].round(2)
    array([0.25, 0.75, 1.  , 1.  , 1.  , 1.  , 1.  , 0.75, 0.25])
    """
    area = lit(coverage, LIT)
    count = int(np.count_nonzero(area))
    if count < FEWEST:
        msg = (
            f"Only {count} of {area.size} pixels have a quarter of the typical light or more, but "
            f"{FEWEST} are needed to compare two images."
        )
        raise ValueError(msg)
    half = max(1, round(np.sqrt(count) * RIM / 2))
    while True:
        inner = _eroded(area, half)
        # Little of a narrow area is left by a wide rim.
        if half == 1 or np.count_nonzero(inner) >= count / 4:
            break
        half //= 2
    if not inner.any():
        inner, half = area, 0
    bell = 0.5 + 0.5 * np.cos(np.pi * np.arange(-half, half + 1) / (half + 1))
    window = inner.astype(np.float64)
    for axis in (0, 1):
        window = _smoothed(window, bell / bell.sum(), axis)
    # The transforms leave rounding errors.
    window = np.minimum(window.round(12), 1)
    return np.where(area & (window > 0), window, 0)


def phase_ramp(product: NDArray[np.complexfloating]) -> tuple[float, float]:
    """Return the phase ramp (x, y) of an image, or of one image times the conjugate of another.

    It is the frequency, in radians a pixel, at which the transform of the image has its maximum:
    removing the ramp, ``product * exp(-1j * (ramp[0] * x + ramp[1] * y))``, makes the modulus of
    the sum the largest.

    Parameters
    ----------
    product : ndarray, (H, W), complex

    Returns
    -------
    (float, float)

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.resolution import phase_ramp
    >>> y, x = np.mgrid[:20, :30]
    >>> np.allclose(phase_ramp(np.exp(1j * (0.3 * x - 0.1 * y))), (0.3, -0.1))
    True
    """
    height, width = product.shape
    # Zero padding doubles the resolution: the start is right to a quarter of a cycle.
    spectrum = np.fft.fft2(product, (2 * height, 2 * width))
    power = spectrum.real**2 + spectrum.imag**2
    row, column = np.unravel_index(int(power.argmax()), power.shape)
    ramp = (
        2 * np.pi * np.array([np.fft.fftfreq(2 * width)[column], np.fft.fftfreq(2 * height)[row]])
    )
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2

    def moments(ramp: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Return the sums over the image, without the ramp, times y**i x**j."""
        along_x, along_y = np.exp(-1j * ramp[0] * x), np.exp(-1j * ramp[1] * y)
        moment: NDArray[np.complex128] = (
            np.stack([along_y, y * along_y, y**2 * along_y])
            @ product
            @ np.stack([along_x, x * along_x, x**2 * along_x], axis=1)
        )
        return moment

    sums = moments(ramp)
    for _ in range(STEPS):
        total, first = sums[0, 0], np.array([sums[0, 1], sums[1, 0]])
        second = np.array([[sums[0, 2], sums[1, 1]], [sums[1, 1], sums[2, 0]]])
        # Of |total|**2 / 2; each derivative brings a factor of -1j x or -1j y.
        gradient = (total.conj() * first).imag
        curvature = (np.outer(first.conj(), first) - total.conj() * second).real
        bends, axes = np.linalg.eigh(curvature)
        # Absolute curvatures make every step go uphill.
        bends = np.maximum(np.abs(bends), 1e-12 * max(float(np.abs(bends).max()), 1e-300))
        step = axes @ (axes.T @ gradient / bends)
        trial = moments(ramp + step)
        while abs(trial[0, 0]) < abs(total) and np.abs(step).max() > 1e-9:
            step = step / 2
            trial = moments(ramp + step)
        if abs(trial[0, 0]) <= abs(total):
            break
        ramp, sums = ramp + step, trial
        if np.abs(step).max() < 1e-9:
            break
    return float(ramp[0]), float(ramp[1])


def ramp_phasor(shape: tuple[int, ...], ramp: tuple[float, float]) -> NDArray[np.complex128]:
    """Return the image of modulus 1 that has a phase ramp, and phase 0 at pixel ``[0, 0]``.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns (H, W).
    ramp : (float, float)
        Along x and y, in radians a pixel.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    phasor: NDArray[np.complex128] = np.exp(1j * ramp[1] * y) * np.exp(1j * ramp[0] * x)
    return phasor


def length_text(metres: float) -> str:
    """Return a length with its unit.

    Examples
    --------
    >>> from ptycho_fast.reconstruction.resolution import length_text
    >>> length_text(2.36e-8), length_text(1.5e-6), length_text(3e-10)
    ('23.6 nm', '1.5 µm', '0.3 nm')
    """
    for factor, unit in ((1, "m"), (1e3, "mm"), (1e6, "µm")):
        if float(number := f"{metres * factor:.3g}") >= 1:
            return f"{number} {unit}"
    return f"{metres * 1e9:.3g} nm"


def _eroded(area: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return the pixels around which a square of ``2 * reach + 1`` pixels lies in an area."""
    side = 2 * reach + 1
    for axis in (0, 1):
        beyond = [(reach + 1, reach) if each == axis else (0, 0) for each in (0, 1)]
        count = np.cumsum(np.pad(area, beyond), axis=axis, dtype=np.int64)
        last, before = (
            np.take(count, np.arange(from_, from_ + area.shape[axis]), axis=axis)
            for from_ in (side, 0)
        )
        area = last - before == side
    return area


def _smoothed(
    image: NDArray[np.float64], kernel: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Return an image convolved with a kernel of odd length along an axis; it is 0 beyond."""
    length = image.shape[axis] + len(kernel) - 1
    shape = (-1, 1) if axis == 0 else (1, -1)
    spectrum = np.fft.rfft(image, length, axis=axis)
    spectrum = spectrum * np.fft.rfft(kernel, length).reshape(shape)
    convolved = np.fft.irfft(spectrum, length, axis=axis)
    first = len(kernel) // 2
    return np.take(convolved, np.arange(first, first + image.shape[axis]), axis=axis)
