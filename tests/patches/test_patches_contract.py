"""What every way to cut patches does: the values of docs/contract.md, section 5, and refusals."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import ptycho_fast as pf
import reference
from patch_cases import (
    CASES,
    HEIGHT,
    WIDTH,
    assert_close,
    case,
    make_object,
    make_positions,
)


@pytest.mark.parametrize(("N", "gridsize", "B"), CASES)
def test_patches_follow_the_definition(extract: Any, N: int, gridsize: int, B: int) -> None:
    if extract.slow and B * gridsize**2 > 100:
        pytest.skip("2 ms a patch")
    image, positions, expected = case(N, gridsize, B)
    found = extract(image, positions, N)
    assert_close(found, expected, image)
    assert_close(found, pf.extract_patches(image, positions, N), image)


@pytest.mark.parametrize("N", [32, 33])
def test_patches_across_every_border_and_outside(extract: Any, N: int) -> None:
    def crossings(size: int) -> list[float]:
        near = [-N / 2 - 1, -N / 2, -N // 2 + 0.25, -1.0, -0.5, 0.0, 0.5, 2.75]
        far = [-1e18, -1e9, -3.1 * N, size + 1e5, 2.0**32 + size / 3, 1e18]
        return [size / 3, *far, *near, *(size - x for x in near)]

    xs, ys = crossings(WIDTH), crossings(HEIGHT)
    positions = np.array([(x, y) for x in xs for y in ys]).reshape(len(xs), len(ys), 2)
    positions = positions.transpose(0, 2, 1)
    image = make_object()
    patches = np.asarray(extract(image, positions, N))
    assert_close(patches, reference.extract_patches(image, positions, N), image)
    assert patches[0, :, :, 0].all()
    assert not patches[1:7].any()
    assert not patches[..., 1:7].any()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it is not changed
)
@given(st.data())
def test_patches_at_any_position(extract: Any, data: st.DataObject) -> None:
    coordinate = st.one_of(
        st.floats(-20, 30),
        st.integers(-20, 30).map(float),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    values = data.draw(st.lists(coordinate, min_size=12, max_size=12))
    positions = np.array(values).reshape(2, 2, 3)
    image = make_object(11, 17)
    assert_close(
        extract(image, positions, 5), reference.extract_patches(image, positions, 5), image
    )


def test_fractions_are_computed_in_float64(extract: Any) -> None:
    image = make_object(4, 120_000)
    positions = np.array([[[100_000.123, 99_999.877], [1.5, 2.25]]])
    expected = reference.extract_patches(image, positions, 4)
    assert_close(extract(image, positions, 4), expected, image)
    # A float32 position is used as it is, here 0.002 pixels off.
    narrow = positions.astype(np.float32)
    expected = reference.extract_patches(image, narrow, 4)
    assert_close(extract(image, narrow, 4), expected, image)


def test_objects_and_positions_may_be_any_arrays(extract: Any) -> None:
    image, positions = make_object(9, 13), make_positions(2, 3, 6)
    positions[0] = [[3.2, 5.7, -1.1], [4.4, 1.5, 2.6]]
    expected = reference.extract_patches(image, positions, 6)
    frozen = image.astype(np.complex64)
    frozen.flags.writeable = False
    for an_object in (image, image.tolist(), frozen, image.T.copy().T):
        for where in (positions, positions[:, None], positions.tolist()):
            assert_close(extract(an_object, where, 6), expected, image)
    real = extract(image.real, positions, 6)
    assert_close(real, reference.extract_patches(image.real, positions, 6), image)
    whole = np.round(positions).astype(np.int64)
    expected = reference.extract_patches(image, whole, 6)
    assert_close(extract(image, whole, 6), expected, image)


def test_without_groups_or_pixels_there_is_nothing_to_cut(extract: Any) -> None:
    image = make_object(9, 13)
    assert extract(image, np.empty((0, 2, 3)), 6).shape == (0, 6, 6, 3)
    patches = np.asarray(extract(image[:0], [[[1.0], [2.0]]], 6))
    assert patches.shape == (1, 6, 6, 1)
    assert not patches.any()


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float64])
def test_the_gradient_equals_finite_differences(differentiable: Any, dtype: type) -> None:
    rng = np.random.default_rng(5)
    image = make_object(6, 5)
    image = image.real.copy() if dtype is np.float64 else image.astype(dtype)
    positions = rng.uniform(-3, 8, (2, 2, 3))
    positions[0, :, 0] = 1e18
    target = (rng.normal(size=(2, 4, 4, 3)) + 1j * rng.normal(size=(2, 4, 4, 3))).astype(
        np.complex64
    )

    def loss(image: Any) -> float:
        patches = reference.extract_patches(image, positions, 4)
        return float((np.abs(patches - target) ** 2).sum())

    expected = np.zeros(image.shape, np.complex128)
    for pixel in np.ndindex(*image.shape):
        for step in (0.5, 0.5j):  # the loss is quadratic: central differences are exact
            change = np.zeros(image.shape, np.complex128)
            change[pixel] = step
            expected[pixel] += (loss(image + change) - loss(image - change)) * step / 0.5
    assert np.abs(expected).max() > 1
    found = differentiable.gradient(image, positions, target)
    assert found.dtype == dtype
    real = dtype is np.float64
    np.testing.assert_allclose(found, expected.real if real else expected, atol=2e-5)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"N": 0}, r"N must be a whole number in 1\.\.2147483647, got 0\."),
        ({"N": 2.5}, r"N must be .*, got 2\.5\."),
        ({"image": np.ones(3)}, r"object must be \(H, W\) complex, got shape \(3,\)"),
        ({"image": np.zeros((5, 5), "U1")}, "object must be"),
        ({"image": [["a"]]}, "object must be"),
        ({"positions": np.ones((4, 2))}, r"\(B, 2, C\) or \(B, 1, 2, C\).* got shape \(4, 2\)"),
        ({"positions": np.zeros((1, 3, 1))}, r"\(B, 2, C\) or \(B, 1, 2, C\).*\(1, 3, 1\)"),
        ({"positions": np.zeros((1, 2, 0))}, r"\(B, 2, C\)"),
        ({"positions": np.zeros((1, 2, 1), complex)}, "real numbers, got dtype complex128"),
    ],
)
def test_wrong_arguments_are_refused(extract: Any, change: dict[str, Any], sentence: str) -> None:
    good: dict[str, Any] = {"image": make_object(9, 13), "positions": [[[4.5], [3.5]]], "N": 4}
    with pytest.raises(ValueError, match=sentence):
        extract(**(good | change))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_refused(extract: Any, value: float) -> None:
    bad = np.array([[[4.5], [3.5]], [[value], [3.5]]])
    with pytest.raises(
        ValueError,
        match="Positions of patches must be finite: row 1 is the first of 1 rows",
    ):
        extract(make_object(9, 13), bad, 4)


def test_an_unknown_method_is_refused(differentiable: Any) -> None:
    for method in ("rust", None):
        wrong = type(differentiable)(differentiable.framework, method or "none")
        with pytest.raises(ValueError, match="method must be 'auto'.* got '(rust|none)'"):
            wrong(make_object(9, 13), [[[4.5], [3.5]]], 4)
