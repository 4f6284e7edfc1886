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

STEPS = 12
"""Steps of the conjugate gradients. With more, standard deviations are up to 2 % larger (run1084 at
1e3 photons a pattern)."""

SMOOTH = 1.5
"""Variances are averaged over neighbours with a Gaussian of this many pixels: they change as slowly
as the light does, and with few samples they are noisy."""

NEAR = 2.0
"""The strength of structure is averaged with a Gaussian of this many pixels."""

EVERY = 2
"""Missed structure is drawn in every second sample."""

KEY = 10
"""Second word of the key of the random numbers; the first is the seed."""

BLOCK_PIXELS = 2**20
"""Pixels of patterns whose noise is drawn together. The noise depends on it."""

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
        posterior distribution, without its mean. It is drawn in every second sample, the first
        among them: it matters less, and is smoother.
    """

    noise: NDArray[np.complex64]
    bias: NDArray[np.complex64] | None = None


def posterior_sigma(
    model: Any, counts: Any, unknowns: Unknowns, mu: float, *, samples: int = 8, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the standard deviations of the phase and the modulus of each pixel of an object.

    Random errors (`posterior_errors`) are drawn. The global phase and the linear phase ramp are
    free; both are removed from each. The mean squares are the variances of the posterior, if the
    prior is right. But it says that the object is equally rough everywhere, and as rough in its
    modulus as in its phase. Objects are not: edges stand on smooth areas. So the part of the
    variances that is missed structure is scaled by how strong structure is in the image, compared
    to what the prior says: near each pixel, in phase and in modulus, at the finest scales that the
    counts resolve.

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
        Number of errors that are drawn. Each takes, on average, 18 multiplications by the Fisher
        information, each of which costs as much as a gradient.
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
    samples = as_count("samples", samples)
    image = model.to_numpy(unknowns.object)
    light = model.to_numpy(model.light(unknowns.probe)).astype(np.float64)
    area = lit(light, LIT)
    if not area.any():
        msg = "The probe lights no pixel of the object, so nothing is known of it."
        raise ValueError(msg)
    frame = _Frame(image, area)
    structure = _Structure(frame, mu, float(np.median(light[area])))
    found = structure(image)
    # Of noise and of bias; of phase and of modulus.
    variance, typical = np.zeros((2, 2, *image.shape)), np.zeros((2, 2))
    drawn = (samples, -(-samples // EVERY))
    for errors in posterior_errors(model, counts, unknowns, mu, samples=samples, seed=seed):
        for part, error in enumerate((errors.noise, errors.bias)):
            if error is not None:
                level = frame.levelled(error)
                variance[part] += np.square(frame.split(level)) / drawn[part]
                typical[part] += structure(level)[:, area].mean(axis=1) / drawn[part]
    variance = _smoothed(variance, SMOOTH)
    strength = _strength(found, typical, area, light)
    phase, modulus = np.sqrt(variance[0] + strength * variance[1])
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
    if not (math.isfinite(mu) and mu > 0):
        msg = (
            f"mu must be finite and above 0, got {mu!r}. Without a prior, what the counts do not "
            "determine has no finite uncertainty."
        )
        raise ValueError(msg)
    seed = as_count("seed", seed, least=0, most=2**63 - 1)
    objective = Objective(model, counts, unknowns, free=("object",), mu=mu)
    root = np.sqrt(2 * mu * model.to_numpy(objective.prior.weight).astype(np.float64))
    precondition = objective.precondition()

    def solved(target: Any) -> NDArray[np.complex64]:
        moves = _solve(lambda x: _curvature(objective, x), (target,), precondition, steps)
        found: NDArray[np.complex64] = model.to_numpy(moves[0])
        return found

    for sample in range(as_count("samples", samples)):
        noise, bias = solved(_data_noise(objective, seed, sample)), None
        if sample % EVERY == 0:
            white = _random(seed, sample, 0).standard_normal((*model.shape, 2))
            blue = np.fft.ifft2(root * white.view(np.complex128)[..., 0], norm="ortho")
            bias = solved(model.asarray(blue))
        yield Errors(noise, bias)


def _data_noise(objective: Objective, seed: int, sample: int) -> Any:
    """Return the gradient of the likelihood of simulated counts: its covariance is F."""
    model, now = objective.model, objective.start
    total, block = None, 0
    size = max(1, BLOCK_PIXELS // model.N**2)
    for some, _, good in objective.counts.blocks():
        for first in range(some.start, some.stop, size):
            rows = slice(first, min(first + size, some.stop))
            single = good is not None and len(good) > 1
            mask = good[rows.start - some.start : rows.stop - some.start] if single else good
            part = model.take(rows)
            block += 1
            drawn = _drawn(part.intensity(now.object, now.probe), _random(seed, sample, block))
            found = part.gradient(drawn, mask, now.object, now.probe).object
            total = found if total is None else total + found
    return total


def _drawn(mean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw numbers of a given mean, and of that variance, from one of two values each.

    Sums of many, such as gradients, are the same as with counts, which take several times longer.
    """
    chance = 1 - rng.random(mean.shape, np.float32)  # above 0
    low = np.minimum(mean, 1)
    # Above 1, the mean plus or minus its root with equal chances; below, 0 or 1 + mean.
    up = chance * (1 + low) < low
    root = np.sqrt(mean)
    counts: NDArray[np.float32] = np.where(
        mean < 1, up * (1 + mean), mean + np.where(up, root, -root)
    )
    return counts


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


class _Structure:
    """Measures the structure of an image at the finest scales that the counts resolve.

    Of a frequency w, the counts let through the fraction D = 1 / (1 + mu w**3 / light). The filter
    ``(1 - D) sqrt(D)`` selects the frequencies at which half of the errors are noise and half are
    missed structure. The measure is 1 for an object that is as the prior says.
    """

    def __init__(self, frame: _Frame, mu: float, light: float) -> None:
        down, right = (np.fft.fftfreq(length) for length in frame.shape)
        ratio = mu * (2 * np.pi * np.hypot(down[:, np.newaxis], right)) ** 3 / light
        passed = 1 / (1 + ratio)
        # Of |filter|**2 / (2 mu w**3), the prior's expected power.
        expected = float(((1 - passed) * passed**2).mean()) / (2 * light)
        self._frame = frame
        self._filter = (1 - passed) * np.sqrt(passed / max(expected, np.finfo(np.float64).tiny))

    def __call__(self, image: Complex) -> Floats:
        """Return the squares, (2, H, W), along phase and modulus."""
        fine = np.fft.ifft2(self._filter * np.fft.fft2(image))
        return np.square(self._frame.split(fine))


def _strength(found: Floats, typical: Floats, area: NDArray[np.bool_], light: Floats) -> Floats:
    """Return how strong structure is, compared to the prior, (2, H, W)."""
    noise, bias = typical
    mean = found[:, area].mean(axis=1)
    # An image shows 1 - 2 noise - bias of the structure, and noise.
    shown = np.maximum(1 - 2 * noise - bias, RANGE[0])
    overall = np.clip((mean - noise) / shown, *RANGE)
    near = _smoothed(found, NEAR) / np.maximum(mean, np.finfo(np.float64).tiny)[:, None, None]
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
