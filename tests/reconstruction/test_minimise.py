"""The minimisation finds minima that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ptycho_fast.reconstruction.minimise import HISTORY, Step, minimise

if TYPE_CHECKING:
    from ptycho_fast.reconstruction.minimise import Arrays


def same(x: Arrays) -> Arrays:
    return x


def test_a_quadratic_function_of_complex_and_real_arrays() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9)) + 1j * rng.normal(size=(9, 9))
    matrix = root @ root.conj().T + np.eye(9)
    goal = rng.normal(size=9) + 1j * rng.normal(size=9)

    def function(x: Arrays) -> tuple[float, Arrays]:
        off, real = x[0] - goal, x[1] - 3.0
        value = (off.conj() @ matrix @ off).real + 5 * (real**2).sum()
        return float(value), (2 * matrix @ off, 10 * real)

    start = (np.zeros(9, np.complex128), np.zeros((2, 2)))
    found = minimise(function, start, precondition=same, steps=200, tolerance=0)
    np.testing.assert_allclose(found.x[0], goal, atol=1e-6)
    np.testing.assert_allclose(found.x[1], 3.0, atol=1e-6)
    assert not start[0].any()  # the start is not changed
    assert not start[1].any()


def test_a_curved_valley_is_followed_to_its_end() -> None:
    def valley(x: Arrays) -> tuple[float, Arrays]:  # Rosenbrock, Computer J. 3, 175 (1960)
        a, b = x[0]
        value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
        return value, (np.array([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)]),)

    start = (np.array([-1.2, 1.0]),)
    found = minimise(valley, start, precondition=same, steps=100, tolerance=0)
    np.testing.assert_allclose(found.x[0], 1, atol=1e-4)


def test_the_value_never_rises_and_every_step_is_told() -> None:
    told: list[Step] = []

    def function(x: Arrays) -> tuple[float, Arrays]:
        return float((x[0] ** 4).sum()), (4 * x[0] ** 3,)

    def watch(step: Step) -> bool:
        told.append(step)
        return step.number == 7

    minimise(function, (np.ones(3),), precondition=same, steps=20, tolerance=0, watch=watch)
    assert [step.number for step in told] == list(range(1, 8))
    values = [step.value for step in told]
    assert values == sorted(values, reverse=True)


def test_it_ends_when_the_value_no_longer_falls() -> None:
    def function(x: Arrays) -> tuple[float, Arrays]:
        return float((x[0] ** 2).sum()), (2 * x[0],)

    found = minimise(function, (np.ones(3),), precondition=same, steps=1000, tolerance=1e-3)
    assert found.number <= 2 * HISTORY


@pytest.mark.parametrize("gradient", [0.0, np.nan])
def test_a_gradient_without_direction_ends_it_at_the_start(gradient: float) -> None:
    def function(x: Arrays) -> tuple[float, Arrays]:
        return 1.0, (np.full(3, gradient),)

    found = minimise(function, (np.ones(3),), precondition=same, steps=10, tolerance=0)
    assert found.number == 0
    np.testing.assert_array_equal(found.x[0], 1)


def test_a_step_into_what_is_not_a_number_is_shortened() -> None:
    def function(x: Arrays) -> tuple[float, Arrays]:
        with np.errstate(invalid="ignore", divide="ignore"):
            value: Any = x[0][0] - np.log(x[0][0])  # lowest at 1, and only above 0
            return float(value), (1 - 1 / x[0],)

    start = (np.array([0.2]),)
    found = minimise(function, start, precondition=lambda g: (10 * g[0],), steps=30, tolerance=0)
    np.testing.assert_allclose(found.x[0], 1, atol=1e-5)
