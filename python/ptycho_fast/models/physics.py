r"""Diffraction: from object patches to diffraction patterns, and the loss against measured ones.

Behind the object :math:`O`, the exit wave of the incoherent probe mode *m* is
:math:`\psi_m = P_m O`. The detector in the far field measures the intensity

.. math:: I = s \sum_m |\mathcal F \psi_m|^2

where :math:`\mathcal F` is the centred orthonormal Fourier transform and *s* a scale. Sources:
Rodenburg and Faulkner, Appl. Phys. Lett. 85, 4795 (2004); for the modes, Thibault and Menzel,
Nature 494, 68 (2013).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ptycho_fast.canvas import stack_canvases
from ptycho_fast.patches.torch import add_patches, extract_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARPENING = 2
"""Number of Landweber iterations on the canvas of a group (as in `ptycho_fast.models.stitching`).
Without them the canvas blurs the patches, and the network learns to compensate with patches that
are too sharp."""

DARK = 0.1
"""Counts added to every intensity before its square root is taken, whose slope is infinite at 0."""


def far_field(exit_wave: Tensor) -> Tensor:
    """Propagate waves to the detector: the centred orthonormal Fourier transform.

    Parameters
    ----------
    exit_wave : tensor, (..., N, N), complex
        Centred at pixel ``[N//2, N//2]``.

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
    """Propagate waves back to the object: the inverse of `far_field`.

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
    """Return the diffraction patterns (intensities) of patches.

    Parameters
    ----------
    patches : tensor, (..., B, C, N, N), complex64
    probe : tensor, (modes, N, N) or (B, modes, N, N), complex64
        One for all groups, or one for each.

    Returns
    -------
    tensor, (..., B, C, N, N), float32
        Expected counts, if the probe is scaled to counts (`scale_probe`).

    Examples
    --------
    >>> import torch
    >>> probe = torch.ones(1, 8, 8, dtype=torch.complex64)
    >>> diffract(torch.ones(1, 1, 8, 8, dtype=torch.complex64), probe)[0, 0, 4, 4]
    tensor(64.)
    """
    intensity = torch.zeros((), device=patches.device)
    for mode in each_mode(probe):
        # Shifting a wave changes only the phases of its far field, so no shift is needed here.
        wave = torch.fft.fft2(patches * mode, norm="ortho")
        real, imaginary = torch.view_as_real(wave).square().unbind(-1)
        intensity = intensity + (real + imaginary)
    shifted: Tensor = torch.fft.fftshift(intensity, dim=(-2, -1))
    return shifted


def each_mode(probe: Tensor) -> tuple[Tensor, ...]:
    """Return the modes of probes, each in a shape that multiplies patches.

    Parameters
    ----------
    probe : tensor, (modes, N, N) or (B, modes, N, N), complex64
        One for all groups, or one for each.

    Returns
    -------
    tuple of tensor, (1, 1, N, N) or (B, 1, N, N)
    """
    probes = probe if probe.ndim == 4 else probe.unsqueeze(0)
    return probes.unsqueeze(2).unbind(1)


def light_share(probe: Tensor) -> Tensor:
    """Return the intensity of probes on each pixel of a patch, relative to their peaks.

    Parameters
    ----------
    probe : tensor, (B, modes, N, N), complex64

    Returns
    -------
    tensor, (B, N, N), float32
    """
    intensity = probe.detach().abs().square().sum(dim=1)
    return intensity / intensity.amax(dim=(-2, -1), keepdim=True)


def diffraction_loss(
    intensity: Tensor,
    amplitude: Tensor,
    kind: str = "poisson",
    mask: Tensor | None = None,
    good: Tensor | None = None,
) -> Tensor:
    """Return the loss per pixel between modelled and measured diffraction patterns.

    "poisson" approximates the Poisson deviance (the negative log-likelihood of the counts minus its
    smallest possible value) by ``4 (sqrt(I + d) - sqrt(k + d))**2``, with modelled intensity I,
    measured counts k and d = 0.1. The square root gives counts the same variance at any brightness
    (Anscombe, Biometrika 35, 246 (1948)): the loss is 1 where only Poisson noise is left. Unlike
    the likelihood, its slope is finite where nothing was counted. "amplitude" is the mean absolute
    difference of the amplitudes.

    Parameters
    ----------
    intensity : tensor, (..., N, N), float32
        Modelled counts.
    amplitude : tensor, (..., N, N), float32
        Measured amplitudes: square roots of counts.
    kind : {"poisson", "amplitude"}
    mask : tensor, (N, N), bool, optional
        False for detector pixels to ignore in all patterns.
    good : tensor, (..., N, N), bool, optional
        False for pixels to ignore in single patterns.

    Returns
    -------
    tensor, ()
        The mean over the pixels that count.
    """
    counted = good if mask is None or good is None else good & mask
    counted = mask if counted is None else counted
    if counted is not None:
        # A NaN would make the gradient NaN, although the cost of its pixel is left out.
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
    """Scale a probe to the counts of a scan.

    With the scaled probe, an object of modulus 1 diffracts as many counts as were measured in a
    pattern on average.

    Parameters
    ----------
    probe : ndarray, (N, N) or (modes, N, N), complex
    mean_energy : float
        Mean number of counts in a pattern, over the pixels where `mask` is True.
    mask : ndarray, (N, N), bool, optional
        The pixels that were measured.

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Raises
    ------
    ValueError
        If the probe or the patterns are dark, or not finite.
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

    The patches are added at their positions, weighted by the intensity of the probe, and the sum is
    divided by the sum of the weights. The canvases of all groups of a batch are stacked in one
    image (`ptycho_fast.canvas.stack_canvases`).

    Parameters
    ----------
    positions : ndarray, (B, 2, C), float64
        x, then y, of the patches of each group, in pixels.
    weight : tensor, (N, N) or (B, N, N), float32
        Weight of each pixel of a patch, for all groups or for each.
    """

    def __init__(self, positions: NDArray[np.float64], weight: Tensor) -> None:
        N = weight.shape[-1]
        B, _, C = positions.shape
        self._N = N
        local, self._shape = stack_canvases(positions, N)
        # Patches that lie one after the other are laid down in half the time of those whose pixels
        # alternate, as they would in groups of C.
        self._where = local.transpose(0, 2, 1).reshape(B * C, 2, 1)
        each = weight.expand(B, N, N).repeat_interleave(C, dim=0)
        total = self._lay(each.to(torch.complex64)).real
        # Real and imaginary parts are multiplied like two numbers, in a third of the time of a
        # complex number by a real one.
        self._weight = _twice(each)
        self._step = _twice(1 / total.clamp(min=1e-3 * float(weight.max())))

    def merge(self, patches: Tensor) -> Tensor:
        """Average the patches of each group where they overlap.

        Parameters
        ----------
        patches : tensor, (B, C, N, N), complex64

        Returns
        -------
        tensor, (B, C, N, N), complex64
            What the canvas contains in the window of each patch.
        """
        merged: Tensor = _Merge.apply(patches.flatten(0, 1), self)
        return merged.view_as(patches)

    def average(self, patches: Tensor) -> Tensor:
        """Return what the canvas contains in the window of each patch.

        Parameters
        ----------
        patches : tensor, (B C, N, N), complex64
            Weighted.
        """
        laid = self._lay(patches)
        canvas = _scaled(laid, self._step)
        for _ in range(SHARPENING):
            rest = laid - self._lay(self.weighted(self._cut(canvas)))
            canvas = canvas + _scaled(rest, self._step)
        return self._cut(canvas)

    def weighted(self, patches: Tensor) -> Tensor:
        """Return patches multiplied by their weights.

        Parameters
        ----------
        patches : tensor, (B C, N, N), complex64
        """
        return _scaled(patches, self._weight)

    def _lay(self, patches: Tensor) -> Tensor:
        return add_patches(patches.unsqueeze(-1), self._where, self._shape)

    def _cut(self, canvas: Tensor) -> Tensor:
        return extract_patches(canvas, self._where, self._N).squeeze(-1)


class _Merge(torch.autograd.Function):
    """Weights patches by W and averages them on their canvas: A W, and for gradients W A.

    A is its own adjoint: it lays patches down (L), takes Landweber steps with real weights, which
    are a symmetric matrix on the canvas, and cuts out (the adjoint of L).
    """

    @staticmethod
    def forward(ctx: Any, patches: Tensor, canvas: GroupCanvas) -> Tensor:
        ctx.canvas = canvas
        return canvas.average(canvas.weighted(patches))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.canvas.weighted(ctx.canvas.average(upstream)), None


def _twice(real: Tensor) -> Tensor:
    """Repeat each number for the real and the imaginary part of what it will multiply."""
    return torch.stack([real, real], dim=-1)


def _scaled(wave: Tensor, factors: Tensor) -> Tensor:
    """Multiply complex numbers by real ones, each of which comes twice."""
    return torch.view_as_complex(torch.view_as_real(wave.resolve_conj()) * factors)
