"""The Poisson likelihood of diffraction patterns and its derivatives (docs/contract.md, 8b).

Position by position, in float64. The expected counts are

    I_j = s_j sum over modes m of |F(P_m O(x_j))|^2 + b

with the centred orthonormal transform F and the bilinear patch O(x_j) of section 5. The loss is
half the Poisson deviance: the sum over good pixels of ``I - k + k log(k / I)``, where I includes
`FLOOR`. The gradient by a complex array z is ``dL/dRe(z) + i dL/dIm(z)``; the derivative by a
position is the one to its right, because bilinear interpolation has a kink at whole pixels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Complex = NDArray[np.complex128]
    Floats = NDArray[np.float64]

FLOOR = 1e-6
"""Counts added to every intensity within the loss."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradient of the loss by everything that it depends on."""

    object: Complex
    probe: Complex
    positions: Floats
    exposure: Floats


@dataclass(frozen=True, eq=False)
class Experiment:
    """A scan: what all functions of the likelihood have in common.

    Parameters
    ----------
    positions : ndarray, (n, 2)
        x and y in pixels of the object; each falls on pixel N // 2 of its window.
    exposure : ndarray, (n,)
        The factor of the intensity of each pattern.
    background : float
        Counts per pixel.
    """

    positions: Floats
    exposure: Floats
    background: float = 0.0

    def intensities(self, image: NDArray[Any], probe: NDArray[Any]) -> Floats:
        """Return the expected counts ``(n, N, N)``, without the floor."""
        return np.stack(
            [
                exposure * np.sum(np.abs(_waves(image, probe, position)) ** 2, axis=0)
                + self.background
                for position, exposure in zip(self.positions, self.exposure, strict=True)
            ]
        )

    def loss(
        self,
        counts: NDArray[Any],
        good: NDArray[np.bool_],
        image: NDArray[Any],
        probe: NDArray[Any],
    ) -> float:
        """Return half the Poisson deviance of the counts ``(n, N, N)``."""
        expected = self.intensities(image, probe) + FLOOR
        total = 0.0
        for j, r, c in np.argwhere(np.broadcast_to(good, expected.shape)):
            I, k = float(expected[j, r, c]), float(counts[j, r, c])  # noqa: E741
            total += I - k + (k * np.log(k / I) if k > 0 else 0)
        return total

    def gradients(
        self,
        counts: NDArray[Any],
        good: NDArray[np.bool_],
        image: NDArray[Any],
        probe: NDArray[Any],
    ) -> Gradients:
        """Return the gradient of `loss`, by the chain rule."""
        good = np.broadcast_to(good, counts.shape)
        by_object = np.zeros(image.shape, np.complex128)
        by_probe = np.zeros(probe.shape, np.complex128)
        by_position, by_exposure = np.zeros_like(self.positions), np.zeros_like(self.exposure)
        for j, (position, exposure) in enumerate(zip(self.positions, self.exposure, strict=True)):
            waves = _waves(image, probe, position)
            expected = exposure * np.sum(np.abs(waves) ** 2, axis=0) + self.background + FLOOR
            # The derivative of the loss by the intensity; what bad pixels hold is never read.
            slope = 1 - np.where(good[j], counts[j], 0) / expected
            slope[~good[j]] = 0
            by_exposure[j] = np.sum(slope * np.sum(np.abs(waves) ** 2, axis=0))
            by_exit = _back(2 * slope * exposure * waves)
            by_patch = np.sum(by_exit * np.conj(probe), axis=0)
            by_probe += by_exit * np.conj(_patch(image, position, probe.shape[-1]))
            _lay(by_patch, position, by_object)
            for axis in (0, 1):
                moved = _patch(image, position, probe.shape[-1], along=axis)
                by_position[j, axis] = np.sum((np.conj(by_patch) * moved).real)
        return Gradients(by_object, by_probe, by_position, by_exposure)

    def curvature(
        self,
        good: NDArray[np.bool_],
        image: NDArray[Any],
        probe: NDArray[Any],
        direction: NDArray[Any],
    ) -> Complex:
        """Return the Fisher information of the object times a direction.

        That is the expected Hessian of the loss by real and imaginary parts: the sum over good
        pixels of ``dI/du dI/dv / I``.
        """
        good = np.broadcast_to(good, (len(self.positions), *probe.shape[1:]))
        product = np.zeros(image.shape, np.complex128)
        for j, (position, exposure) in enumerate(zip(self.positions, self.exposure, strict=True)):
            waves = _waves(image, probe, position)
            changes = _waves(direction, probe, position)
            expected = exposure * np.sum(np.abs(waves) ** 2, axis=0) + self.background + FLOOR
            change = 2 * exposure * np.sum((np.conj(waves) * changes).real, axis=0)
            weight = np.where(good[j], change / expected, 0)
            by_exit = _back(2 * exposure * weight * waves)
            _lay(np.sum(by_exit * np.conj(probe), axis=0), position, product)
        return product

    def light(self, probe: NDArray[Any], shape: tuple[int, int]) -> Floats:
        """Return how much light each pixel of the object has got in all."""
        total = np.zeros(shape, np.complex128)
        for position, exposure in zip(self.positions, self.exposure, strict=True):
            _lay(exposure * np.sum(np.abs(probe) ** 2, axis=0), position, total)
        return total.real

    def density(self, image: NDArray[Any], N: int) -> Floats:
        """Return the intensity of the object that has been under each pixel of the probe."""
        total = np.zeros((N, N))
        for position, exposure in zip(self.positions, self.exposure, strict=True):
            total += exposure * np.abs(_patch(image, position, N)) ** 2
        return total


