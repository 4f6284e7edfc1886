"""Classical (iterative) reconstruction, which refines an image and, if asked for, the probe."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ptycho_fast.canvas import overhang
from ptycho_fast.checks import as_complex, as_count, as_object, as_valid_positions
from ptycho_fast.notices import warn
from ptycho_fast.patches import cpu
from ptycho_fast.patches.torch import add_patches, extract_patches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from ptycho_fast.scan import Scan

FEWEST_BATCHES = 32
"""Smallest number of batches in an iteration. If more patterns than this light a pixel, there are
as many batches as that, so that a batch lights a pixel about once."""

DIMMEST = 0.5
"""Where a batch lights the object less than this fraction of its maximum, steps are shortened."""

LARGEST_GAIN = 1.5
"""Upper limit of the correction at a detector pixel. 1 would bring the modelled amplitude to the
measured one.

With this limit, a pixel without counts pulls less than a pixel with one count pushes, as in the
Poisson likelihood. It is a compromise: lower limits are worse for dark patterns (simulated, 1e3
photons per pattern), higher limits are worse where measured patterns contain something that the
model cannot explain (the Siemens star).
"""

ROUNDING = 1e-10
"""Fraction of the peak intensity below which a modelled intensity counts as 0. Rounding errors of
float32 are far smaller."""

MOMENTUM = 0.7
"""Fraction of an update that is carried into the next. Fewer iterations are then needed, above all
from an empty object and for scans with few positions."""

CHUNK_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Number of pixels of a batch that are computed together: as many as fit in the cache of a CPU, or
as are needed to fill a GPU."""


@dataclass(frozen=True, eq=False)
class Refined:
    """The result of `refine`.

    Parameters
    ----------
    object : ndarray, (H, W), complex64
        The reconstructed object, indexed ``[row=y, column=x]``.
    probe : ndarray, (modes, N, N), complex64
        The refined probe, or the given one if it was not refined.
    residuals : ndarray, (passes,), float64
        The residual of each iteration:
        ``sqrt(sum((modelled - measured amplitude)**2) / sum(measured amplitude**2))`` over the
        pixels that were measured. The amplitudes of each pattern are modelled just before it is
        used.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    residuals: NDArray[np.float64]
    origin: tuple[int, int] = (0, 0)


def refine(
    scan: Scan,
    object: ArrayLike,
    probe: ArrayLike | None,
    *,
    passes: int,
    refine_probe: bool = False,
    origin: tuple[int, int] = (0, 0),
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Refined:
    """Refine an image, and optionally the probe, by iterations of a classical reconstruction.

    An iteration uses every pattern once, in batches of scan positions in random order. For each
    batch, the modelled amplitudes at the detector are replaced by the measured ones, and object and
    probe are changed such that they explain the new amplitudes best [1]_ [2]_. The changes have
    momentum. In the last iteration, the images after each batch are averaged, which removes most of
    the noise of single batches.

    Parameters
    ----------
    scan : Scan
        Positions and measured amplitudes. Where the detector mask or `bad_pixels` says that a pixel
        was not measured, the modelled amplitude is kept. Patterns that stay in their file are read
        batch by batch.
    object : array_like, (H, W), complex
        The image to start from, for example ones, on the canvas of the scan
        (`ptycho_fast.canvas.canvas`). Beyond its edges the object is taken as 0.
    probe : array_like, (N, N) or (modes, N, N), complex
        The probe, one or several incoherent modes, scaled to the counts of the patterns
        (`ptycho_fast.models.physics.scale_probe`).
    passes : int
        Number of iterations. 0 returns the given image and probe.
    refine_probe : bool
        Refine the probe too. Its total energy is kept.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]`` on the grid of the positions.
    seed : int
        Seed of the order of the positions. On a CPU the same seed gives the same bits.
    device : str or torch.device
        The device to compute on.

    Returns
    -------
    Refined
        The object, the probe, and the residual of each iteration.

    Raises
    ------
    ValueError
        If there is no probe, a shape does not fit, `passes` is negative, all patterns are zero, or
        patterns, positions, object or probe contain NaN or infinity.

    Warns
    -----
    UserWarning
        If windows of the scan reach beyond the object.

    References
    ----------
    .. [1] Maiden, Johnson and Li, "Further improvements to the ptychographical iterative
       engine", Optica 4, 736 (2017).
    .. [2] Odstrcil, Menzel and Guizar-Sicairos, "Iterative least-squares solver for generalized
       maximum-likelihood ptychography", Optics Express 26, 3108 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.canvas import canvas
    >>> from ptycho_fast.models.classical import refine
    >>> scan = pf.simulate_scan(n_positions=100, N=32, photons=None, seed=0)
    >>> area = canvas(scan.positions, scan.N)
    >>> start = np.ones(area.shape)
    >>> found = refine(scan, start, scan.probe, passes=10, origin=area.origin)
    >>> bool(found.residuals[-1] < 0.2 * found.residuals[0])
    True
    """
    passes = as_count("passes", passes, least=0)
    seed = as_count("seed", seed, least=0, most=2**63 - 1)
    image, modes = _as_start(scan, object, probe)
    positions = as_valid_positions(scan.positions)
    x0, y0 = (operator.index(pixel) for pixel in origin)
    shape = (image.shape[0], image.shape[1])
    if beyond := overhang(positions, scan.N, shape, (x0, y0)):
        warn(
            f"The windows of the scan reach beyond the object of {shape[0]} x {shape[1]} pixels, "
            f"{beyond}. There the object is taken as 0. Start from an image of the shape of "
            "ptycho_fast.canvas.canvas(scan.positions, scan.N), and pass its origin."
        )
    # In float64: the origin may be so far from 0 that float32 would lose the fractions.
    positions = positions - np.array([x0, y0], np.float64)
    if passes == 0:
        return Refined(image.copy(), modes.copy(), np.empty(0), (x0, y0))
    with torch.no_grad():
        state = _Refinement(
            scan,
            positions,
            image=image,
            modes=modes,
            refine_probe=refine_probe,
            device=torch.device(device),
        )
        residuals = [
            state.iterate(
                np.random.default_rng([seed, number]).permutation(len(positions)),
                average=number == passes - 1,
            )
            for number in range(passes)
        ]
    return Refined(
        state.image.cpu().numpy(), state.probe.cpu().numpy(), np.array(residuals), (x0, y0)
    )


def _as_start(
    scan: Scan, object: ArrayLike, probe: ArrayLike | None
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return object and probe as complex64 arrays, checked."""
    if probe is None:
        msg = "A probe is needed to refine an image, but it is None. Pass one as `probe`."
        raise ValueError(msg)
    image = as_object(object)
    modes = np.asarray(probe)
    modes = as_complex("probe", modes[None] if modes.ndim == 2 else modes, "(modes, N, N)")
    if modes.shape[1:] != (scan.N, scan.N) or len(modes) == 0:
        msg = (
            f"probe has shape {np.shape(probe)}, but ({scan.N}, {scan.N}) or (modes, {scan.N}, "
            f"{scan.N}) is needed for patterns of {scan.N} x {scan.N} pixels."
        )
        raise ValueError(msg)
    for name, array in (("object", image), ("probe", modes)):
        bad = np.count_nonzero(~np.isfinite(array))
        if bad:
            msg = f"{name} must be finite: {bad} of its {array.size} pixels are NaN or infinite."
            raise ValueError(msg)
    if not modes.any():
        msg = "The probe is zero everywhere, so it illuminates nothing."
        raise ValueError(msg)
    return image, modes


