"""Every public behaviour of CONTRACT 7 (the drop-in) and 8 (scan files), one test each, by name.

This is the list to go through before a release: short, from the outside, on a scan file. Variants
and edges are tested in test_ptychopinn.py, test_scan_files.py and test_formats.py.
"""

# ruff: noqa: NPY002  # the legacy stream is part of the contract

from __future__ import annotations

import importlib.util
import logging
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from places import ROOT
from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MIGRATION = ROOT / "docs" / "migration.md"
n, N, K, B = 60, 16, 7, 24


needs_docs = pytest.mark.skipif(not MIGRATION.exists(), reason=f"{MIGRATION} is missing")


@pytest.fixture(autouse=True)
def _global_stream() -> Iterator[None]:
    """Leave NumPy's global stream as it was."""
    kept = np.random.get_state()
    yield
    np.random.set_state(kept)


@pytest.fixture(scope="module")
def scan() -> pf.Scan:
    return pf.simulate_scan(n, N, seed=0)


@pytest.fixture
def path(scan: pf.Scan, tmp_path: Path) -> Path:
    pf.write_scan(scan, tmp_path / "scan.npz")
    return tmp_path / "scan.npz"


@pytest.fixture
def record(path: Path) -> RawData:
    return RawData.from_file(path)


@pytest.fixture
def data(record: RawData) -> dict[str, Any]:
    return record.generate_grouped_data(N, K=K, nsamples=B, seed=42, gridsize=2)


def params(monkeypatch: pytest.MonkeyPatch, **cfg: Any) -> None:
    module = types.ModuleType("ptycho.params")
    module.cfg = cfg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ptycho.params", module)


def tolerance(obj: Any) -> float:
    steps = max(np.abs(np.diff(np.pad(obj, 1), axis=axis)).max() for axis in (0, 1))
    return float(1e-6 * np.abs(obj).max() + 1e-4 * steps)


# --- 7: RawData -------------------------------------------------------------------------------


def test_all_also_by_keyword_all_kept_as_attributes() -> None:
    """... `diff3d`, `probeGuess`, `scan_index`, the start coordinates may be None."""
    x = np.arange(5.0)
    arguments: dict[str, Any] = {
        "xcoords": x, "ycoords": x, "xcoords_start": None, "ycoords_start": None, "diff3d": None,
        "probeGuess": None, "scan_index": None, "objectGuess": np.ones((9, 9), complex),
        "Y": np.ones((5, 2, 2), complex), "norm_Y_I": 3.0, "metadata": {"a": 1},
    }  # fmt: skip
    for record in (RawData(**arguments), RawData(*arguments.values())):
        assert all(getattr(record, name) is value for name, value in arguments.items())


def test_plus_sample_indices_and_subsample_seed(record: RawData) -> None:
    """None; callers set them; a `sample_indices` that is set becomes a key of the dictionary."""
    assert record.sample_indices is None
    assert record.subsample_seed is None
    assert "sample_indices" not in record.generate_grouped_data(N)
    record.sample_indices = kept = np.arange(n)
    copied = record.generate_grouped_data(N)["sample_indices"]
    np.testing.assert_array_equal(copied, kept)
    assert copied is not kept


def test_from_file(path: Path, scan: pf.Scan) -> None:
    record = RawData.from_file(path, validate_config=True, current_config=None)
    np.testing.assert_array_equal(np.stack([record.xcoords, record.ycoords], 1), scan.positions)
    assert record.diff3d is not None
    np.testing.assert_array_equal(record.diff3d, scan.diffraction)


def test_from_files(path: Path) -> None:
    train, test = RawData.from_files(path, path)
    np.testing.assert_array_equal(train.xcoords, test.xcoords)


def test_from_coords_without_pc(scan: pf.Scan) -> None:
    x, y = scan.positions.T
    record = RawData.from_coords_without_pc(
        x, y, diff3d=scan.diffraction, probeGuess=scan.probe, scan_index=None, objectGuess=None
    )
    assert record.xcoords_start is x
    assert record.ycoords_start is y


def test_to_file(record: RawData, tmp_path: Path) -> None:
    record.to_file(tmp_path / "again.npz")
    again = RawData.from_file(tmp_path / "again.npz")
    for name in ("xcoords", "ycoords_start", "diff3d", "probeGuess", "objectGuess"):
        np.testing.assert_array_equal(getattr(again, name), getattr(record, name))


