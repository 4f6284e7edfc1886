"""The functions beside `RawData` (docs/contract.md, sections 5 to 7)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from ptycho_fast.ptychopinn import (
    get_image_patches,
    get_neighbor_indices,
    get_relative_coords,
    normalize_data,
)
from records import STACK_DTYPES, make_object, make_record, positions_of, tolerance


@settings(max_examples=30, deadline=None)
@given(
    N=st.integers(1, 40),
    gridsize=st.integers(1, 3),
    B=st.integers(1, 5),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_image_patches_are_those_of_the_definition(
    N: int, gridsize: int, B: int, seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    obj = make_object((50, 70), seed)
    # Across every border, and fully outside.
    offsets = rng.uniform(-30, 100, (B, 1, 2, 1)).astype(dtype)
    relative = rng.normal(0, 10, (B, 1, 2, gridsize**2)).astype(dtype)
    patches = get_image_patches(obj, offsets, relative, N, gridsize)
    assert type(patches) is np.ndarray
    assert patches.dtype == np.complex64
    total = (offsets.astype(np.float64) + relative.astype(np.float64)).astype(np.float32)
    expected = reference.extract_patches(obj, total, N)
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))


def test_image_patches_round_positions_to_float32() -> None:
    # At 2**20 float32 counts in eighths, so that 2**20 + 0.03 becomes 2**20.
    ramp = np.zeros((1, 2**20 + 2), np.complex64)
    ramp[0, -1] = 1
    offsets = np.array([2.0**20, 0.0]).reshape(1, 1, 2, 1)
    for x, expected in ((0.03, 0.0), (0.125, 0.125)):
        relative = np.array([x, 0.0]).reshape(1, 1, 2, 1)
        assert get_image_patches(ramp, offsets, relative, 1, 1).item() == expected


@pytest.mark.parametrize(
    ("offsets", "relative"),
    [
        ((2, 1, 2, 1), (3, 1, 2, 4)),
        ((2, 1, 2, 4), (2, 1, 2, 4)),
        ((2, 2, 2, 1), (2, 2, 2, 4)),
        ((2, 1, 3, 1), (2, 1, 3, 4)),
    ],
)
def test_offsets_that_do_not_fit_are_refused(
    offsets: tuple[int, ...], relative: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 2, C\)"):
        get_image_patches(make_object(), np.zeros(offsets), np.zeros(relative), N=8, gridsize=2)


def test_relative_coords_are_minus_the_distance_from_the_mean() -> None:
    positions, groups = positions_of(30), np.random.default_rng(5).integers(0, 30, (6, 9))
    expected = reference.coordinates(positions, groups)
    offsets, relative = get_relative_coords(expected["coords_nn"])
    np.testing.assert_array_equal(offsets, expected["coords_offsets"])
    np.testing.assert_array_equal(relative, expected["coords_relative"])
    assert offsets.dtype == relative.dtype == np.float64
    wide = get_relative_coords(expected["coords_nn"].astype(np.float32))
    assert wide[0].dtype == wide[1].dtype == np.float64
    for bad in (np.zeros((3, 1, 3, 4)), np.zeros((3, 1, 2, 4), complex), np.zeros(4)):
        with pytest.raises(ValueError, match=r"\(B, 1, 2, C\)|real numbers"):
            get_relative_coords(bad)


@pytest.mark.parametrize("K", [None, 1, 29])
def test_neighbor_indices_begin_with_the_position_itself(K: int | None) -> None:
    for name, positions in reference.scan_shapes(30, seed=1).items():
        x, y = positions.T
        found = get_neighbor_indices(x, y) if K is None else get_neighbor_indices(x, y, K)
        assert found.dtype == np.int64
        near = reference.nearest_neighbors(positions, np.arange(30), K or 3)
        expected = np.column_stack([np.arange(30), near])
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_more_neighbors_than_other_points_are_refused() -> None:
    x, y = positions_of(30).T
    with pytest.raises(
        ValueError, match="K=30 neighbours were asked for, but each of 30 points has only 29"
    ):
        get_neighbor_indices(x, y, 30)
    with pytest.raises(ValueError, match="K must be a whole number"):
        get_neighbor_indices(x, y, 0)
    with pytest.raises(ValueError, match="matching shapes"):
        get_neighbor_indices(x, y[1:])


@pytest.mark.parametrize("dtype", [*STACK_DTYPES, np.int64, np.float16])
def test_normalize_data_scales_to_the_mean_energy(dtype: Any) -> None:
    gathered = np.random.default_rng(6).uniform(0, 200, (5, 8, 8, 4)).astype(dtype)
    kept = gathered.copy()
    X_full = normalize_data({"diffraction": gathered}, 8)
    scale = reference.normalisation_scale(gathered, 8)
    assert X_full.dtype == np.float32
    np.testing.assert_allclose(X_full, scale * gathered.astype(np.float32), rtol=3e-7)
    np.testing.assert_array_equal(gathered, kept)


def test_normalize_data_agrees_with_grouped_data() -> None:
    data = make_record(30).generate_grouped_data(8, K=7, nsamples=9, seed=0, gridsize=2)
    np.testing.assert_allclose(normalize_data(data, 8), data["X_full"], rtol=3e-7)


def test_normalize_data_refuses_patterns_without_energy() -> None:
    for bad in (np.zeros((2, 4, 4, 1)), np.full((2, 4, 4, 1), np.nan), np.ones((4, 4))):
        with pytest.raises(ValueError, match=r"zero|finite|\(B, N, N, C\)"):
            normalize_data({"diffraction": bad}, 4)
