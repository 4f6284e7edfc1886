"""Every public behaviour of the drop-in (docs/contract.md, section 7), one test each, by name.

This is the list to go through before a release: short, from the outside, on a scan file. Variants
and edges are tested in the other files of this folder, scan files in test_scan_file_contract.py.
"""

# ruff: noqa: NPY002  # the legacy stream is part of the contract

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import RawData
from records import set_params, tolerance

if TYPE_CHECKING:
    from pathlib import Path


n, N, K, B = 60, 16, 7, 24


@pytest.fixture
def data(record: RawData) -> dict[str, Any]:
    return record.generate_grouped_data(N, K=K, nsamples=B, seed=42, gridsize=2)


# --- 7: RawData -------------------------------------------------------------------------------


def test_arguments_also_by_keyword_are_kept_as_attributes() -> None:
    """... `diff3d`, `probeGuess`, `scan_index`, the start coordinates may be None."""
    x = np.arange(5.0)
    arguments: dict[str, Any] = {
        "xcoords": x, "ycoords": x, "xcoords_start": None, "ycoords_start": None, "diff3d": None,
        "probeGuess": None, "scan_index": None, "objectGuess": np.ones((9, 9), complex),
        "Y": np.ones((5, 2, 2), complex), "norm_Y_I": 3.0, "metadata": {"a": 1},
    }  # fmt: skip
    for record in (RawData(**arguments), RawData(*arguments.values())):
        assert all(getattr(record, name) is value for name, value in arguments.items())


def test_sample_indices_become_a_key_once_they_are_set(record: RawData) -> None:
    """None; callers set them; a `sample_indices` that is set becomes a key of the dictionary."""
    assert record.sample_indices is None
    assert record.subsample_seed is None
    assert "sample_indices" not in record.generate_grouped_data(N)
    record.sample_indices = kept = np.arange(n)
    copied = record.generate_grouped_data(N)["sample_indices"]
    np.testing.assert_array_equal(copied, kept)
    assert copied is not kept


def test_from_file_reads_positions_and_patterns(path: Path, scan: pf.Scan) -> None:
    record = RawData.from_file(path, validate_config=True, current_config=None)
    np.testing.assert_array_equal(np.stack([record.xcoords, record.ycoords], 1), scan.positions)
    assert record.diff3d is not None
    np.testing.assert_array_equal(record.diff3d, scan.diffraction)


def test_from_files_reads_two_scans(path: Path) -> None:
    train, test = RawData.from_files(path, path)
    np.testing.assert_array_equal(train.xcoords, test.xcoords)


def test_from_coords_without_pc_takes_positions_as_planned(scan: pf.Scan) -> None:
    x, y = scan.positions.T
    record = RawData.from_coords_without_pc(
        x, y, diff3d=scan.diffraction, probeGuess=scan.probe, scan_index=None, objectGuess=None
    )
    assert record.xcoords_start is x
    assert record.ycoords_start is y


def test_to_file_writes_what_from_file_reads(record: RawData, tmp_path: Path) -> None:
    record.to_file(tmp_path / "again.npz")
    again = RawData.from_file(tmp_path / "again.npz")
    for name in ("xcoords", "ycoords_start", "diff3d", "probeGuess", "objectGuess"):
        np.testing.assert_array_equal(getattr(again, name), getattr(record, name))


def test_str_tells_the_number_of_positions(record: RawData) -> None:
    assert f"{n} positions" in str(record)


# --- 7: the dictionary ------------------------------------------------------------------------


def test_the_keys_are_these(data: dict[str, Any]) -> None:
    assert set(data) == {
        "diffraction", "X_full", "Y", "coords_nn", "coords_start_nn", "coords_offsets",
        "coords_start_offsets", "coords_relative", "coords_start_relative", "nn_indices",
        "objectGuess",
    }  # fmt: skip


def test_nn_indices_are_those_of_the_legacy_stream(data: dict[str, Any], scan: pf.Scan) -> None:
    """(B,C) int32"""
    assert data["nn_indices"].dtype == np.int32
    expected = reference.legacy_groups(scan.positions, B, 4, K, 42)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def test_diffraction_is_as_the_stack(data: dict[str, Any], scan: pf.Scan) -> None:
    """(B,N,N,C)"""
    gathered = reference.gather(np.asarray(scan.diffraction), data["nn_indices"])
    assert data["diffraction"].dtype == scan.diffraction.dtype
    np.testing.assert_array_equal(data["diffraction"], gathered)