def test_str(record: RawData) -> None:
    assert f"{n} positions" in str(record)


# --- 7: the dictionary ------------------------------------------------------------------------


def test_the_keys_are_these(data: dict[str, Any]) -> None:
    assert set(data) == {
        "diffraction", "X_full", "Y", "coords_nn", "coords_start_nn", "coords_offsets",
        "coords_start_offsets", "coords_relative", "coords_start_relative", "nn_indices",
        "objectGuess",
    }  # fmt: skip


def test_nn_indices(data: dict[str, Any], scan: pf.Scan) -> None:
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


def test_else_y_is_none(record: RawData) -> None:
    record.objectGuess = None
    assert record.generate_grouped_data(N)["Y"] is None


def test_one_info_line_says_which_y(record: RawData, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    record.generate_grouped_data(N)
    assert [line.startswith("Y: patches of objectGuess") for line in caplog.messages] == [0, 1]


def test_coords_nn(data: dict[str, Any], scan: pf.Scan) -> None:
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


def test_gridsize_none_means_that_of_ptycho_params_else_1(
    record: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.generate_grouped_data(N)["nn_indices"].shape == (1, 1)
    params(monkeypatch, gridsize=2)
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


def test_n_of_get_image_patches_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    params(monkeypatch, N=6, gridsize=1)
    zero = np.zeros((1, 1, 2, 1))
    assert ptychopinn.get_image_patches(np.ones((9, 9)), zero, zero).shape == (1, 6, 6, 1)


def test_use_batched_patch_extraction_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    """... (else True)"""
    pytest.importorskip("tensorflow")
    obj, at = np.random.default_rng(0).normal(size=(20, 20)), np.full((2, 1, 2, 1), 9.25)
    batched = ptychopinn.get_image_patches(obj, at, 0 * at, N=6, gridsize=1)
    params(monkeypatch, use_batched_patch_extraction=False)
    looped = ptychopinn.get_image_patches(obj, at, 0 * at, N=6, gridsize=1)
    np.testing.assert_allclose(looped, batched, rtol=0, atol=tolerance(obj))


@pytest.mark.parametrize("C", [1, 3, 4, 5])
def test_generate_groups_efficiently_for_any_c(record: RawData, scan: pf.Scan, C: int) -> None:
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


def test_but_with_gridsize_above_1_an_error_unless_oversampling_is_enabled(
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
def test_messages_that_callers_match_on(
    record: RawData, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        record.generate_grouped_data(N, gridsize=2, **arguments)


def test_message_of_too_few_points() -> None:
    x = np.arange(3.0)
    message = "Dataset has only 3 points but 4 coordinates per group requested."
    with pytest.raises(ValueError, match=re.escape(message)):
        RawData(x, x, x, x, None, None, None).generate_grouped_data(N, gridsize=2)


def test_message_of_coordinates_that_do_not_match() -> None:
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


def test_get_image_patches(scan: pf.Scan, data: dict[str, Any]) -> None:
    """Section 5: at `global_offsets + local_offsets`; a NumPy complex64 array."""
    assert scan.object is not None
    patches = ptychopinn.get_image_patches(
        scan.object, data["coords_offsets"], data["coords_relative"], N, 2
    )
    assert type(patches) is np.ndarray
    np.testing.assert_array_equal(patches, data["Y"])


def test_get_relative_coords(data: dict[str, Any]) -> None:
    """(coords_nn) -> (offsets, relative)"""
    offsets, relative = ptychopinn.get_relative_coords(data["coords_nn"])
    np.testing.assert_array_equal(offsets, data["coords_offsets"])
    np.testing.assert_array_equal(relative, data["coords_relative"])


def test_get_neighbor_indices(scan: pf.Scan) -> None:
    """(xcoords, ycoords, K=3) -> (n, K+1) int64, self first"""
    found = ptychopinn.get_neighbor_indices(*scan.positions.T)
    assert found.dtype == np.int64
    near = reference.nearest_neighbors(scan.positions, np.arange(n), 3)
    np.testing.assert_array_equal(found, np.column_stack([np.arange(n), near]))


def test_normalize_data(data: dict[str, Any]) -> None:
    np.testing.assert_allclose(ptychopinn.normalize_data(data, N), data["X_full"], rtol=3e-7)


def test_the_constants() -> None:
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
def test_the_logger_is_ptycho_fast_one_info_line_a_call(
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


def test_with_a_seed_it_computes_that_stream_on_its_own(record: RawData) -> None:
    np.random.seed(7)
    groups = record._generate_groups_efficiently(B, K, 4, seed=42)
    assert np.random.randint(2**31) == np.random.RandomState(7).randint(2**31)
    np.random.seed(42)
    np.testing.assert_array_equal(record._generate_groups_efficiently(B, K, 4), groups)


def test_without_one_it_continues_numpys_global_stream_and_leaves_it_advanced(
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


# --- rows of the table of differences ---------------------------------------------------------


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
def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", MIGRATION.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        needed = re.match(r"# needs: (\w+)", block)
        if needed is None or importlib.util.find_spec(needed[1]) is not None:
            exec(compile(block, MIGRATION.name, "exec"), names)


# --- 8: scan files ----------------------------------------------------------------------------


def arrays(n: int = 7, N: int = 4) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(5, 15, (2, n))
    return {"xcoords": x, "ycoords": y, "diff3d": rng.uniform(0, 9, (n, N, N)).astype("f4")}


def saved(folder: Path, **changes: Any) -> Path:
    """Write an NPZ scan by np.savez; a change of None leaves a key out."""
    content = {key: value for key, value in (arrays() | changes).items() if value is not None}
    np.savez(folder / "a.npz", **content)
    return folder / "a.npz"


def test_xcoords_ycoords_diff3d_are_enough(tmp_path: Path) -> None:
    scan, given = pf.read_scan(saved(tmp_path)), arrays()
    np.testing.assert_array_equal(scan.positions, np.stack([given["xcoords"], given["ycoords"]], 1))
    np.testing.assert_array_equal(scan.diffraction, given["diff3d"])
    assert (scan.probe, scan.object, scan.scan_index, dict(scan.metadata)) == (None, None, None, {})


@pytest.mark.parametrize("missing", ["xcoords", "ycoords", "diff3d"])
def test_without_one_of_these_it_is_no_scan(tmp_path: Path, missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        pf.read_scan(saved(tmp_path, **{missing: None}))


def test_diff3d_or_diffraction(tmp_path: Path) -> None:
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=None, diffraction=stack))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_also_frames_last_recognised_by_the_length_of_xcoords(tmp_path: Path) -> None:
    """(N,N,n)"""
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=stack.transpose(1, 2, 0)))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_also_a_last_axis_of_one(tmp_path: Path) -> None:
    """(n,N,N,1)"""
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=stack[..., np.newaxis]))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_if_both_layouts_fit_axis_0_is_the_frames(tmp_path: Path) -> None:
    """(n = N)"""
    scan = pf.read_scan(saved(tmp_path, **arrays(n=4, N=4)))
    np.testing.assert_array_equal(scan.diffraction, arrays(n=4, N=4)["diff3d"])


def test_diff3d_and_diffraction_if_equal(tmp_path: Path) -> None:
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diffraction=stack))
    np.testing.assert_array_equal(scan.diffraction, stack)
    assert "diffraction" not in scan.metadata


