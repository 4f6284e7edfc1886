"""Groups drawn from NumPy's legacy random stream (docs/contract.md, section 3)."""

# ruff: noqa: NPY002  # the legacy stream is what is tested

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from ptycho_fast.ptychopinn import RawData
from records import make_record, positions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_groups_follow_the_legacy_stream(data: st.DataObject) -> None:
    C = data.draw(st.integers(1, 10), label="C")
    n = data.draw(st.integers(C, 60), label="n")
    K = data.draw(st.integers(C, 70), label="K")
    B = data.draw(st.integers(1, n), label="B")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    positions = positions_of(n)
    x, y = positions.T
    groups = RawData(x, y, x, y, None, None, None)._generate_groups_efficiently(B, K, C, seed)
    assert groups.dtype == np.int32
    assert groups.flags.c_contiguous
    np.testing.assert_array_equal(groups, reference.legacy_groups(positions, B, C, K, seed)[1])


def draw_from_the_global_stream(
    positions: NDArray[np.float64], B: int, K: int, C: int
) -> list[list[int]]:
    """Groups by NumPy's own functions, for K < n."""
    n = len(positions)
    centers = np.random.choice(n, B, replace=False) if n > B else np.arange(n)
    if C == 1:
        return [[int(center)] for center in centers]
    near = reference.nearest_neighbors(positions, centers, K)
    return [np.random.choice(row, C, replace=False).tolist() for row in near]


@settings(max_examples=20, deadline=None)
@given(
    C=st.sampled_from([1, 3, 4, 9]),
    B=st.integers(1, 30),
    before=st.integers(0, 700),
    seed=st.integers(0, 2**32 - 1),
)
def test_groups_without_a_seed_continue_the_global_stream(
    C: int, B: int, before: int, seed: int
) -> None:
    record, positions = make_record(30), positions_of(30)
    np.random.seed(seed)
    np.random.randint(2, size=before)
    np.random.standard_normal()  # leaves a second one waiting in the state
    start = np.random.get_state()
    drawn = [record._generate_groups_efficiently(B, 12, C).tolist() for _ in range(2)]
    left = np.random.get_state()
    follow = np.random.standard_normal(3)

    np.random.set_state(start)
    expected = [draw_from_the_global_stream(positions, B, 12, C) for _ in range(2)]
    assert drawn == expected
    for mine, numpys in zip(left, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(mine, numpys)
    np.testing.assert_array_equal(follow, np.random.standard_normal(3))


def test_grouped_data_without_a_seed_continues_the_global_stream() -> None:
    record = make_record(30)
    np.random.seed(11)
    drawn = [
        record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2)["nn_indices"].tolist()
        for _ in range(2)
    ]
    np.random.seed(11)
    expected = [draw_from_the_global_stream(positions_of(30), 9, 7, 4) for _ in range(2)]
    assert drawn == expected


def test_with_a_seed_the_global_stream_is_left_alone() -> None:
    record = make_record(30)
    np.random.seed(5)
    before = np.random.get_state()
    record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2, seed=3)
    record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2, sequential_sampling=True)
    record.generate_grouped_data(8, K=7, nsamples=99, gridsize=2, seed=3, enable_oversampling=True)
    for old, new in zip(before, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_global_generator_of_another_kind_is_refused_without_a_seed() -> None:
    record = make_record(30)
    random: Any = np.random  # the stubs lack these two
    kept = random.get_bit_generator()
    random.set_bit_generator(np.random.PCG64(1))
    try:
        with pytest.raises(ValueError, match=r"PCG64.*Pass seed="):
            record.generate_grouped_data(8)
        record.generate_grouped_data(8, seed=1)
    finally:
        random.set_bit_generator(kept)


@pytest.mark.parametrize("seed", [None, 7])
def test_sequential_sampling_takes_the_first_centers_and_seed_0(seed: int | None) -> None:
    data = make_record(30).generate_grouped_data(
        8, K=7, nsamples=12, gridsize=2, seed=seed, sequential_sampling=True
    )
    near = reference.nearest_neighbors(positions_of(30), np.arange(12), 7)
    stream = np.random.RandomState(0)
    expected = [stream.choice(row, 4, replace=False) for row in near]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def test_given_centers_are_used_as_given() -> None:
    centers = np.array([29, 3, 3, 0])
    groups = make_record(30)._generate_groups_efficiently(4, 7, 5, seed=9, seed_indices=centers)
    stream = np.random.RandomState(9)
    near = reference.nearest_neighbors(positions_of(30), centers, 7)
    np.testing.assert_array_equal(groups, [stream.choice(row, 5, replace=False) for row in near])
    alone = make_record(30)._generate_groups_efficiently(4, 1, 1, seed=9, seed_indices=centers)
    np.testing.assert_array_equal(alone, centers[:, None])


@pytest.mark.parametrize("centers", [[30], [-1], [0.5], [[1]], np.array([], int)])
def test_centers_out_of_range_are_refused(centers: Any) -> None:
    with pytest.raises(ValueError, match="seed_indices"):
        make_record(30)._generate_groups_efficiently(1, 7, 4, seed_indices=centers)


def test_given_centers_without_a_seed_are_those_of_seed_0() -> None:
    centers, before = np.array([7, 3, 3, 29]), np.random.get_state(legacy=False)["state"]
    found = [
        make_record(30)._generate_groups_efficiently(4, 7, 4, seed=seed, seed_indices=centers)
        for seed in (None, None, 0)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    after = np.random.get_state(legacy=False)["state"]  # the global stream is not touched
    assert after["pos"] == before["pos"]
    np.testing.assert_array_equal(after["key"], before["key"])


def test_coordinates_set_between_calls_are_seen() -> None:
    record = make_record(30)
    record.generate_grouped_data(8, seed=1)
    other = positions_of(30, seed=8)
    record.xcoords, record.ycoords = other.T
    data = record.generate_grouped_data(8, K=7, nsamples=30, seed=1, gridsize=2)
    expected = reference.legacy_groups(other, 30, 4, 7, 1)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)
