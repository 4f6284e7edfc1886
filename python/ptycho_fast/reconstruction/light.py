"""The light of the probe on the object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIT = 0.1
"""Pixels with this fraction of the brightest light are lit."""


@dataclass(frozen=True, eq=False)
class Light:
    """The light on the object.

    Parameters
    ----------
    map : array, (H, W), float32
        Counts that an object of modulus 1 would have, from each of its pixels.
    pixels : int
        Number of pixels that are lit.
    typical : float
        Median of the light on them, in counts.
    overlap : float
        How many patterns light a pixel, averaged over the light. The probe counts as a disc of
        even light with its effective area, ``(sum I)**2 / sum(I**2)``.
    side : float
        The square root of that area.
    """

    map: Any
    pixels: int
    typical: float
    overlap: float
    side: float

    @classmethod
    def of(cls, model: Any, probe: Any) -> Light:
        """Measure the light of a probe at the positions of a model."""
        on_object = model.light(probe)
        light = model.to_numpy(on_object).astype(np.float64)
        one = intensity_of(model.to_numpy(probe))
        lit = light[light > LIT * light.max()]
        area = one.sum() ** 2 / (one**2).sum()
        overlap = (light**2).sum() / light.sum() * area / one.sum()
        return cls(on_object, len(lit), float(np.median(lit)), float(overlap), float(np.sqrt(area)))


def intensity_of(probe: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Return the intensity of a probe, summed over its modes.

    Parameters
    ----------
    probe : ndarray, (modes, N, N), complex64

    Returns
    -------
    ndarray, (N, N), float64
    """
    modes = probe.astype(np.complex128)
    intensity: NDArray[np.float64] = (modes.real**2 + modes.imag**2).sum(axis=0)
    return intensity