def test_x_full_is_normalised(data: dict[str, Any]) -> None:
    """(B,N,N,C) float32; section 6: a mean energy of (N/2)²."""
    assert data["X_full"].dtype == np.float32
    energy = np.square(data["X_full"], dtype=np.float64).sum(axis=(1, 2)).mean()
    assert energy == pytest.approx((N / 2) ** 2, rel=1e-6)


def test_y_is_patches_of_object_guess(data: dict[str, Any], scan: pf.Scan) -> None:
    """(B,N,N,C) complex64 ... else patches of `objectGuess`"""
    assert data["Y"].dtype == np.complex64
    at = scan.positions[data["nn_indices"]].transpose(0, 2, 1)
    mirrored = (2 * at.mean(axis=2, keepdims=True) - at).astype(np.float32)
    assert scan.object is not None
    expected = reference.extract_patches(scan.object, mirrored, N)
    np.testing.assert_allclose(data["Y"], expected, rtol=0, atol=tolerance(scan.object))


def test_y_is_the_records_own_if_it_has_one(record: RawData) -> None:
    record.Y = np.random.default_rng(0).normal(size=(n, N, N)).astype(np.complex64)
    data = record.generate_grouped_data(N, K=K, nsamples=B, gridsize=2)
    np.testing.assert_array_equal(data["Y"], reference.gather(record.Y, data["nn_indices"]))


def test_y_is_none_without_y_and_object(record: RawData) -> None:
    record.objectGuess = None
    assert record.generate_grouped_data(N)["Y"] is None


