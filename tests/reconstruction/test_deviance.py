"""The expected deviance against sums over all counts, and against random counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho_fast.reconstruction.deviance import BRIGHT, DIM, expected_deviance


def by_definition(mean: float) -> float:
    """The mean over all counts that have a chance worth counting."""
    spread = 12 * math.sqrt(mean) + 30
    terms = []
    for k in range(max(0, int(mean - spread)), int(mean + spread)):
        chance = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
        terms.append(chance * (mean - k + (k * math.log(k / mean) if k else 0)))
    return math.fsum(terms)


def test_it_is_the_mean_over_all_counts() -> None:
    edges = [edge * (1 + by) for edge in (DIM, BRIGHT) for by in (-1e-9, 0, 1e-9)]
    means = np.concatenate([np.geomspace(1e-12, 3e4, 400), edges])
    expected = [by_definition(mean) for mean in means]
    np.testing.assert_allclose(expected_deviance(means), expected, rtol=1e-4)


def test_where_noise_alone_is_left_the_quotient_is_1() -> None:
    mean = 10 ** np.random.default_rng(0).uniform(-4, 1, (1000, 300))
    k = np.random.default_rng(1).poisson(mean)
    deviance = np.sum(mean - k + k * np.log(np.maximum(k, 1) / mean))
    assert deviance / expected_deviance(mean).sum() == pytest.approx(1, abs=5e-3)


def test_dark_and_very_bright_pixels() -> None:
    np.testing.assert_array_equal(
        expected_deviance(np.array([[0, 1e300, np.finfo(np.float64).max]], np.float64)),
        [[0, 0.5, 0.5]],
    )
    tiny = expected_deviance([5e-324, 1e-300])
    assert (tiny >= 0).all()
    assert (tiny < 1e-290).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint16])
def test_shape_and_dtype(kind: type) -> None:
    found = expected_deviance(np.ones((2, 3, 4), kind))
    assert found.shape == (2, 3, 4)
    assert found.dtype == np.float64
    assert expected_deviance(np.zeros((0, 5))).shape == (0, 5)
    assert expected_deviance(1.0).shape == ()


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_what_is_no_intensity_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"1 of 3 are not; the first is (-1|nan|inf)\."):
        expected_deviance([1.0, value, 2.0])


def test_what_is_not_real_is_refused() -> None:
    with pytest.raises(ValueError, match="intensity must be real numbers"):
        expected_deviance([1j])
