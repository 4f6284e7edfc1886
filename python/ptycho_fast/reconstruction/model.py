"""What a model of the diffraction offers to the reconstruction, on a CPU or a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLOOR = 1e-6
"""Counts added to every modelled intensity, so that the loss is finite where nothing is modelled but
something was counted."""


@dataclass(frozen=True, eq=False)
class Gradient:
    """The loss of some patterns and its gradients; those that were not asked for are None.

    The gradient with respect to a complex number z is ``dL/dRe(z) + i dL/dIm(z)``.

    Parameters
    ----------
    loss : float
        Half the Poisson deviance: the sum of ``I - k + k ln(k / I)`` over the pixels that were
        measured, with counts k and modelled intensity I.
    object : array, (H, W), complex64, optional
    probe : array, (modes, N, N), complex64, optional
    positions : ndarray, (k, 2), float64, optional
        Per pixel along x and y, for each pattern.
    exposure : ndarray, (k,), float64, optional
        For each pattern.
    """

    loss: float
    object: Any = None
    probe: Any = None
    positions: NDArray[np.float64] | None = None
    exposure: NDArray[np.float64] | None = None
