"""The rules of CONTRACT 4 against the reference, bit for bit; what they promise and refuse."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from ptycho_fast import _core
from ptycho_fast.grouping import redraw
from test_no_panics import ANYTHING, GOOD_POSITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = sorted(reference.scan_shapes(8, 0))


def _raster(side: int = 20, pitch: float = 8.0) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64) * pitch


def _jittered(n: int = 400) -> NDArray[np.float64]:
    return reference.scan_shapes(n, 0)["jittered_raster"]


def _shares(groups: pf.Groups, N: int) -> list[float]:
    """The overlaps of all pairs of all groups."""
    return [
        reference.overlap(float(a[0] - b[0]), float(a[1] - b[1]), N)
        for group in groups.positions[groups.indices]
        for a, b in itertools.combinations(group, 2)
    ]


def _spacing(positions: NDArray[np.float64]) -> float:
    """The median distance to the nearest neighbour, 1 where positions coincide."""
    near = reference.nearest_neighbors(positions, np.arange(len(positions)), 1)[:, 0]
    return float(np.median(np.hypot(*(positions - positions[near]).T))) or 1.0


def _assert_equal(
    positions: NDArray[np.float64], threads: tuple[int, ...] = (1, 2, 8), **arguments: Any
) -> None:
    """Ours equals the reference; or there is no group, and ours says so."""
    centers, indices, left_out = reference.rule_groups(positions, **arguments)
    for num_threads in threads:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            if not len(indices):
                with pytest.raises(ValueError, match="leave|hold none|Within distance limits"):
                    pf.group_positions(positions, num_threads=num_threads, **arguments)
                continue
            groups = pf.group_positions(positions, num_threads=num_threads, **arguments)
        np.testing.assert_array_equal(groups.indices, indices)
        np.testing.assert_array_equal(groups.centers, centers)
        assert groups.left_out == left_out
        assert groups.indices.dtype == groups.centers.dtype == np.int32
        assert groups.indices.flags.c_contiguous


# The distances are multiples of the scan's spacing.
CASES: dict[str, dict[str, Any]] = {
    "max_distance": {"max_distance": 2.5},
    "min_distance": {"min_distance": 1.5, "n_neighbors": 9},
    "both distances": {"min_distance": 1.0, "max_distance": 2.0, "groups_per_center": 3},
    "distances and the centre": {"max_distance": 1.5, "include_center": True},
    "no group but the centre": {"max_distance": 1.1, "group_size": 1},
    "far away": {"min_distance": 6.0, "group_size": 5},
    "groups_per_center": {"groups_per_center": 4, "n_groups": 30},
    "groups_per_center, C = 1": {"groups_per_center": 2, "group_size": 1},
    "oversample": {"rule": "oversample", "n_groups": 333},
    "oversample, few": {"rule": "oversample", "n_groups": 30, "group_size": 9, "n_neighbors": 10},
    "oversample, spent": {"rule": "oversample", "n_groups": 400, "n_neighbors": 4},
    "oversample within": {"rule": "oversample", "n_groups": 250, "max_distance": 2.3},
    "oversample in order": {"rule": "oversample", "n_groups": 150, "centers": "sequential"},
    "quadrant": {"rule": "quadrant", "max_distance": 2.5},
    "quadrant, one slot or more": {"rule": "quadrant", "max_distance": 4.0, "n_neighbors": 4},
    "quadrant, far": {"rule": "quadrant", "max_distance": 1e9, "groups_per_center": 2},
    "quadrant, ring": {"rule": "quadrant", "max_distance": 3.5, "min_distance": 1.7},
    "overlap": {"rule": "overlap", "N": 24, "group_size": 6},
    "overlap, two blocks of words": {"rule": "overlap", "N": 40, "group_size": 9},
    "overlap, strict": {"rule": "overlap", "N": 21, "min_overlap": 0.7, "groups_per_center": 3},
    "overlap, none": {"rule": "overlap", "N": 3, "min_overlap": 0.0},
    "overlap, ring": {"rule": "overlap", "N": 30, "min_distance": 1.2, "max_distance": 2.3},
    "pool": {"strategy": "group-then-sample"},
    "pool, drawn": {"strategy": "group-then-sample", "n_neighbors": 12, "n_groups": 700},
    "pool, C = 1": {"strategy": "group-then-sample", "group_size": 1, "n_groups": 20},
    "pool within": {"strategy": "group-then-sample", "max_distance": 1.5, "n_groups": 10_000},
    "bounds": {"bounds": ((0.25, 0.75), (0.0, 0.5))},
    "bounds, oversample": {
        "rule": "oversample", "n_groups": 250, "bounds": ((0.0, 0.5), (0.0, 1.0))
    },
    "bounds, pool": {"strategy": "group-then-sample", "bounds": ((0.4, 1.0), (0.2, 0.9))},
    "bounds, in order": {"centers": "sequential", "bounds": ((0.0, 1.0), (0.3, 0.6))},
    "bounds, given": {"centers": np.arange(0, 90, 7), "bounds": ((0.0, 0.6), (0.0, 0.6))},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_rules_equal_the_reference_on_every_scan_shape(shape: str, case: str) -> None:
    positions = reference.scan_shapes(91, 3)[shape]
    arguments = dict(CASES[case])
    for name in ("min_distance", "max_distance"):
        if name in arguments:
            arguments[name] *= _spacing(positions)
    _assert_equal(positions, seed=3, epoch=1, **arguments)
    if not arguments.get("include_center") or "max_distance" not in arguments:
        _assert_equal(positions, threads=(2,), scan_ids=np.arange(91) // 13, seed=5, **arguments)


@pytest.mark.parametrize("case", CASES)
def test_rules_equal_the_reference_beyond_a_chunk(case: str) -> None:
    positions = _jittered(900)
    arguments = dict(CASES[case])
    for name in ("min_distance", "max_distance"):
        if name in arguments:
            arguments[name] *= _spacing(positions)
    _assert_equal(positions, seed=2**100, **arguments)


@pytest.mark.parametrize("shape", ["jittered_raster", "copies", "clusters", "equal_x", "circles"])
@pytest.mark.parametrize("labelled", [False, True])
def test_whoever_needs_more_neighbors_than_a_search_is_good_for(shape: str, labelled: bool) -> None:
    positions = reference.scan_shapes(3000, 3)[shape]
    extent = float(np.ptp(positions, axis=0).max())
    arguments: dict[str, Any] = {"centers": np.arange(5, 3000, 130), "seed": 1}
    if labelled:
        arguments["scan_ids"] = np.arange(3000) % 2
    _assert_equal(positions, (2,), rule="quadrant", max_distance=2 * extent, **arguments)
    _assert_equal(positions, (2,), min_distance=0.55 * extent, **arguments)
    _assert_equal(
        positions, (2,), min_distance=0.3 * extent, max_distance=0.31 * extent, **arguments
    )
    _assert_equal(
        positions,
        (2,),
        rule="quadrant",
        min_distance=0.4 * extent,
        max_distance=extent,
        **arguments,
    )


coordinates = st.one_of(
    st.integers(-4, 4).map(float),
    st.floats(-30, 30),
    st.sampled_from([-0.0, 0.1, 1e-170, 1e8, -1e150]),
)
distances = st.one_of(st.none(), st.integers(0, 6).map(float), st.floats(0, 40))


@st.composite
def draws(draw: Any) -> dict[str, Any]:
    """The arguments of any rule, such as do not contradict one another."""
    positions = draw(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=40))
    n = len(positions)
    rule = draw(st.sampled_from(["nearest", "oversample", "quadrant", "overlap", "pool"]))
    least = {"oversample": 2, "quadrant": 4}.get(rule, 1)
    C = 4 if rule == "quadrant" else draw(st.integers(least, 9))
    if n < C:
        positions += [(float(i), 0.5 * i) for i in range(C - n)]
    arguments: dict[str, Any] = {
        "positions": np.array(positions),
        "group_size": C,
        "n_neighbors": C + draw(st.integers(0, 12)),
        "seed": draw(st.integers(0, 2**128 - 1)),
        "epoch": draw(st.integers(0, 3)),
    }
    low, high = draw(distances), draw(distances)
    if rule == "quadrant" and high is None:
        high = 9.0
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    arguments.update(min_distance=low, max_distance=high)
    if rule == "pool":
        arguments["strategy"] = "group-then-sample"
    else:
        arguments["rule"] = rule
        arguments["centers"] = draw(st.sampled_from(["random", "sequential"]))
    if rule == "overlap":
        arguments.update(N=draw(st.integers(1, 40)), min_overlap=draw(st.floats(0, 1)))
    if rule in {"nearest", "quadrant", "overlap"}:
        arguments["groups_per_center"] = draw(st.integers(1, 3))
    if rule == "nearest":
        arguments["include_center"] = draw(st.booleans())
    if draw(st.booleans()):
        arguments["n_groups"] = draw(st.integers(1, 130))
    if draw(st.booleans()):
        few = draw(st.integers(1, 5))
        arguments["scan_ids"] = np.arange(len(positions)) * 7 % few
    if draw(st.booleans()):
        shares = [sorted(draw(st.tuples(*[st.floats(0, 1)] * 2))) for _ in "xy"]
        inside = _inside(arguments["positions"], shares)
        if inside.any():
            arguments["bounds"] = tuple(map(tuple, shares))
    return arguments


def _inside(positions: NDArray[np.float64], bounds: Any) -> NDArray[np.bool_]:
    inside = np.ones(len(positions), bool)
    for values, (low, high) in zip(positions.T, bounds, strict=True):
        extent, shifted = values.max() - values.min(), values - values.min()
        inside &= (low * extent <= shifted) & (shifted <= high * extent)
    return inside


@settings(deadline=None, max_examples=300)
@given(arguments=draws())
def test_any_draw_equals_the_reference(arguments: dict[str, Any]) -> None:
    _assert_equal(arguments.pop("positions"), threads=(1, 2), **arguments)


# --- what the rules promise -------------------------------------------------------------------


def _apart(groups: pf.Groups) -> NDArray[np.float64]:
    """Each channel minus its centre, (B, C, 2)."""
    return groups.positions[groups.indices] - groups.positions[groups.centers][:, np.newaxis]


def test_distances_hold_and_the_rest_is_counted() -> None:
    positions = _jittered()
    groups = pf.group_positions(positions, min_distance=7.0, max_distance=13.0, seed=1)
    apart = np.linalg.norm(_apart(groups), axis=-1)
    assert apart.min() >= 7
    assert apart.max() <= 13
    assert len(groups) + groups.left_out["distance"] == 400
    assert 0 < groups.left_out["distance"] < 200


def test_a_limit_is_part_of_what_it_allows() -> None:
    raster = _raster(5)
    groups = pf.group_positions(raster, min_distance=8.0, max_distance=8.0, seed=1)
    assert len(groups) == 9  # the inner ones have four neighbours at exactly 8
    assert groups.left_out == {"distance": 16}


def test_each_quadrant_gives_one() -> None:
    groups = pf.group_positions(_jittered(), rule="quadrant", max_distance=20.0, seed=1)
    right, up = np.moveaxis(_apart(groups) > 0, -1, 0)
    np.testing.assert_array_equal(right, [[False, True, False, True]] * len(groups))
    np.testing.assert_array_equal(up, [[True, True, False, False]] * len(groups))
    assert len(groups) + groups.left_out["quadrant"] == 400


def test_all_in_a_group_overlap() -> None:
    positions = _jittered()
    groups = pf.group_positions(positions, rule="overlap", group_size=7, N=32, seed=1)
    np.testing.assert_array_equal(groups.indices[:, 0], groups.centers)
    assert groups.include_center
    assert min(_shares(groups, 32)) >= 0.25
    relaxed = pf.group_positions(
        positions, rule="overlap", group_size=7, N=24, min_overlap=0.6, seed=1
    )
    assert 0.6 / 1.5**3 * (1 - 1e-12) <= min(_shares(relaxed, 24)) < 0.6


def test_more_overlap_is_drawn_more_often() -> None:
    positions = _jittered(2000)
    arguments: dict[str, Any] = {"group_size": 4, "seed": 1, "include_center": True}
    near = pf.group_positions(positions, rule="overlap", N=48, min_overlap=0.0, **arguments)
    even = pf.group_positions(positions, n_neighbors=30, **arguments)
    near_apart, even_apart = (np.linalg.norm(_apart(groups), axis=-1) for groups in (near, even))
    assert near_apart.mean() < 0.97 * even_apart.mean()


def test_labels_never_mix() -> None:
    positions = np.concatenate([_jittered(100)] * 3)  # three scans of one place
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


def test_labels_too_short_are_left_out() -> None:
    labels = np.repeat([0, 1, 2], [395, 3, 2])
    groups = pf.group_positions(_jittered(), scan_ids=labels, seed=1)
    assert groups.left_out == {"scan_ids": 5}
    assert len(groups) == 395
    both = pf.group_positions(_jittered(), scan_ids=labels, max_distance=9.0, seed=1)
    assert both.left_out["scan_ids"] == 5
    assert both.left_out["distance"] + len(both) == 395


def test_bounds_hold_for_centers_alone() -> None:
    positions = _jittered()
    groups = pf.group_positions(positions, bounds=((0.3, 0.6), (0.0, 0.4)), seed=1)
    inside = _inside(positions, groups.bounds)
    assert sorted(groups.centers) == np.flatnonzero(inside).tolist()
    assert not inside[groups.indices].all()
    everywhere = pf.group_positions(positions, seed=1)
    expected = everywhere.centers[inside[everywhere.centers]]
    np.testing.assert_array_equal(groups.centers, expected)  # ranked as in the whole scan


def test_rounds_follow_one_another() -> None:
    positions = _jittered()
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
def test_more_groups_only_append(arguments: dict[str, Any]) -> None:
    some, more = (
        pf.group_positions(_jittered(), count, seed=5, **arguments) for count in (100, 390)
    )
    np.testing.assert_array_equal(more.indices[: len(some)], some.indices)
    np.testing.assert_array_equal(more.centers[: len(some)], some.centers)
    assert len(more) > len(some) > 50


def test_no_set_comes_again_until_all_are_spent() -> None:
    positions, M = _jittered(30), math.comb(7, 4)
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


@pytest.mark.parametrize(("C", "K"), [(36, 80), (25, 60), (60, 200), (33, 66)])
def test_more_sets_than_64_bits_can_number(C: int, K: int) -> None:
    positions = _jittered(210)
    assert math.comb(K, C) >= 2**50
    _assert_equal(
        positions, (2,), rule="oversample", n_groups=430, group_size=C, n_neighbors=K, seed=6
    )


def test_the_pool_holds_each_group_once() -> None:
    positions = _jittered(100)
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
            assert "this processor must have it" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


# --- again -----------------------------------------------------------------------------------

AGAIN: list[dict[str, Any]] = [
    {},
    {"group_size": 1, "groups_per_center": 2},
    {"include_center": True, "groups_per_center": 2},
    {"max_distance": 10.0},
    {"max_distance": 10.0, "centers": np.arange(60)},
    {"max_distance": 100.0},
    {"rule": "overlap", "N": 40, "max_distance": 30.0, "n_neighbors": 12},
    {"min_distance": 9.0, "max_distance": 20.0, "n_groups": 50},
    {"rule": "oversample", "n_groups": 950},
    {"rule": "oversample", "n_groups": 450, "max_distance": 10.0},
    {"rule": "quadrant", "max_distance": 16.0},
    {"rule": "overlap", "N": 18, "min_overlap": 0.65, "groups_per_center": 2, "group_size": 5},
    {"rule": "overlap", "N": 18, "min_overlap": 0.65, "centers": np.arange(90)},
    {"strategy": "group-then-sample", "n_groups": 77},
    {"scan_ids": np.arange(400) % 3, "bounds": ((0.0, 0.5), (0.2, 1.0))},
    {"bounds": ((0.0, 0.5), (0.0, 1.0)), "centers": np.arange(100)},
    {"centers": "sequential", "n_groups": 31, "max_distance": 10.0},
]


@pytest.mark.filterwarnings("ignore:For n_groups=450")
@pytest.mark.parametrize("arguments", AGAIN, ids=[str(i) for i in range(len(AGAIN))])
def test_groups_are_drawn_again_and_kept(arguments: dict[str, Any], tmp_path: Path) -> None:
    positions = _jittered()
    first = pf.group_positions(positions, seed=8, **arguments)
    index = pf.ScanIndex(positions)
    first.save(tmp_path / "groups.npz")
    loaded = pf.Groups.load(tmp_path / "groups.npz", positions)
    for epoch in (0, 1, 5):
        expected = pf.group_positions(positions, seed=8, epoch=epoch, **arguments)
        known: list[Any] = [index.neighbors(first.n_neighbors), index]
        for groups, neighbors in itertools.product((first, loaded), known):
            again = redraw(groups, neighbors, epoch)
            np.testing.assert_array_equal(again.indices, expected.indices)
            np.testing.assert_array_equal(again.centers, expected.centers)
            assert again.left_out == expected.left_out
            for name in ("rule", "strategy", "bounds", "N", "n_groups", "max_distance", "epoch"):
                assert getattr(again, name) == getattr(expected, name)


def test_a_data_set_redraws_by_the_rule() -> None:
    scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    arguments: dict[str, Any] = {"rule": "quadrant", "max_distance": 40.0, "seed": 3}
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, **arguments))
    later = pf.group_positions(scan.positions, epoch=4, **arguments)
    np.testing.assert_array_equal(data.at_epoch(4).groups[0].indices, later.indices)


# --- refusals --------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rule": "farthest"}, "rule must be one of 'nearest', 'oversample', 'quadrant', 'overlap'"),
    ({"strategy": "sample"}, "strategy must be one of 'sample-then-group', 'group-then-sample'"),
    ({"max_distance": -1}, "max_distance must be a number of at least 0, got -1"),
    ({"max_distance": math.nan}, "max_distance must be a number of at least 0, got nan"),
    ({"max_distance": math.inf}, "got inf"),
    ({"min_distance": "8"}, "min_distance must be a number of at least 0, got '8'"),
    ({"min_distance": [1, 2]}, "min_distance must be a number"),
    ({"min_distance": 9, "max_distance": 8}, "min_distance=9 exceeds max_distance=8"),
    ({"max_distance": 7.9}, "max_distance=7.9 leaves out all 400 centres.*spacing is 8 "),
    ({"max_distance": 8, "group_size": 5}, "Raise max_distance to 11.32, which serves centre"),
    ({"min_distance": 300}, "min_distance=300 leaves out all 400.*Lower min_distance to"),
    ({"min_distance": 8.1, "max_distance": 8.2}, r"Raise max_distance to 11\.32"),
    ({"groups_per_center": 0}, r"groups_per_center must be a whole number in 1\.\."),
    ({"rule": "quadrant", "gridsize": 3, "max_distance": 9}, r"C must be 4 .*C=9 \(gridsize 3\)"),
    ({"rule": "quadrant"}, "rule='quadrant' needs max_distance"),
    (
        {"rule": "quadrant", "max_distance": 9, "include_center": True},
        "include_center=True does not go with rule='quadrant'",
    ),
    (
        {"rule": "quadrant", "max_distance": 10},
        "max_distance=10 leaves out all 400.*Raise max_distance to 11.32, which serves centre",
    ),
    (
        {"rule": "quadrant", "max_distance": 10, "positions": np.arange(40.0).reshape(20, 2)},
        "no larger one serves any.*Use rule='nearest'",
    ),
    ({"rule": "overlap"}, "rule='overlap' needs N"),
    ({"rule": "overlap", "N": 0}, "N must be a whole number"),
    ({"rule": "overlap", "N": 32, "min_overlap": 1.5}, r"min_overlap must be a number in 0\.\.1"),
    ({"rule": "overlap", "N": 32, "min_overlap": -0.1}, "got -0.1"),
    ({"rule": "overlap", "N": 8}, "min_overlap=0.25 leaves out all 400.*relaxed to 0.0741.*N=8"),
    ({"rule": "overlap", "N": 32, "n_neighbors": 3}, "K=3 must be >= C=4"),
    ({"N": 32}, "N=32 is for rule='overlap' alone"),
    ({"min_overlap": 0.5}, "min_overlap=0.5 is for rule='overlap' alone"),
    ({"rule": "oversample", "gridsize": 1}, "groups of 2 or more"),
    ({"rule": "oversample", "groups_per_center": 2}, "groups_per_center=2 does not go with"),
    ({"rule": "oversample", "include_center": True}, "include_center=True does not go with"),
    ({"rule": "oversample", "centers": [1, 2], "n_groups": 5}, "centers names 2 centres"),
    ({"rule": "oversample", "n_groups": 0}, "n_groups must be a whole number"),
    (
        {"strategy": "group-then-sample", "rule": "overlap", "N": 32},
        "it takes no rule='overlap'",
    ),
    ({"strategy": "group-then-sample", "include_center": True}, "include_center=True"),
    ({"strategy": "group-then-sample", "groups_per_center": 2}, "groups_per_center=2"),
    ({"strategy": "group-then-sample", "centers": [1, 2]}, "Leave centers out"),
    ({"bounds": ((0, 1.5), (0, 1))}, r"bounds must lie in 0\.\.1.*\(0, 1.5\) along x"),
    ({"bounds": ((0, 1), (-0.2, 1))}, r"\(-0.2, 1\) along y"),
    ({"bounds": ((0.7, 0.2), (0, 1))}, r"\(0.7, 0.2\) along x are reversed. Pass \(0.2, 0.7\)"),
    ({"bounds": ((0, math.nan), (0, 1))}, "bounds must lie in"),
    ({"bounds": (0, 1)}, r"bounds must be \(\(x0, x1\), \(y0, y1\)\)"),
    ({"bounds": ((0.51, 0.52), (0, 1))}, "hold none of the 400 positions.*Widen them to"),
    ({"bounds": ((0, 0.1), (0, 1)), "centers": [399]}, "hold none of the 1 positions"),
    ({"scan_ids": np.zeros(3, int)}, r"scan_ids must be \(400,\) whole numbers or text.*\(3,\)"),
    ({"scan_ids": np.zeros(400)}, "scan_ids must be .* of float64"),
    ({"scan_ids": np.arange(400)}, "needs C=4 positions of one label.*longest label has 1"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_bad_input_is_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pf.group_positions(**{"positions": _raster(), "seed": 1, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"epoch": 1},
        {"max_distance": 20.0},
        {"min_distance": 1.0},
        {"groups_per_center": 2},
        {"rule": "oversample"},
        {"rule": "quadrant", "max_distance": 20.0},
        {"rule": "overlap", "N": 32},
        {"strategy": "group-then-sample"},
        {"bounds": ((0, 1), (0, 1))},
        {"scan_ids": np.zeros(400, int)},
    ],
)
def test_the_legacy_stream_knows_none_of_it(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match='rng="numpy" repeats what older code drew'):
        pf.group_positions(_raster(), rng="numpy", seed=1, **arguments)


LIMITS: list[tuple[str, dict[str, Any]]] = [
    ("max_distance", {"max_distance": 1e-3}),
    ("max_distance", {"max_distance": 1e-3, "group_size": 7, "n_neighbors": 9}),
    ("max_distance", {"rule": "quadrant", "max_distance": 1e-3}),
    ("max_distance", {"rule": "oversample", "max_distance": 1e-3, "n_groups": 50}),
    ("max_distance", {"strategy": "group-then-sample", "max_distance": 1e-3}),
    ("min_distance", {"min_distance": 1e9}),
    ("min_distance", {"min_distance": 1e9, "max_distance": 1e10}),
    ("min_overlap", {"rule": "overlap", "N": 30, "min_overlap": 1.0, "group_size": 12}),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("limit", "arguments"), LIMITS)
def test_the_limit_named_serves(shape: str, limit: str, arguments: dict[str, Any]) -> None:
    positions = reference.scan_shapes(120, 4)[shape]
    refusal = _refusal(positions, **arguments)
    if refusal is None:
        assert len(reference.rule_groups(positions, seed=1, **arguments)[1])
        return
    change = r"(?:Raise|Lower) {} to ([\d.e+-]+\d|\d)"
    found = re.search(change.format(limit), refusal)
    if found is None and "max_distance" in arguments and limit == "min_distance":
        limit = "max_distance"  # it alone may be in the way
        found = re.search(change.format(limit), refusal)
    if found is None:
        assert "no larger one serves any" in refusal
        right, up = np.moveaxis(np.sign(positions - positions[:, np.newaxis]), -1, 0)
        there = [((right == r) & (up == u)).any(axis=1) for r in (-1, 1) for u in (-1, 1)]
        assert not np.logical_and.reduce(there).any()
        return
    served = pf.group_positions(positions, seed=1, **{**arguments, limit: float(found[1])})
    center = re.search(r"serves centre (\d+)", refusal)
    if center is not None and "strategy" not in arguments:
        assert int(center[1]) in served.centers


def _refusal(positions: NDArray[np.float64], **arguments: Any) -> str | None:
    try:
        pf.group_positions(positions, seed=1, **arguments)
    except ValueError as error:
        return str(error)
    return None


def test_a_refusal_does_not_look_at_everything() -> None:
    """How many centres the cure is sought for falls as the scan grows."""
    line = np.stack([np.arange(100_000.0), np.zeros(100_000)], axis=1)
    refusal = _refusal(line, rule="quadrant", max_distance=3.0, n_groups=10)
    assert refusal is not None
    assert "no larger one serves any of the first 10:" in refusal
    refusal = _refusal(line, rule="quadrant", max_distance=3.0)
    assert refusal is not None
    assert "no larger one serves any of the first 20:" in refusal


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bounds_named_serve(shape: str) -> None:
    positions = reference.scan_shapes(50, 4)[shape]
    for bounds in [((0.5, 0.5), (0.123, 0.123)), ((0.01, 0.02), (0.97, 0.98))]:
        refusal = _refusal(positions, bounds=bounds)
        if refusal is None:
            assert _inside(positions, bounds).any()
            continue
        found = re.search(r"Widen them to \(\((\S+), (\S+)\), \((\S+), (\S+)\)\)", refusal)
        assert found is not None
        x0, x1, y0, y1 = map(float, found.groups())
        assert len(pf.group_positions(positions, seed=1, bounds=((x0, x1), (y0, y1))))


def test_too_many_groups_within_bounds() -> None:
    with pytest.warns(UserWarning, match="n_groups=300 exceeds the 200 positions within bounds"):
        groups = pf.group_positions(_raster(), 300, bounds=((0, 0.5), (0, 1)), seed=1)
    assert len(groups) == 200


@settings(deadline=None, max_examples=300)
@given(
    arguments=st.dictionaries(
        st.sampled_from(
            ["rule", "strategy", "min_distance", "max_distance", "bounds", "scan_ids", "N",
             "min_overlap", "include_center"]
        ),
        ANYTHING,
        max_size=3,
    ),
    rule=st.sampled_from(["nearest", "oversample", "quadrant", "overlap"]),
)  # fmt: skip
def test_anything_is_drawn_or_refused(arguments: dict[str, Any], rule: str) -> None:
    arguments = {"rule": rule, **arguments}
    with warnings.catch_warnings(), contextlib.suppress(ValueError):
        warnings.simplefilter("ignore")
        pf.group_positions(GOOD_POSITIONS, seed=1, **arguments)


# --- never a panic ----------------------------------------------------------------------------

COUNTS = st.sampled_from([0, 1, 2, 4, 5, 2**31, 2**63, 2**64 - 1])
# Beyond what any memory holds, so that none is taken.
MANY = st.sampled_from([0, 1, 2, 5, 2**45, 2**63, 2**64 - 1])


@settings(deadline=None, max_examples=300)
@given(
    k=COUNTS,
    c=COUNTS,
    m=MANY,
    limits=st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
    least=st.floats(),
    centers=st.sampled_from([[], [3, 4], [12], [-1]]),
    kind=st.sampled_from(["index", "labelled", "listed", "short"]),
)
def test_the_core_alone(
    k: int, c: int, m: int, limits: Any, least: float, centers: list[int], kind: str
) -> None:
    positions = np.arange(24.0).reshape(12, 2)
    index = _core.ScanIndex(positions, "auto", 1)
    source: Any = index
    if kind == "labelled":
        source = _core.LabelledIndex(positions, np.arange(12, dtype=np.int32) // 5, "auto", 1)
    elif kind == "listed":
        source = index.neighbors(np.arange(12, dtype=np.int32), 5, 1)
    request = {
        "source": source,
        "positions": positions[: 6 if kind == "short" else 12],
        "centers": np.array(centers, np.int32),
        "n_neighbors": k,
        "group_size": c,
        "limits": limits,
        "labels": None,
        "key": (1, 2),
        "num_threads": 1,
    }
    for call in (
        lambda: _core.draw_within(request, True, m),
        lambda: _core.draw_oversample(request, m),
        lambda: _core.draw_quadrant(request, m),
        lambda: _core.draw_overlap(request, m, least, 2),
        lambda: _core.draw_overlap(request, 8, least, m),
        lambda: _core.draw_pool(request, m),
    ):
        with contextlib.suppress(ValueError, MemoryError):
            call()


def test_labels_of_the_core_are_guarded() -> None:
    positions = np.arange(24.0).reshape(12, 2)
    for labels in (np.zeros(5, np.int32), np.full(12, -1, np.int32), np.full(12, 12, np.int32)):
        with pytest.raises(ValueError, match="scan_ids"):
            _core.LabelledIndex(positions, labels, "auto", 1)
    sparse = _core.LabelledIndex(positions, np.full(12, 11, np.int32), "auto", 1)
    assert sparse is not None
