"""What differs from older code, and the page that says so (docs/migration.md)."""

# the legacy stream is part of the contract

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from places import ROOT
from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    from pathlib import Path

MIGRATION = ROOT / "docs" / "migration.md"
n, N, K, B = 60, 16, 7, 24

needs_docs = pytest.mark.skipif(not MIGRATION.exists(), reason=f"{MIGRATION} is missing")


def test_gridsize_1_is_random_and_sequential_sampling_restores_the_first(record: RawData) -> None:
    drawn = record.generate_grouped_data(N, nsamples=B, seed=1, gridsize=1)["nn_indices"]
    assert drawn[:, 0].tolist() == np.random.RandomState(1).choice(n, B, replace=False).tolist()
    assert drawn[:, 0].tolist() != list(range(B))
    first = record.generate_grouped_data(N, nsamples=B, sequential_sampling=True, gridsize=1)
    assert first["nn_indices"][:, 0].tolist() == list(range(B))


def test_centres_are_sampled_then_one_group_is_drawn_around_each(
    record: RawData, scan: pf.Scan
) -> None:
    groups = record.generate_grouped_data(N, K=K, nsamples=B, seed=1, gridsize=2)["nn_indices"]
    centers = np.random.RandomState(1).choice(n, B, replace=False)
    near = reference.nearest_neighbors(scan.positions, centers, K)
    for group, around in zip(groups, near, strict=True):
        assert len(set(group)) == 4
        assert set(group) <= set(around)


def test_ties_are_broken_by_index() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(8.0), np.arange(8.0)))
    groups = RawData(x, y, x, y, None, None, None)._generate_groups_efficiently(64, 6, 4, seed=1)
    near = []
    for center in range(64):
        d2 = (x - x[center]) ** 2 + (y - y[center]) ** 2
        others = [i for i in range(64) if i != center]
        near.append(sorted(others, key=lambda i, d2=d2: (d2[i], i))[:6])  # type: ignore[misc]
    stream = np.random.RandomState(1)
    np.testing.assert_array_equal(groups, [stream.choice(row, 4, replace=False) for row in near])


def test_oversampling_repeats_no_set_and_is_not_replayed(record: RawData, scan: pf.Scan) -> None:
    arguments: dict[str, Any] = {"K": 5, "gridsize": 2, "seed": 3, "enable_oversampling": True}
    groups = record.generate_grouped_data(N, nsamples=5 * n, **arguments)["nn_indices"]
    # 5 choose 4 = 5 rounds: round after round of all centres, each of its sets once.
    order = reference.centers(n, n, reference.key(3))
    for place, center in enumerate(order):
        sets = {frozenset(group) for group in groups[place::n].tolist()}
        near = set(reference.nearest_neighbors(scan.positions, [center], 5)[0].tolist())
        assert sets == {frozenset(near - {left_out}) for left_out in near}
    legacy = record._generate_groups_efficiently(n, 5, 4, seed=3)
    assert (groups[:n] != legacy).any()


@needs_docs
def test_every_row_of_the_table_of_differences_names_a_test() -> None:
    table = MIGRATION.read_text().partition("## What differs")[2]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for file, test in named:
            [path] = (ROOT / "tests").rglob(file)
            assert f"def {test}(" in path.read_text(), row


@needs_docs
def test_names_that_are_gone_are_those_of_the_table() -> None:
    told = set(re.findall(r"^\| `(?:RawData\.)?(\w+)` \| ", MIGRATION.read_text(), re.MULTILINE))
    assert told >= set(ptychopinn.GONE)


@needs_docs
def test_the_python_of_the_migration_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", MIGRATION.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        needed = re.match(r"# needs: (\w+)", block)
        if needed is None or importlib.util.find_spec(needed[1]) is not None:
            exec(compile(block, MIGRATION.name, "exec"), names)
