"""The dictionary that `generate_grouped_data` returns (docs/contract.md, section 7)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference
from ptycho_fast.ptychopinn import RawData
from records import (
    PLANNED,
    STACK_DTYPES,
    info_lines,
    make_object,
    make_record,
    make_stack,
    positions_of,
    run_script,
    tolerance,
)


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("dtype", STACK_DTYPES)
def test_grouped_data_has_the_keys_shapes_dtypes_and_values_of_the_contract(
    gridsize: int, dtype: Any
) -> None:
    n, N, B, C = 30, 8, 7, gridsize**2
    obj = make_object()
    record = make_record(n, N, dtype, objectGuess=obj)
    data = record.generate_grouped_data(N, K=C + 3, nsamples=B, seed=5, gridsize=gridsize)

    shapes = {
        "diffraction": ((B, N, N, C), dtype),
        "X_full": ((B, N, N, C), np.float32),
        "Y": ((B, N, N, C), np.complex64),
        "coords_nn": ((B, 1, 2, C), np.float64),
        "coords_start_nn": ((B, 1, 2, C), np.float64),
        "coords_offsets": ((B, 1, 2, 1), np.float64),
        "coords_start_offsets": ((B, 1, 2, 1), np.float64),
        "coords_relative": ((B, 1, 2, C), np.float64),
        "coords_start_relative": ((B, 1, 2, C), np.float64),
        "nn_indices": ((B, C), np.int32),
        "objectGuess": (obj.shape, np.complex64),
    }
    assert {key: (data[key].shape, data[key].dtype.type) for key in data} == shapes
    assert data["objectGuess"] is obj
    assert all(array.flags.c_contiguous for array in data.values())

    positions = positions_of(n)
    indices = data["nn_indices"]
    np.testing.assert_array_equal(
        indices, reference.legacy_groups(positions, B, C, C + 3, seed=5)[1]
    )
    planned = positions + PLANNED
    for prefix, at in (("coords_", positions), ("coords_start_", planned)):
        for key, array in reference.coordinates(at, indices).items():
            np.testing.assert_array_equal(data[key.replace("coords_", prefix)], array)
    gathered = reference.gather(make_stack(n, N, dtype), indices)
    np.testing.assert_array_equal(data["diffraction"], gathered)
    scale = reference.normalisation_scale(gathered, N)
    np.testing.assert_allclose(data["X_full"], scale * gathered.astype(np.float32), rtol=3e-7)


def test_grouped_data_gathers_what_the_groups_function_returns() -> None:
    chosen = np.array([[3, 1], [0, 2], [9, 9]])

    class Chosen(RawData):
        def _generate_groups_efficiently(self, *_: Any, **__: Any) -> Any:
            return chosen

    x, y = positions_of(10).T
    record = Chosen(x, y, None, None, make_stack(10), None, None)
    data = record.generate_grouped_data(8, gridsize=1)
    assert data["nn_indices"].dtype == np.int32
    np.testing.assert_array_equal(data["nn_indices"], chosen)
    np.testing.assert_array_equal(data["diffraction"], reference.gather(make_stack(10), chosen))


def test_sample_indices_become_a_key_once_set() -> None:
    record = make_record(30)
    assert "sample_indices" not in record.generate_grouped_data(8)
    record.sample_indices = np.arange(30)
    copied = record.generate_grouped_data(8)["sample_indices"]
    np.testing.assert_array_equal(copied, np.arange(30))
    copied[0] = 7
    assert record.sample_indices[0] == 0


def test_scan_index_is_ignored() -> None:
    expected = make_record(30, scan_index=None).generate_grouped_data(
        8, K=7, nsamples=20, seed=1, gridsize=2
    )
    for labels in (np.arange(30), np.zeros(30, int), np.arange(30) % 2):
        record = make_record(30, scan_index=labels)
        data = record.generate_grouped_data(8, K=7, nsamples=20, seed=1, gridsize=2)
        np.testing.assert_array_equal(data["nn_indices"], expected["nn_indices"])
        assert record.scan_index is labels


def test_dataset_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = make_record(30)
    plain = record.generate_grouped_data(8, nsamples=5, seed=1)
    given = record.generate_grouped_data(
        8, nsamples=5, seed=1, dataset_path=str(tmp_path / "scan.npz")
    )
    np.testing.assert_array_equal(given["nn_indices"], plain["nn_indices"])
    assert list(tmp_path.iterdir()) == []  # no cache files


def test_the_default_is_one_group_of_one_position() -> None:
    data = make_record(30).generate_grouped_data(8)
    assert data["nn_indices"].shape == (1, 1)


def test_a_call_logs_one_line_on_groups_and_one_on_y(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    make_record(30).generate_grouped_data(8, K=7, nsamples=12, seed=42, gridsize=2)
    groups, y = info_lines(caplog)
    assert "strategy=" in groups
    assert groups.endswith(" n=30 B=12 K=7 C=4 seed=42")
    assert y.startswith("Y: ")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM from /proc")
def test_peak_memory_is_that_of_the_result_and_the_patterns() -> None:
    script = """