class _Refinement:
    """The object and the probe, as they change from batch to batch."""

    def __init__(
        self,
        scan: Scan,
        positions: NDArray[np.float64],
        *,
        image: NDArray[np.complex64],
        modes: NDArray[np.complex64],
        refine_probe: bool,
        device: torch.device,
    ) -> None:
        self.scan = scan
        self.positions = positions
        self.device = device
        self.refine_probe = refine_probe
        self.image = torch.tensor(image, device=device)
        self.probe = torch.tensor(modes, device=device)
        self.energy = _squared(self.probe).sum()
        self.velocity = torch.zeros_like(self.image)
        pixels = CHUNK_PIXELS["cpu" if device.type == "cpu" else "cuda"]
        self.chunk = max(1, pixels // self.probe[0].numel())
        light = torch.zeros_like(self.image)
        for rows in self._chunks(np.arange(len(positions))):
            self._add_light(rows, light)
        # The mean number of patterns that light a pixel, weighted by the light.
        brightest = _squared(self.probe).sum(0).max()
        seen = light.real
        overlap = float((seen.square().sum() / (seen.sum() * brightest).clamp(min=1e-30)).cpu())
        batches = math.ceil(max(FEWEST_BATCHES, overlap))
        self.batches = min(batches, len(positions))

    def iterate(self, order: NDArray[np.int64], *, average: bool) -> float:
        """Use all patterns once, in the given order; return the residual."""
        error, energy = 0.0, 0.0
        images, probes = torch.zeros_like(self.image), torch.zeros_like(self.probe)
        for batch in np.array_split(order, self.batches):
            batch_error, batch_energy = self._update(np.sort(batch))
            error += batch_error
            energy += batch_energy
            if average:
                images += self.image
                probes += self.probe
        if energy == 0:
            msg = f"All {len(order)} patterns are zero, so no image can be refined."
            raise ValueError(msg)
        if average:
            self.image = images / self.batches
            if self.refine_probe:
                self.probe = probes / self.batches
        return math.sqrt(error / energy)

    def _update(self, batch: NDArray[np.int64]) -> tuple[float, float]:
        """Update object and probe with one batch; return its squared error and energy."""
        change, light = torch.zeros_like(self.image), torch.zeros_like(self.image)
        probe_change = torch.zeros_like(self.probe)
        density = torch.zeros_like(self.probe[0].real)
        error, energy = 0.0, 0.0
        for rows in self._chunks(batch):
            measured, good = self._measured(rows)
            patches = extract_patches(self.image, self.positions[rows, :, None], self.scan.N)
            patches = patches[:, None, :, :, 0]
            far = torch.fft.fft2(patches * self.probe, norm="ortho")
            intensity = _squared(far).sum(1)
            # An intensity that is only rounding error has a random phase, so it is not scaled up
            # to the measured amplitude.
            floor = ROUNDING * intensity.amax() + 1e-37
            lack = measured * torch.rsqrt(torch.maximum(intensity, floor)) - 1
            miss = measured - intensity.sqrt()
            if good is not None:
                lack *= good
                miss *= good
            error += float(miss.square().sum())
            energy += float(measured.square().sum())
            # The correction of the wave, as a fraction of it: a step along the Poisson likelihood.
            gain = lack * (1 + lack / 2).clamp(max=LARGEST_GAIN)
            difference = torch.fft.ifft2(far * gain[:, None], norm="ortho")
            self._add((difference * self.probe.conj()).sum(1), rows, change)
            self._add_light(rows, light)
            if self.refine_probe:
                probe_change += (difference * patches.conj()).sum(0)
                density += _squared(patches).sum((0, 1))
        step = change / _floored(light.real)
        # Nesterov momentum: the step, plus what momentum will carry into the next one.
        self.velocity = MOMENTUM * self.velocity + step
        self.image += step + MOMENTUM * self.velocity
        if self.refine_probe:
            self.probe += probe_change / _floored(density)
            # A brighter probe with a darker object would fit as well, so the energy is fixed.
            growth = torch.sqrt(_squared(self.probe).sum() / self.energy)
            self.probe /= growth
            self.image *= growth
        return error, energy

    def _chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (rows[first : first + self.chunk] for first in range(0, len(rows), self.chunk))

    def _measured(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Read amplitudes, and which were measured, with zero frequency at pixel [0, 0]."""
        found, good = self.scan.measured(rows)
        patterns: NDArray[Any] = np.asarray(found, dtype=np.float32)
        if not np.isfinite(patterns.sum()):
            bad = rows[~np.isfinite(patterns).all(axis=(1, 2))]
            msg = f"Patterns must be finite: pattern {bad[0]} contains NaN or infinity."
            raise ValueError(msg)
        # Shifting the measured patterns saves shifting the waves before and after every FFT.
        amplitudes, counted = (
            None
            if array is None
            else torch.fft.ifftshift(torch.from_numpy(array).to(self.device), dim=(1, 2))
            for array in (patterns, good)
        )
        assert amplitudes is not None
        return amplitudes, counted

    def _add_light(self, rows: NDArray[np.int64], image: Tensor) -> None:
        """Add the probe's intensity at each position."""
        light = _squared(self.probe).sum(0).to(self.probe.dtype)
        self._add(light.expand(len(rows), -1, -1), rows, image)

    def _add(self, patches: Tensor, rows: NDArray[np.int64], image: Tensor) -> None:
        """Add patches to an image at their positions (the adjoint of `extract_patches`)."""
        where = self.positions[rows, :, None]
        patches = patches[..., None].contiguous()
        if image.device.type == "cpu":
            cpu.add_patches(patches.numpy(), where, image.numpy())
        else:
            image += add_patches(patches, where, (image.shape[0], image.shape[1]))


def _squared(field: Tensor) -> Tensor:
    """Return squared moduli. Several times faster than ``abs``, which guards against overflow."""
    squared: Tensor = field.real.square().addcmul_(field.imag, field.imag)
    return squared


def _floored(weight: Tensor) -> Tensor:
    """Return a weight to divide by, raised where it is small compared to its maximum."""
    return (1 - DIMMEST) * weight + DIMMEST * weight.max().clamp(min=1e-30)
