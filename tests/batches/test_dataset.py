"""Data sets made from others: the groups of another epoch, a split, several scans in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from small_scans import N, in_file, make_data, make_scan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "arguments",
    [{}, {"include_center": True}, {"centers": "sequential"}, {"gridsize": 1}],
)
def test_at_epoch_draws_what_group_positions_draws(arguments: dict[str, Any]) -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 30, seed=3, **arguments)
    data = pf.GroupedDataset(scan, groups)
    for epoch in (1, 7):
        expected = pf.group_positions(scan.positions, 30, seed=3, epoch=epoch, **arguments)
        found = data.at_epoch(epoch).groups[0]
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.centers, expected.centers)
        assert found.epoch == epoch
    np.testing.assert_array_equal(data.at_epoch(7).at_epoch(0).groups[0].indices, groups.indices)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "oversample", "n_groups": 90},
        {"rule": "quadrant", "max_distance": 40.0},
        {"rule": "overlap", "N": 8, "min_overlap": 0.01},
        {"strategy": "group-then-sample", "n_groups": 30},
        {"min_distance": 4.0, "max_distance": 30.0},
        {"max_distance": 30.0, "groups_per_center": 2},
        {"bounds": ((0.0, 0.5), (0.0, 1.0))},
        {"scan_ids": np.arange(60) % 2},
        {"scan_ids": np.arange(60) % 2, "rule": "quadrant", "max_distance": 60.0},
    ],
    ids="-".join,
)
def test_batches_of_an_epoch_hold_the_groups_of_every_rule(arguments: dict[str, Any]) -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=3, **arguments))
    for epoch in (0, 1):
        expected = pf.group_positions(scan.positions, seed=3, epoch=epoch, **arguments)
        of_epoch = data.at_epoch(epoch)
        with of_epoch.batches(7, fields=("Y",)) as batches:
            made = list(batches)
        found = {key: np.concatenate([batch[key] for batch in made]) for key in made[0]}
        np.testing.assert_array_equal(found["nn_indices"], expected.indices)
        np.testing.assert_array_equal(found["coords_relative"], expected.relative)
        patterns = reference.gather(scan.diffraction, expected.indices)
        np.testing.assert_array_equal(found["diffraction"], patterns)
        assert of_epoch.groups[0].left_out == expected.left_out


def test_groups_of_the_legacy_stream_have_no_epochs() -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 9, seed=3, rng="numpy"))
    with pytest.raises(ValueError, match="can't be redrawn"):
        data.at_epoch(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_sides_of_a_split_share_no_pattern(seed: int) -> None:
    scan = pf.simulate_scan(400, 16, seed=seed)
    groups = pf.group_positions(scan.positions, seed=1)
    data = pf.GroupedDataset(scan, groups, normalize=True)
    training, validation = data.split(validation=0.2, margin=5)
    for epoch in (0, 4):
        one, other = training.at_epoch(epoch), validation.at_epoch(epoch)
        used, held = (np.unique(side.groups[0].indices) for side in (one, other))
        assert not np.intersect1d(used, held).size
        long = np.argmax(np.ptp(scan.positions, axis=0))
        gap = scan.positions[held, long].min() - scan.positions[used, long].max()
        assert gap >= 5
        assert len(other) > 30
        assert len(one) > 200
        drawn = data.at_epoch(epoch).groups[0].indices.tolist()
        assert all(group in drawn for group in one.groups[0].indices.tolist())
    np.testing.assert_array_equal(training.scales, data.scales)
    np.testing.assert_array_equal(validation.scales, data.scales)


def test_splits_that_leave_one_side_empty_are_refused() -> None:
    data = make_data()
    with pytest.raises(ValueError, match="leaves 0 groups to train on"):
        data.split(margin=1e6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split(validation=1.5)


def test_batches_of_several_scans_follow_the_definition(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    masks = [None, rng.random((N, N)) < 0.7, rng.random((N, N)) < 0.7]
    scans = [make_scan(50 + i, seed=i, mask=mask) for i, mask in enumerate(masks)]
    scans[1] = in_file(tmp_path / "stack.bin", scans[1])
    parts = [
        pf.GroupedDataset(scan, pf.group_positions(scan.positions, 20 + i, seed=i), normalize=True)
        for i, scan in enumerate(scans)
    ]
    data = pf.GroupedDataset.concatenate(parts)
    assert len(data) == 63
    np.testing.assert_array_equal(data.scales, [part.scales[0] for part in parts])
    seen: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for layout in ("channels_last", "channels_first"):
        fields = ("Y", "probe", "scan_id")
        for batch in data.batches(10, shuffle=True, seed=2, fields=fields, layout=layout):
            assert len(set(batch["scan_id"].tolist())) > 1  # they are mixed
            for b, i in enumerate(batch["scan_id"]):
                indices = batch["nn_indices"][b : b + 1]
                stack = np.asarray(scans[i].diffraction)
                mask = masks[i]
                stack = stack if mask is None else np.where(mask, stack, 0)
                pattern = parts[i].scales[0] * reference.gather(stack, indices)[0]
                coords = reference.coordinates(scans[i].positions, indices)
                patch = reference.extract_patches(scans[i].object, coords["coords_nn"], N)[0]
                if layout == "channels_first":
                    pattern, patch = pattern.transpose(2, 0, 1), patch.transpose(2, 0, 1)
                np.testing.assert_array_equal(batch["diffraction"][b], pattern)
                np.testing.assert_array_equal(
                    batch["coords_relative"][b], coords["coords_relative"][0]
                )
                np.testing.assert_allclose(batch["Y"][b], patch, atol=1e-5)
                np.testing.assert_array_equal(batch["probe"][b], scans[i].probe)
                if layout == "channels_last":
                    seen[int(i)].append(tuple(indices[0]))
    for i, part in enumerate(parts):
        assert sorted(seen[i]) == sorted(map(tuple, part.groups[0].indices))
    later = data.at_epoch(3)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(later.groups[i].indices, part.at_epoch(3).groups[0].indices)


def test_scans_that_differ_cannot_be_concatenated() -> None:
    scan = pf.simulate_scan(50, 16, seed=0)
    other = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=0))
    with pytest.raises(ValueError, match="must have the same N to be concatenated, got 16, 8"):
        pf.GroupedDataset.concatenate([make_data(), other])
    with pytest.raises(ValueError, match="the same normalize"):
        pf.GroupedDataset.concatenate([make_data(), make_data(normalize=True)])
    with pytest.raises(ValueError, match="got none"):
        pf.GroupedDataset.concatenate([])


def test_stored_energies_save_a_pass_over_the_patterns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ptycho_fast")
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 47, seed=3)
    computed = pf.GroupedDataset(scan, groups, normalize=True).scales
    assert "one pass over 60 patterns" in caplog.text
    caplog.clear()
    stored = pf.Scan(
        scan.positions, scan.diffraction, energies=(scan.diffraction.astype(float) ** 2).sum((1, 2))
    )
    np.testing.assert_allclose(
        pf.GroupedDataset(stored, groups, normalize=True).scales, computed, rtol=1e-7
    )
    assert "one pass" not in caplog.text
