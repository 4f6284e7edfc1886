"""Scores of a reconstructed image against a reference: what is left once they are aligned.

From diffraction, an object is known up to a shift, a complex factor and a linear phase ramp (which
the probe can take up). So these are removed first, and only then is anything compared, and only
where the scan saw the object. Needs SciPy and scikit-image: ``pip install "ptycho_fast[metrics]"``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Image = NDArray[np.complex128]
    Mask = NDArray[np.bool_]

NEAREST = 3
"""A pixel is scored if as many positions are near it."""

NEAR = 10 / 64
"""A position is near within this share of the side of a pattern."""

EROSION = 4
"""The rim of what the scan saw is not scored, this many pixels of it."""

FARTHEST = 6
"""An image lies at most as many pixels from its reference, in x and in y."""

FEWEST = 64
"""On fewer pixels than that nothing is scored."""

SAMPLES = 64
"""The search for shift and ramp looks at as many pixels by as many at most."""

SPLINE = 5
"""The order of the spline that moves an image by parts of a pixel. Cubic ones blur more."""

MARGIN = 16
"""Farther away than that, a spline of that order carries nothing (0.43**16 is 1e-6)."""

STEPS = 20
"""Gauss-Newton steps at most."""

STRAY = 2
"""They stay within as many pixels of the whole shift they start from."""

FLAT = 1e-6
"""What varies by less than this share of its size is constant up to rounding (float32)."""

RANDOM_PHASE = math.pi / math.sqrt(3)
"""The rms of a phase that may be anything; a pixel that is 0 counts as this far off."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """An image brought onto its reference; `align` makes it.

    Parameters
    ----------
    image : ndarray, (H, W), complex128
        ``factor * exp(1j * (ramp[0] * x + ramp[1] * y)) * original(x + shift[0], y + shift[1])``,
        x and y in pixels from the first; 0 where the original is 0 at the nearest pixel.
    shift : (float, float)
        How far the original lay from the reference, along x and y, in pixels.
    factor : complex
        What it was multiplied by.
    ramp : (float, float)
        The phase ramp that was added, along x and y, in rad per pixel.
    """

    image: Image
    shift: tuple[float, float]
    factor: complex
    ramp: tuple[float, float]


@dataclass(frozen=True)
class Scores:
    """How near an image is to a reference; `score` makes it.

    All are taken over the mask, of the aligned image.

    Parameters
    ----------
    phase_rmse : float
        Root mean square of ``angle(image * conj(reference))``, in rad. A pixel that is 0 has no
        phase and counts as pi / sqrt(3) off, like a random one.
    phase_correlation : float
        Pearson's correlation of the phasors ``image / |image|`` and ``reference / |reference|``
        (its real part), -1..1. A phase that wraps does not matter, and for small phases it is the
        correlation of the phases.
    amplitude_rmse : float
        Root mean square of ``|image| - |reference|``, in units of the reference.
    amplitude_correlation : float
        Pearson's correlation of the moduli, -1..1.
    complex_error : float
        ``norm(image - reference) / norm(reference)``.
    amplitude_ssim : float
        Structural similarity of the moduli.
    phase_ssim : float
        Structural similarity of the phases, both in -pi..pi about the mean phase of the reference.
    frc : float
        Where the Fourier ring correlation first falls below 0.5, as a fraction of Nyquist; 1 if it
        never does.
    shift : (float, float)
        How far the image lay from the reference, along x and y, in pixels.
    twin : Scores or None
        The same of the image's twin: conjugate and turned by 180 degrees. An image whose twin
        scores better is the wrong one of the two. None for the twin itself.
    """

    phase_rmse: float
    phase_correlation: float
    amplitude_rmse: float
    amplitude_correlation: float
    complex_error: float
    amplitude_ssim: float
    phase_ssim: float
    frc: float
    shift: tuple[float, float]
    twin: Scores | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in types that JSON has."""
        return asdict(self) | {
            "shift": list(self.shift),
            "twin": None if self.twin is None else self.twin.as_dict(),
        }


