"""Groups of another epoch, from neighbours that were searched once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.grouping import draw, prepare_redraw, redraw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

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
def test_redrawn_and_reloaded_groups_equal_a_fresh_draw(
    jittered: Callable[..., NDArray[np.float64]], arguments: dict[str, Any], tmp_path: Path
) -> None:
    positions = jittered()
    first = pf.group_positions(positions, seed=8, **arguments)
    index = pf.ScanIndex(positions)
    first.save(tmp_path / "groups.npz")
    loaded = pf.Groups.load(tmp_path / "groups.npz", positions)
    for epoch in (0, 1, 5):
        expected = pf.group_positions(positions, seed=8, epoch=epoch, **arguments)
        known: list[Any] = [index.neighbors(first.n_neighbors), index, prepare_redraw(first)]
        for groups, neighbors in itertools.product((first, loaded), known):
            again = redraw(groups, neighbors, epoch)
            np.testing.assert_array_equal(again.indices, expected.indices)
            np.testing.assert_array_equal(again.centers, expected.centers)
            assert again.left_out == expected.left_out
            for name in ("rule", "strategy", "bounds", "N", "n_groups", "max_distance", "epoch"):
                assert getattr(again, name) == getattr(expected, name)


def test_a_dataset_redraws_by_the_rule_of_its_groups() -> None:
    scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    arguments: dict[str, Any] = {"rule": "quadrant", "max_distance": 40.0, "seed": 3}
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, **arguments))
    later = pf.group_positions(scan.positions, epoch=4, **arguments)
    np.testing.assert_array_equal(data.at_epoch(4).groups[0].indices, later.indices)


@pytest.mark.parametrize("arguments", AGAIN, ids=[str(i) for i in range(len(AGAIN))])
@pytest.mark.filterwarnings("ignore:For n_groups=450")
def test_drawing_the_request_of_groups_gives_the_same_groups(
    jittered: Callable[..., NDArray[np.float64]], arguments: dict[str, Any]
) -> None:
    groups = pf.group_positions(jittered(), seed=8, epoch=2, **arguments)
    drawn = draw(groups.request)
    np.testing.assert_array_equal(drawn.indices, groups.indices)
    np.testing.assert_array_equal(drawn.centers, groups.centers)
    assert drawn.left_out == groups.left_out
