"""What `group_positions` refuses, in which words, and that the way out named is one."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from anything import ANYTHING, GOOD_POSITIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _bad(row: int, value: float, n: int = 10) -> NDArray[np.float64]:
    positions = np.arange(2.0 * n).reshape(n, 2)
    positions[row:, 1] = value
    return positions


OF_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"positions": _bad(3, np.nan)}, "row 3 is the first of 7 rows .of 10. that hold NaN"),
    ({"positions": _bad(8, -np.inf)}, "row 8 is the first of 2 rows"),
    ({"positions": _bad(5, 2e150)}, "within 1e150: row 5 is the first of 5"),
    ({"positions": np.empty((0, 2))}, "scan is empty"),
    ({"positions": []}, "scan is empty"),
    ({"positions": np.zeros((2, 10))}, r"\(n, 2\).*got shape \(2, 10\). Transpose"),
    ({"positions": np.zeros(10)}, r"got shape \(10,\)"),
    ({"positions": np.zeros((10, 2), complex)}, "real numbers, got dtype complex128"),
    ({"positions": np.full((10, 2), "1")}, "real numbers"),
    ({"positions": np.full((10, 2), None)}, "real numbers, got dtype object"),
    ({"positions": [[1, 2], [3]]}, "positions must be an array"),
    ({"positions": np.zeros((10, 2)), "xcoords": np.zeros(3)}, "Give positions, or"),
    ({"positions": None}, "Give positions, or"),
    ({"positions": None, "xcoords": np.zeros(3)}, "ycoords is missing"),
    (
        {"positions": None, "xcoords": np.zeros(3), "ycoords": np.zeros(4)},
        "Coordinate arrays must have matching shapes",
    ),
    ({"n_groups": 0}, r"n_groups must be a whole number in 1\.\..*, got 0"),
    ({"n_groups": -3}, "got -3"),
    ({"n_groups": 2.5}, "got 2.5"),
    ({"n_groups": 10**30}, "got 1000000"),
    ({"gridsize": 0}, "gridsize must be"),
    ({"group_size": 0}, "group_size must be"),
    ({"gridsize": 2, "group_size": 4}, "not both"),
    ({"n_neighbors": 3}, r"K=3 must be >= C=4 \(need at least C neighbors to form a group\)"),
    ({"n_neighbors": 2**31}, "n_neighbors must be"),
    ({"gridsize": 4}, "Dataset has only 10 points but 16 coordinates per group requested."),
    ({"num_threads": 0}, "num_threads must be"),
    ({"seed": -1}, "seed must be"),
    ({"seed": "a"}, "seed must be"),
    ({"seed": 2**32, "rng": "numpy"}, r"seed must be a whole number in 0\.\.4294967295"),
    ({"epoch": -1}, "epoch must be"),
    ({"rule": "farthest"}, "rule must be one of 'nearest'"),
    ({"rng": "pcg"}, "rng must be one of"),
    ({"engine": "octree"}, "engine must be one of"),
    ({"centers": "middle"}, "centers must be one of"),
    ({"centers": [0, 10]}, r"centers must be integers in 0\.\.9: 10 is the first of 1"),
    ({"centers": [-1]}, "-1 is the first of 1"),
    ({"centers": [0.5]}, "centers must be integers"),
    ({"centers": [[1]]}, "centers must be integers"),
    ({"centers": [1, 2], "n_groups": 3}, "centers names 2 centres, but n_groups is 3"),
    ({"centers": np.empty(0, int)}, "number of centers"),
    ({"rng": "numpy", "epoch": 1}, "knew no epoch"),
    ({"rng": "numpy", "include_center": True}, "knew no epoch"),
    ({"rng": "numpy", "centers": [1]}, "knew no epoch"),
    ({"rng": "numpy", "centers": "sequential"}, "knew no epoch"),
]


OF_RULES: list[tuple[dict[str, Any], str]] = [
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


@pytest.mark.parametrize(("arguments", "words"), OF_ARGUMENTS)
def test_bad_arguments_are_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    arguments = {"positions": np.arange(20.0).reshape(10, 2), **arguments}
    with pytest.raises(ValueError, match=words):
        pf.group_positions(**arguments)


@pytest.mark.parametrize(("arguments", "words"), OF_RULES)
def test_what_contradicts_a_rule_is_refused_in_words(
    coarse_raster: NDArray[np.float64], arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        pf.group_positions(**{"positions": coarse_raster, "seed": 1, **arguments})


SHAPES = sorted(reference.scan_shapes(8, 0))

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


def _refusal(positions: NDArray[np.float64], **arguments: Any) -> str | None:
    try:
        pf.group_positions(positions, seed=1, **arguments)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("limit", "arguments"), LIMITS)
def test_the_limit_that_a_message_names_gives_a_group(
    shape: str, limit: str, arguments: dict[str, Any]
) -> None:
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


def test_a_message_looks_at_fewer_centres_of_a_largerscan_of() -> None:
    """How many centres the cure is sought for falls as the scan grows."""
    line = np.stack([np.arange(100_000.0), np.zeros(100_000)], axis=1)
    refusal = _refusal(line, rule="quadrant", max_distance=3.0, n_groups=10)
    assert refusal is not None
    assert "no larger one serves any of the first 10:" in refusal
    refusal = _refusal(line, rule="quadrant", max_distance=3.0)
    assert refusal is not None
    assert "no larger one serves any of the first 20:" in refusal


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bounds_that_a_message_names_hold_a_centre(shape: str) -> None:
    positions = reference.scan_shapes(50, 4)[shape]
    for bounds in [((0.5, 0.5), (0.123, 0.123)), ((0.01, 0.02), (0.97, 0.98))]:
        refusal = _refusal(positions, bounds=bounds)
        if refusal is None:
            assert reference.inside_bounds(positions, bounds).any()
            continue
        found = re.search(r"Widen them to \(\((\S+), (\S+)\), \((\S+), (\S+)\)\)", refusal)
        assert found is not None
        x0, x1, y0, y1 = map(float, found.groups())
        assert len(pf.group_positions(positions, seed=1, bounds=((x0, x1), (y0, y1))))


def test_too_many_groups_within_bounds_warn(coarse_raster: NDArray[np.float64]) -> None:
    with pytest.warns(UserWarning, match="n_groups=300 exceeds the 200 positions within bounds"):
        groups = pf.group_positions(coarse_raster, 300, bounds=((0, 0.5), (0, 1)), seed=1)
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