def _waves(image: NDArray[Any], probe: NDArray[Any], position: Floats) -> Complex:
    """Return the wave of each mode at the detector, frequency 0 at pixel N // 2."""
    exits = probe.astype(np.complex128) * _patch(image, position, probe.shape[-1])
    centred = np.fft.ifftshift(exits, axes=(1, 2))
    return np.fft.fftshift(np.fft.fft2(centred, norm="ortho"), axes=(1, 2))


def _back(waves: Complex) -> Complex:
    """Return waves at the detector to the object: the adjoint of F."""
    centred = np.fft.ifftshift(waves, axes=(1, 2))
    return np.fft.fftshift(np.fft.ifft2(centred, norm="ortho"), axes=(1, 2))


def _taps(
    position: Floats, N: int, along: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], float]]:
    """Yield rows, columns and weight of the four pixels that each pixel of a window mixes.

    `along` asks for the derivative of the weights by x (0) or by y (1).
    """
    lower = np.floor(position).astype(np.int64)
    x, y = position - lower
    weights_x = (-1.0, 1.0) if along == 0 else (1 - x, x)
    weights_y = (-1.0, 1.0) if along == 1 else (1 - y, y)
    first = lower - N // 2 + np.arange(N)[:, np.newaxis]
    for tap_y, tap_x in itertools.product((0, 1), (0, 1)):
        yield first[:, 1] + tap_y, first[:, 0] + tap_x, weights_y[tap_y] * weights_x[tap_x]


def _patch(image: NDArray[Any], position: Floats, N: int, along: int | None = None) -> Complex:
    """Return the bilinear patch at a position, or its derivative by x (0) or y (1)."""
    patch = np.zeros((N, N), np.complex128)
    for rows, columns, weight in _taps(position, N, along):
        for (r, row), (c, column) in itertools.product(enumerate(rows), enumerate(columns)):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                patch[r, c] += weight * image[row, column]
    return patch


def _lay(patch: NDArray[Any], position: Floats, image: Complex) -> None:
    """Add a patch to an image at a position: the adjoint of `_patch`."""
    for rows, columns, weight in _taps(position, len(patch), None):
        for (r, row), (c, column) in itertools.product(enumerate(rows), enumerate(columns)):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                image[row, column] += weight * patch[r, c]
