"""Every rule against the reference, bit for bit (docs/contract.md, section 4)."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHAPES = sorted(reference.scan_shapes(8, 0))


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
def test_rules_equal_the_reference_beyond_a_chunk(
    jittered: Callable[..., NDArray[np.float64]], case: str
) -> None:
    positions = jittered(900)
    arguments = dict(CASES[case])
    for name in ("min_distance", "max_distance"):
        if name in arguments:
            arguments[name] *= _spacing(positions)
    _assert_equal(positions, seed=2**100, **arguments)


@pytest.mark.parametrize("shape", ["jittered_raster", "copies", "clusters", "equal_x", "circles"])
@pytest.mark.parametrize("labelled", [False, True])
def test_rules_equal_the_reference_where_most_of_the_scan_is_searched(
    shape: str, labelled: bool
) -> None:
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


@pytest.mark.parametrize(("C", "K"), [(36, 80), (25, 60), (60, 200), (33, 66)])
def test_oversampling_equals_the_reference_beyond_64_bit_numbers_of_groups(
    jittered: Callable[..., NDArray[np.float64]], C: int, K: int
) -> None:
    positions = jittered(210)
    assert math.comb(K, C) >= 2**50
    _assert_equal(
        positions, (2,), rule="oversample", n_groups=430, group_size=C, n_neighbors=K, seed=6
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
        inside = reference.inside_bounds(arguments["positions"], shares)
        if inside.any():
            arguments["bounds"] = tuple(map(tuple, shares))
    return arguments


@settings(deadline=None, max_examples=300)
@given(arguments=draws())
def test_any_draw_equals_the_reference(arguments: dict[str, Any]) -> None:
    _assert_equal(arguments.pop("positions"), threads=(1, 2), **arguments)