def test_one_line_of_the_log_says_where_y_is_from(
    record: RawData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    record.generate_grouped_data(N)
    assert [line.startswith("Y: patches of objectGuess") for line in caplog.messages] == [0, 1]


def test_coords_nn_are_the_positions_of_the_groups(data: dict[str, Any], scan: pf.Scan) -> None:
    """(B,1,2,C) float64; section 1: `coords_nn[b,0,:,c]` = position of `indices[b,c]`."""
    assert data["coords_nn"].dtype == np.float64
    for b, group in enumerate(data["nn_indices"]):
        np.testing.assert_array_equal(data["coords_nn"][b, 0], scan.positions[group].T)


def test_coords_offsets_are_the_mean_never_narrowed(data: dict[str, Any]) -> None:
    """(B,1,2,1) float64; the sum runs c = 0, 1, ..., then one division by C."""
    total = np.zeros((B, 1, 2))
    for channel in range(4):
        total = total + data["coords_nn"][..., channel]
    np.testing.assert_array_equal(data["coords_offsets"], (total / 4)[..., np.newaxis])
    assert data["coords_offsets"].dtype == np.float64


def test_coords_relative_have_the_fields_minus(data: dict[str, Any]) -> None:
    """(B,1,2,C) float64 = -(coords_nn - coords_offsets)"""
    expected = -(data["coords_nn"] - data["coords_offsets"])
    np.testing.assert_array_equal(data["coords_relative"], expected)


def test_coords_start_are_those_of_the_start_coordinates(scan: pf.Scan) -> None:
    """... the latter None without start coordinates"""
    x, y = scan.positions.T
    record = RawData(x, y, x + 1, y - 2, None, None, None)
    data = record.generate_grouped_data(N, K=K, nsamples=B, gridsize=2)
    shift = np.array([1.0, -2.0])
    expected = reference.coordinates(scan.positions + shift, data["nn_indices"])
    for key, array in expected.items():
        np.testing.assert_array_equal(data[key.replace("coords_", "coords_start_")], array)
    without = RawData(x, y, None, None, None, None, None)
    assert without.generate_grouped_data(N)["coords_start_nn"] is None


def test_object_guess_is_as_given(record: RawData) -> None:
    assert record.generate_grouped_data(N)["objectGuess"] is record.objectGuess


# --- 7: arguments -----------------------------------------------------------------------------


def test_gridsize_comes_from_ptycho_params_else_it_is_1(
    record: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.generate_grouped_data(N)["nn_indices"].shape == (1, 1)
    set_params(monkeypatch, gridsize=2)
    assert record.generate_grouped_data(N)["nn_indices"].shape == (1, 4)


def test_ptycho_params_is_never_imported(
    record: RawData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ptycho").mkdir()
    (tmp_path / "ptycho" / "__init__.py").touch()
    (tmp_path / "ptycho" / "params.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    record.generate_grouped_data(N)
    assert "ptycho" not in sys.modules


def test_n_of_get_image_patches_comes_from_ptycho_params(monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(monkeypatch, N=6, gridsize=1)
    zero = np.zeros((1, 1, 2, 1))
    assert ptychopinn.get_image_patches(np.ones((9, 9)), zero, zero).shape == (1, 6, 6, 1)


def test_use_batched_patch_extraction_comes_from_ptycho_params(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """... (else True)"""
    pytest.importorskip("tensorflow")
    obj, at = np.random.default_rng(0).normal(size=(20, 20)), np.full((2, 1, 2, 1), 9.25)
    batched = ptychopinn.get_image_patches(obj, at, 0 * at, N=6, gridsize=1)
    set_params(monkeypatch, use_batched_patch_extraction=False)
    looped = ptychopinn.get_image_patches(obj, at, 0 * at, N=6, gridsize=1)
    np.testing.assert_allclose(looped, batched, rtol=0, atol=tolerance(obj))


@pytest.mark.parametrize("C", [1, 3, 4, 5])
def test_generate_groups_efficiently_takes_any_c(record: RawData, scan: pf.Scan, C: int) -> None:
    """-> (min(nsamples, n), C) int32, any C >= 1 (callers pass 3 and 5)"""
    groups = record._generate_groups_efficiently(B, K, C, seed=1)
    assert groups.dtype == np.int32
    expected = reference.legacy_groups(scan.positions, B, C, K, 1)[1]
    np.testing.assert_array_equal(groups, expected)


def test_generate_grouped_data_only_gathers_what_that_returns(
    record: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = np.array([[5, 4, 3, 2]])
    monkeypatch.setattr(RawData, "_generate_groups_efficiently", lambda *_, **__: chosen)
    data = record.generate_grouped_data(N, K=K, gridsize=2)
    np.testing.assert_array_equal(data["nn_indices"], chosen)


def test_more_samples_than_points_are_every_point_once_with_a_warning(record: RawData) -> None:
    with pytest.warns(UserWarning, match=f"nsamples={n + 1} exceeds the {n} points"):
        data = record.generate_grouped_data(N, nsamples=n + 1, gridsize=1)
    np.testing.assert_array_equal(data["nn_indices"], np.arange(n)[:, np.newaxis])


def test_more_groups_than_points_need_oversampling_above_gridsize_1(
    record: RawData,
) -> None:
    """`K choose C oversampling`, `enable_oversampling` and `OVERSAMPLING-001`"""
    with pytest.raises(ValueError, match="OVERSAMPLING-001") as info:
        record.generate_grouped_data(N, K=K, nsamples=n + 1, gridsize=2)
    for text in ("K choose C oversampling", "enable_oversampling"):
        assert text in str(info.value)
    data = record.generate_grouped_data(
        N, K=K, nsamples=n + 1, gridsize=2, enable_oversampling=True
    )
    assert data["nn_indices"].shape == (n + 1, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"K": 3}, "K=3 must be >= C=4 (need at least C neighbors to form a group)"),
        (
            {"nsamples": n + 1, "enable_oversampling": True, "neighbor_pool_size": 3},
            "neighbor_pool_size >= C",
        ),
        (
            {"nsamples": n + 1, "enable_oversampling": True, "neighbor_pool_size": 3},
            "OVERSAMPLING-001",
        ),
        ({"nsamples": n + 1, "enable_oversampling": True, "K": 3}, "neighbor_pool_size >= C"),
    ],
)
def test_messages_hold_the_texts_that_callers_match_on(
    record: RawData, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        record.generate_grouped_data(N, gridsize=2, **arguments)


def test_too_few_points_are_refused_in_the_words_that_callers_match_on() -> None:
    x = np.arange(3.0)
    message = "Dataset has only 3 points but 4 coordinates per group requested."
    with pytest.raises(ValueError, match=re.escape(message)):
        RawData(x, x, x, x, None, None, None).generate_grouped_data(N, gridsize=2)


def test_unequal_coordinates_are_refused_in_the_words_that_callers_match_on() -> None:
    with pytest.raises(ValueError, match=r"Coordinate arrays must have matching shapes\."):
        RawData([1.0, 2.0], [1.0], None, None, None, None, None)


def test_dataset_path_is_accepted_and_unused(record: RawData, path: Path) -> None:
    record.generate_grouped_data(N, K=K, nsamples=B, dataset_path=str(path), gridsize=2)
    assert list(path.parent.iterdir()) == [path]


def test_scan_index_is_kept_and_ignored(record: RawData, data: dict[str, Any]) -> None:
    record.scan_index = labels = np.arange(n) % 2
    again = record.generate_grouped_data(N, K=K, nsamples=B, seed=42, gridsize=2)
    np.testing.assert_array_equal(again["nn_indices"], data["nn_indices"])
    assert record.scan_index is labels


# --- 7: the functions beside ------------------------------------------------------------------


def test_get_image_patches_cuts_at_the_sum_of_the_offsets(
    scan: pf.Scan, data: dict[str, Any]
) -> None:
    """Section 5: at `global_offsets + local_offsets`; a NumPy complex64 array."""
    assert scan.object is not None
    patches = ptychopinn.get_image_patches(
        scan.object, data["coords_offsets"], data["coords_relative"], N, 2
    )
    assert type(patches) is np.ndarray
    np.testing.assert_array_equal(patches, data["Y"])


def test_get_relative_coords_splits_off_the_mean(data: dict[str, Any]) -> None:
    """(coords_nn) -> (offsets, relative)"""
    offsets, relative = ptychopinn.get_relative_coords(data["coords_nn"])
    np.testing.assert_array_equal(offsets, data["coords_offsets"])
    np.testing.assert_array_equal(relative, data["coords_relative"])


def test_get_neighbor_indices_begins_with_the_position_itself(scan: pf.Scan) -> None:
    """(xcoords, ycoords, K=3) -> (n, K+1) int64, self first"""
    found = ptychopinn.get_neighbor_indices(*scan.positions.T)
    assert found.dtype == np.int64
    near = reference.nearest_neighbors(scan.positions, np.arange(n), 3)
    np.testing.assert_array_equal(found, np.column_stack([np.arange(n), near]))


def test_normalize_data_gives_x_full(data: dict[str, Any]) -> None:
    np.testing.assert_allclose(ptychopinn.normalize_data(data, N), data["X_full"], rtol=3e-7)


def test_the_constants_are_those_of_the_contract() -> None:
    assert ptychopinn.local_offset_sign == -1
    assert ptychopinn.key_coords_offsets == "coords_start_offsets"
    assert ptychopinn.key_coords_relative == "coords_start_relative"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"seed": 42}, f"strategy=random centres n={n} B={B} K={K} C=4 seed=42"),
        ({}, f"strategy=random centres n={n} B={B} K={K} C=4 seed=NumPy's global stream"),
        ({"sequential_sampling": True}, f"strategy=sequential n={n} B={B} K={K} C=4 seed=0"),
        (
            {"seed": 42, "nsamples": 2 * n, "enable_oversampling": True, "neighbor_pool_size": 9},
            f"strategy=oversample n={n} B={2 * n} K=9 C=4 seed=42",
        ),
    ],
)
def test_a_call_logs_one_line_on_its_groups(
    record: RawData, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], line: str
) -> None:
    """(strategy, n, B, K, C, seed)"""
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    record.generate_grouped_data(**{"N": N, "K": K, "nsamples": B, "gridsize": 2} | arguments)
    groups = [entry for entry in caplog.records if entry.getMessage().startswith("groups: ")]
    assert [(entry.name, entry.getMessage()) for entry in groups] == [
        ("ptycho_fast", f"groups: {line}")
    ]


