"""What the deviance of counts is where noise alone is left."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

DIM = 1e-4
"""Below this intensity, two terms of the series are exact to 1e-9."""

BRIGHT = 30.0
"""Above this intensity, three terms of the asymptotic series are exact to 3e-5."""

POINTS = 1024
"""Number of intensities from `DIM` to `BRIGHT` that are tabulated. Linear interpolation by the
logarithm is exact to 3e-5."""

STEP = math.log(BRIGHT / DIM) / (POINTS - 1)
"""Between their logarithms."""

COUNTS = 100
"""No more counts than this matter in the table (at an intensity of 30, more have 1e-22)."""

BLOCK = 2**15
"""Number of intensities that are computed together; they stay in the cache of the processor."""


def expected_deviance(intensity: ArrayLike) -> NDArray[np.float64]:
    """Return half the Poisson deviance that is expected where a model is right.

    It is the mean of ``I - k + k ln(k / I)`` over counts k that follow a Poisson distribution of
    mean I. It is 1/2 for bright pixels, reaches 0.58 at 1.4 counts, and falls to 0 for dark ones.
    So the deviance of counts, divided by the sum of this over all pixels that were measured, is 1
    if noise alone is left, however few the counts are.

    Parameters
    ----------
    intensity : array_like, real
        Expected counts, at least 0, in an array of any shape.

    Returns
    -------
    ndarray, float64
        Of the same shape. The relative error is below 1e-4.

    Raises
    ------
    ValueError
        If an intensity is negative, infinite or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.deviance import expected_deviance
    >>> expected_deviance([0.0, 0.01, 1.0, 1e6]).round(4)
    array([0.    , 0.0461, 0.5734, 0.5   ])
    >>> mean, rng = np.full(100_000, 0.3), np.random.default_rng(0)
    >>> k = rng.poisson(mean)
    >>> deviance = np.sum(mean - k + k * np.log(np.maximum(k, 1) / mean))
    >>> round(float(deviance / np.sum(expected_deviance(mean))), 2)
    1.0
    """
    mean = as_real("intensity", intensity)
    wrong = ~(np.isfinite(mean) & (mean >= 0))
    if wrong.any():
        msg = (
            f"Intensities must be finite and at least 0: {np.count_nonzero(wrong)} of {mean.size} "
            f"are not; the first is {mean[wrong][0]:g}."
        )
        raise ValueError(msg)
    found, flat = np.empty(mean.size), mean.ravel()
    for first in range(0, mean.size, BLOCK):
        some = slice(first, first + BLOCK)
        found[some] = _expected(flat[some])
    return found.reshape(np.shape(intensity))


def _expected(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    table = _table()
    places = np.clip((logs - math.log(DIM)) / STEP, 0, POINTS - 1)
    lower = np.minimum(places.astype(np.intp), POINTS - 2)
    found = table[lower]
    found += (places - lower) * (table[lower + 1] - found)
    # Expand E[k ln k] - I ln I: in I, and in the central moments of the distribution over I.
    dim, bright = np.flatnonzero(mean < DIM), np.flatnonzero(mean > BRIGHT)
    low, high = mean[dim], 1 / mean[bright]
    found[dim] = low * (low * math.log(2) - logs[dim])
    found[bright] = 1 / 2 + high / 12 + high**2 / 12
    return found


@functools.cache
def _table() -> NDArray[np.float64]:
    """Return the deviance at intensities from `DIM` to `BRIGHT`, summed by its definition."""
    logs = math.log(DIM) + STEP * np.arange(POINTS)
    means = np.exp(logs)
    total, factorial = np.zeros(POINTS), 0.0
    for k in range(2, COUNTS):
        factorial += math.log(k)
        total += np.exp(k * logs - means - factorial) * (k * math.log(k))
    table: NDArray[np.float64] = total - means * logs
    return table
