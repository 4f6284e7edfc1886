r"""From object patches to diffraction, and what a difference from the measured costs.

The beam leaves the object as the exit wave :math:`\psi_m = P_m O`, one for each incoherent mode
*m* of the probe, and is measured far away as the intensity

.. math:: I = s \sum_m |\mathcal F \psi_m|^2

with the centred orthonormal Fourier transform. Sources: Rodenburg and Faulkner, Appl. Phys. Lett.
85, 4795 (2004); Thibault and Menzel, Nature 494, 68 (2013) for the modes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ptycho_fast.patches.torch import add_patches, extract_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOSSES = ("poisson", "amplitude")

SHARPENING = 2
"""Rounds of Landweber's iteration on a canvas, as `ptycho_fast.models.stitching` has for an image:
without, the patches would be learned sharper than they are, to be right when they are blurred."""

DARK = 0.1
"""Counts added to an intensity before its root or logarithm is taken, where both have no slope."""


def far_field(exit_wave: Tensor) -> Tensor:
    """Carry waves to the detector: the centred orthonormal Fourier transform.

    Parameters
    ----------
    exit_wave : tensor, (..., N, N), complex
        Its middle at pixel ``[N//2, N//2]``.

    Returns
    -------
    tensor, (..., N, N), complex
        Frequency 0 at pixel ``[N//2, N//2]``.
    """
    axes = (-2, -1)
    centred = torch.fft.ifftshift(exit_wave, dim=axes)
    shifted: Tensor = torch.fft.fftshift(torch.fft.fft2(centred, norm="ortho"), dim=axes)
    return shifted


def near_field(wave: Tensor) -> Tensor:
    """Carry waves back to the object: the inverse of `far_field`.

    Parameters
    ----------
    wave : tensor, (..., N, N), complex

    Returns
    -------
    tensor, (..., N, N), complex
    """
    axes = (-2, -1)
    centred = torch.fft.ifftshift(wave, dim=axes)
    shifted: Tensor = torch.fft.fftshift(torch.fft.ifft2(centred, norm="ortho"), dim=axes)
    return shifted


def diffract(patches: Tensor, probe: Tensor) -> Tensor:
    """Return the intensities that patches diffract.

    Parameters
    ----------
    patches : tensor, (B, C, N, N), complex64
    probe : tensor, (modes, N, N), complex64

    Returns
    -------
    tensor, (B, C, N, N), float32
        Counts, as the probe's energy has them.

    Examples
    --------
    >>> import torch
    >>> probe = torch.ones(1, 8, 8, dtype=torch.complex64)
    >>> diffract(torch.ones(1, 1, 8, 8, dtype=torch.complex64), probe)[0, 0, 4, 4]
    tensor(64.)
    """
    intensity = torch.zeros((), device=patches.device)
    for mode in probe:
        # Where a wave lies only turns the phases of its far field: one shift is spared.
        wave = torch.fft.fft2(patches * mode, norm="ortho")
        intensity = intensity + (wave.real.square() + wave.imag.square())
    shifted: Tensor = torch.fft.fftshift(intensity, dim=(-2, -1))
    return shifted


def diffraction_loss(
    intensity: Tensor,
    amplitude: Tensor,
    kind: str = "poisson",
    mask: Tensor | None = None,
    good: Tensor | None = None,
) -> Tensor:
    """Return the mean cost of a pixel.

    "poisson" is the negative log-likelihood of the counts, less its least value (the deviance), in
    the form that has variance 1 at any count: ``4 (sqrt(I + d) - sqrt(k + d))**2``, so that it
    is 1 where only noise is left (Anscombe, Biometrika 35, 246 (1948)). Its slope is finite where
    nothing was counted. "amplitude" is the mean absolute difference of the amplitudes.

    Parameters
    ----------
    intensity : tensor, (..., N, N), float32
        Of the model, counts.
    amplitude : tensor, (..., N, N), float32
        Measured: square root of counts.
    kind : {"poisson", "amplitude"}
    mask : tensor, (N, N), bool, optional
        False for pixels of the detector that do not count.
    good : tensor, (..., N, N), bool, optional
        False for pixels that do not count in single patterns.

    Returns
    -------
    tensor, ()
    """
    counted = good if mask is None or good is None else good & mask
    counted = mask if counted is None else counted
    if counted is not None:
        # A pixel of no number would leave none in the slope, though its cost is left out.
        amplitude = torch.where(counted, amplitude, 0)
    modelled = (intensity + DARK).sqrt()
    difference = modelled - (amplitude.square() + DARK).sqrt()
    cost = 4 * difference.square() if kind == "poisson" else difference.abs()
    if good is not None:
        assert counted is not None
        cost = torch.where(counted, cost, 0)
        return cost.sum() / counted.expand_as(cost).sum().clamp(min=1)
    return cost.mean() if mask is None else cost[..., mask].mean()


def scale_probe(
    probe: NDArray[Any], mean_energy: float, mask: NDArray[np.bool_] | None
) -> NDArray[np.complex64]:
    """Give a probe the energy that an object of modulus 1 needs to make the patterns.

    Parameters
    ----------
    probe : ndarray, (N, N) or (modes, N, N), complex
    mean_energy : float
        Mean over the patterns of the sum of squares, counts, where `mask` is True.
    mask : ndarray, (N, N), bool, optional

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Raises
    ------
    ValueError
        If the probe or the patterns are dark or not finite.
    """
    modes = np.array(probe, np.complex128, ndmin=3)
    waves = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(modes, axes=(1, 2)), norm="ortho"), axes=(1, 2)
    )
    seen = np.abs(waves) ** 2 if mask is None else np.abs(waves[:, mask]) ** 2
    energy = float(seen.sum())
    for what, value in (("probe", energy), ("patterns", mean_energy)):
        if not (math.isfinite(value) and value > 0):
            msg = f"The {what} must be finite and not dark; the energy is {value}."
            raise ValueError(msg)
    return (modes * math.sqrt(mean_energy / energy)).astype(np.complex64)


class GroupCanvas:
    """A common canvas for the patches of each group, so that overlap constrains them.

    The patches are laid down at their positions, weighted by the intensity of the probe, and
    divided by the weights laid down with them. All canvases of a batch lie below each other in one
    image.

    Parameters
    ----------
    positions : ndarray, (B, 2, C), float64
        x, then y, of the patches of each group, in pixels.
    weight : tensor, (N, N), float32
        Of each pixel of a patch.
    """

    def __init__(self, positions: NDArray[np.float64], weight: Tensor) -> None:
        N = weight.shape[-1]
        B, _, C = positions.shape
        first = np.floor(positions.min(axis=2, keepdims=True))
        height = math.ceil(float((positions - first)[:, 1].max())) + N + 1
        width = math.ceil(float((positions - first)[:, 0].max())) + N + 1
        self.N, self.shape = N, (B * height, width)
        self.positions = positions - first + N // 2
        self.positions[:, 1] += np.arange(B)[:, np.newaxis] * height
        self._weight = weight[:, :, None]
        laid = self._weight.expand(B, N, N, C).to(torch.complex64)
        total = add_patches(laid, self.positions, self.shape).real
        self._total = total.clamp(min=1e-3 * float(weight.max()))

    def merge(self, patches: Tensor) -> Tensor:
        """Lay patches down and read them back.

        Parameters
        ----------
        patches : tensor, (B, C, N, N), complex64

        Returns
        -------
        tensor, (B, C, N, N), complex64
            What the canvas holds where each patch was.
        """
        laid = self._lay(patches.permute(0, 2, 3, 1))
        canvas = laid / self._total
        for _ in range(SHARPENING):
            canvas = canvas + (laid - self._lay(self._cut(canvas))) / self._total
        return self._cut(canvas).permute(0, 3, 1, 2)

    def _lay(self, patches: Tensor) -> Tensor:
        return add_patches(patches * self._weight, self.positions, self.shape)

    def _cut(self, canvas: Tensor) -> Tensor:
        return extract_patches(canvas, self.positions, self.N)
