"""Small scans with everything that the likelihood of patterns knows: modes, masks, exposures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reference.diffraction import Experiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASKS = ("none", "shared", "single")
"""All pixels are good, the same ones are bad in all patterns, or others in each."""


@dataclass(frozen=True, eq=False)
class Case:
    """Counts, and the object and the probe at which they are judged."""

    experiment: Experiment
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    counts: NDArray[np.float32]
    good: NDArray[np.bool_] | None

    @property
    def known(self) -> NDArray[np.bool_]:
        """The good pixels, as an array also where there is no mask."""
        return np.ones((1, *self.counts.shape[1:]), bool) if self.good is None else self.good


def make_case(
    N: int = 8,
    modes: int = 1,
    *,
    n: int = 5,
    mask: str = "single",
    photons: float = 500.0,
    background: float = 0.1,
    beyond: float = 0.3,
    seed: int = 0,
) -> Case:
    """Make a case from a seed.

    Windows reach beyond the object by up to a fraction `beyond` of their side, one position is a
    whole pixel, and one lies so far away that its window misses the object. Some pixels have no
    counts, and the counts are those of another object than the one given.
    """
    rng = np.random.default_rng([seed, N, modes])
    shape = (2 * N + 3, 2 * N + 1)
    inset = N * (0.5 - beyond)
    positions = rng.uniform(inset, np.array(shape)[::-1] - inset, (n, 2))
    positions[0] = np.round(positions[0])
    positions[-1] = 10 * N, -7.25
    exposure = rng.uniform(0.5, 1.5, n)
    experiment = Experiment(positions, exposure, background)
    image, truth = (
        rng.uniform(0.7, 1.1, shape) * np.exp(1j * rng.uniform(-1, 1, shape)) for _ in range(2)
    )
    probe = noise(rng, (modes, N, N)) * np.exp(
        -((np.indices((N, N)) - N // 2) ** 2).sum(axis=0) / (0.1 * N**2 + 1)
    )
    probe *= np.sqrt(photons / np.sum(np.abs(probe) ** 2))
    counts = rng.poisson(experiment.intensities(truth, probe)).astype(np.float32)
    counts[:, 0, 0] = 0
    good = {
        "none": None,
        "shared": rng.random((1, N, N)) > 0.2,
        "single": rng.random((n, N, N)) > 0.2,
    }[mask]
    return Case(experiment, image.astype(np.complex64), probe.astype(np.complex64), counts, good)


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """Return complex normal numbers."""
    values: NDArray[np.complex128] = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return values


def inner(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the inner product of real and imaginary parts, in which gradients are gradients."""
    return float(np.sum(a.real * b.real) + np.sum(a.imag * b.imag))
