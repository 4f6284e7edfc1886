"""Stitching: combine overlapping patches into one image, a few patches at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.patches.cpu import add_patches, extract_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.canvas import Canvas

SHARPENING = 4
"""Number of iterations in `Stitcher.image`."""

AT_ONCE = 256
"""Number of patches that an iteration cuts out at a time."""

THIN = 1e-3
"""The image is divided by the coverage, but never by less than this fraction of its maximum."""


class Stitcher:
    """Sums patches on a canvas at their sub-pixel positions, weighted by the probe's intensity.

    It stores the weighted sum, the sum of the weights and one number per position, but no patches.
    So its memory does not grow with the number of patches.

    Parameters
    ----------
    area : Canvas
        The canvas of the image.
    positions : ndarray, (n, 2), float64
        Scan positions, x and y in object pixels.
    weight : ndarray, (N, N), float32
        Weight of each pixel of a patch: the intensity of the probe.
    """

    def __init__(
        self,
        area: Canvas,
        positions: NDArray[np.float64],
        weight: NDArray[np.float32],
    ) -> None:
        self._positions = area.local(positions)
        self._weight = weight.astype(np.complex64)[np.newaxis, :, :, np.newaxis]
        self._laid = np.zeros(area.shape, np.complex64)
        self._total = np.zeros(area.shape, np.complex64)
        self._times = np.zeros(len(positions), np.int32)

    def add(self, indices: NDArray[np.integer], patches: NDArray[np.complex64]) -> None:
        """Add patches.

        Parameters
        ----------
        indices : ndarray, (k,), int
            Indices of their positions. The same position may come more than once.
        patches : ndarray, (k, N, N), complex64
        """
        where = self._positions[indices][:, :, np.newaxis]
        add_patches(patches[..., np.newaxis] * self._weight, where, self._laid)
        weights = np.broadcast_to(self._weight, (len(indices), *self._weight.shape[1:]))
        add_patches(weights, where, self._total)
        np.add.at(self._times, indices, 1)

    @property
    def coverage(self) -> NDArray[np.float32]:
        """The sum of weights on each pixel, (H, W) float32: 1 is the peak of one patch."""
        return self._total.real.copy()

    def image(self) -> NDArray[np.complex64]:
        """Return the image, (H, W) complex64; 0 where there is no patch.

        The weighted mean of the patches is the object blurred twice by bilinear interpolation:
        once when a patch is cut out of the object, and once when it is added to the canvas. A few
        Landweber iterations (Am. J. Math. 73, 615 (1951)), with the inverse weights as step size,
        undo this. They converge to the image whose patches are the given ones.
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
