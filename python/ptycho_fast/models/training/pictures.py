"""Pictures of the reconstruction during training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.plot import draw_image, write_png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.models.reconstruction import Reconstruction

PICTURED = 2048
"""A picture is made from at most this many groups, so that it takes less time than an epoch."""


class Pictures:
    """Images the scan with the current weights, draws the image, and measures its quality.

    Parameters
    ----------
    make : callable
        Images the scan.
    folder : Path, optional
        The folder for the pictures. Without one they are made, but not drawn.
    """

    def __init__(self, make: Callable[[], Reconstruction], folder: Path | None) -> None:
        self._make = make
        self._folder = folder
        self._previous: NDArray[np.complex64] | None = None

    def draw(self, epochs: int) -> float:
        """Draw ``epoch_NNNN.png``.

        Parameters
        ----------
        epochs : int
            Number of epochs done.

        Returns
        -------
        float
            The correlation of the image's modulus with that of ``scan.object``. If the scan has no
            object, the correlation with the image of the previous picture; NaN for the first.
        """
        made = self._make()
        assert made.object is not None
        assert made.coverage is not None
        if self._folder is not None:
            figure = draw_image(
                made.object, made.coverage, title=f"epoch {epochs}", origin=made.origin
            )
            write_png(figure, self._folder / f"epoch_{epochs:04d}.png")
        found = made.metrics.get("amplitude_correlation")
        if found is None:
            before = self._previous
            found = math.nan if before is None else _correlation(made.object, before)
        self._previous = made.object
        return float(found)


def _correlation(image: NDArray[np.complex64], other: NDArray[np.complex64]) -> float:
    """Return the modulus of the complex correlation of two images."""
    norms = float(np.linalg.norm(image)) * float(np.linalg.norm(other))
    return float(np.abs(np.vdot(image, other))) / norms if norms else 0.0