def test_if_they_differ_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'diff3d' and 'diffraction', and they differ"):
        pf.read_scan(saved(tmp_path, diffraction=arrays()["diff3d"] + 1))


def test_the_optional_keys_have_their_places(tmp_path: Path) -> None:
    start, probe, obj = np.arange(7.0), np.ones((2, 4, 4), complex), np.ones((30, 40), complex)
    path = saved(
        tmp_path, xcoords_start=start, ycoords_start=-start, probeGuess=probe, objectGuess=obj,
        scan_index=np.arange(7), Y=np.ones((7, 4, 4)), temperature=21.5,
    )  # fmt: skip
    scan = pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions_start, np.stack([start, -start], 1))
    assert scan.probe is not None
    assert scan.probe.shape == (2, 4, 4)
    assert scan.object is not None
    assert scan.object.shape == (30, 40)
    np.testing.assert_array_equal(scan.scan_index, np.arange(7))
    # Keys not named there are kept in Scan.metadata.
    assert scan.metadata["temperature"] == 21.5
    assert RawData.from_file(path).Y.shape == (7, 4, 4)  # type: ignore[union-attr]


def test_the_start_coordinates_are_by_default_the_coordinates(tmp_path: Path) -> None:
    scan = pf.read_scan(saved(tmp_path))
    np.testing.assert_array_equal(scan.positions_start, scan.positions)


