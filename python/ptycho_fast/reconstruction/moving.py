"""Steps of the positions, and how the object moves along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOFTEST = 0.1
"""Added to the stiffness of each position, as a fraction of the mean."""

SMOOTHEST = 1e-3
"""An object is taken to vary by at least this per pixel, as a fraction of its modulus."""

DIMMEST = 0.01
"""Added to the light on the object, as a fraction of its maximum, where displacements are averaged
with the light as their weight."""


def stiffness(model: Any, object: Any, probe: Any) -> NDArray[np.float64]:
    """Return the second derivative that is expected with respect to each position.

    It is about ``2 s_j * sum of |P|**2 |dO/dx|**2``, with the exposure s_j, the probe P and the
    slope of the object O under it, and likewise in y. A flat object has no stiffness, so a small
    number is added.

    Parameters
    ----------
    model : CpuModel or TorchModel
    object : array, (H, W), complex64
    probe : array, (modes, N, N), complex64

    Returns
    -------
    ndarray, (n, 2), float64
        For x and y, per squared pixel.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.moving import stiffness
    >>> model = CpuModel([[6.0, 6.0]], (13, 13), 8)
    >>> ramp = np.broadcast_to(np.arange(13), (13, 13)).astype(np.complex64)
    >>> stiffness(model, ramp, np.ones((1, 8, 8), np.complex64)).round().tolist()
    [[134.0, 6.0]]
    """
    window = _Windows(model, model.to_numpy(probe))
    image = model.to_numpy(object)
    found = []
    for slope in _slopes(image):
        found.append(window.summed(slope.real**2 + slope.imag**2).real)
    stiff = 2 * model.exposure[:, np.newaxis] * np.maximum(np.stack(found, axis=1), 0)
    size = float(np.mean(np.abs(image) ** 2, dtype=np.float64))
    least = SMOOTHEST**2 * size * 2 * float(model.exposure.mean()) * window.energy
    result: NDArray[np.float64] = stiff + SOFTEST * stiff.mean() + max(least, 1e-30)
    return result


class Moving:
    """An estimate of the inverse second derivative with respect to object and positions together.

    If a position moves, the object under it has to move along as far as no other pattern holds it.
    So a step of the positions carries the object with it: each pixel moves by the mean of the
    displacements of all patterns, with their light on it as the weight. In these variables, object
    and positions hardly depend on each other.

    Parameters
    ----------
    model : CpuModel or TorchModel
        At the positions to begin with.
    object : array, (H, W), complex64
    probe : array, (modes, N, N), complex64
    affine : float
        Steps that shift, scale, rotate and shear the scan as a whole are lengthened by this factor
        at most; 0 holds it, and 1 makes no difference.
    """

    def __init__(self, model: Any, object: Any, probe: Any, *, affine: float) -> None:
        self._model = model
        self._slopes = _slopes(model.to_numpy(object))
        self._windows = _Windows(model, model.to_numpy(probe))
        self._stiffness = stiffness(model, object, probe)
        light = self._windows.laid(model.exposure + 0j).real.clip(0)
        self._light = light + max(DIMMEST * float(light.max()), 1e-30)
        self._free_as_a_whole = affine > 0
        self._held = _affine_basis(model.positions)
        self._root = self._stiffness**0.5
        # A map of the scan as a whole changes little in each window: longer steps by the ratio of
        # the extents of scan and probe, squared, are needed.
        self._whole = [
            np.linalg.qr(self._root[:, axis, np.newaxis] * self._held)[0] for axis in range(2)
        ]
        extent = float(np.var(model.positions, axis=0).sum())
        ratio = extent / max(self._windows.spread, 1e-30)
        self._longer = max(min(ratio, affine) - 1, 0)

    def step(self, of_object: Any, of_positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the displacements that the gradients ask for.

        Parameters
        ----------
        of_object : array, (H, W), complex64, optional
            Gradient with respect to the object; None if it is held.
        of_positions : ndarray, (n, 2), float64
            Gradient with respect to the positions.

        Returns
        -------
        ndarray, (n, 2), float64
        """
        if of_object is None:
            return self._divided(of_positions)
        gradient = self._model.to_numpy(of_object)
        along_x, along_y = ((slope.conj() * gradient).real for slope in self._slopes)
        pull = self._windows.summed((along_x + 1j * along_y) / self._light)
        pull *= self._model.exposure
        return self._divided(of_positions - np.stack([pull.real, pull.imag], axis=1))

    def _divided(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        """Divide a gradient by the stiffness."""
        if not self._free_as_a_whole:
            return self._without_affine(self._without_affine(total) / self._stiffness)
        scaled = total / self._root
        for axis, basis in enumerate(self._whole):
            scaled[:, axis] += self._longer * (basis @ (basis.T @ scaled[:, axis]))
        return scaled / self._root

    def carried(self, displacements: NDArray[np.float64]) -> Any:
        """Return how the object changes if it moves along.

        Parameters
        ----------
        displacements : ndarray, (n, 2), float64

        Returns
        -------
        array, (H, W), complex64
        """
        weighted = self._model.exposure * (displacements[:, 0] + 1j * displacements[:, 1])
        shift = self._windows.laid(weighted) / self._light
        slope_x, slope_y = self._slopes
        return self._model.asarray(-(slope_x * shift.real + slope_y * shift.imag))

    def _without_affine(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values - self._held @ (self._held.T @ values)


class _Windows:
    """The light of the probe at each position, on whole pixels.

    `energy` is the sum of the light, `spread` its variance in x plus that in y, in squared pixels.
    """

    def __init__(self, model: Any, probe: NDArray[np.complex64]) -> None:
        light = (np.abs(probe) ** 2).sum(axis=0)
        self.energy = float(light.sum(dtype=np.float64))
        axis = np.arange(model.N)
        by_row, by_column = light.sum(axis=1), light.sum(axis=0)
        self.spread = sum(_variance(axis, one) for one in (by_row, by_column))
        # Windows may reach over the edge by as much as positions move.
        self._shape = model.shape
        self._lengths = tuple(_fast_length(length + model.N) for length in model.shape)
        self._wave = np.fft.fft2(light, s=self._lengths)
        corner = np.rint(model.positions).astype(np.intp) - model.N // 2
        self._column, self._row = (corner[:, axis] % self._lengths[1 - axis] for axis in range(2))

    def laid(self, values: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Return an image: the sum of the light at each position, times its value."""
        dots = np.zeros(self._lengths, np.complex64)
        np.add.at(dots, (self._row, self._column), values)
        image = np.fft.ifft2(np.fft.fft2(dots) * self._wave)
        height, width = self._shape
        laid: NDArray[np.complex128] = image[:height, :width]
        return laid

    def summed(self, image: NDArray[Any]) -> NDArray[np.complex128]:
        """Return the sum of an image under the light at each position: the adjoint of `laid`."""
        wave = np.fft.fft2(image, s=self._lengths)
        sums = np.fft.ifft2(wave * self._wave.conj())
        summed: NDArray[np.complex128] = sums[self._row, self._column]
        return summed


def _slopes(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the slopes of an image along x and y, from its neighbours on both sides."""
    padded = np.pad(image, 1, mode="edge")
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2


def _affine_basis(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return orthonormal columns that span the shift and all linear maps of positions."""
    columns = np.column_stack([np.ones(len(positions)), positions - positions.mean(axis=0)])
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    kept: NDArray[np.float64] = basis[:, sizes > 1e-9 * sizes[0]]
    return kept


def _variance(values: NDArray[Any], weights: NDArray[Any]) -> float:
    total = max(float(weights.sum()), 1e-30)
    mean = float((weights * values).sum()) / total
    return float((weights * (values - mean) ** 2).sum()) / total


def _fast_length(least: int) -> int:
    """Return the next length of which Fourier transforms are fast: a product of 2, 3 and 5."""
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