import numpy as np
from ptycho_fast.ptychopinn import RawData
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
rng = np.random.default_rng(0)
x, y = rng.uniform(0, 100, (2, 2000))
small = RawData(x, y, None, None, np.ones((2000, 2, 2), np.float32), None, None)
small.generate_grouped_data(2, K=7, nsamples=9, seed=0, gridsize=2)  # start threads, load code
before = peak()
stack = np.ones((2000, 64, 64), np.float32)
record = RawData(x, y, x, y, stack, None, None)
data = record.generate_grouped_data(64, K=7, nsamples=2000, seed=0, gridsize=2)
output = sum(a.nbytes for a in data.values() if a is not None)
print((peak() - before) / (output + stack.nbytes))
"""
    assert 0.9 < float(run_script(script)) < 1.1


def test_y_of_the_positions_is_gathered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    own = make_object((30 * 8, 8)).reshape(30, 8, 8).astype(np.complex128)
    for Y in (own, own[..., None]):
        record = make_record(30, Y=Y, objectGuess=make_object())
        data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
        assert data["Y"].dtype == np.complex64
        expected = reference.gather(own, data["nn_indices"])
        np.testing.assert_array_equal(data["Y"], expected.astype(np.complex64))
    assert "own" in info_lines(caplog)[1]


def test_y_of_the_groups_is_kept() -> None:
    own = make_object((12 * 8 * 8, 4)).reshape(12, 8, 8, 4)
    data = make_record(30, Y=own).generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
    np.testing.assert_array_equal(data["Y"], own)


def test_y_that_fits_neither_positions_nor_groups_is_refused() -> None:
    record = make_record(30, Y=np.ones((12, 8, 8, 4), np.complex64))
    with pytest.raises(ValueError, match=r"Y has shape \(12, 8, 8, 4\).*\(13, 8, 8, 4\)"):
        record.generate_grouped_data(8, K=7, nsamples=13, seed=0, gridsize=2)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_y_is_cut_from_the_object_at_mirrored_positions(
    gridsize: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    obj = make_object()
    record = make_record(30, objectGuess=obj)
    data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=gridsize)
    at = positions_of(30)[data["nn_indices"]].transpose(0, 2, 1)
    mirrored = (2 * at.mean(axis=2, keepdims=True) - at).astype(np.float32)
    expected = reference.extract_patches(obj, mirrored, 8)
    # One ulp of the float32 position is allowed for the order of the oracle's sum.
    np.testing.assert_allclose(data["Y"], expected, rtol=0, atol=tolerance(obj))
    assert "objectGuess" in info_lines(caplog)[1]


def test_y_is_none_without_an_object(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    assert make_record(30).generate_grouped_data(8)["Y"] is None
    assert "None" in info_lines(caplog)[1]
