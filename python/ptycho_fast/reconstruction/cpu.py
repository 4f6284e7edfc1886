"""The model of the diffraction on a CPU: NumPy arrays in and out, computed by the Rust core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import as_threads
from ptycho_fast.patches.cpu import add_patches, extract_patches
from ptycho_fast.reconstruction.arguments import (
    as_rows,
    as_wanted,
    check_object,
    check_patterns,
    check_probe,
)
from ptycho_fast.reconstruction.model import Gradient, Model

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

BLOCK_PIXELS = 2**20
"""Number of pixels of patches that are laid down together."""


class CpuModel(Model):
    """The likelihood of the counts of a scan, and its gradients.

    The counts k of pattern j are expected to follow a Poisson distribution of mean
    ``I = s_j * sum over modes m of |F(P_m O(x_j))|**2 + background``, where F is the centred
    orthonormal Fourier transform and O(x_j) the patch of the object at a position
    (`ptycho_fast.extract_patches`).

    Parameters
    ----------
    positions : array_like, (n, 2), real
        x and y in pixels of the object array.
    shape : (int, int)
        Rows and columns of the object (H, W).
    N : int
        Pixels per side of a pattern.
    exposure : array_like, (n,), real, optional
        The factors s_j; 1 by default.
    background : float
        Counts per pixel that do not come from the beam, at least 0.
    num_threads : int, optional
        Threads to use. No result depends on it.

    Raises
    ------
    ValueError
        If positions are not finite, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> model = CpuModel([[4.0, 4.0]], (9, 9), 8)
    >>> image, probe = np.ones((9, 9), np.complex64), np.ones((1, 8, 8), np.complex64)
    >>> counts = np.zeros((1, 8, 8), np.float32)
    >>> counts[0, 4, 4] = 64
    >>> round(model.gradient(counts, None, image, probe).loss, 3)
    0.0
    """

    xp: Any = np
    """The namespace of its arrays."""

    def __init__(
        self,
        positions: ArrayLike,
        shape: tuple[int, int],
        N: int,
        *,
        exposure: ArrayLike | None = None,
        background: float = 0.0,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(positions, shape, N, exposure=exposure, background=background)
        self._threads = as_threads(num_threads)
        self._diffraction = _core.Diffraction(self.N)

    def asarray(self, array: ArrayLike) -> NDArray[Any]:
        """Return an array as this model takes it.

        Parameters
        ----------
        array : array_like

        Returns
        -------
        ndarray
            complex64, or float32 if the array is real.
        """
        values = np.asarray(array)
        dtype = np.complex64 if values.dtype.kind == "c" else np.float32
        return np.ascontiguousarray(values, dtype)

    def to_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return one of the model's arrays: here, as it is."""
        return array

    def gradient(
        self,
        counts: NDArray[np.float32],
        good: NDArray[np.bool_] | None,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        *,
        wrt: Collection[str] = ("object",),
        rows: ArrayLike | None = None,
    ) -> Gradient:
        """Return the loss of some patterns, and its gradients.

        Parameters
        ----------
        counts : ndarray, (n, N, N), float32
            Frequency 0 at pixel ``[N//2, N//2]``.
        good : ndarray, (n, N, N) or (1, N, N), bool, optional
            False for pixels that were not measured.
        object : ndarray, (H, W), complex64
        probe : ndarray, (modes, N, N), complex64
            Scaled to counts.
        wrt : collection of {"object", "probe", "positions", "exposure"}
            What to differentiate with respect to.
        rows : array_like, (k,), int, optional
            The patterns that are used; all by default.

        Returns
        -------
        Gradient
        """
        chosen = as_rows(rows, len(self.positions))
        wanted = as_wanted(wrt)
        image, modes = self._as_object("object", object), self._as_probe(probe)
        check_patterns(counts, good, len(self.positions), self.N)
        counts = np.ascontiguousarray(counts, np.float32)
        found: dict[str, NDArray[Any] | None] = {
            "object": np.zeros(self.shape, np.complex64) if "object" in wanted else None,
            "probe": np.zeros(modes.shape, np.complex128) if "probe" in wanted else None,
            "positions": np.empty((len(chosen), 2)) if "positions" in wanted else None,
            "exposure": np.empty(len(chosen)) if "exposure" in wanted else None,
        }
        loss = self._diffraction.gradient(
            image, modes, self.positions, chosen, self.exposure, self.background, counts,
            _as_good(good), found["object"], found["probe"], found["positions"], found["exposure"],
            self._threads,
        )  # fmt: skip
        if found["probe"] is not None:
            found["probe"] = found["probe"].astype(np.complex64)
        return Gradient(loss, **found)

    def curvature(
        self,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        change: NDArray[np.complex64],
        *,
        good: NDArray[np.bool_] | None = None,
        rows: ArrayLike | None = None,
    ) -> NDArray[np.complex64]:
        """Return the Fisher information of the counts, times a change of the object.

        It is the expected second derivative of the loss where the model is right: the gradient of
        ``sum(dI**2 / I) / 2`` with respect to the change, which alters the intensities by dI.

        Parameters
        ----------
        object, change : ndarray, (H, W), complex64
        probe : ndarray, (modes, N, N), complex64
        good : ndarray, (n, N, N) or (1, N, N), bool, optional
        rows : array_like, (k,), int, optional

        Returns
        -------
        ndarray, (H, W), complex64
        """
        check_patterns(None, good, len(self.positions), self.N)
        out = np.zeros(self.shape, np.complex64)
        self._diffraction.curvature(
            self._as_object("object", object), self._as_probe(probe),
            self._as_object("change", change), self.positions, as_rows(rows, len(self.positions)),
            self.exposure, self.background, _as_good(good), out, self._threads,
        )  # fmt: skip
        return out

    def intensity(
        self,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        *,
        rows: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return the counts that are expected.

        Parameters
        ----------
        object : ndarray, (H, W), complex64
        probe : ndarray, (modes, N, N), complex64
        rows : array_like, (k,), int, optional

        Returns
        -------
        ndarray, (k, N, N), float32
            Frequency 0 at pixel ``[N//2, N//2]``.
        """
        chosen = as_rows(rows, len(self.positions))
        out = np.empty((len(chosen), self.N, self.N), np.float32)
        self._diffraction.intensity(
            self._as_object("object", object), self._as_probe(probe), self.positions, chosen,
            self.exposure, self.background, out, self._threads,
        )  # fmt: skip
        return out

    def light(self, probe: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return the light on each pixel of the object: ``sum over j of s_j |P|**2``.

        Parameters
        ----------
        probe : ndarray, (modes, N, N), complex64

        Returns
        -------
        ndarray, (H, W), float32
        """
        modes = self._as_probe(probe)
        one = (modes.real**2 + modes.imag**2).sum(0)
        out = np.zeros(self.shape, np.complex64)
        for some in self._blocks():
            patches = self.exposure[some, np.newaxis, np.newaxis] * one
            add_patches(
                patches[..., np.newaxis],
                self.positions[some, :, np.newaxis],
                out,
                num_threads=self._threads,
            )
        return out.real.copy()

    def density(self, object: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return the object's intensity under each pixel of the probe: ``sum of s_j |O(x_j)|**2``.

        Parameters
        ----------
        object : ndarray, (H, W), complex64

        Returns
        -------
        ndarray, (N, N), float32
        """
        image = self._as_object("object", object)
        total = np.zeros((self.N, self.N), np.float64)
        for some in self._blocks():
            patches = extract_patches(
                image, self.positions[some, :, np.newaxis], self.N, num_threads=self._threads
            )
            total += np.einsum("b,brkc->rk", self.exposure[some], patches.real**2 + patches.imag**2)
        return total.astype(np.float32)

    def _blocks(self) -> list[NDArray[np.int32]]:
        size = max(1, BLOCK_PIXELS // self.N**2)
        rows = as_rows(None, len(self.positions))
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _as_object(self, name: str, image: NDArray[Any]) -> NDArray[np.complex64]:
        check_object(name, image, self.shape)
        return np.ascontiguousarray(image, np.complex64)

    def _as_probe(self, probe: NDArray[Any]) -> NDArray[np.complex64]:
        check_probe(probe, self.N)
        return np.ascontiguousarray(probe, np.complex64)


def _as_good(good: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    return None if good is None else np.ascontiguousarray(good, np.bool_)
