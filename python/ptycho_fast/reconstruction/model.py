"""What a model of the diffraction offers to the reconstruction, on a CPU or a GPU."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions
from ptycho_fast.reconstruction.arguments import as_background, as_exposure

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

FLOOR = 1e-6
"""Counts added to every modelled intensity, so that the loss is finite where nothing is modelled
but something was counted."""


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


class Model:
    """What the models of the diffraction on a CPU and on a GPU have in common."""

    positions: NDArray[np.float64]
    """(n, 2), x and y in pixels of the object array."""
    exposure: NDArray[np.float64]
    """(n,), the factor of the intensity of each pattern."""
    shape: tuple[int, int]
    """Rows and columns of the object."""
    N: int
    """Pixels per side of a pattern."""
    background: float
    """Counts per pixel that do not come from the beam."""

    def __init__(
        self,
        positions: ArrayLike,
        shape: tuple[int, int],
        N: int,
        *,
        exposure: ArrayLike | None,
        background: float,
    ) -> None:
        self.positions = as_valid_positions(positions)
        self.shape = (as_count("H", shape[0]), as_count("W", shape[1]))
        self.N = as_count("N", N)
        self.exposure = as_exposure(exposure, len(self.positions))
        self.background = as_background(background)

    def take(self, rows: slice | NDArray[np.integer[Any]]) -> Self:
        """Return the model of some of the patterns.

        Parameters
        ----------
        rows : slice or ndarray, (k,), int

        Returns
        -------
        Model
        """
        made = copy.copy(self)
        made.positions = np.ascontiguousarray(self.positions[rows])
        made.exposure = np.ascontiguousarray(self.exposure[rows])
        return made

    def moved(self, positions: NDArray[np.float64]) -> Self:
        """Return the same model at other positions.

        Parameters
        ----------
        positions : ndarray, (n, 2), float64

        Returns
        -------
        Model
        """
        made = copy.copy(self)
        made.positions = np.ascontiguousarray(positions, np.float64)
        return made
