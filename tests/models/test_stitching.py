"""Stitching: patches of an object become the object, by the definition in float64."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import ptycho_fast as pf
import reference
from ptycho_fast.canvas import Canvas

pytest.importorskip("torch")  # the package of the networks needs it

from ptycho_fast.models import stitching
from ptycho_fast.models.stitching import Stitcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

N = 16


def bell(side: int = N) -> NDArray[np.float32]:
    axis = np.arange(side) - side // 2
    made: NDArray[Any] = np.exp(-(axis[:, None] ** 2 + axis**2) / (side / 3) ** 2)
    return made.astype(np.float32)


def laid(
    patches: NDArray[Any], positions: NDArray[Any], shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """The sum of patches, each pixel shared by the four it falls between."""
    total, side = np.zeros(shape, complex), patches.shape[-1]
    for patch, (x, y) in zip(patches, positions, strict=True):
        left, top = math.floor(x), math.floor(y)
        for i, j in itertools.product((0, 1), (0, 1)):
            share = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            rows = np.arange(side) + top + i - side // 2
            columns = np.arange(side) + left + j - side // 2
            inside = ((rows >= 0) & (rows < shape[0]))[:, None] & (columns >= 0)
            inside &= columns < shape[1]
            where = np.broadcast_to(rows[:, None], inside.shape), columns + 0 * rows[:, None]
            np.add.at(total, (where[0][inside], where[1][inside]), share * patch[inside])
    return total


def cut(image: NDArray[Any], positions: NDArray[Any], side: int = N) -> NDArray[np.complex128]:
    return reference.extract_patches(image, positions[:, :, None], side)[..., 0]


def smooth_object() -> NDArray[np.complex128]:
    rows, columns = np.indices((60, 72)) / 70
    image: NDArray[Any] = (0.8 + 0.2 * np.cos(4 * rows)) * np.exp(1j * np.sin(3 * columns + rows))
    return image


def sharp_object() -> NDArray[np.complex128]:
    image = pf.simulate_scan(225, N, seed=1).object
    assert image is not None
    return image.astype(complex)


def many_positions(image: NDArray[Any], n: int = 300, seed: int = 0) -> NDArray[np.float64]:
    height, width = image.shape
    rng = np.random.default_rng(seed)
    return rng.uniform(N / 2, [width - N / 2, height - N / 2], (n, 2))


def stitch(
    image: NDArray[Any], positions: NDArray[Any], weight: NDArray[np.float32] | None = None
) -> Stitcher:
    weight = bell() if weight is None else weight
    made = Stitcher(Canvas((0, 0), image.shape[:2]), positions, weight)
    side = len(weight)
    made.add(np.arange(len(positions)), cut(image, positions, side).astype(np.complex64))
    return made


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patches_of_a_smooth_object_are_the_object(seed: int) -> None:
    """Up to a 50th of what neighbouring pixels differ by."""
    image = smooth_object()
    made = stitch(image, many_positions(image, seed=seed))
    inside = made.coverage > 1
    assert inside.mean() > 0.6
    slope = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    assert np.abs(made.image() - image)[inside].max() < 0.02 * slope


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patches_of_a_sharp_object_come_out_sharper_than_divided_by_weights(seed: int) -> None:
    image = sharp_object()
    positions = many_positions(image, seed=seed)
    made = stitch(image, positions)
    inside = made.coverage > 1
    assert inside.mean() > 0.6
    weights = np.broadcast_to(bell(), (len(positions), N, N))
    divided = laid(cut(image, positions) * bell(), positions, image.shape)
    divided[inside] /= laid(weights, positions, image.shape)[inside]

    def off(found: NDArray[Any]) -> float:
        return float(np.sqrt(np.mean(np.abs(found - image)[inside] ** 2)))

    assert off(divided) > 0.05
    assert off(made.image()) < 0.4 * off(divided)
    # They also are the image's patches, which is what the diffraction has been compared with.
    rest, before = (
        np.abs((cut(found, positions) - cut(image, positions)) * bell()).max()
        for found in (made.image(), np.where(inside, divided, image))
    )
    assert rest < before


def test_patches_at_whole_pixels_give_any_object_exactly() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(size=(40, 50)) + 1j * rng.normal(size=(40, 50))
    positions = rng.integers(0, [50, 40], (80, 2)).astype(float)
    made = stitch(image, positions)
    seen = made.coverage > 0
    assert seen.mean() > 0.9
    np.testing.assert_allclose(made.image()[seen], image[seen], atol=2e-5)


def test_the_image_by_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landweber's iteration in float64, four rounds, all patches at once or few at a time."""
    image = sharp_object()
    positions, weight = many_positions(image, 90, seed=4), bell().astype(float)
    rng = np.random.default_rng(5)
    patches = cut(image, positions) + 0.1 * rng.normal(size=(90, N, N))
    total = laid(np.broadcast_to(weight, patches.shape), positions, image.shape).real
    step = np.where(total > 0, 1 / np.maximum(total, 1e-3 * total.max()), 0)
    expected = laid(patches * weight, positions, image.shape) * step
    for _ in range(4):
        rest = weight * (patches - cut(expected, positions))
        expected += laid(rest, positions, image.shape) * step
    made = Stitcher(Canvas((0, 0), image.shape), positions, bell())
    made.add(np.arange(90), patches.astype(np.complex64))
    np.testing.assert_allclose(made.image(), expected, atol=2e-4)
    monkeypatch.setattr(stitching, "AT_ONCE", 7)
    np.testing.assert_allclose(made.image(), expected, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_coverage_is_the_sum_of_the_weights(side: int, n: int, seed: int) -> None:
    """Also where positions lie outside, or nothing was added."""
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 30)), int(rng.integers(1, 30))
    positions = rng.uniform(-10, 40, (12, 2))
    weight = rng.uniform(0.1, 1, (side, side)).astype(np.float32)
    some = rng.choice(12, n)
    made = Stitcher(Canvas((0, 0), shape), positions, weight)
    made.add(some, np.ones((n, side, side), np.complex64))
    weights = np.broadcast_to(weight, (n, side, side))
    expected = laid(weights, positions[some], shape).real
    found = made.coverage
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # Where nothing lies, nothing is; patches of 1 are an object of 1 where all of them lie inside.
    image = made.image()
    assert image.dtype == np.complex64
    assert image.shape == shape
    assert np.isfinite(image).all()
    assert not image[expected == 0].any()


