"""More groups than points (docs/contract.md, sections 4 and 7)."""

# ruff: noqa: NPY002  # the legacy stream is what is tested

from __future__ import annotations

import itertools
import logging
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference
from records import info_lines, make_record, positions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.mark.parametrize("enabled", [False, True])
def test_more_groups_of_one_than_points_are_every_point_once(enabled: bool) -> None:
    with pytest.warns(UserWarning, match="nsamples=40 exceeds the 30 points"):
        data = make_record(30).generate_grouped_data(
            8, nsamples=40, gridsize=1, seed=1, enable_oversampling=enabled
        )
    np.testing.assert_array_equal(data["nn_indices"], np.arange(30)[:, None])


def test_the_groups_function_never_oversamples() -> None:
    with pytest.warns(UserWarning, match="nsamples=40 exceeds the 30 points"):
        groups = make_record(30)._generate_groups_efficiently(40, 7, 3, seed=1)
    expected = reference.legacy_groups(positions_of(30), 30, 3, 7, 1)[1]
    np.testing.assert_array_equal(groups, expected)


def test_more_groups_than_points_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="OVERSAMPLING-001") as info:
        make_record(30).generate_grouped_data(8, K=7, nsamples=31, gridsize=2)
    assert "K choose C oversampling" in str(info.value)
    assert "enable_oversampling" in str(info.value)


@pytest.mark.parametrize(("K", "pool"), [(3, None), (7, 3)])
def test_a_pool_smaller_than_a_group_is_refused(K: int, pool: int | None) -> None:
    with pytest.raises(ValueError, match="neighbor_pool_size >= C.*=3.*OVERSAMPLING-001"):
        make_record(30).generate_grouped_data(
            8, K=K, nsamples=31, gridsize=2, enable_oversampling=True, neighbor_pool_size=pool
        )