# --- 3: the stream of the drop-in -------------------------------------------------------------


def test_a_seed_gives_the_groups_of_the_stream_without_touching_it(record: RawData) -> None:
    np.random.seed(7)
    groups = record._generate_groups_efficiently(B, K, 4, seed=42)
    assert np.random.randint(2**31) == np.random.RandomState(7).randint(2**31)
    np.random.seed(42)
    np.testing.assert_array_equal(record._generate_groups_efficiently(B, K, 4), groups)


def test_without_a_seed_the_global_stream_is_continued_and_left_advanced(
    record: RawData, scan: pf.Scan
) -> None:
    np.random.seed(42)
    found = [record._generate_groups_efficiently(B, K, 4) for _ in range(2)]
    stream = np.random.RandomState(42)
    for groups in found:
        near = reference.nearest_neighbors(scan.positions, stream.choice(n, B, replace=False), K)
        expected = [stream.choice(row, 4, replace=False) for row in near]
        np.testing.assert_array_equal(groups, expected)


def test_sequential_sampling_takes_the_first_centres_and_the_stream_seeded_with_0(
    record: RawData, scan: pf.Scan
) -> None:
    data = record.generate_grouped_data(
        N, K=K, nsamples=B, seed=5, sequential_sampling=True, gridsize=2
    )
    stream = np.random.RandomState(0)
    near = reference.nearest_neighbors(scan.positions, np.arange(B), K)
    expected = [stream.choice(row, 4, replace=False) for row in near]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def test_rng_numpy_of_the_native_api_is_the_same_stream(record: RawData, scan: pf.Scan) -> None:
    groups = pf.group_positions(scan.positions, B, gridsize=2, n_neighbors=K, seed=42, rng="numpy")
    data = record.generate_grouped_data(N, K=K, nsamples=B, seed=42, gridsize=2)
    np.testing.assert_array_equal(groups.indices, data["nn_indices"])