def test_a_bright_patch_is_1_and_the_ground_0() -> None:
    made = Stitcher(Canvas((0, 0), (30, 40)), np.array([[20.0, 10.0], [8.0, 20.0]]), bell())
    assert not made.coverage.any()
    assert not made.image().any()
    made.add(np.array([0]), np.full((1, N, N), 2 - 1j, np.complex64))
    assert made.coverage[10, 20] == made.coverage.max() == 1
    seen = np.zeros((30, 40), bool)
    seen[2:18, 12:28] = True
    assert np.array_equal(made.coverage > 0, seen)
    np.testing.assert_allclose(made.image()[seen], 2 - 1j, rtol=1e-4)
    assert not made.image()[~seen].any()


def test_the_order_of_adding_does_not_matter() -> None:
    image = sharp_object()
    positions = many_positions(image, 120, seed=6)
    patches = cut(image, positions).astype(np.complex64)
    at_once = stitch(image, positions)
    order = np.random.default_rng(7).permutation(120)
    bit_by_bit = Stitcher(Canvas((0, 0), image.shape), positions, bell())
    for some in np.split(order, [1, 5, 60, 61]):
        bit_by_bit.add(some, patches[some])
    bit_by_bit.add(np.empty(0, np.int64), patches[:0])
    np.testing.assert_allclose(bit_by_bit.coverage, at_once.coverage, atol=1e-5)
    np.testing.assert_allclose(bit_by_bit.image(), at_once.image(), atol=2e-4)


def test_patches_added_twice_count_twice() -> None:
    image = sharp_object()
    positions = many_positions(image, 100, seed=8)
    patches = cut(image, positions).astype(np.complex64)
    once, twice = stitch(image, positions), stitch(image, positions)
    twice.add(np.arange(100), patches)
    np.testing.assert_allclose(twice.coverage, 2 * once.coverage, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(twice.image(), once.image(), atol=2e-4)
    # One that is named three times, twice in one call, is as three positions at one place.
    some = np.array([0, 1, 1, 2])
    named = Stitcher(Canvas((0, 0), image.shape), positions, bell())
    named.add(some, patches[[0, 1, 5, 2]])
    named.add(np.array([1]), patches[[7]])
    apart = Stitcher(Canvas((0, 0), image.shape), positions[[0, 1, 1, 2, 1]], bell())
    apart.add(np.arange(5), patches[[0, 1, 5, 2, 7]])
    np.testing.assert_allclose(named.coverage, apart.coverage, atol=1e-6)
    np.testing.assert_allclose(named.image(), apart.image(), atol=2e-4)


def test_patches_that_differ_are_averaged_by_weight() -> None:
    weight = np.ones((4, 4), np.float32)
    weight[:, 2:] = 3
    made = Stitcher(Canvas((0, 0), (10, 12)), np.array([[5.0, 5.0], [7.0, 5.0]]), weight)
    made.add(np.arange(2), np.stack([np.full((4, 4), v, np.complex64) for v in (1, 5)]))
    np.testing.assert_allclose(
        made.image()[4].real, [0, 0, 0, 1, 1, 2, 2, 5, 5, 0, 0, 0], rtol=1e-5
    )


def test_asking_for_the_image_changes_no_state() -> None:
    image = sharp_object()
    made = stitch(image, many_positions(image, 50))
    coverage, found = made.coverage, made.image()
    coverage[:] = -1
    first = found.copy()
    found[:] = 0
    assert np.array_equal(made.image(), first)
    assert made.coverage.min() >= 0
