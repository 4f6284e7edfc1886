"""The oracle of the likelihood against its own loss, by finite differences, and its adjoints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference
from likelihood_cases import MASKS, Case, inner, make_case, noise
from reference.diffraction import FLOOR, Experiment

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = [(N, modes, mask) for (N, modes), mask in zip([(6, 1), (5, 3), (7, 2)], MASKS, strict=True)]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    N, modes, mask = request.param
    return make_case(N, modes, n=4, mask=mask)


def slope(function: Callable[[float], Any], step: float = 1e-4) -> Any:
    """Return the derivative at 0 by a central difference of the fourth order."""
    near, far = (function(s) - function(-s) for s in (step, 2 * step))
    return (8 * near - far) / (12 * step)


def loss(case: Case, **change: Any) -> float:
    """Return the loss of a case with another object, probe, positions or exposure."""
    outer = {name: change.pop(name) for name in ("object", "probe") if name in change}
    image, probe = outer.get("object", case.object), outer.get("probe", case.probe)
    experiment = replace(case.experiment, **change)
    return experiment.loss(case.counts, case.known, image, probe)


def along(case: Case, name: str, at: Any, direction: Any) -> Callable[[float], float]:
    """Return the loss as a function of a step in one direction."""
    return lambda step: loss(case, **{name: at + step * direction})


def test_the_intensities_use_the_patches_of_section_5(case: Case) -> None:
    where = case.experiment.positions[:, :, np.newaxis]
    patches = reference.extract_patches(case.object, where, case.probe.shape[-1])
    exits = np.fft.ifftshift(case.probe * patches[:, np.newaxis, :, :, 0], axes=(2, 3))
    waves = np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(2, 3))
    expected = case.experiment.exposure[:, np.newaxis, np.newaxis] * (np.abs(waves) ** 2).sum(1)
    found = case.experiment.intensities(case.object, case.probe)
    np.testing.assert_allclose(found, expected + case.experiment.background, rtol=1e-12)


def test_the_loss_is_half_the_deviance_and_0_for_a_perfect_fit(case: Case) -> None:
    perfect = case.experiment.intensities(case.object, case.probe) + FLOOR
    found = [
        case.experiment.loss(counts, case.known, case.object, case.probe)
        for counts in (perfect, np.zeros_like(perfect))
    ]
    assert abs(found[0]) < 1e-9
    assert found[1] == pytest.approx((perfect * case.known).sum())


@pytest.mark.parametrize("name", ["object", "probe", "exposure"])
def test_gradients_are_those_of_the_loss(case: Case, name: str) -> None:
    found = case.experiment.gradients(case.counts, case.known, case.object, case.probe)
    at: Any = getattr(case.experiment if name == "exposure" else case, name)
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = noise(rng, at.shape) if name != "exposure" else rng.normal(size=at.shape)
        measured = slope(along(case, name, at, direction))
        assert measured == pytest.approx(inner(getattr(found, name), direction), rel=1e-7)


def test_the_gradient_by_a_position_is_that_on_its_right(case: Case) -> None:
    found = case.experiment.gradients(case.counts, case.known, case.object, case.probe)
    expected = np.zeros_like(found.positions)
    step = 1e-5
    for index in np.ndindex(*expected.shape):
        values = []
        for count in range(3):
            moved = case.experiment.positions.copy()
            moved[index] += count * step
            values.append(loss(case, positions=moved))
        expected[index] = (4 * values[1] - values[2] - 3 * values[0]) / (2 * step)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.positions, expected, rtol=1e-5, atol=1e-6 * scale)
    assert not found.positions[-1].any()  # its window misses the object


def test_the_curvature_is_symmetric_positive_and_made_of_slopes(case: Case) -> None:
    rng = np.random.default_rng(2)
    u, v = (noise(rng, case.object.shape) for _ in range(2))

    def intensities(direction: Any) -> Any:
        return slope(
            lambda t: case.experiment.intensities(case.object + t * direction, case.probe), 0.1
        )

    product, other = (
        case.experiment.curvature(case.known, case.object, case.probe, way) for way in (v, u)
    )
    expected = case.experiment.intensities(case.object, case.probe) + FLOOR
    fisher = np.sum(case.known * intensities(u) * intensities(v) / expected)
    assert inner(u, product) == pytest.approx(fisher, rel=1e-9)
    assert inner(v, other) == pytest.approx(fisher, rel=1e-9)
    assert inner(v, product) > 0


def test_the_curvature_is_the_hessian_where_the_fit_is_perfect(case: Case) -> None:
    direction = noise(np.random.default_rng(3), case.object.shape)
    perfect = case.experiment.intensities(case.object, case.probe) + FLOOR

    def by_object(step: float) -> Any:
        image = case.object + step * direction
        return case.experiment.gradients(perfect, case.known, image, case.probe).object

    found = case.experiment.curvature(case.known, case.object, case.probe, direction)
    measured = slope(by_object)
    np.testing.assert_allclose(measured, found, atol=1e-6 * np.abs(found).max())


def test_light_is_the_adjoint_of_the_patches(case: Case) -> None:
    weight = np.random.default_rng(4).random(case.object.shape)
    N = case.probe.shape[-1]
    light = case.experiment.light(case.probe, weight.shape)
    patches = reference.extract_patches(weight, case.experiment.positions[:, :, np.newaxis], N)
    lit = np.sum(np.abs(case.probe) ** 2, axis=0) * patches[..., 0].real
    assert inner(light, weight) == pytest.approx(case.experiment.exposure @ lit.sum((1, 2)))


@pytest.mark.parametrize("rubbish", [np.nan, -1e9, 1e30])
def test_bad_pixels_do_not_count(rubbish: float) -> None:
    case = make_case(mask="single")
    spoilt = np.where(case.known, case.counts, np.float32(rubbish))
    clean, found = (
        case.experiment.gradients(counts, case.known, case.object, case.probe)
        for counts in (case.counts, spoilt)
    )
    assert np.array_equal(clean.object, found.object)
    assert loss(replace(case, counts=spoilt)) == loss(case)


def test_no_light_and_no_counts_are_finite() -> None:
    case = make_case(background=0.0)
    dark = Experiment(case.experiment.positions, case.experiment.exposure)
    nothing = np.zeros_like(case.object)
    found = dark.gradients(case.counts, case.known, nothing, case.probe)
    value = dark.loss(case.counts, case.known, nothing, case.probe)
    assert np.isfinite(value)
    assert value > 1
    for array in (found.object, found.probe, found.positions, found.exposure):
        assert np.isfinite(array).all()
