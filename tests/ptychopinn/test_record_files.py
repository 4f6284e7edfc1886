"""A record and its file."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.ptychopinn import RawData
from records import PLANNED, make_object, make_record, make_stack, positions_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_record_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    Y = make_object((30 * 8, 8)).reshape(30, 8, 8)
    record = make_record(
        30,
        objectGuess=make_object(),
        Y=Y,
        scan_index=np.arange(30),
        norm_Y_I=2.5,
        metadata={"beamline": "2-ID", "photons": 1e6},
    )
    record.to_file(path)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.npz"]

    scan = pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions, positions_of(30))
    np.testing.assert_array_equal(scan.positions_start, positions_of(30) + PLANNED)

    again = RawData.from_file(path, validate_config=True, current_config=object())
    for name in inspect.signature(RawData).parameters:
        if name != "metadata":
            np.testing.assert_array_equal(getattr(again, name), getattr(record, name))
    assert again.metadata == {"beamline": "2-ID", "photons": 1e6}

    train, test = RawData.from_files(path, str(path))
    assert train is not test
    np.testing.assert_array_equal(train.diff3d, test.diff3d)


def test_none_is_left_out_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    x, y = positions_of(12).T
    RawData(x, y, None, None, make_stack(12), None, None).to_file(path)
    with np.load(path) as file:
        assert sorted(file) == ["diff3d", "xcoords", "ycoords"]
    again = RawData.from_file(path)
    assert again.probeGuess is None
    assert again.metadata is None
    np.testing.assert_array_equal(again.xcoords_start, x)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"physics": {"lens": object()}},
            "'_metadata' can't be written as JSON: object has no place",
        ),
        ({"diff3d": 1}, r"metadata\['diff3d'\] can't be written: the name is taken"),
        ({"file": np.ones(3)}, r"metadata\['file'\] can't be written: the name is taken"),
        ({"lenses": np.array([{}])}, "'lenses' can't be written: it would need pickling"),
    ],
)
def test_metadata_that_can_not_be_written_leaves_the_old_file(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    path = tmp_path / "scan.npz"
    path.write_text("what stood here before")
    with pytest.raises(ValueError, match=message):
        make_record(30, metadata=metadata).to_file(path)
    assert path.read_text() == "what stood here before"
    assert len(list(tmp_path.iterdir())) == 1


def test_nested_metadata_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    """As PtychoPINN's: dicts in dicts, with ``nphotons`` somewhere in them."""
    metadata = {
        "schema": "1.0",
        "physics": {"nphotons": 1e9, "gridsize": np.int64(2), "probe": {"trainable": False}},
        "notes": ["a", None],
        "flux": np.float32(2.5),
        "offsets": np.array([1.5, 2.5]),
        "phase": 1 + 2j,
    }
    record = make_record(30, metadata=metadata)
    record.to_file(tmp_path / "scan")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]
    again = dict(RawData.from_file(tmp_path / "scan.npz").metadata or {})
    np.testing.assert_array_equal(again.pop("offsets"), [1.5, 2.5])
    assert again == {key: value for key, value in metadata.items() if key != "offsets"}
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as file:  # nothing is pickled
        told = json.loads(str(file["_metadata"]))
    assert told["physics"]["nphotons"] == 1e9


def test_a_missing_scan_index_is_zeros(tmp_path: Path) -> None:
    make_record(30, scan_index=None).to_file(tmp_path / "scan.npz")
    scan_index = RawData.from_file(tmp_path / "scan.npz").scan_index
    assert isinstance(scan_index, np.ndarray)
    assert scan_index.tolist() == [0] * 30
    assert pf.read_scan(tmp_path / "scan.npz").scan_index is None


@pytest.mark.parametrize("shape", [(30, 8, 8), (30, 8, 8, 1)])
def test_a_files_own_y_is_used(tmp_path: Path, shape: tuple[int, ...]) -> None:
    Y = make_object((30 * 8, 8)).reshape(shape)
    make_record(30, objectGuess=make_object(), Y=Y).to_file(tmp_path / "scan.npz")
    record = RawData.from_file(tmp_path / "scan.npz")
    data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
    expected = Y.reshape(30, 8, 8)[data["nn_indices"]].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(data["Y"], expected)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.npz"):
        RawData.from_file(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="nowhere"):
        make_record(30).to_file(tmp_path / "nowhere" / "scan.npz")


def test_a_mask_that_a_record_can_not_hold_is_warned_of(tmp_path: Path) -> None:
    scan = pf.simulate_scan(12, 8, seed=0)
    mask = np.ones((8, 8), bool)
    mask[0, :3] = False
    pf.write_scan(pf.Scan(scan.positions, scan.diffraction, mask=mask), tmp_path / "scan.npz")
    with pytest.warns(UserWarning, match=r"masks 3 pixels of the detector.*GroupedDataset honours"):
        record = RawData.from_file(tmp_path / "scan.npz")
    assert record.diff3d is not None
    np.testing.assert_array_equal(record.diff3d[:, mask], scan.diffraction[:, mask])
