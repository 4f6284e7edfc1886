"""What each rule promises (docs/contract.md, section 4)."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def _shares(groups: pf.Groups, N: int) -> list[float]:
    """The overlaps of all pairs of all groups."""
    return [
        reference.overlap(float(a[0] - b[0]), float(a[1] - b[1]), N)
        for group in groups.positions[groups.indices]
        for a, b in itertools.combinations(group, 2)
    ]


def _apart(groups: pf.Groups) -> NDArray[np.float64]:
    """Each channel minus its centre, (B, C, 2)."""
    return groups.positions[groups.indices] - groups.positions[groups.centers][:, np.newaxis]


def test_neighbours_keep_to_the_distances_and_other_centres_are_counted(
    jittered: Callable[..., NDArray[np.float64]],
) -> None:
    positions = jittered()
    groups = pf.group_positions(positions, min_distance=7.0, max_distance=13.0, seed=1)
    apart = np.linalg.norm(_apart(groups), axis=-1)
    assert apart.min() >= 7
    assert apart.max() <= 13
    assert len(groups) + groups.left_out["distance"] == 400
    assert 0 < groups.left_out["distance"] < 200


def test_a_neighbour_at_exactly_the_limit_is_allowed(coarse_raster: NDArray[np.float64]) -> None:
    groups = pf.group_positions(coarse_raster, min_distance=8.0, max_distance=8.0, seed=1)
    assert len(groups) == 18**2  # the inner ones have four neighbours at exactly 8
    assert groups.left_out == {"distance": 400 - 18**2}


def test_each_quadrant_gives_one_position(jittered: Callable[..., NDArray[np.float64]]) -> None:
    groups = pf.group_positions(jittered(), rule="quadrant", max_distance=20.0, seed=1)
    right, up = np.moveaxis(_apart(groups) > 0, -1, 0)
    np.testing.assert_array_equal(right, [[False, True, False, True]] * len(groups))
    np.testing.assert_array_equal(up, [[True, True, False, False]] * len(groups))
    assert len(groups) + groups.left_out["quadrant"] == 400


def test_all_windows_of_a_group_overlap(jittered: Callable[..., NDArray[np.float64]]) -> None:
    positions = jittered()
    groups = pf.group_positions(positions, rule="overlap", group_size=7, N=32, seed=1)
    np.testing.assert_array_equal(groups.indices[:, 0], groups.centers)
    assert groups.include_center
    assert min(_shares(groups, 32)) >= 0.25
    relaxed = pf.group_positions(
        positions, rule="overlap", group_size=7, N=24, min_overlap=0.6, seed=1
    )
    assert 0.6 / 1.5**3 * (1 - 1e-12) <= min(_shares(relaxed, 24)) < 0.6


def test_larger_overlap_is_drawn_more_often(jittered: Callable[..., NDArray[np.float64]]) -> None:
    positions = jittered(2000)
    arguments: dict[str, Any] = {"group_size": 4, "seed": 1, "include_center": True}
    near = pf.group_positions(positions, rule="overlap", N=48, min_overlap=0.0, **arguments)
    even = pf.group_positions(positions, n_neighbors=30, **arguments)
    near_apart, even_apart = (np.linalg.norm(_apart(groups), axis=-1) for groups in (near, even))
    assert near_apart.mean() < 0.97 * even_apart.mean()


def test_labels_never_mix(jittered: Callable[..., NDArray[np.float64]]) -> None:
    positions = np.concatenate([jittered(100)] * 3)  # three scans of one place
    labels = np.repeat(["c", "a", "b"], 100)
    for arguments in (
        {}, {"rule": "overlap", "N": 32}, {"rule": "quadrant", "max_distance": 30.0},
        {"rule": "oversample", "n_groups": 900}, {"strategy": "group-then-sample"},
    ):  # fmt: skip
        groups = pf.group_positions(positions, scan_ids=labels, seed=1, **arguments)
        of_group = labels[groups.indices]
        assert (of_group == of_group[:, :1]).all()
        assert (labels[groups.centers] == of_group[:, 0]).all()
        other = pf.group_positions(
            positions, scan_ids=np.repeat([7, -2, 5], 100), seed=1, **arguments
        )
        np.testing.assert_array_equal(other.indices, groups.indices)


def test_labels_with_too_few_positions_are_left_out(
    jittered: Callable[..., NDArray[np.float64]],
) -> None:
    labels = np.repeat([0, 1, 2], [395, 3, 2])
    groups = pf.group_positions(jittered(), scan_ids=labels, seed=1)
    assert groups.left_out == {"scan_ids": 5}
    assert len(groups) == 395
    both = pf.group_positions(jittered(), scan_ids=labels, max_distance=9.0, seed=1)
    assert both.left_out["scan_ids"] == 5
    assert both.left_out["distance"] + len(both) == 395


def test_bounds_apply_to_centres_but_not_to_their_neighbours(
    jittered: Callable[..., NDArray[np.float64]],
) -> None:
    positions = jittered()
    groups = pf.group_positions(positions, bounds=((0.3, 0.6), (0.0, 0.4)), seed=1)
    inside = reference.inside_bounds(positions, groups.bounds)
    assert sorted(groups.centers) == np.flatnonzero(inside).tolist()
    assert not inside[groups.indices].all()
    everywhere = pf.group_positions(positions, seed=1)
    expected = everywhere.centers[inside[everywhere.centers]]
    np.testing.assert_array_equal(groups.centers, expected)  # ranked as in the whole scan


def test_groups_per_center_repeats_the_centres_round_after_round(
    jittered: Callable[..., NDArray[np.float64]],
) -> None:
    positions = jittered()
    once = pf.group_positions(positions, 100, seed=1)
    often = pf.group_positions(positions, 100, groups_per_center=5, seed=1)
    np.testing.assert_array_equal(often.centers, np.tile(once.centers, 5))
    np.testing.assert_array_equal(often.indices[:100], once.indices)
    rounds = often.indices.reshape(5, 100, 4)
    assert all((a != b).any() for a, b in itertools.combinations(rounds, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_distance": 14.0},
        {"rule": "oversample"},
        {"rule": "quadrant", "max_distance": 20.0},
        {"rule": "overlap", "N": 20},
        {"strategy": "group-then-sample"},
    ],
)
def test_more_groups_only_append(
    jittered: Callable[..., NDArray[np.float64]], arguments: dict[str, Any]
) -> None:
    some, more = (
        pf.group_positions(jittered(), count, seed=5, **arguments) for count in (100, 390)
    )
    np.testing.assert_array_equal(more.indices[: len(some)], some.indices)
    np.testing.assert_array_equal(more.centers[: len(some)], some.centers)
    assert len(more) > len(some) > 50


def test_no_group_is_repeated_until_a_centre_has_used_them_all(
    jittered: Callable[..., NDArray[np.float64]],
) -> None:
    positions, M = jittered(30), math.comb(7, 4)
    arguments: dict[str, Any] = {"rule": "oversample", "n_neighbors": 7, "seed": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = pf.group_positions(positions, 30 * M, **arguments)
    by_center = np.sort(groups.indices.reshape(M, 30, 4), axis=-1)
    for sets in by_center.transpose(1, 0, 2):
        assert len(np.unique(sets, axis=0)) == M
    with pytest.warns(
        UserWarning,
        match=r"1 centre has too few distinct groups \(as few as 35\)",
    ):
        pf.group_positions(positions, 30 * M + 1, **arguments)


def test_the_pool_holds_each_group_once(jittered: Callable[..., NDArray[np.float64]]) -> None:
    positions = jittered(100)
    with pytest.warns(UserWarning, match=r"exceeds the \d+ groups of the pool"):
        groups = pf.group_positions(positions, 10**6, strategy="group-then-sample", seed=1)
    assert (np.diff(groups.indices, axis=1) > 0).all()
    assert len(np.unique(groups.indices, axis=0)) == len(groups)
    near = reference.nearest_neighbors(positions, np.arange(100), 7)
    every = {tuple(sorted(some)) for row in near for some in itertools.combinations(row, 4)}
    assert set(map(tuple, groups.indices.tolist())) == every


def test_vector_instructions_change_nothing() -> None:
    script = """
import numpy as np, ptycho_fast as pf, hashlib
positions = np.random.default_rng(0).uniform(0, 300, (1500, 2))
groups = pf.group_positions(positions, rule="overlap", group_size=8, N=40, seed=1)
print(hashlib.sha256(groups.indices.tobytes()).hexdigest())
"""
    found = set()
    for name in ("portable", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PTYCHO_FAST_SIMD": name},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode and name != "portable":
            assert "the processor must support it" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
