"""Gather, energies and the normalisation (docs/contract.md, section 6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from ptycho_fast.patterns import (
    gather_normalised,
    gather_patterns,
    normalisation_scale,
    pattern_energies,
)

DTYPES = [np.float32, np.float64, np.uint16]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 20), N=st.integers(1, 12), C=st.integers(1, 16), B=st.integers(0, 9),
    dtype=st.sampled_from(DTYPES), seed=st.integers(0, 100),
)  # fmt: skip
def test_patterns_are_gathered_channels_last(
    n: int, N: int, C: int, B: int, dtype: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.uniform(0, 60000, (n, N, N)).astype(dtype)
    indices = rng.integers(0, n, (B, C))
    expected = reference.gather(stack, indices)
    scale = np.float32(rng.uniform(0.1, 3))
    for threads in (1, 2, 8):
        found = gather_patterns(stack, indices, num_threads=threads)
        assert found.dtype == stack.dtype
        np.testing.assert_array_equal(found, expected)
        scaled = gather_patterns(stack, indices, scale=scale, num_threads=threads)
        assert scaled.dtype == np.float32
        np.testing.assert_array_equal(scaled, scale * expected.astype(np.float32))
        scales = rng.uniform(0.1, 3, B).astype(np.float32)
        each = gather_patterns(stack, indices, scale=scales, num_threads=threads)
        np.testing.assert_array_equal(
            each, scales[:, None, None, None] * expected.astype(np.float32)
        )
        mask = rng.random((N, N)) < 0.7
        masked = gather_patterns(stack, indices, mask=mask, num_threads=threads)
        assert masked.dtype == stack.dtype
        np.testing.assert_array_equal(masked, np.where(mask[None, :, :, None], expected, 0))
        both = gather_patterns(stack, indices, mask=mask, scale=scales, num_threads=threads)
        np.testing.assert_array_equal(both, np.where(mask[None, :, :, None], each, 0))
    out = np.empty_like(expected)
    assert gather_patterns(stack, indices, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_energies_and_scale_equal_the_reference(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    stack = rng.uniform(0, 900, (50, 33, 33)).astype(dtype)
    energies = pattern_energies(stack)
    np.testing.assert_allclose(energies, (stack.astype(float) ** 2).sum((1, 2)), rtol=1e-14)
    for threads in (1, 2, 8):
        again = pattern_energies(stack, num_threads=threads)
        np.testing.assert_array_equal(again, energies)
    indices = rng.integers(0, 50, (20, 4))
    scale = normalisation_scale(energies, indices, 33)
    expected = reference.normalisation_scale(stack[indices].transpose(0, 2, 3, 1), 33)
    assert isinstance(scale, np.float32)
    assert abs(scale - expected) <= np.spacing(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 4, 9])
def test_gathering_twice_is_gathering_and_normalising(dtype: Any, C: int) -> None:
    rng = np.random.default_rng(2)
    stack = rng.uniform(0, 900, (50, 33, 33)).astype(dtype)
    indices = rng.integers(10, 50, (20, C))
    if dtype != np.uint16:
        stack[3] = np.nan  # in no group: not looked at
    gathered, normalised = gather_normalised(stack, indices)
    expected = reference.gather(stack, indices)
    assert gathered.dtype == stack.dtype
    np.testing.assert_array_equal(gathered, expected)
    scale = reference.normalisation_scale(expected, 33)
    np.testing.assert_allclose(normalised, scale * expected.astype(np.float32), rtol=2e-7)
    assert normalised.dtype == np.float32


def test_any_memory_layout_is_accepted() -> None:
    stack = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    indices = [[2, 0]]
    expected = reference.gather(stack, np.array(indices))
    for way in (np.asfortranarray(stack), stack.astype(">f4"), stack[::-1][::-1]):
        np.testing.assert_array_equal(gather_patterns(way, indices), expected)


@pytest.mark.parametrize(
    ("stack", "indices", "words"),
    [
        (
            np.zeros((3, 4, 5), np.float32),
            [[0]],
            r"\(n, N, N\), square patterns, got shape \(3, 4, 5\)",
        ),
        (np.zeros((3, 4), np.float32), [[0]], r"\(n, N, N\)"),
        (np.zeros((3, 0, 0), np.float32), [[0]], r"\(n, N, N\)"),
        (np.zeros((3, 4, 4), np.complex64), [[0]], "real numbers of up to 64 bits, got complex64"),
        (np.full((3, 4, 4), "a"), [[0]], "real numbers of up to 64 bits, got <U1"),
        (np.zeros((3, 4, 4), np.float32), [[0, 3]], "3 is the first of 1 outside"),
        (np.zeros((3, 4, 4), np.float32), [[0, -1]], "-1 is the first of 1 outside"),
        (np.zeros((3, 4, 4), np.float32), [0], "with 2 axes"),
        (np.zeros((3, 4, 4), np.float32), [[0.5]], "indices must be integers"),
    ],
)
def test_bad_input_is_refused_in_words(stack: Any, indices: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gather_patterns(stack, indices)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mask": np.ones((3, 4), bool)}, r"mask must be \(4, 4\) bool.*got shape \(3, 4\)"),
        ({"mask": np.ones((4, 4))}, "of float64"),
        ({"scale": [1.0, 2.0, 3.0]}, "broadcast"),
        ({"scale": "a"}, "scale must be real numbers"),
        ({"scale": 1j}, "scale must be real numbers"),
    ],
)
def test_masks_and_scales_that_do_not_fit_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gather_patterns(np.zeros((3, 4, 4), np.float32), [[0], [1]], **arguments)


def test_there_is_no_scale_for_zeros_or_nan() -> None:
    indices = np.array([[0, 1]])
    with pytest.raises(ValueError, match="All 2 grouped patterns are zero"):
        normalisation_scale(np.zeros(3), indices, 4)
    with pytest.raises(ValueError, match="pattern 1 is the first of 1"):
        normalisation_scale(np.array([1.0, np.nan, 1.0]), indices, 4)


def test_a_result_larger_than_memory_is_a_memory_error() -> None:
    stack = np.zeros((1, 4096, 4096), np.uint16)
    with pytest.raises(MemoryError):
        gather_patterns(stack, np.zeros((10_000_000, 4), np.int32))