def test_a_scan_index_without_repeats_separates_nothing(tmp_path: Path) -> None:
    """A counter, not a label."""
    counter, none = np.arange(7), None
    drawn = [
        RawData.from_file(saved(tmp_path, scan_index=each)).generate_grouped_data(
            4, K=6, nsamples=7, seed=1, gridsize=2
        )["nn_indices"]
        for each in (counter, none)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    "stored",
    [
        np.array({"a": 1, "nphotons": 1e9}, object),
        np.array('{"a": 1, "nphotons": 1e9}'),
        np.array(['{"a": 1, "nphotons": 1e9}'], object),
    ],
)
def test_metadata_is_read_without_running_code(tmp_path: Path, stored: Any) -> None:
    path = saved(tmp_path, _metadata=stored)
    expected = {"a": 1, "nphotons": 1e9}
    assert pf.read_scan(path).metadata["_metadata"] == expected
    assert RawData.from_file(path).metadata == expected


def test_metadata_that_would_run_code_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path, _metadata=np.array({"a": np.load}, object))
    for read in (pf.read_scan, RawData.from_file):
        with pytest.raises(ValueError, match=r"'_metadata' can't be read: it names numpy\.load"):
            read(path)


def test_any_other_such_key_is_a_value_error(tmp_path: Path) -> None:
    path = saved(tmp_path, probeGuess=np.array({"a": 1}, object))
    with pytest.raises(ValueError, match=r"'probeGuess'.*allow_pickle=True"):
        pf.read_scan(path)


def test_intensity_takes_roots(tmp_path: Path) -> None:
    """... it never guesses (section 1)"""
    path = saved(tmp_path)
    amplitude = pf.read_scan(path).diffraction
    np.testing.assert_array_equal(amplitude, arrays()["diff3d"])
    rooted = pf.read_scan(path, intensity=True).diffraction
    np.testing.assert_allclose(rooted, np.sqrt(amplitude), rtol=1e-6)


def test_ptychodus_product(tmp_path: Path) -> None:
    """x = (probe_position_x_m - center_x_m) / pixel_width_m + W/2, y alike"""
    h5py = pytest.importorskip("h5py")
    height, width, pixel = 40, 50, 2e-9
    x, y = np.random.default_rng(1).uniform(-15, 15, (2, 7)) * pixel
    with h5py.File(tmp_path / "product.h5", "w") as file:
        file["object"] = np.ones((1, height, width), complex)
        file["object"].attrs.update({
            "pixel_width_m": pixel, "pixel_height_m": 1.5 * pixel, "center_x_m": 3e-9,
            "center_y_m": -4e-9,
        })  # fmt: skip
        file["probe_position_x_m"], file["probe_position_y_m"] = x, y
        file["probe_position_indexes"] = np.arange(7)
        file["patterns"] = np.ones((7, 4, 4), "u2")
    scan = pf.read_scan(tmp_path / "product.h5", counts=True)
    expected = [(x - 3e-9) / pixel + width / 2, (y + 4e-9) / (1.5 * pixel) + height / 2]
    np.testing.assert_allclose(scan.positions, np.stack(expected, 1), rtol=1e-9)


def test_cxi(tmp_path: Path) -> None:
    """Minus the translation along the basis vectors ... the smallest x and y are N//2."""
    h5py = pytest.importorskip("h5py")
    side, distance, pixel, wavelength = 4, 2.0, 1e-4, 1e-10
    moved = np.random.default_rng(1).uniform(0, 1e-5, (7, 3))
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.ones((7, side, side), "u2")
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = (
            distance, pixel, pixel,
        )  # fmt: skip
        # Slow axis, then fast: (rows go down, columns to the left).
        detector["basis_vectors"] = np.array([[0, -pixel, 0], [-pixel, 0, 0]])
        file["entry_1/instrument_1/source_1/wavelength"] = wavelength
        file["entry_1/sample_1/geometry_1/translation"] = moved
    scan = pf.read_scan(tmp_path / "a.cxi")
    step = wavelength * distance / (side * pixel)
    expected = moved[:, :2] / step
    expected += side // 2 - expected.min(axis=0)
    np.testing.assert_allclose(scan.positions, expected, rtol=1e-9)
