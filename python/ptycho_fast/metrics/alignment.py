"""Align an image with its reference: find the shift, the complex factor and the phase ramp."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.metrics.extras import ndimage
from ptycho_fast.metrics.images import FLAT, as_mask, as_pair, bounding_box, check_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.metrics.images import Image, Mask

FARTHEST = 6
"""Shifts up to this many pixels, in x and in y, are looked for."""

SAMPLES = 64
"""The search for whole shifts uses at most this many pixels along each axis."""

SPLINE = 5
"""Order of the spline that moves an image by a fraction of a pixel. Cubic splines blur more."""

MARGIN = 16
"""A spline of that order reaches no farther than this many pixels (0.43**16 is 1e-6)."""

STEPS = 20
"""Largest number of Gauss-Newton steps."""

STRAY = 2
"""The refined shift stays within this many pixels of the whole shift it starts from."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """An image aligned with its reference, as `align` returns it.

    Parameters
    ----------
    image : ndarray, (H, W), complex128
        ``factor * exp(1j * (ramp[0] * x + ramp[1] * y)) * original(x + shift[0], y + shift[1])``,
        with x and y counted in pixels from 0. Where the nearest pixel of the original is 0, the
        aligned image is 0 too.
    shift : (float, float)
        How far the original was displaced from the reference, along x and y, in pixels.
    factor : complex
        The complex factor that was applied.
    ramp : (float, float)
        The phase ramp that was added, along x and y, in radians per pixel.
    """

    image: Image
    shift: tuple[float, float]
    factor: complex
    ramp: tuple[float, float]


def align(image: ArrayLike, reference: ArrayLike, mask: ArrayLike) -> Alignment:
    """Align an image with its reference: find the shift, the complex factor and the phase ramp.

    First all whole shifts up to 6 pixels are tried, each with the best phase ramp of up to 16
    cycles across the mask (the peak of the Fourier transform of ``image * conj(reference)``). The
    pair with the smallest residual ``norm(image - reference)`` is the starting point. Then
    Gauss-Newton steps refine the shift to a fraction of a pixel. These steps use the gradient of
    the reference, not of the image, so that noise in the image does not bias the shift. (Minimising
    the residual directly would favour half-pixel shifts, because interpolation smooths the noise.)
    At every step, factor and ramp are those of least residual. Pixels outside the mask matter only
    where the shift brings them into it.

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Indexed ``[row=y, column=x]``.
    mask : array_like, (H, W), bool
        The pixels to compare, at least 64.

    Returns
    -------
    Alignment

    Raises
    ------
    ValueError
        If the shapes differ, or if within the mask an image is not finite or is 0 everywhere.
    ImportError
        If SciPy is not installed.

    References
    ----------
    S. Baker and I. Matthews, "Lucas-Kanade 20 years on: a unifying framework", International
    Journal of Computer Vision 56, 221-255 (2004): the inverse compositional steps.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.metrics import align, scan_mask
    >>> scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    >>> mask = scan_mask(scan.object.shape, scan.positions, scan.N)
    >>> off = 3j * np.roll(scan.object, 2, axis=1)  # towards larger x
    >>> alignment = align(off, scan.object, mask)
    >>> np.allclose(alignment.shift, (2, 0), atol=1e-3), round(abs(alignment.factor), 3)
    (True, 0.333)
    """
    image, reference = as_pair(image, reference)
    mask = as_mask(mask, image.shape)
    check_values(image, reference, mask)
    return align_near(image, reference, mask, [(0, 0)])


def align_near(
    image: Image, reference: Image, mask: Mask, centers: list[tuple[int, int]]
) -> Alignment:
    """Align within 6 pixels of one of several given shifts, whichever fits best.

    As `align`, for arguments that were checked already.
    """
    # Outside the mask an image may hold anything; a spline must not carry NaN into the mask.
    image = np.where(np.isfinite(image), image, 0)
    starts = [_search(image, reference, mask, center) for center in centers]
    chosen = int(np.argmax([start.coherence for start in starts]))
    _, whole, removed = starts[chosen]
    # A spline cannot follow a steep ramp, so the ramp is removed before the image is moved.
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    image = image * _ramp(removed, x, y)
    lowest = np.maximum(np.subtract(centers[chosen], FARTHEST), whole - STRAY)
    highest = np.minimum(np.add(centers[chosen], FARTHEST), whole + STRAY)

    fit, box = _Fit(reference, mask), bounding_box(mask)
    # A step may change the shift, the factor (real and imaginary part) and the ramp.
    inner = ndimage().binary_erosion(mask)[mask]
    slopes = np.gradient(np.where(mask, reference, 0), axis=(1, 0))
    basis = np.stack(
        [slope[mask] * inner for slope in slopes]
        + [part * fit.wanted for part in (1, 1j, 1j * fit.x, 1j * fit.y)]
    )
    overlaps = (basis.conj() @ basis.T).real
    size = np.sqrt(np.diag(overlaps))
    size[size <= 1e-9 * size.max()] = np.inf  # where there is no slope, there is no step
    inverse = np.linalg.pinv(overlaps / np.outer(size, size), rcond=1e-9, hermitian=True)

    shift, ramp = whole.astype(np.float64), np.zeros(2)
    tried = []
    for _ in range(STEPS):
        values = _moved(image, box, shift)[mask[box]]
        factor, ramp, residual = fit(values, ramp)
        tried.append((float(np.linalg.norm(residual)), shift, factor, ramp))
        step = (inverse @ ((basis.conj() @ residual).real / size) / size)[:2]
        following = np.clip(shift + step / max(1, 2 * np.abs(step).max()), lowest, highest)
        if np.abs(following - shift).max() < 1e-4:
            break
        shift = following
    # If nothing fits well, the steps wander off. They are kept only if they lower the residual.
    better = tried[-1][0] < tried[0][0] * (1 - FLAT)
    _, shift, factor, ramp = tried[-1] if better else tried[0]

    everywhere = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    moved = _moved(image, everywhere, shift)
    # Pixels that are missing (where a stitched image has no patch) stay missing.
    moved[_displaced(image, everywhere, np.rint(shift).astype(np.intp), 0) == 0] = 0
    factor *= np.exp(-1j * (ramp @ fit.middle))
    aligned = factor * _ramp(ramp, x, y) * moved
    ramp, factor = ramp + removed, factor * np.exp(1j * (removed @ shift))
    return Alignment(
        image=aligned,
        shift=(float(shift[0]), float(shift[1])),
        factor=complex(factor),
        ramp=(float(ramp[0]), float(ramp[1])),
    )


class _Start(NamedTuple):
    """Where the refinement begins."""

    coherence: float
    """The fraction of the reference's energy that it explains, 0..1."""
    shift: NDArray[np.intp]
    ramp: NDArray[np.float64]


