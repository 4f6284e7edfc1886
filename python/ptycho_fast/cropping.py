"""Patterns become smaller: what becomes of patterns, bad pixels and the probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count
from ptycho_fast.frames import BLOCK_BYTES, Frames, Window
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.bad_pixels import BadPixels

LOST = 0.01
"""A warning is given if a smaller window leaves out more than this share of the probe."""


def middle(side: int, N: int) -> Window:
    """Return the N x N pixels in the middle of side x side; both have the same centre, side // 2.

    Examples
    --------
    >>> from ptycho_fast.cropping import middle
    >>> middle(8, 5).rows
    slice(2, 7, None)
    """
    N = as_count("N", N, most=side)
    first = side // 2 - N // 2
    kept = slice(first, first + N)
    return Window(kept, kept, 1)


def bins(side: int, M: int) -> Window:
    """Return all of side x side pixels in bins of M x M."""
    M = as_count("M", M, most=side)
    if side % M:
        msg = f"Patterns of {side} pixels can't be binned by {M}: crop({side // M * M}) first."
        raise ValueError(msg)
    return Window(slice(0, side), slice(0, side), M)


def smaller_bad(
    mask: NDArray[np.bool_] | None, bad: BadPixels | None, part: Window, side: int
) -> tuple[NDArray[np.bool_] | None, BadPixels | None]:
    """Return the mask and the bad pixels of smaller patterns.

    Parameters
    ----------
    mask, bad
        ``Scan.mask`` and ``Scan.bad_pixels``.
    part : Window
        What is kept.
    side : int
        Pixels per side of the whole patterns.
    """
    mask = None if mask is None else part.good(mask)
    if bad is None:
        return mask, None
    n, bad = len(bad), bad.within(side, *part)
    never = (np.bincount(bad.pixels, minlength=part.N**2) == n).reshape(part.N, part.N)
    if n and never.any():
        mask = ~never if mask is None else mask & ~never
    bad = bad if mask is None else bad.without(mask)
    return mask, bad if len(bad.pixels) else None


def smaller_patterns(
    patterns: Any, part: Window, mask: NDArray[np.bool_] | None, bad: BadPixels | None
) -> Any:
    """Return smaller patterns, which stay in their file if they are there.

    Parameters
    ----------
    patterns : ndarray or Frames, (n, side, side)
        Amplitudes.
    part : Window
        What is kept.
    mask, bad
        Those of the smaller patterns. Bad bins become 0.
    """
    if isinstance(patterns, Frames):
        return patterns.within(part)
    n, side, _ = patterns.shape
    smaller = np.empty((n, part.N, part.N), patterns.dtype if part.bin == 1 else np.float32)
    each = max(1, BLOCK_BYTES // (8 * side**2))
    for first in range(0, n, each):
        some = np.arange(first, min(first + each, n))
        block = part.amplitudes(patterns[first : first + each])
        if bad is not None and part.bin > 1:
            block[~bad.good(some, part.N)] = 0
        smaller[some] = block
    if mask is not None and part.bin > 1:
        smaller[:, ~mask] = 0
    return smaller


def smaller_probe(probe: NDArray[np.complexfloating], part: Window) -> NDArray[np.complexfloating]:
    """Return a probe on the grid of smaller patterns.

    Cropped patterns have larger pixels of the object, on which the probe is sampled anew; binned
    ones have a smaller window, of which the middle is kept. If zero frequency is not in the middle
    of its bin, a phase ramp of the probe says so. With unitary Fourier transforms, the patterns
    keep their scale.

    Parameters
    ----------
    probe : ndarray, (..., side, side), complex
    part : Window
        What is kept of the patterns.

    Warns
    -----
    UserWarning
        If more than 1 % of its power is lost.
    """
    side, N = probe.shape[-1], part.N
    if part.bin > 1:
        kept = middle(side, N)
        # The middle of the bin that has zero frequency, in pixels of the detector from it.
        off = part.bin * (N // 2) + (part.bin - 1) / 2 - side // 2
        ramp = np.exp(-2j * np.pi * off / side * (np.arange(N) - N // 2))
        smaller = probe[..., kept.rows, kept.columns] * ramp * ramp[:, np.newaxis]
        told = f"lies outside the {N} x {N} pixels that are left of the window"
    else:
        spectrum = _centred(np.fft.fft2, probe)[..., part.rows, part.columns]
        smaller = _centred(np.fft.ifft2, spectrum)
        told = "is diffracted beyond the part of the detector that is kept"
    before, after = (float(np.sum(np.abs(found) ** 2)) for found in (probe, smaller))
    if before - after > LOST * before:
        warn(f"{1 - after / before:.1%} of the probe's power {told}.")
    return np.ascontiguousarray(smaller, dtype=probe.dtype)


def _centred(transform: Any, image: NDArray[Any]) -> NDArray[Any]:
    """Transform images whose origin is in their middle."""
    axes = (-2, -1)
    moved = transform(np.fft.ifftshift(image, axes=axes), norm="ortho")
    return np.fft.fftshift(moved, axes=axes)