def test_as_many_groups_as_points_are_not_oversampled() -> None:
    data = make_record(30).generate_grouped_data(
        8, K=5, nsamples=30, gridsize=2, seed=4, enable_oversampling=True, neighbor_pool_size=9
    )
    expected = reference.legacy_groups(positions_of(30), 30, 4, 5, 4)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def oversampled(
    positions: NDArray[np.float64], B: int, C: int, K: int, seed: int, *, in_order: bool = False
) -> list[list[int]]:
    """The rule `oversample` (docs/contract.md, section 4) in Python integers, all groups listed."""
    n = len(positions)
    key = reference.key(seed).tolist()
    centers = list(range(n)) if in_order else reference.centers(n, n, reference.key(seed)).tolist()
    groups = []
    for r, center in itertools.islice(itertools.product(range(B // n + 1), centers), B):
        slots = reference.nearest_neighbors(positions, [center], K)[0].tolist()
        if len(slots) < C:
            slots.append(center)
        # Colexicographic: by the largest member, then the next.
        subsets = sorted(itertools.combinations(range(len(slots)), C), key=lambda s: s[::-1])
        M = len(subsets)
        w0, w1, *_ = reference.philox_block((1 + center, 0, 0, 4), key)
        b = 1 + (w1 * (M - 1) >> 64)
        while math.gcd(b, M) != 1:
            b = (b + 1) % M
        group = [slots[s] for s in subsets[((w0 * M >> 64) + r * b) % M]]
        blocks = math.ceil(C / 4)
        words = [
            word
            for block in range(1 + center * blocks, 1 + (center + 1) * blocks)
            for word in reference.philox_block((block, 0, r, 2), key)
        ]
        for j in range(C):
            t = j + (words[j] * (C - j) >> 64)
            group[j], group[t] = group[t], group[j]
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    ("n", "gridsize", "K", "B"),
    [
        (20, 2, 7, 50),  # 35 sets a centre
        (20, 2, 4, 21),  # one set
        (20, 2, 5, 90),  # 5 sets, 4.5 rounds
        (6, 2, 9, 28),  # K > n - 1: 5 slots
        (4, 2, 7, 5),  # n = C: the centre is a slot
        (12, 3, 10, 27),  # three blocks of words a centre
    ],
)
@pytest.mark.parametrize("seed", [0, 42])
@pytest.mark.filterwarnings("ignore:nsamples")
def test_oversampling_follows_its_definition(
    n: int, gridsize: int, K: int, B: int, seed: int
) -> None:
    C = gridsize**2
    for in_order in (False, True):
        data = make_record(n).generate_grouped_data(
            8,
            K=K,
            nsamples=B,
            gridsize=gridsize,
            seed=seed,
            enable_oversampling=True,
            sequential_sampling=in_order,
        )
        # sequential_sampling stands for seed 0.
        expected = oversampled(positions_of(n), B, C, K, 0 if in_order else seed, in_order=in_order)
        assert data["nn_indices"].dtype == np.int32
        np.testing.assert_array_equal(data["nn_indices"], expected)
    assert data["X_full"].shape == (B, 8, 8, C)


def test_oversampling_draws_from_the_pool() -> None:
    data = make_record(20).generate_grouped_data(
        8,
        K=3,
        nsamples=45,
        gridsize=2,
        seed=1,
        enable_oversampling=True,
        neighbor_pool_size=6,
    )
    np.testing.assert_array_equal(
        data["nn_indices"], oversampled(positions_of(20), 45, 4, 6, seed=1)
    )


def test_no_group_of_a_center_is_repeated_until_all_are_used(
    recwarn: pytest.WarningsRecorder,
) -> None:
    n, M = 10, math.comb(6, 4)
    record = make_record(n)
    arguments: dict[str, Any] = {"K": 6, "gridsize": 2, "seed": 3, "enable_oversampling": True}
    all_sets = record.generate_grouped_data(8, nsamples=n * M, **arguments)["nn_indices"]
    assert not recwarn.list
    by_center = np.sort(all_sets.reshape(M, n, 4), axis=-1)
    for i in range(n):
        assert len(np.unique(by_center[:, i], axis=0)) == M

    with pytest.warns(UserWarning, match=r"exceeds the 10 \* 15 different groups"):
        more = record.generate_grouped_data(8, nsamples=n * M + 1, **arguments)["nn_indices"]
    np.testing.assert_array_equal(more[:-1], all_sets)
    assert sorted(more[-1]) == sorted(more[0])


def test_oversampling_is_exact_beyond_64_bits_of_different_groups() -> None:
    n, C, K, seed, B = 90, 36, 80, 6, 150
    M = math.comb(K, C)
    assert M > 2**64
    groups = make_record(n).generate_grouped_data(
        8, K=K, nsamples=B, gridsize=6, seed=seed, enable_oversampling=True
    )["nn_indices"]
    key = reference.key(seed)
    centers = reference.centers(n, n, key)
    for row, group in enumerate(groups):
        r, center = row // n, int(centers[row % n])
        slots = reference.nearest_neighbors(positions_of(n), [center], K)[0].tolist()
        members = sorted(slots.index(i) for i in group)
        rank = sum(math.comb(member, i) for i, member in enumerate(members, start=1))
        w0, w1, *_ = reference.philox_block((1 + center, 0, 0, 4), key.tolist())
        b = 1 + (w1 * (M - 1) >> 64)
        while math.gcd(b, M) != 1:
            b = (b + 1) % M
        assert rank == ((w0 * M >> 64) + r * b) % M


def test_oversampling_without_a_seed_can_be_repeated_by_seeding_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    record = make_record(20)
    arguments: dict[str, Any] = {"K": 7, "gridsize": 2, "enable_oversampling": True}
    np.random.seed(12)
    first, second = (
        record.generate_grouped_data(8, nsamples=50, **arguments)["nn_indices"] for _ in range(2)
    )
    assert (first != second).any()
    np.random.seed(12)
    again = record.generate_grouped_data(8, nsamples=50, **arguments)["nn_indices"]
    np.testing.assert_array_equal(again, first)
    # The line tells the seed that repeats the call alone.
    told = re.search(r"strategy=oversample n=20 B=50 K=7 C=4 seed=(\d+)", info_lines(caplog)[0])
    assert told is not None
    alone = record.generate_grouped_data(8, nsamples=50, seed=int(told[1]), **arguments)
    np.testing.assert_array_equal(alone["nn_indices"], first)
