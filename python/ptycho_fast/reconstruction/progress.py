"""How far a reconstruction is, for those who watch it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a reconstruction is.

    Parameters
    ----------
    iteration : int
        Number of the iteration, from 1.
    fraction : float
        About how much of the work is done, 0..1.
    deviance : float
        Poisson deviance of the counts, divided by what noise alone would give.
    remaining : float or None
        About how many seconds are left.
    coverage : ndarray, (H, W), float32
        The light on it.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions.
    place : callable
        Makes the image, which few of the iterations are asked for.
    """

    iteration: int
    fraction: float
    deviance: float
    remaining: float | None
    coverage: NDArray[np.float32]
    origin: tuple[int, int]
    place: Callable[[], NDArray[np.complex64]]

    @functools.cached_property
    def object(self) -> NDArray[np.complex64]:
        """The image so far, (H, W), complex64."""
        return self.place()
