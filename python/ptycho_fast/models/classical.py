"""Classical reconstruction: passes over the scan, from any image, with or without the probe."""

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
"""In a pass; or as many as patterns light a pixel, if those are more: each lights it once."""

DIMMEST = 0.5
"""Where a batch is darker than this part of its brightest place, steps become shorter."""

LARGEST_GAIN = 1.5
"""In units of what would bring the modelled amplitude to the measured one.

Zero counts then pull less than one count pushes, as in the likelihood of counts. A compromise:
less is worse in the dark (simulated, 1e3 photons a pattern), more is worse where measured
patterns hold what no model explains (the Siemens star).
"""

ROUNDING = 1e-10
"""Of the brightest intensity: what float32 leaves where there should be none is far below."""

MOMENTUM = 0.7
"""What is left of the former update in the next: fewer passes from nothing, most so if thinned."""

CHUNK_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Pixels of a batch taken at a time: what a processor's cache holds, what fills a GPU."""


@dataclass(frozen=True, eq=False)
class Refined:
    """What `refine` made of an image and a probe.

    Parameters
    ----------
    object : ndarray, (H, W), complex64
        The image, indexed ``[row=y, column=x]``.
    probe : ndarray, (modes, N, N), complex64
        The probe; as it was given, if it was not to be refined.
    residuals : ndarray, (passes,), float64
        Of each pass, what its patterns differed in before they were used: the root of
        ``sum((modelled - measured amplitude)**2) / sum(measured amplitude**2)``, over the pixels
        that were measured.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]``, on the grid of the positions.
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
    """Bring an image nearer to the measured patterns, by passes of the iterative engine.

    A pass goes through the scan in batches of positions drawn at random. Each batch replaces the
    modelled amplitudes at the detector by the measured ones and moves the object, and the probe
    if it is asked for, to what explains the change best [1]_ [2]_. The updates carry momentum,
    and the images of the last pass are averaged, which takes most of the noise of single batches.

    Parameters
    ----------
    scan : Scan
        Positions, measured amplitudes, a mask where the detector has dead pixels, and what is bad
        in single patterns: there the modelled amplitude is kept. Patterns that stay in their file
        are read batch by batch.
    object : array_like, (H, W), complex
        The image to start from; constant 1 if nothing is known, of the shape of
        `ptycho_fast.canvas.canvas`. What windows reach beyond it is 0 and stays so.
    probe : array_like, (N, N) or (modes, N, N), complex
        The illumination, one or several incoherent modes, of the energy of the patterns: an
        object of modulus 1 then has their brightness.
    passes : int
        How often each pattern is used. 0 returns what was given.
    refine_probe : bool
        Improve the probe with the object. Its energy stays what it was.
    origin : (int, int)
        The pixel (x, y) of ``object[0, 0]``, on the grid of the positions.
    seed : int
        Of the order of the positions. On a CPU the same seed gives the same bits.
    device : str or torch.device
        Where it is computed.

    Returns
    -------
    Refined
        The object, the probe, and the residual of each pass.

    Raises
    ------
    ValueError
        If there is no probe, a shape does not fit, `passes` is negative, the patterns are all
        zero, or patterns, positions, object or probe hold NaN or infinity.

    Warns
    -----
    UserWarning
        If windows reach beyond the object.

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
            f"{beyond}: there it is taken for 0, and the image ends. Start from one on "
            "ptycho_fast.canvas.canvas(scan.positions, scan.N), and pass its origin."
        )
    # In float64, before anything is narrowed: an origin may be far from 0.
    positions = positions - np.array([x0, y0], np.float64)
    if passes == 0:
        return Refined(image.copy(), modes.copy(), np.empty(0), (x0, y0))
    with torch.no_grad():
        engine = _Engine(
            scan,
            positions,
            image=image,
            modes=modes,
            refine_probe=refine_probe,
            device=torch.device(device),
        )
        residuals = [
            engine.run(
                np.random.default_rng([seed, number]).permutation(len(positions)),
                average=number == passes - 1,
            )
            for number in range(passes)
        ]
    return Refined(
        engine.image.cpu().numpy(), engine.probe.cpu().numpy(), np.array(residuals), (x0, y0)
    )


