"""What the likelihood of patterns answers, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOOR = 1e-6
"""Counts added to every modelled intensity, so that the likelihood is finite where it is 0."""


@dataclass(frozen=True, eq=False)
class Gradient:
    """The loss, and its gradient by what was asked for.

    The gradient by a complex array z is ``dL/dRe(z) + i dL/dIm(z)``.

    Parameters
    ----------
    loss : float
        Half the Poisson deviance of the counts.
    object : array, (H, W), complex64, or None
    probe : array, (modes, N, N), complex64, or None
    positions : ndarray, (n, 2), float64, or None
        By x and y of each position.
    exposure : ndarray, (n,), float64, or None
        By the factor of the intensity of each pattern.
    """

    loss: float
    object: Any | None = None
    probe: Any | None = None
    positions: NDArray[np.float64] | None = None
    exposure: NDArray[np.float64] | None = None