def _search(image: Image, reference: Image, mask: Mask, center: tuple[int, int]) -> _Start:
    """Find the best whole shift within 6 pixels and its phase ramp, on a subset of the pixels."""
    box = bounding_box(mask)
    height, width = mask[box].shape
    every = -(-max(height, width) // SAMPLES)
    seen = mask[box][::every, ::every]
    wanted = np.where(seen, reference[box][::every, ::every].conj(), 0)
    window = _displaced(image, box, center, FARTHEST)
    # Zero padding doubles the frequency resolution: the ramp is right to a quarter of a cycle.
    size = [1 << (2 * length - 1).bit_length() for length in seen.shape]
    away = range(-FARTHEST, FARTHEST + 1)
    # Sorted by length, so that of shifts that fit equally well the shortest is taken.
    shifts = sorted(((x, y) for x in away for y in away), key=lambda shift: math.hypot(*shift))
    coherence, peaks = np.zeros(len(shifts)), []
    for row, (x, y) in enumerate(shifts):
        top, left = FARTHEST + y, FARTHEST + x
        values = window[top : top + height : every, left : left + width : every]
        spectrum = np.fft.fft2(values * wanted, size)
        power = spectrum.real**2 + spectrum.imag**2
        peaks.append(int(power.argmax()))
        energy = np.linalg.norm(values[seen]) * np.linalg.norm(wanted)
        coherence[row] = power.flat[peaks[-1]] / energy**2 if energy > 0 else 0
    best = int(np.argmax(coherence >= coherence.max() * (1 - 1e-9)))
    at_y, at_x = np.unravel_index(peaks[best], size)
    cycles = np.array([np.fft.fftfreq(size[1])[at_x], np.fft.fftfreq(size[0])[at_y]])
    return _Start(float(coherence[best]), np.add(center, shifts[best]), -2 * np.pi * cycles / every)


class _Fit:
    """Finds the complex factor and the phase ramp of least residual, from a ramp that is close."""

    def __init__(self, reference: Image, mask: Mask) -> None:
        self.wanted = reference[mask]
        rows, columns = np.nonzero(mask)
        self.middle = np.array([columns.mean(), rows.mean()])
        x, y = self.x, self.y = columns - self.middle[0], rows - self.middle[1]
        self.moments = np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y])

    def __call__(
        self, values: Image, ramp: NDArray[np.float64]
    ) -> tuple[complex, NDArray[np.float64], Image]:
        """Return the factor, the ramp, and the residual (reference minus image).

        The residual is smallest where ``|sum(values * exp(1j * ramp * r) * conj(wanted))|`` is
        largest. Newton's method finds that maximum.
        """
        product = values * self.wanted.conj()
        sums = self._sums(product, ramp)
        for _ in range(STEPS):
            total, first, second = sums[0], sums[1:3], sums[[3, 4, 4, 5]].reshape(2, 2)
            gradient = -(total.conj() * first).imag
            curvature = (np.outer(first.conj(), first) - total.conj() * second).real
            # Taking absolute curvatures makes every step go uphill, also away from the maximum.
            bends, axes = np.linalg.eigh(curvature)
            bends = np.maximum(np.abs(bends), 1e-12 * max(np.abs(bends).max(), 1e-300))
            step = axes @ (axes.T @ gradient / bends)
            trial = self._sums(product, ramp + step)
            while abs(trial[0]) < abs(total) and np.abs(step).max() > 1e-9:
                step = step / 2
                trial = self._sums(product, ramp + step)
            if abs(trial[0]) <= abs(total):
                break
            ramp, sums = ramp + step, trial
            if np.abs(step).max() < 1e-9:
                break
        energy = float(np.vdot(values, values).real)
        factor = complex(sums[0].conj() / energy) if energy > 0 else 0j
        residual = self.wanted - factor * _ramp(ramp, self.x, self.y) * values
        return factor, ramp, residual

    def _sums(self, product: Image, ramp: NDArray[np.float64]) -> Image:
        parts = (product * _ramp(ramp, self.x, self.y)).view(np.float64).reshape(-1, 2)
        sums: Image = (self.moments @ parts).view(np.complex128)[:, 0]
        return sums


