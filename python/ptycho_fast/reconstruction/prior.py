"""What is known of an object before it is measured: it is smoother than noise."""

from __future__ import annotations

from typing import Any

import numpy as np


class SmoothPrior:
    """The penalty ``sum over frequencies w of |w|**3 |F2(O)(w)|**2``.

    F2 is the orthonormal Fourier transform over the canvas, and w is 2 pi times the frequency in
    cycles per pixel. Times a weight mu, the penalty is the negative logarithm of a Gaussian prior
    whose power spectrum falls as ``1 / (2 mu |w|**3)``.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the object (H, W).
    model : CpuModel or TorchModel
        Makes the arrays, and says which namespace they are of.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.prior import SmoothPrior
    >>> model = CpuModel([[4.0, 4.0]], (9, 9), 8)
    >>> penalty, gradient = SmoothPrior((9, 9), model)(np.ones((9, 9), np.complex64))
    >>> penalty, float(abs(gradient).max())
    (0.0, 0.0)
    """

    POWER = 3
    """A penalty of w**3 expects a power spectrum that falls as w**-3. That of photographs falls as
    w**-2 (Field, J. Opt. Soc. Am. A 4, 2379 (1987))."""

    def __init__(self, shape: tuple[int, int], model: Any) -> None:
        self._fft = model.xp.fft
        down, right = (np.fft.fftfreq(length) for length in shape)
        self.frequencies = 2 * np.pi * np.hypot(down[:, np.newaxis], right)
        """(H, W), float64, the spatial frequencies |w|."""
        self.weight = model.asarray(self.frequencies**self.POWER)
        """(H, W), float32: ``|w|**3`` at each frequency, in the order of the transform."""

    def __call__(self, object: Any) -> tuple[float, Any]:
        """Return the penalty of an object, and its gradient.

        Parameters
        ----------
        object : array, (H, W), complex64

        Returns
        -------
        penalty : float
        gradient : array, (H, W), complex64
            ``dR/dRe(O) + i dR/dIm(O)``.
        """
        wave = self._fft.fft2(object, norm="ortho")
        weighted = self.weight * wave
        penalty = float((weighted.real * wave.real + weighted.imag * wave.imag).sum())
        return penalty, 2 * self._fft.ifft2(weighted, norm="ortho")

    def smoothed(self, image: Any, strength: float) -> Any:
        """Divide the spectrum of an image by ``1 + strength * |w|**3``.

        Parameters
        ----------
        image : array, (H, W), complex64
        strength : float

        Returns
        -------
        array, (H, W), complex64
        """
        return self._fft.ifft2(self._fft.fft2(image) / (1 + strength * self.weight))
