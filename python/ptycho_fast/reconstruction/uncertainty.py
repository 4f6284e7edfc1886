"""How uncertain an image is: standard deviations of its phase and modulus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count
from ptycho_fast.metrics.scores import RANDOM_PHASE
from ptycho_fast.reconstruction.minimise import dot, moved
from ptycho_fast.reconstruction.objective import Objective
from ptycho_fast.reconstruction.resolution import LIT, lit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.objective import Unknowns

    Complex = NDArray[np.complexfloating]
    Floats = NDArray[np.float64]

STEPS = 10
"""Steps of the conjugate gradients. With more, standard deviations are up to 3 % smaller (run1084
at 1e3 and 1e6 photons a pattern)."""

SMOOTH = 1.5
"""Variances are averaged over neighbours with a Gaussian of this many pixels: they change as slowly
as the light does, and with few samples they are noisy."""

NEAR = 2.0
"""The strength of structure is averaged with a Gaussian of this many pixels."""

EVERY = 4
"""Missed structure is drawn in every fourth sample."""

KEY = 10
"""Second word of the key of the random numbers; the first is the seed."""

BLOCK_PIXELS = 2**20
"""Pixels of patterns whose noise is drawn together. The noise depends on it."""

DRAWN = 8
"""Errors that are drawn together: what their noise has in common is computed once."""

CROSSOVER = 0.8
"""Half of the errors are noise at about this fraction of the frequency at which the prior is as
strong as the light; the counts hold less than the light (run1084 at 1e3 photons a pattern)."""

BANDS = (-3, -2, -1, 0, 1)
"""Middles of the bands of frequencies, in half octaves from there."""

FINEST = 2.2
"""The middle band lies no higher than this, in radians a pixel: Nyquist is pi."""

RANGE = (0.05, 20.0)
"""Structure is taken to be this many times as strong as the prior says, at least and at most."""


@dataclass(frozen=True, eq=False)
class Errors:
    """Random errors of an image, as its data and its prior would cause them.

    An image that minimises ``L + mu R`` is off by both: noise that it has taken from the counts,
    and structure that the prior has kept from it.

    Parameters
    ----------
    noise : ndarray, (H, W), complex64
        From the noise of the counts.
    bias : ndarray, (H, W), complex64, optional
        What is missed of an object that is as the prior says. The sum of both is a sample of the
        posterior distribution, without its mean. It is drawn in every fourth sample, the first
        among them: it matters less, and is smoother.
    shown : ndarray, (H, W), complex64, optional
        What is not missed of that object.
    """

    noise: NDArray[np.complex64]
    bias: NDArray[np.complex64] | None = None
    shown: NDArray[np.complex64] | None = None


def posterior_sigma(
    model: Any, counts: Any, unknowns: Unknowns, mu: float, *, samples: int = 8, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the standard deviations of the phase and the modulus of each pixel of an object.

    Random errors (`posterior_errors`) are drawn. The global phase and the linear phase ramp are
    free; both are removed from each. The mean squares are the variances of the posterior, if the
    prior is right. But it says that the object is equally rough everywhere, and that its power
    falls as w**-3. Objects differ: edges stand on smooth areas, and the power mostly falls faster
    where the frequencies begin that noise hides. So the part of the variances that is missed
    structure is scaled by how strong structure is in the image, compared to what the prior says:
    in bands of frequencies, and near each pixel.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
        Only which pixels were measured is used.
    unknowns : Unknowns
        The image (a minimum), and the probe that it was made with. Errors of probe and positions
        are not included.
    mu : float
        Weight of the prior, above 0.
    samples : int
        Number of errors that are drawn. Eight take 100 multiplications by the Fisher information,
        each of which costs half as much again as a gradient.
    seed : int
        0..2**63-1. The result depends on it, but not on the number of threads.

    Returns
    -------
    phase_sigma : ndarray, (H, W), float32
        In radians, at most that of a random phase, 1.81. Where no light falls it says little.
    amplitude_sigma : ndarray, (H, W), float32
        In units of the modulus.

    Raises
    ------
    ValueError
        If mu is not above 0, or if an argument is out of its range.

    References
    ----------
    G. Papandreou and A. Yuille, "Gaussian sampling by local perturbations", Advances in Neural
    Information Processing Systems 23 (2010).

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.reconstruction.counts import Counts
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.objective import Unknowns
    >>> from ptycho_fast.reconstruction.uncertainty import posterior_sigma
    >>> scan = pf.simulate_scan(n_positions=36, N=16, photons=1e4, seed=0)
    >>> model = CpuModel(scan.positions, scan.object.shape, 16)
    >>> probe = scan.probe[np.newaxis] * np.float32(scan.metadata["photon_scale"] ** 0.5)
    >>> known = Unknowns(scan.object, probe, scan.positions)
    >>> phase, modulus = posterior_sigma(model, Counts(scan.diffraction**2), known, mu=10.0)
    >>> phase.shape == scan.object.shape, bool(phase[13, 13] < 0.1 < phase[0, 0])
    (True, True)
    """
    _check_mu(mu)
    samples = as_count("samples", samples)
    image = model.to_numpy(unknowns.object)
    light = model.to_numpy(model.light(unknowns.probe)).astype(np.float64)
    area = lit(light, LIT)
    if not area.any():
        msg = "The probe lights no pixel of the object, so nothing is known of it."
        raise ValueError(msg)
    frame = _Frame(image, area)
    bands = _Bands(frame, (float(np.median(light[area])) / mu) ** (1 / 3))
    noise, bias = np.zeros((2, *image.shape)), np.zeros((len(BANDS), *image.shape))
    of_noise, shown = np.zeros((2, len(BANDS)))
    for errors in posterior_errors(model, counts, unknowns, mu, samples=samples, seed=seed):
        level = frame.levelled(errors.noise)
        noise += np.square(frame.split(level)) / samples
        of_noise += bands(level)[:, area].mean(axis=1) / samples
        if errors.bias is not None and errors.shown is not None:
            share = 1 / -(-samples // EVERY)
            bias += share * bands(frame.levelled(errors.bias))
            shown += share * bands(frame.levelled(errors.shown))[:, area].mean(axis=1)
    strength = _strength(bands(image), of_noise, shown, area, light)
    missed = (strength * _smoothed(bias, SMOOTH)).sum(axis=0)
    phase, modulus = np.sqrt(_smoothed(noise, SMOOTH) + missed)
    return (
        np.minimum(phase / frame.modulus, RANDOM_PHASE).astype(np.float32),
        modulus.astype(np.float32),
    )


def posterior_errors(
    model: Any,
    counts: Any,
    unknowns: Unknowns,
    mu: float,
    *,
    samples: int = 8,
    seed: int = 0,
    steps: int = STEPS,
) -> Iterator[Errors]:
    """Draw random errors of an image.

    With the Fisher information F of the counts, and 2 mu W for the prior, noise of covariance F
    is added to the gradient of the likelihood (it is a gradient at the solution, of simulated
    counts), and noise of covariance 2 mu W to that of the prior. By how much each moves the minimum
    follows from linear equations with the matrix F + 2 mu W. These are solved by preconditioned
    conjugate gradients.

    Parameters
    ----------
    model, counts, unknowns, mu, samples, seed
        As `posterior_sigma` has them.
    steps : int
        Steps of the conjugate gradients.

    Yields
    ------
    Errors

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.counts import Counts
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.objective import Unknowns
    >>> from ptycho_fast.reconstruction.uncertainty import posterior_errors
    >>> model = CpuModel([[4.0, 4.0]], (9, 9), 8)
    >>> image, probe = np.ones((9, 9), np.complex64), np.ones((1, 8, 8), np.complex64)
    >>> known = Unknowns(image, probe, model.positions)
    >>> counts = Counts(np.zeros((1, 8, 8), np.float32))
    >>> [error.noise.shape for error in posterior_errors(model, counts, known, 1.0, samples=2)]
    [(9, 9), (9, 9)]
    """
    _check_mu(mu)
    seed = as_count("seed", seed, least=0, most=2**63 - 1)
    objective = Objective(model, counts, unknowns, free=("object",), mu=mu)
    root = np.sqrt(2 * mu * model.to_numpy(objective.prior.weight).astype(np.float64))
    precondition = objective.precondition()

    def solved(target: Any) -> NDArray[np.complex64]:
        moves = _solve(lambda x: _curvature(objective, x), (target,), precondition, steps)
        found: NDArray[np.complex64] = model.to_numpy(moves[0])
        return found

    samples = as_count("samples", samples)
    for first in range(0, samples, DRAWN):
        some = range(first, min(first + DRAWN, samples))
        for sample, target in zip(some, _data_noise(objective, seed, some), strict=True):
            noise = solved(target)
            if sample % EVERY:
                yield Errors(noise)
                continue
            numbers = _random(seed, sample, 0).standard_normal((*model.shape, 2))
            white = numbers.view(np.complex128)[..., 0]
            bias = solved(model.asarray(np.fft.ifft2(root * white, norm="ortho")))
            # The mean, of which the prior says nothing, is 0.
            spectrum = np.divide(white, root, out=np.zeros_like(white), where=root > 0)
            whole = np.fft.ifft2(spectrum, norm="ortho").astype(np.complex64)
            yield Errors(noise, bias, whole - bias)


def _data_noise(objective: Objective, seed: int, samples: range) -> list[Any]:
    """Return gradients of the likelihood of simulated counts: their covariance is F.

    Counts differ from their mean I by ``sqrt(I)`` or ``-sqrt(I)``. Sums of many, such as gradients,
    are the same as with counts of a Poisson distribution, which take several times longer. A
    gradient is linear in the counts. So they may be 0 or ``2 sqrt(I)``, never negative, if that of
    ``sqrt(I)`` is subtracted.
    """
    model, now = objective.model, objective.start
    totals: list[Any] = [0 for _ in samples]
    block, size = 0, max(1, BLOCK_PIXELS // model.N**2)
    for some, _, good in objective.counts.blocks():
        for first in range(some.start, some.stop, size):
            rows = slice(first, min(first + size, some.stop))
            single = good is not None and len(good) > 1
            mask = good[rows.start - some.start : rows.stop - some.start] if single else good
            part = model.take(rows)
            root = np.sqrt(part.intensity(now.object, now.probe))
            middle = part.gradient(root, mask, now.object, now.probe).object
            block += 1
            for i, sample in enumerate(samples):
                bits = np.frombuffer(
                    _random(seed, sample, block).bytes(-(-root.size // 8)), np.uint8
                )
                up = np.unpackbits(bits, count=root.size).reshape(root.shape)
                drawn = part.gradient(2 * up * root, mask, now.object, now.probe).object
                totals[i] = totals[i] + (drawn - middle)
    return totals


def _random(seed: int, sample: int, block: int) -> np.random.Generator:
    key = np.array((seed, KEY), np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, block, sample, 0]))


def _curvature(objective: Objective, x: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return F + 2 mu W times a change of the object."""
    model, now, change = objective.model, objective.start, x[0]
    total = objective.mu * objective.prior(change)[1]
    for some, _, good in objective.counts.blocks():
        whole = some == slice(0, len(objective.counts))
        part = model if whole else model.take(some)
        total = total + part.curvature(now.object, now.probe, change, good=good)
    return (total,)


def _solve(
    matrix: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    target: tuple[Any, ...],
    precondition: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    steps: int,
) -> tuple[Any, ...]:
    """Solve ``matrix(x) = target`` by preconditioned conjugate gradients, from 0."""
    x, left = moved(target, -1, target), target
    direction = near = precondition(left)
    size = dot(left, near)
    for _ in range(steps):
        if not size > 0:
            break
        product = matrix(direction)
        length = size / dot(direction, product)
        x, left = moved(x, length, direction), moved(left, -length, product)
        near = precondition(left)
        before, size = size, dot(left, near)
        direction = moved(near, size / before, direction)
    return x


class _Frame:
    """Splits changes of an object into those of its phase and of its modulus."""

    def __init__(self, image: Complex, area: NDArray[np.bool_]) -> None:
        modulus = np.abs(image.astype(np.complex128))
        self.area, self.shape = area, image.shape
        # Where an object is 0, its phase means nothing.
        least = 1e-3 * math.sqrt(float(np.square(modulus[area]).mean())) or 1.0
        self.modulus = np.maximum(modulus, least)
        self._turn = np.where(modulus < least, 1, image.conj() / self.modulus)
        rows, columns = np.nonzero(area)
        y, x = (np.arange(length, dtype=np.float64) for length in image.shape)
        ones = np.ones(image.shape)
        ramps = (ones, ones * (x - columns.mean()), ones * (y - rows.mean())[:, np.newaxis])
        # As changes of the object along its phase; scaled, so that the equations are well-posed.
        self._ramps = np.stack([ramp / np.abs(ramp[area]).max(initial=1) for ramp in ramps])
        self._along = self._ramps[:, area] * modulus[area]
        self._changes = 1j * self._ramps * image

    def split(self, change: Complex) -> Floats:
        """Return a change along the phase, times the modulus, and along the modulus."""
        turned = change * self._turn
        return np.stack([turned.imag, turned.real])

    def levelled(self, change: Complex) -> Complex:
        """Remove the global phase and the phase ramp that a change has where there is light."""
        along = self.split(change)[0][self.area]
        parts = np.linalg.lstsq(self._along.T, along, rcond=None)[0]
        level: Complex = change - np.tensordot(parts, self._changes, 1)
        return level


class _Bands:
    """Measures the structure of an image in bands of spatial frequencies.

    Parameters
    ----------
    frame : _Frame
    balance : float
        The frequency, in radians a pixel, at which the prior is as strong as the light.
    """

    def __init__(self, frame: _Frame, balance: float) -> None:
        down, right = (np.fft.fftfreq(length) for length in frame.shape)
        w = 2 * np.pi * np.hypot(down[:, np.newaxis], right)
        # The last bands reach Nyquist at least.
        middle = min(CROSSOVER * balance, FINEST)
        place = 2 * np.log2(np.maximum(w, 1e-9) / middle)
        place = np.minimum(place, BANDS[-1])
        self._frame = frame
        self._filters = [np.sqrt(np.maximum(1 - np.abs(place - band), 0)) for band in BANDS]

    def __call__(self, image: Complex) -> Floats:
        """Return the squares, (bands, H, W), averaged over phase and modulus."""
        wave = np.fft.fft2(image)
        fine = (self._frame.split(np.fft.ifft2(band * wave)) for band in self._filters)
        return np.stack([np.square(parts).mean(axis=0) for parts in fine])


def _strength(
    found: Floats, noise: Floats, shown: Floats, area: NDArray[np.bool_], light: Floats
) -> Floats:
    """Return how strong structure is, compared to the prior, (bands, H, W).

    What the image shows of it is what was found, less the noise.
    """
    mean = found[:, area].mean(axis=1)
    tiny = np.finfo(np.float64).tiny
    overall = np.clip((mean - noise) / np.maximum(shown, tiny), *RANGE)
    near = _smoothed(found, NEAR) / np.maximum(mean, tiny)[:, None, None]
    # Where little light falls, the image cannot show.
    share = np.minimum(light / np.median(light[area]), 1)
    strength: Floats = overall[:, None, None] * (1 + share * (near - 1))
    return np.clip(strength, *RANGE)


def _smoothed(images: Floats, width: float) -> Floats:
    """Return images of the last two axes, averaged with a Gaussian."""
    down, right = (np.fft.fftfreq(length) for length in images.shape[-2:])
    square = (2 * np.pi * width) ** 2 * (down[:, np.newaxis] ** 2 + right**2)
    smooth = np.fft.ifft2(np.fft.fft2(images) * np.exp(-square / 2)).real
    return np.maximum(smooth, 0)  # rounding errors


def _check_mu(mu: float) -> None:
    if not (math.isfinite(mu) and mu > 0):
        msg = (
            f"mu must be finite and above 0, got {mu!r}. Without a prior, what the counts do not "
            "determine has no finite uncertainty."
        )
        raise ValueError(msg)