def score(image: ArrayLike, reference: ArrayLike, positions: ArrayLike, N: int) -> Scores:
    """Score an image against a reference where the scan saw the object, and its twin beside it.

    The mask is `scan_mask`'s, the alignment `align`'s. The twin is turned about the middle of the
    array and about the middle of the mask and keeps the better of the two, each within 6 pixels;
    otherwise it is treated like the image. A correlation or similarity with what has no structure
    (a constant amplitude, say) is 0.

    The structural similarity is that of Wang et al. (2004), Gaussian windows of sigma 1.5, its
    dynamic range that of the reference in the mask, averaged over the pixels whose window of 11 x
    11 lies in the mask (all of the mask if none does).

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Indexed ``[row=y, column=x]``, on the grid of the positions.
    positions : array_like, (n, 2), real
        All positions of the scan, x and y in pixels: to compare images of fewer positions, score
        them with the same.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If the shapes differ, the mask has fewer than 64 pixels, or in it a value is not finite or
        all of them are 0.
    ImportError
        If SciPy or scikit-image is not installed.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Transactions on Image Processing 13, 600-612 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.metrics import score
    >>> scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    >>> off = 2 * np.exp(0.1j * np.arange(scan.object.shape[1])) * scan.object
    >>> scores = score(off, scan.object, scan.positions, scan.N)
    >>> scores.phase_rmse < 1e-5, scores.frc, scores.twin.phase_rmse > 0.1
    (True, 1.0, True)
    """
    image, reference = _as_images(image, reference)
    mask = scan_mask(image.shape, positions, N)
    if np.count_nonzero(mask) < FEWEST:
        msg = (
            f"Of {image.shape[0]} x {image.shape[1]} pixels only {np.count_nonzero(mask)} have "
            f"{NEAREST} of the {len(np.asarray(positions))} positions within {NEAR * N:g} px and "
            f"are {EROSION} px from the rim, and {FEWEST} are needed. Are the positions in pixels "
            "of this image? Else give those of the whole scan, or a mask of your own to align."
        )
        raise ValueError(msg)
    _check_values(image, reference, mask)
    own = _scores(_align(image, reference, mask, [(0, 0)]), reference, mask)
    # Turned about the middle of the array, what was at r is at (size - 1) - r.
    rows, columns = _box(mask)
    about = (
        image.shape[1] - columns.start - columns.stop,
        image.shape[0] - rows.start - rows.stop,
    )
    turned = np.ascontiguousarray(image[::-1, ::-1].conj())
    twin = _scores(_align(turned, reference, mask, [(0, 0), about]), reference, mask)
    return Scores(**{**vars(own), "twin": twin})


