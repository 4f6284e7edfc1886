"""Whether patterns are read into memory: as asked, or as the free memory allows."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from npz_files import counts, written
from ptycho_fast.frames import Frames

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

KINDS = ("stored", "compressed", "prepared", "columns")


def file_of(folder: Path, kind: str) -> tuple[Path, dict[str, Any], int]:
    """A file, how it is read, and the bytes that its patterns take."""
    stack: NDArray[Any] = counts("f8", n=9, N=8)
    path = folder / "scan.npz"
    if kind == "columns":
        written(path, like=range(9), diffraction=stack.transpose(1, 2, 0))
    else:
        written(path, like=range(9), diff3d=stack, compressed=kind == "compressed")
    if kind == "prepared":
        return path, {"counts": True, "crop": 6, "bin": 2, "unit": "px"}, 9 * 3 * 3 * 4
    return path, {"counts": False}, stack.nbytes


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("ptycho_fast.memory.available", lambda: size)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", KINDS)
def test_a_quarter_of_the_free_memory_is_the_limit(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, options, size = file_of(tmp_path, kind)
    free(monkeypatch, 4 * size + 1)
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        loaded = pf.read_scan(path, **options)
    assert isinstance(loaded.diffraction, np.ndarray)
    assert "free memory" not in caplog.text
    free(monkeypatch, 4 * size)
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        left = pf.read_scan(path, **options)
    assert isinstance(left.diffraction, Frames)
    [said] = [record for record in caplog.records if "free memory" in record.message]
    assert said.levelno == logging.INFO
    assert str(path) in said.message
    np.testing.assert_array_equal(left.diffraction, loaded.diffraction)
    np.testing.assert_array_equal(left.positions, loaded.positions)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", KINDS)
def test_true_and_false_do_not_ask_how_much_is_free(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options, _ = file_of(tmp_path, kind)
    free(monkeypatch, 0)
    assert isinstance(pf.read_scan(path, load=True, **options).diffraction, np.ndarray)
    free(monkeypatch, 2**62)
    assert isinstance(pf.read_scan(path, load=False, **options).diffraction, Frames)


def test_anything_else_is_refused(tmp_path: Path) -> None:
    path, _, _ = file_of(tmp_path, "stored")
    load: Any = "lazy"
    with pytest.raises(ValueError, match="load must be True, False or 'auto', got 'lazy'"):
        pf.read_scan(path, load=load)


def test_a_record_holds_arrays_however_little_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptycho_fast.ptychopinn import RawData  # noqa: PLC0415
    from ptycho_fast.ptychopinn.raw_scan import load_raw_npz  # noqa: PLC0415

    path = tmp_path / "scan.npz"
    scan = pf.simulate_scan(n_positions=9, N=8, seed=0)
    pf.write_scan(dataclasses.replace(scan, scan_index=np.zeros(9, np.int64)), path)
    free(monkeypatch, 0)
    assert isinstance(RawData.from_file(str(path)).diff3d, np.ndarray)
    assert isinstance(load_raw_npz(path).diffraction, np.ndarray)
