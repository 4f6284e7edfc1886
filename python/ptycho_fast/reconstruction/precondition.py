"""An estimate of the inverse second derivative, which makes a minimisation converge faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ptycho_fast.reconstruction.light import Light
    from ptycho_fast.reconstruction.prior import SmoothPrior

DIMMEST = 0.2
"""Added to the light on the object, as a fraction of its maximum, where steps are divided by it.
Between 0.1 and 0.5 the number of steps is the same; less is slower (run1084)."""

SLOWEST = 20.0
"""Steps of slowly varying phases are lengthened by this factor at most."""


class ObjectPreconditioner:
    """An estimate of the inverse second derivative with respect to the object.

    The second derivative of half the Poisson deviance is about twice the light on each pixel, and
    that of the penalty is ``2 mu |w|**3`` at each spatial frequency w. Phases that vary slowly
    across the probe are a special case: a single pattern shows only how they vary, so the second
    derivative with respect to them is smaller by ``w**2 / (w**2 + w0**2)``, where a wave of w0 has
    two periods in the probe. This saves 40 % of the iterations (run1084 at 1e3 photons).

    Parameters
    ----------
    model : CpuModel or TorchModel
    prior : SmoothPrior
    mu : float
        Weight of the prior.
    light : Light
    object : array, (H, W), complex64
    """

    def __init__(
        self, model: Any, prior: SmoothPrior, mu: float, light: Light, object: Any
    ) -> None:
        self._fft = model.xp.fft
        self._root = (light.map + DIMMEST * float(light.map.max())) ** -0.5
        self._phase = object / (abs(object) + 1e-6 * float(abs(object).max()))
        w = prior.frequencies
        of_modulus = 1 / (1 + mu / light.typical * w**prior.POWER)
        w0 = 4 * np.pi / light.side
        of_phase = of_modulus * np.minimum(1 + (w0 / np.maximum(w, 1e-9)) ** 2, SLOWEST)
        # A filter of the real part (modulus) and one of the imaginary part (phase), as one of the
        # wave and one of its complex conjugate.
        self._same = model.asarray(0.25 * (of_modulus + of_phase))
        self._conjugate = model.asarray(0.25 * (of_modulus - of_phase))

    def __call__(self, gradient: Any) -> Any:
        """Multiply a gradient.

        Parameters
        ----------
        gradient : array, (H, W), complex64

        Returns
        -------
        array, (H, W), complex64
        """
        wave = self._fft.fft2(self._root * gradient * self._phase.conj())
        same = self._fft.ifft2(self._same * wave)
        conjugate = self._fft.ifft2(self._conjugate * wave)
        return self._root * self._phase * (same + conjugate.conj())