def scan_mask(shape: tuple[int, int], positions: ArrayLike, N: int) -> Mask:
    """Return the pixels of an object that a scan saw well enough to be judged by.

    Those with at least 3 positions within ``10 * N / 64`` pixels; holes are filled, and 4 pixels of
    the rim taken away (4 steps to one of the four neighbours; beyond the array, nothing was seen).

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the object.
    positions : array_like, (n, 2), real
        Positions x and y, in pixels.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    ndarray, (H, W), bool
        There may be none in a small or sparse scan.

    Raises
    ------
    ValueError
        If positions are not finite, or N < 1.
    ImportError
        If SciPy is not installed.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.metrics import scan_mask
    >>> scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    >>> mask = scan_mask(scan.object.shape, scan.positions, scan.N)
    >>> bool(mask.any()), bool(mask.all())
    (True, False)
    """
    ndimage = _ndimage()
    height, width = (as_count("an axis of shape", length) for length in shape)
    radius = NEAR * as_count("N", N)
    positions = as_valid_positions(positions)
    count = np.zeros((height, width), np.int64)
    reach = math.ceil(radius)
    around = np.arange(-reach, reach + 1)
    block = max(1, 2**21 // len(around) ** 2)
    # Positions beyond the array by more than the radius are near no pixel, and may be too far
    # away for an integer.
    limits = np.array([width, height]) + radius
    positions = positions[((positions >= -radius) & (positions <= limits)).all(axis=1)]
    for first in range(0, len(positions), block):
        x, y = positions[first : first + block].T
        columns = np.rint(x).astype(np.intp)[:, None] + around
        rows = np.rint(y).astype(np.intp)[:, None] + around
        dx, dy = columns - x[:, None], rows - y[:, None]
        near = dx[:, None, :] ** 2 + dy[:, :, None] ** 2 <= radius**2
        near &= ((columns >= 0) & (columns < width))[:, None, :]
        near &= ((rows >= 0) & (rows < height))[:, :, None]
        pixels = rows[:, :, None] * width + columns[:, None, :]
        count += np.bincount(pixels[near], minlength=count.size).reshape(count.shape)
    seen = ndimage.binary_fill_holes(count >= NEAREST)
    mask: Mask = ndimage.binary_erosion(seen, iterations=EROSION)
    return mask


def align(image: ArrayLike, reference: ArrayLike, mask: ArrayLike) -> Alignment:
    """Bring an image onto its reference: shift, complex factor and linear phase ramp.

    Of all whole shifts up to 6 pixels and all ramps of up to 16 cycles across the mask (the
    peak of the Fourier transform of ``image * conj(reference)``), those with the least residual
    ``norm(image - reference)`` are the start. The shift is then refined by Gauss-Newton steps in
    which the reference is what is differentiated: noise of the image does not pull it, as it would
    if the residual were minimised over images that moving by half a pixel smooths. Factor and ramp
    have the least residual at each step and at the end. What lies outside the mask counts only
    where the shift brings it in.

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Indexed ``[row=y, column=x]``.
    mask : array_like, (H, W), bool
        The pixels that count, at least 64.

    Returns
    -------
    Alignment

    Raises
    ------
    ValueError
        If the shapes differ, or in the mask a value is not finite or all of them are 0.
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
    image, reference = _as_images(image, reference)
    mask = _as_mask(mask, image.shape)
    _check_values(image, reference, mask)
    return _align(image, reference, mask, [(0, 0)])


def fourier_ring_correlation(
    image: ArrayLike, reference: ArrayLike, mask: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the correlation of two complex images, frequency by frequency.

    ``Re sum(F conj(G)) / sqrt(sum |F|**2 * sum |G|**2)`` over rings of the Fourier plane, F and G
    the transforms of the images less their means, both under one window: 1 inside the mask, down
    to 0 at its rim along a cosine over half the greatest depth. A ring without power is 0.

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Aligned images, see `align`.
    mask : array_like, (H, W), bool
        The pixels that count, at least 64.

    Returns
    -------
    frequencies : ndarray, (rings,), float64
        As fractions of Nyquist (half a cycle per pixel), 0 left out, to 1.
    correlation : ndarray, (rings,), float64
        -1..1.

    Raises
    ------
    ValueError
        If the shapes differ, or in the mask a value is not finite or all of them are 0.
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
    image, reference = _as_images(image, reference)
    mask = _as_mask(mask, image.shape)
    _check_values(image, reference, mask)
    # The rim of the array is a rim too.
    depth = _ndimage().distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    window = 0.5 - 0.5 * np.cos(np.pi * np.minimum(2 * depth / depth.max(), 1))
    box = _box(mask)
    window, n = window[box], max(mask[box].shape)

    def spectrum(values: Image) -> Image:
        values = np.where(mask[box], values[box], 0)
        values = values - np.vdot(window, values) / window.sum()
        return np.fft.fft2(window * values, (n, n))

    frequency = np.fft.fftfreq(n, 1 / n)
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(np.intp).ravel()

    def power(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: Any = np.bincount(ring, values.ravel())[1 : n // 2 + 1]
        return np.asarray(sums, np.float64)

    of_image, of_reference = spectrum(image), spectrum(reference)
    both = power(np.abs(of_image) ** 2) * power(np.abs(of_reference) ** 2)
    shared = power((of_image * of_reference.conj()).real)
    # Of a constant image, rounding is left. It is no structure.
    least = (1e-12 * np.linalg.norm(reference[mask]) * np.linalg.norm(image[mask])) ** 2
    correlation = np.where(both > least, shared / np.sqrt(np.where(both > least, both, 1)), 0)
    frequencies: NDArray[np.float64] = np.arange(1, n // 2 + 1) * (2 / n)
    return frequencies, correlation


def first_crossing(
    frequencies: NDArray[np.float64], correlation: NDArray[np.float64], threshold: float = 0.5
) -> float:
    """Return the frequency at which a correlation first falls below a threshold.

    Parameters
    ----------
    frequencies, correlation : ndarray, (rings,), float64
        As of `fourier_ring_correlation`.
    threshold : float
        0.5 by default.

    Returns
    -------
    float
        Interpolated between two rings; 0 if the first is below already, 1 if none is.

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


class _Start(NamedTuple):
    coherence: float
    """The share of the reference's energy that it explains, 0..1."""
    shift: NDArray[np.intp]
    ramp: NDArray[np.float64]


def _align(image: Image, reference: Image, mask: Mask, centers: list[tuple[int, int]]) -> Alignment:
    """Align within 6 pixels of one of some shifts, that which fits best."""
    ndimage = _ndimage()
    # Values beyond the mask may be anything. They must not spoil what a spline does inside.
    image = np.where(np.isfinite(image), image, 0)
    starts = [_search(image, reference, mask, center) for center in centers]
    chosen = int(np.argmax([start.coherence for start in starts]))
    _, whole, removed = starts[chosen]
    # A steep ramp is more than a spline can follow, so it goes before anything is moved.
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    image = image * _ramp(removed, x, y)
    lowest = np.maximum(np.subtract(centers[chosen], FARTHEST), whole - STRAY)
    highest = np.minimum(np.add(centers[chosen], FARTHEST), whole + STRAY)

    fit, box = _Fit(reference, mask), _box(mask)
    # What a step changes: the shift, the factor (its two parts) and the ramp.
    inner = ndimage.binary_erosion(mask)[mask]
    slopes = np.gradient(np.where(mask, reference, 0), axis=(1, 0))
    basis = np.stack(
        [slope[mask] * inner for slope in slopes]
        + [part * fit.wanted for part in (1, 1j, 1j * fit.x, 1j * fit.y)]
    )
    overlaps = (basis.conj() @ basis.T).real
    size = np.sqrt(np.diag(overlaps))
    size[size <= 1e-9 * size.max()] = np.inf  # without a slope, no step
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
    # Where nothing fits, steps lead astray: they have to be worth it.
    better = tried[-1][0] < tried[0][0] * (1 - FLAT)
    _, shift, factor, ramp = tried[-1] if better else tried[0]

    everywhere = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    moved = _moved(image, everywhere, shift)
    # What is missing (in a stitched image, where no patch lay) is not invented by the spline.
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


def _search(image: Image, reference: Image, mask: Mask, center: tuple[int, int]) -> _Start:
    """Find the whole shift within 6 pixels and the ramp that fit best, on some of the pixels."""
    box = _box(mask)
    height, width = mask[box].shape
    every = -(-max(height, width) // SAMPLES)
    seen = mask[box][::every, ::every]
    wanted = np.where(seen, reference[box][::every, ::every].conj(), 0)
    window = _displaced(image, box, center, FARTHEST)
    # Twice as fine as the samples' own frequencies: within a quarter of a cycle of the ramp.
    size = [1 << (2 * length - 1).bit_length() for length in seen.shape]
    away = range(-FARTHEST, FARTHEST + 1)
    # Of shifts that fit alike, the shortest.
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
    """Complex factor and phase ramp of least residual, from a ramp that is near."""

    def __init__(self, reference: Image, mask: Mask) -> None:
        self.wanted = reference[mask]
        rows, columns = np.nonzero(mask)
        self.middle = np.array([columns.mean(), rows.mean()])
        x, y = self.x, self.y = columns - self.middle[0], rows - self.middle[1]
        self.moments = np.stack([np.ones(len(x)), x, y, x * x, x * y, y * y])

    def __call__(
        self, values: Image, ramp: NDArray[np.float64]
    ) -> tuple[complex, NDArray[np.float64], Image]:
        """Return the factor, the ramp, and what is left of the reference.

        The residual is least where ``|sum(values * exp(1j * ramp * r) * conj(wanted))|`` is
        largest: Newton's steps to its maximum.
        """
        product = values * self.wanted.conj()
        sums = self._sums(product, ramp)
        for _ in range(STEPS):
            total, first, second = sums[0], sums[1:3], sums[[3, 4, 4, 5]].reshape(2, 2)
            gradient = -(total.conj() * first).imag
            curvature = (np.outer(first.conj(), first) - total.conj() * second).real
            # Uphill even where the surface is no hilltop.
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
    # The product of two rows is faster than the exponential of a plane, where x and y are open.
    added: Image = np.exp(1j * ramp[1] * y) * np.exp(1j * ramp[0] * x)
    return added


def _moved(image: Image, box: tuple[slice, slice], shift: NDArray[np.float64]) -> Image:
    """Return a box of ``image(x + shift[0], y + shift[1])``."""
    ndimage = _ndimage()
    whole = np.rint(shift).astype(np.intp)
    values = _displaced(image, box, whole, MARGIN)
    impulse = np.zeros(2 * SPLINE + 1)
    impulse[SPLINE] = 1
    for axis, part in enumerate((shift - whole)[::-1]):
        if part == 0:
            continue
        # One row of weights serves all pixels: faster than a shift of the image.
        weights = ndimage.shift(impulse, -part, order=SPLINE, mode="constant", prefilter=False)
        values = ndimage.spline_filter1d(values, SPLINE, axis, output=np.complex128)
        values = ndimage.convolve1d(values, weights, axis)
    return values[MARGIN:-MARGIN, MARGIN:-MARGIN]


def _displaced(image: Image, box: tuple[slice, slice], shift: ArrayLike, reach: int) -> Image:
    """Return a box wider by `reach` of a shifted image, whose rim goes on beyond the array."""
    along_x, along_y = np.asarray(shift)
    rows, columns = (
        np.clip(np.arange((side.start) - reach, side.stop + reach) + by, 0, length - 1)
        for side, by, length in zip(box, (along_y, along_x), image.shape, strict=True)
    )
    return image[np.ix_(rows, columns)]


def _box(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns that hold all of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _scores(alignment: Alignment, reference: Image, mask: Mask) -> Scores:
    image, wanted = alignment.image[mask], reference[mask]
    phasors, known = (_phasors(values) for values in (image, wanted))
    product = phasors * known.conj()
    phase = np.where(product == 0, RANDOM_PHASE, np.angle(product))
    mean_phase = np.exp(-1j * np.angle(known.sum()))
    phases = tuple(np.angle(full * mean_phase) for full in (alignment.image, reference))
    ring = fourier_ring_correlation(alignment.image, reference, mask)
    return Scores(
        phase_rmse=_rms(phase),
        phase_correlation=_pearson(phasors, known),
        amplitude_rmse=_rms(np.abs(image) - np.abs(wanted)),
        amplitude_correlation=_pearson(np.abs(image), np.abs(wanted)),
        complex_error=float(np.linalg.norm(image - wanted) / np.linalg.norm(wanted)),
        amplitude_ssim=_similarity(np.abs(alignment.image), np.abs(reference), mask),
        phase_ssim=_similarity(phases[0], phases[1], mask),
        frc=first_crossing(*ring),
        shift=alignment.shift,
    )


def _phasors(values: Image) -> Image:
    """Return values of modulus 1, and 0 where there is no phase."""
    modulus = np.where(values == 0, 1, np.abs(values))
    phasors: Image = values / modulus
    return phasors


def _rms(values: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _pearson(values: NDArray[Any], reference: NDArray[Any]) -> float:
    parts = []
    for of in (values, reference):
        rest = of - of.mean()
        parts.append((rest, float(np.linalg.norm(rest)), float(np.linalg.norm(of))))
    if any(varies <= FLAT * size for _, varies, size in parts):
        return 0.0
    (a, of_a, _), (b, of_b, _) = parts
    return float(np.vdot(a, b).real) / (of_a * of_b)


def _similarity(values: NDArray[np.float64], reference: NDArray[np.float64], mask: Mask) -> float:
    try:
        from skimage.metrics import structural_similarity  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_missing(error)) from error
    level, span = float(reference[mask].mean()), float(np.ptp(reference[mask]))
    if span <= FLAT * np.abs(reference[mask]).max():
        return 0.0
    # A window is 11 x 11: five more than the mask on each side, the same in both.
    box = _box(mask)
    inside = np.pad(mask[box], 5)
    ours, theirs = (
        np.pad(np.where(mask, v, level)[box], 5, constant_values=level) for v in (values, reference)
    )
    _, similar = structural_similarity(  # type: ignore[no-untyped-call, unused-ignore]
        theirs,
        ours,
        data_range=span,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    whole = _ndimage().binary_erosion(inside, np.ones((11, 11)))
    return float(similar[whole if whole.any() else inside].mean())


def _as_images(image: ArrayLike, reference: ArrayLike) -> tuple[Image, Image]:
    pair = []
    for name, values in (("image", image), ("reference", reference)):
        array = np.asarray(values)
        if array.ndim != 2 or array.dtype.kind not in "fiuc":
            msg = f"{name} must be (H, W) complex, got shape {array.shape} of {array.dtype}."
            raise ValueError(msg)
        pair.append(array.astype(np.complex128))
    if pair[0].shape != pair[1].shape:
        msg = (
            f"The image is {pair[0].shape} and the reference {pair[1].shape}. Bring both to one "
            "grid, that of the positions."
        )
        raise ValueError(msg)
    return pair[0], pair[1]


def _as_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Mask:
    array = np.asarray(mask)
    if array.shape != shape or array.dtype != np.bool_:
        msg = f"mask must be {shape} bool like the images, got {array.shape} of {array.dtype}."
        raise ValueError(msg)
    count = np.count_nonzero(array)
    if count < FEWEST:
        msg = f"The mask has {count} pixels, and {FEWEST} are needed to compare two images."
        raise ValueError(msg)
    return array


def _check_values(image: Image, reference: Image, mask: Mask) -> None:
    for name, values in (("image", image[mask]), ("reference", reference[mask])):
        bad = len(values) - np.count_nonzero(np.isfinite(values))
        if bad:
            msg = f"The {name} is not finite at {bad} of the {len(values)} pixels of the mask."
            raise ValueError(msg)
        if not values.any():
            msg = (
                f"The {name} is 0 at all {len(values)} pixels of the mask, so nothing can be "
                "compared. Do the mask's positions belong to it?"
            )
            raise ValueError(msg)


def _ndimage() -> Any:  # SciPy has no types
    try:
        from scipy import ndimage  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_missing(error)) from error
    return ndimage


def _missing(error: ImportError) -> str:
    return (
        f"Scores need SciPy and scikit-image ({error}). Install them with: "
        'pip install "ptycho_fast[metrics]"'
    )