def _ramp(ramp: NDArray[np.float64], x: NDArray[Any], y: NDArray[Any]) -> Image:
    # If x and y are open grids, multiplying two rows is faster than the exponential of a plane.
    added: Image = np.exp(1j * ramp[1] * y) * np.exp(1j * ramp[0] * x)
    return added


def _moved(image: Image, box: tuple[slice, slice], shift: NDArray[np.float64]) -> Image:
    """Return a box of the shifted image ``image(x + shift[0], y + shift[1])``."""
    filters = ndimage()
    whole = np.rint(shift).astype(np.intp)
    values = _displaced(image, box, whole, MARGIN)
    impulse = np.zeros(2 * SPLINE + 1)
    impulse[SPLINE] = 1
    for axis, part in enumerate((shift - whole)[::-1]):
        if part == 0:
            continue
        # All pixels move by the same fraction, so one set of spline weights serves them all. This
        # is faster than ndimage.shift of the whole image.
        weights = filters.shift(impulse, -part, order=SPLINE, mode="constant", prefilter=False)
        values = filters.spline_filter1d(values, SPLINE, axis, output=np.complex128)
        values = filters.convolve1d(values, weights, axis)
    return values[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _displaced(image: Image, box: tuple[slice, slice], shift: ArrayLike, reach: int) -> Image:
    """Return a box, wider by `reach`, of a shifted image; beyond the array its rim is repeated."""
    along_x, along_y = np.asarray(shift)
    rows, columns = (
        np.clip(np.arange((side.start) - reach, side.stop + reach) + by, 0, length - 1)
        for side, by, length in zip(box, (along_y, along_x), image.shape, strict=True)
    )
    return image[np.ix_(rows, columns)]
