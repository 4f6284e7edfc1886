"""The likelihood of patterns in PyTorch, for GPUs; on a CPU it is a check of the Rust kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.patches import cpu
from ptycho_fast.patches.torch import add_patches, extract_patches  # ImportError: what to install
from ptycho_fast.reconstruction.arguments import (
    as_rows,
    as_wanted,
    check_object,
    check_patterns,
    check_probe,
)
from ptycho_fast.reconstruction.model import FLOOR, Gradient, Model

# isort: split
import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

CHUNK_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Number of pixels of waves that are computed together: as many as fit in the cache of a CPU, or
as are needed to fill a GPU."""


class TorchModel(Model):
    """The expected counts of a scan, and how well they explain the measured ones.

    Pattern j is expected to have ``s_j * sum over modes of |F(P * O(x_j))|**2 + b`` counts, where F
    is the centred orthonormal Fourier transform, O(x_j) the patch of the object at position j,
    s_j the exposure and b the background (docs/contract.md, section 8b). Waves are complex64; the
    loss, and what one pattern or the whole scan adds up to, is summed in float64.

    Parameters
    ----------
    positions : array_like, (n, 2), float64
        x and y in pixels of the object. Position (x, y) lies on pixel ``[N//2, N//2]`` of its
        window. Beyond its bounds the object is 0.
    shape : (int, int)
        Rows and columns (H, W) of the object.
    N : int
        Pixels per side of a pattern.
    exposure : array_like, (n,), float64, optional
        Factor of the intensity of each pattern; 1 by default.
    background : float
        Counts that every pixel is expected to have without the probe.
    device : str or torch.device
        Where it is computed.

    Raises
    ------
    ValueError
        If positions are not finite, exposures do not fit the positions or are negative, or the
        background is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.torch import TorchModel
    >>> model = TorchModel([[4.0, 4.0]], (8, 8), 8)
    >>> counts = np.zeros((1, 8, 8), np.float32)
    >>> probe = model.asarray(np.ones((1, 8, 8)))
    >>> found = model.gradient(counts, None, model.asarray(np.ones((8, 8))), probe)
    >>> round(found.loss)  # all 64 photons were expected, and none was counted
    64
    """

    xp = torch
    """The namespace of the arrays."""

    def __init__(
        self,
        positions: ArrayLike,
        shape: tuple[int, int],
        N: int,
        *,
        exposure: ArrayLike | None = None,
        background: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(positions, shape, N, exposure=exposure, background=background)
        self.device = torch.device(device)
        self._ramp = _ramp(self.N).to(self.device)

    def asarray(self, array: ArrayLike) -> Tensor:
        """Return an array as a tensor on the device.

        Parameters
        ----------
        array : array_like
            For example an object or a probe.

        Returns
        -------
        tensor, complex64
            float32 if the array is real.
        """
        values = np.asarray(array)
        dtype = np.complex64 if values.dtype.kind == "c" else np.float32
        return torch.tensor(values.astype(dtype), device=self.device)

    def to_numpy(self, tensor: Tensor) -> NDArray[Any]:
        """Return a tensor as an array."""
        array: NDArray[Any] = tensor.detach().resolve_conj().resolve_neg().cpu().numpy()
        return array

    @torch.no_grad()
    def gradient(
        self,
        counts: Any,
        good: Any | None,
        object: Tensor,
        probe: Tensor,
        *,
        wrt: Collection[str] = ("object",),
        rows: ArrayLike | None = None,
    ) -> Gradient:
        """Return the loss, and its gradient by what is asked for.

        The loss is the sum over good pixels of ``I - k + k * log(k / I)`` for k counts where I are
        expected: half the Poisson deviance, 0 for a perfect fit. Every I includes `FLOOR`.

        Parameters
        ----------
        counts : array or tensor, (n, N, N), real
            Counts of all patterns, frequency 0 at pixel ``[N//2, N//2]``. Anything that
            ``counts[indices]`` reads from a file will do.
        good : array or tensor, (n, N, N) or (1, N, N), bool, or None
            True where a pixel was measured. What other pixels hold is ignored, and so are counts
            that are negative or NaN.
        object : tensor, (H, W), complex64
        probe : tensor, (modes, N, N), complex64
            Scaled to counts.
        wrt : collection of {"object", "probe", "positions", "exposure"}
            What the gradient is taken by. None of them gives the loss alone.
        rows : array_like, (m,), int, optional
            Which patterns are used; by default all. The gradients by positions and exposure then
            have m rows.

        Returns
        -------
        Gradient

        Raises
        ------
        ValueError
            If shapes do not fit, or `wrt` or `rows` names what does not exist.
        """
        image, modes = self._as_image("object", object), self._as_probe(probe)
        used = as_rows(rows, len(self.positions))
        good = self._as_patterns(counts, good)
        sums = self._zeros(as_wanted(wrt), len(modes), len(used))
        centred = modes * self._ramp
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for piece, chunk in self._chunks(used, len(modes)):
            patches = self._cut(image, chunk)
            waves = _to_detector(patches, centred)
            light = _squared(waves).sum(1)
            expected = self._expected(light, chunk)
            measured = self._measured(counts, good, chunk, expected)
            surplus = expected - measured
            slope = surplus / expected  # the derivative of the loss by the expected counts
            loss += _deviance(measured, surplus, slope)
            if "exposure" in sums:
                sums["exposure"][piece] = (slope * light).sum((1, 2), dtype=torch.float64)
            if sums.keys() <= {"exposure"}:
                continue
            exits = _to_object(waves, 2 * self._exposure_of(chunk) * slope)
            by_patch = (exits * centred.conj()).sum(1)
            if "object" in sums:
                self._lay(by_patch, chunk, sums["object"])
            if "probe" in sums:
                sums["probe"] += (exits * patches[:, None].conj()).sum(0)
            if "positions" in sums:
                sums["positions"][piece] = self._by_position(image, chunk, by_patch)
        if "probe" in sums:
            sums["probe"] = (sums["probe"] * self._ramp.conj()).to(torch.complex64)
        positions, exposure = (
            self.to_numpy(sums[name]) if name in sums else None
            for name in ("positions", "exposure")
        )
        return Gradient(
            loss=float(loss),
            object=sums.get("object"),
            probe=sums.get("probe"),
            positions=positions,
            exposure=exposure,
        )

    @torch.no_grad()
    def curvature(
        self,
        object: Tensor,
        probe: Tensor,
        change: Tensor,
        *,
        good: Any | None = None,
        rows: ArrayLike | None = None,
    ) -> Tensor:
        """Return the Fisher information of the counts, times a change of the object.

        This is the Hessian of the loss, by real and imaginary parts, that is expected if the object
        is right: ``4 * sum over j of adjoint(s * psi * Re(sum over modes of conj(psi) * s * dpsi) /
        I)`` for the waves psi of pattern j, which the change alters by dpsi.

        Parameters
        ----------
        object, change : tensor, (H, W), complex64
        probe : tensor, (modes, N, N), complex64
        good : array or tensor, (n, N, N) or (1, N, N), bool, or None
            True where a pixel was measured; others inform of nothing.
        rows : array_like, (m,), int, optional
            Which patterns are used; by default all.

        Returns
        -------
        tensor, (H, W), complex64

        Raises
        ------
        ValueError
            If shapes do not fit, or `rows` names a pattern that does not exist.
        """
        image, modes = self._as_image("object", object), self._as_probe(probe)
        direction = self._as_image("change", change)
        used = as_rows(rows, len(self.positions))
        good = self._as_patterns(None, good)
        centred = modes * self._ramp
        product = torch.zeros_like(image)
        for _, chunk in self._chunks(used, len(modes)):
            waves = _to_detector(self._cut(image, chunk), centred)
            changes = _to_detector(self._cut(direction, chunk), centred)
            exposure = self._exposure_of(chunk)
            weight = 4 * exposure.square() * _real_product(waves, changes).sum(1)
            weight /= self._expected(_squared(waves).sum(1), chunk)
            if good is not None:
                weight *= self._good(good, chunk)
            exits = _to_object(waves, weight)
            self._lay((exits * centred.conj()).sum(1), chunk, product)
        return product

    @torch.no_grad()
    def intensity(
        self, object: Tensor, probe: Tensor, *, rows: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Return the counts that are expected.

        Parameters
        ----------
        object : tensor, (H, W), complex64
        probe : tensor, (modes, N, N), complex64
        rows : array_like, (m,), int, optional
            Which patterns; by default all.

        Returns
        -------
        ndarray, (m, N, N), float32

        Raises
        ------
        ValueError
            If shapes do not fit, or `rows` names a pattern that does not exist.
        """
        image, modes = self._as_image("object", object), self._as_probe(probe)
        used = as_rows(rows, len(self.positions))
        out = np.empty((len(used), self.N, self.N), np.float32)
        for piece, chunk in self._chunks(used, len(modes)):
            light = _squared(_to_detector(self._cut(image, chunk), modes * self._ramp)).sum(1)
            out[piece] = self.to_numpy(light * self._exposure_of(chunk) + self.background)
        return out

    @torch.no_grad()
    def light(self, probe: Tensor) -> Tensor:
        """Return how much light each pixel of the object gets from all patterns together.

        Parameters
        ----------
        probe : tensor, (modes, N, N), complex64

        Returns
        -------
        tensor, (H, W), float32
            The sum over j of the probe's intensity times the exposure, laid at position j by the
            adjoint of the patches.

        Raises
        ------
        ValueError
            If the probe is not (modes, N, N).
        """
        modes = self._as_probe(probe)
        total = torch.zeros(self.shape, dtype=torch.complex64, device=self.device)
        intensity = _squared(modes).sum(0)
        for _, chunk in self._chunks(np.arange(len(self.positions)), 1):
            lit = (intensity * self._exposure_of(chunk)).to(torch.complex64)
            self._lay(lit, chunk, total)
        return total.real.contiguous()

    @torch.no_grad()
    def density(self, object: Tensor) -> Tensor:
        """Return the object's intensity under each pixel of the probe: ``sum of s_j |O(x_j)|**2``.

        Parameters
        ----------
        object : tensor, (H, W), complex64

        Returns
        -------
        tensor, (N, N), float32

        Raises
        ------
        ValueError
            If the object has another shape.
        """
        image = self._as_image("object", object)
        total = torch.zeros((self.N, self.N), dtype=torch.float64, device=self.device)
        for _, chunk in self._chunks(np.arange(len(self.positions)), 1):
            intensity = _squared(self._cut(image, chunk)) * self._exposure_of(chunk)
            total += intensity.sum(0, dtype=torch.float64)
        return total.to(torch.float32)

    # --- what is passed ---------------------------------------------------------------------------

    def _as_image(self, name: str, image: Tensor) -> Tensor:
        """Return an object as complex64 on the device."""
        check_object(name, image, self.shape)
        return self._here(image, torch.complex64)

    def _as_probe(self, probe: Tensor) -> Tensor:
        check_probe(probe, self.N)
        return self._here(probe, torch.complex64)

    def _as_patterns(self, counts: Any | None, good: Any | None) -> Any | None:
        """Check counts and mask; return the mask.

        One that all patterns share is moved to the device once, instead of for each chunk.
        """
        check_patterns(counts, good, len(self.positions), self.N)
        if good is not None and len(good) == 1:
            return self._here(good[:], torch.bool)
        return good

    def _zeros(self, wanted: frozenset[str], modes: int, rows: int) -> dict[str, Tensor]:
        """Return what gradients are added to, for those that are wanted."""
        # Everything is summed in float64 but the object, of which each pixel sees few patterns.
        forms: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "object": (self.shape, torch.complex64),
            "probe": ((modes, self.N, self.N), torch.complex128),
            "positions": ((rows, 2), torch.float64),
            "exposure": ((rows,), torch.float64),
        }
        return {
            name: torch.zeros(forms[name][0], dtype=forms[name][1], device=self.device)
            for name in wanted
        }

    # --- some patterns ----------------------------------------------------------------------------

    def _chunks(self, rows: NDArray[Any], modes: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield some patterns at a time: their place among `rows`, and their numbers."""
        pixels = CHUNK_PIXELS["cpu" if self.device.type == "cpu" else "cuda"]
        each = max(1, pixels // (modes * self.N**2))
        for first in range(0, len(rows), each):
            piece = slice(first, first + each)
            yield piece, rows[piece]

    def _here(self, values: Any, dtype: torch.dtype) -> Tensor:
        """Return an array or a tensor as a tensor on the device."""
        tensor = values if torch.is_tensor(values) else torch.tensor(np.asarray(values))
        return tensor.to(self.device, dtype).contiguous()

    def _good(self, good: Any, chunk: NDArray[Any]) -> Tensor:
        return self._here(good if len(good) == 1 else good[chunk], torch.bool)

    def _measured(
        self, counts: Any, good: Any | None, chunk: NDArray[Any], expected: Tensor
    ) -> Tensor:
        """Read counts; where none were measured they are as expected, and change nothing."""
        values = self._here(counts[chunk], torch.float32)
        counted = values >= 0
        if good is not None:
            counted &= self._good(good, chunk)
        return torch.where(counted, values, expected)

    def _exposure_of(self, chunk: NDArray[Any]) -> Tensor:
        return self._here(self.exposure[chunk, np.newaxis, np.newaxis], torch.float32)

    def _expected(self, light: Tensor, chunk: NDArray[Any]) -> Tensor:
        """Return the expected counts of patterns that have this intensity at exposure 1."""
        return light * self._exposure_of(chunk) + (self.background + FLOOR)

    def _cut(self, image: Tensor, chunk: NDArray[Any]) -> Tensor:
        """Cut the patches ``(b, N, N)`` of some positions."""
        return _cut(image, self.positions[chunk], self.N)

    def _lay(self, patches: Tensor, chunk: NDArray[Any], image: Tensor) -> None:
        """Add patches to an image at their positions: the adjoint of `_cut`."""
        where = self.positions[chunk, :, np.newaxis]
        patches = patches[..., None].contiguous()
        if image.device.type == "cpu":
            cpu.add_patches(patches.numpy(), where, image.numpy())
        else:
            image += add_patches(patches, where, self.shape)

    def _by_position(self, image: Tensor, chunk: NDArray[Any], by_patch: Tensor) -> Tensor:
        """Return the gradient ``(b, 2)`` by x and y from that by the patches.

        Along its axis the slope of a bilinear patch is the difference of the two pixels on either
        side; across it, it is interpolated. So it is a patch of an image of differences, cut at a
        whole pixel along the axis.
        """
        positions = self.positions[chunk]
        slopes = []
        for axis in (0, 1):
            where = positions.copy()
            where[:, axis] = np.floor(positions[:, axis]) + 1  # `_differences` begin 1 pixel before
            slope = _cut(_differences(image, 1 - axis), where, self.N)
            slopes.append(_real_product(slope, by_patch).sum((1, 2), dtype=torch.float64))
        return torch.stack(slopes, dim=1)


def _ramp(N: int) -> Tensor:
    """Return the phases that move frequency 0 of a transform to pixel ``[N//2, N//2]``.

    Multiplied into the probe, they save moving the patterns. Where the wave itself is centred does
    not matter: it changes the phases at the detector, and they are undone on the way back.
    """
    turns = np.arange(N) * (N // 2) % N / N
    phases = np.exp(2j * np.pi * turns)
    return torch.tensor(np.outer(phases, phases).astype(np.complex64))


def _to_detector(patches: Tensor, probe: Tensor) -> Tensor:
    """Return the waves ``(b, modes, N, N)`` at the detector."""
    waves: Tensor = torch.fft.fft2(probe * patches[:, None], norm="ortho")
    return waves


def _to_object(waves: Tensor, weight: Tensor) -> Tensor:
    """Return waves, weighted in place by ``(b, N, N)``, from the detector to the object."""
    torch.view_as_real(waves).mul_(weight[:, None, :, :, None])
    exits: Tensor = torch.fft.ifft2(waves, norm="ortho")
    return exits


def _deviance(measured: Tensor, surplus: Tensor, slope: Tensor) -> Tensor:
    """Return half the Poisson deviance, written such that little cancels where the fit is good.

    `surplus` is by how much more counts are expected than measured, `slope` that divided by the
    expected counts.
    """
    # 1 - slope is measured / expected. Where that is 0, its logarithm must stay finite.
    logarithm = torch.log1p(torch.clamp(-slope, min=2.0**-24 - 1))
    return torch.sum(surplus + measured * logarithm, dtype=torch.float64)


def _squared(field: Tensor) -> Tensor:
    """Return squared moduli. Several times faster than ``abs``, which guards against overflow."""
    squared: Tensor = field.real.square().addcmul_(field.imag, field.imag)
    return squared


def _real_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``Re(conj(a) * b)``."""
    product: Tensor = (a.real * b.real).addcmul_(a.imag, b.imag)
    return product


def _cut(image: Tensor, positions: NDArray[np.float64], N: int) -> Tensor:
    """Cut the patch ``(N, N)`` of each position."""
    return extract_patches(image, positions[:, :, np.newaxis], N)[..., 0]


def _differences(image: Tensor, dim: int) -> Tensor:
    """Return each pixel minus the one before it, from the first to one beyond the last.

    Beyond its bounds the image is 0.
    """
    shape = list(image.shape)
    shape[dim] = 1
    nothing = image.new_zeros(shape)
    return torch.diff(torch.cat([nothing, image, nothing], dim), dim=dim)
