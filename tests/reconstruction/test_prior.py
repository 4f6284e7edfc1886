"""The prior, and the objective that it is part of, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.cpu import CpuModel
from ptycho_fast.reconstruction.fit import freedom, weaker
from ptycho_fast.reconstruction.light import Light
from ptycho_fast.reconstruction.objective import Objective, Unknowns
from ptycho_fast.reconstruction.prior import SmoothPrior

SHAPE, N = (12, 15), 8


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)).astype(np.complex64)


@pytest.fixture
def model() -> CpuModel:
    return CpuModel([[5.0, 5.5], [8.2, 6.0]], SHAPE, N)


def penalty_of(image: np.ndarray) -> float:
    """The sum over frequencies of |w|^3 |F2(O)(w)|^2 (docs/contract.md, section 8b)."""
    height, width = image.shape
    total = 0.0
    for v in range(height):
        for u in range(width):
            wy, wx = (2 * np.pi * (f - round(f)) for f in (v / height, u / width))
            rows = np.exp(-2j * np.pi * v * np.arange(height) / height)
            columns = np.exp(-2j * np.pi * u * np.arange(width) / width)
            wave = rows @ image.astype(complex) @ columns / np.sqrt(height * width)
            total += np.hypot(wx, wy) ** 3 * abs(wave) ** 2
    return total


def test_the_penalty_follows_the_definition(image: np.ndarray, model: CpuModel) -> None:
    assert SmoothPrior(SHAPE, model)(image)[0] == pytest.approx(penalty_of(image), rel=1e-5)


def test_the_gradient_is_that_of_the_penalty(image: np.ndarray, model: CpuModel) -> None:
    prior = SmoothPrior(SHAPE, model)
    gradient = prior(image)[1]
    for pixel in [(0, 0), (5, 7), (11, 14)]:
        for step, part in ((1e-2, gradient[pixel].real), (1e-2j, gradient[pixel].imag)):
            ahead, behind = image.astype(complex), image.astype(complex)
            ahead[pixel] += step
            behind[pixel] -= step
            slope = (penalty_of(ahead) - penalty_of(behind)) / 2e-2
            assert slope == pytest.approx(part, rel=1e-4, abs=1e-3)


def test_a_brighter_probe_and_a_darker_object_have_the_same_value(
    image: np.ndarray, model: CpuModel
) -> None:
    rng = np.random.default_rng(2)
    probe = (rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))).astype(np.complex64)
    counts = Counts(rng.poisson(3.0, (2, N, N)).astype(np.float32))
    start = Unknowns(image, probe, model.positions)
    objective = Objective(model, counts, start, free=("object", "probe"), mu=5.0)
    value, gradient = objective((image, probe))
    scaled, _ = objective((image / 2, probe * 2))
    assert scaled == pytest.approx(value, rel=1e-5)
    # So the gradient has no part in that direction.
    along = sum(
        float((x.conj() * g).real.sum()) * sign
        for x, g, sign in zip((image, probe), gradient, (-1, 1), strict=True)
    )
    parts = abs(float((image.conj() * gradient[0]).real.sum()))
    assert abs(along) < 1e-4 * parts
    assert objective.loss((image, probe)) == pytest.approx(
        value - 5.0 * penalty_of(image), rel=1e-5
    )


def test_what_the_prior_expects_has_no_penalty(image: np.ndarray, model: CpuModel) -> None:
    counts = Counts(np.ones((2, N, N), np.float32))
    start = Unknowns(image, np.ones((1, N, N), np.complex64), model.positions)
    other = Unknowns(np.roll(image, 1, axis=0), start.probe, model.positions)
    expecting = Objective(model, counts, start, free=("object",), mu=20.0, expected=image)
    value, (gradient,) = expecting(expecting.x)
    without = Objective(model, counts, start, free=("object",), mu=0.0)
    expected, (slope,) = without(without.x)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-5)
    # Elsewhere, the penalty is that of the difference.
    value = expecting((other.object,))[0]
    more = 20.0 * penalty_of(other.object - image)
    assert value == pytest.approx(without.loss((other.object,)) + more, rel=1e-5)


def test_freedom_is_all_pixels_without_a_prior_and_few_with_a_strong_one(
    image: np.ndarray, model: CpuModel
) -> None:
    probe = np.ones((1, N, N), np.complex64)
    light = Light.of(model, probe)
    counts = Counts(np.ones((2, N, N), np.float32))
    start = Unknowns(image, probe, model.positions)
    free = [
        freedom(Objective(model, counts, start, free=("object",), mu=mu)) for mu in (0.0, 1.0, 1e9)
    ]
    assert free[0] == light.pixels
    assert free[0] > free[1] > free[2] > 0
    assert free[2] < 1.1 * light.pixels / (SHAPE[0] * SHAPE[1])  # the mean alone


def test_light_is_measured_on_what_is_lit() -> None:
    # Two windows of even light, which share half of their pixels.
    light = Light.of(
        CpuModel([[4.0, 4.0], [8.0, 4.0]], (8, 40), 8), np.ones((1, 8, 8), np.complex64)
    )
    assert light.pixels == 8 * 12
    assert light.typical == 1.0
    assert light.overlap == pytest.approx((2 * 32 * 1 + 32 * 4) / (2 * 32 + 32 * 2))  # even light


def test_weights_fall_to_the_last_one() -> None:
    weights = weaker(1e5, 20.0)
    assert weights[-1] == 20.0
    assert weights == sorted(weights, reverse=True)
    assert weaker(1.0, 20.0) == [20.0]
