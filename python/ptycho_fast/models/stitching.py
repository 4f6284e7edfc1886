"""From patches to one image, some patches at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.patches.cpu import add_patches, extract_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARPENING = 4
"""Rounds of `Stitcher.image`."""

AT_ONCE = 256
"""Patches that a round of sharpening cuts at a time."""

THIN = 1e-3
"""Of the greatest coverage: an image is not divided by less."""


class Stitcher:
    """Lays patches on the object's grid at their sub-pixel positions, weighted by the probe.

    What it holds is the image, its weights and one number a position, however many patches come.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the object (H, W).
    positions : ndarray, (n, 2), float64
        Of the scan, x and y in pixels.
    weight : ndarray, (N, N), float32
        Of each pixel of a patch: the intensity of the probe.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        positions: NDArray[np.float64],
        weight: NDArray[np.float32],
    ) -> None:
        self._positions = positions
        self._weight = weight.astype(np.complex64)[np.newaxis, :, :, np.newaxis]
        self._laid = np.zeros(shape, np.complex64)
        self._total = np.zeros(shape, np.complex64)
        self._times = np.zeros(len(positions), np.int32)

    def add(self, indices: NDArray[np.integer], patches: NDArray[np.complex64]) -> None:
        """Lay patches down.

        Parameters
        ----------
        indices : ndarray, (k,), int
            Of their positions; one may come more than once.
        patches : ndarray, (k, N, N), complex64
        """
        where = self._positions[indices][:, :, np.newaxis]
        add_patches(patches[..., np.newaxis] * self._weight, where, self._laid)
        weights = np.broadcast_to(self._weight, (len(indices), *self._weight.shape[1:]))
        add_patches(weights, where, self._total)
        np.add.at(self._times, indices, 1)

    @property
    def coverage(self) -> NDArray[np.float32]:
        """The weight that lies on each pixel, (H, W) float32: 1 is one patch at its brightest."""
        return self._total.real.copy()

    def image(self) -> NDArray[np.complex64]:
        """Return the object, (H, W) complex64; 0 where there is no patch.

        Patches divided by their weights are the object blurred twice, by the interpolation that
        made them and by the one that laid them down. A few rounds of Landweber's iteration (Am. J.
        Math. 73, 615 (1951)), with the weights for its step, bring the image whose patches they
        are.
        """
        covered = self._total.real > 0
        step = np.zeros(self._total.shape, np.float32)
        step[covered] = 1 / np.maximum(self._total.real, THIN * self._total.real.max())[covered]
        image: NDArray[np.complex64] = self._laid * step
        N = self._weight.shape[1]
        seen = np.flatnonzero(self._times)
        for _ in range(SHARPENING):
            rest = self._laid.copy()
            for first in range(0, len(seen), AT_ONCE):
                some = seen[first : first + AT_ONCE]
                where = self._positions[some][:, :, np.newaxis]
                times = -self._times[some, np.newaxis, np.newaxis, np.newaxis]
                cut = extract_patches(image, where, N)
                cut *= self._weight
                cut *= times
                add_patches(cut, where, rest)
            image = image + rest * step
        return image