def _as_start(
    scan: Scan, object: ArrayLike, probe: ArrayLike | None
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return object and probe modes as they are computed with."""
    if probe is None:
        msg = "A probe is needed to refine an image, and this scan has none: give one as `probe`."
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
            msg = f"{name} must be finite: {bad} of its {array.size} pixels hold NaN or infinity."
            raise ValueError(msg)
    if not modes.any():
        msg = "The probe is zero everywhere, so it lights nothing."
        raise ValueError(msg)
    return image, modes


class _Engine:
    """Object and probe between two batches."""

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
        # How many patterns light a pixel, in the mean over the light.
        brightest = _squared(self.probe).sum(0).max()
        seen = light.real
        overlap = float((seen.square().sum() / (seen.sum() * brightest).clamp(min=1e-30)).cpu())
        batches = math.ceil(max(FEWEST_BATCHES, overlap))
        self.batches = min(batches, len(positions))

    def run(self, order: NDArray[np.int64], *, average: bool) -> float:
        """Go through all positions once; return the residual."""
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
            msg = f"All {len(order)} patterns are zero, so there is nothing to refine an image to."
            raise ValueError(msg)
        if average:
            self.image = images / self.batches
            if self.refine_probe:
                self.probe = probes / self.batches
        return math.sqrt(error / energy)

    def _update(self, batch: NDArray[np.int64]) -> tuple[float, float]:
        """Move object and probe by one batch; return its squared error and energy."""
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
            # The phase of mere rounding says nothing, so that is not raised to the measured.
            floor = ROUNDING * intensity.amax() + 1e-37
            lack = measured * torch.rsqrt(torch.maximum(intensity, floor)) - 1
            miss = measured - intensity.sqrt()
            if good is not None:
                lack *= good
                miss *= good
            error += float(miss.square().sum())
            energy += float(measured.square().sum())
            # Of the modelled wave, what the likelihood of the counts adds to it or takes away.
            gain = lack * (1 + lack / 2).clamp(max=LARGEST_GAIN)
            difference = torch.fft.ifft2(far * gain[:, None], norm="ortho")
            self._add((difference * self.probe.conj()).sum(1), rows, change)
            self._add_light(rows, light)
            if self.refine_probe:
                probe_change += (difference * patches.conj()).sum(0)
                density += _squared(patches).sum((0, 1))
        step = change / _floored(light.real)
        # Nesterov's form: the step, and what momentum will add to it next.
        self.velocity = MOMENTUM * self.velocity + step
        self.image += step + MOMENTUM * self.velocity
        if self.refine_probe:
            self.probe += probe_change / _floored(density)
            # A brighter probe and a darker object would explain the patterns as well.
            growth = torch.sqrt(_squared(self.probe).sum() / self.energy)
            self.probe /= growth
            self.image *= growth
        return error, energy

    def _chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (rows[first : first + self.chunk] for first in range(0, len(rows), self.chunk))

    def _measured(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Read amplitudes and which of them were measured, zero frequency at [0, 0]."""
        found, good = self.scan.measured(rows)
        patterns: NDArray[Any] = np.asarray(found, dtype=np.float32)
        if not np.isfinite(patterns.sum()):
            bad = rows[~np.isfinite(patterns).all(axis=(1, 2))]
            msg = f"Patterns must be finite: pattern {bad[0]} holds NaN or infinity."
            raise ValueError(msg)
        # Only moduli count at the detector: nothing is shifted in front of it, so this is.
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
        """Add patches to an image where `extract_patches` cuts them."""
        where = self.positions[rows, :, None]
        patches = patches[..., None].contiguous()
        if image.device.type == "cpu":
            cpu.add_patches(patches.numpy(), where, image.numpy())
        else:
            image += add_patches(patches, where, (image.shape[0], image.shape[1]))


def _squared(field: Tensor) -> Tensor:
    """Return squared moduli: several times faster than ``abs``, which guards against overflow."""
    squared: Tensor = field.real.square().addcmul_(field.imag, field.imag)
    return squared


def _floored(weight: Tensor) -> Tensor:
    """Return what a sum is divided by: its weight, but not much less where that is small."""
    return (1 - DIMMEST) * weight + DIMMEST * weight.max().clamp(min=1e-30)
