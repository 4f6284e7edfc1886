"""A folder that fills with files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.live import FolderSource

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"num_threads": 1, "iterations": 2, "probe": "fixed", "prior": "none"}


@pytest.fixture
def folder(tmp_path: Path, scan: pf.Scan) -> Path:
    """A folder with the positions and the probe."""
    made = tmp_path / "frames"
    made.mkdir()
    np.savetxt(made / "positions.csv", scan.positions, delimiter=",", header="x,y", comments="")
    np.save(made / "probe.npy", np.asarray(scan.probe))
    return made


def names(folder: Path, **more: Any) -> dict[str, Any]:
    table = folder / "positions.csv"
    probe = {"probe": f"{folder / 'probe.npy'}:data"}
    return {"x": f"{table}:x", "y": f"{table}:y", "unit": "px", "counts": True, **probe, **more}


def write(folder: Path, counts: NDArray[Any], files: range, each: int = 10) -> None:
    for file in files:
        np.save(folder / f"scan7_{file:04d}.npy", counts[file * each : (file + 1) * each])


def test_files_are_read_as_they_come(folder: Path, counts: NDArray[Any], scan: pf.Scan) -> None:
    write(folder, counts, range(6))
    updates = pf.follow(folder, final=QUICK, **names(folder, first=150))
    assert next(updates).n == 60
    write(folder, counts, range(7, 15))
    assert next(updates).n == 140  # one file is late
    write(folder, counts, range(6, 7))
    assert next(updates).n == 150
    last = next(updates)
    assert "All 150 frames and positions are there (first=150)." in last.image.notes
    assert np.array_equal(last.scan.diffraction, scan.diffraction)
    assert np.allclose(last.scan.positions, scan.positions, rtol=0, atol=1e-12)
    assert not last.stored


def test_one_frame_a_file_counted_from_1(folder: Path, counts: NDArray[Any]) -> None:
    for number in range(1, 41):
        np.save(folder / f"frame_{number}.npy", counts[number - 1])
    source = FolderSource(folder, **names(folder))
    assert "pass index_base=1" in source.poll().waits_for
    source = FolderSource(folder, **names(folder, index_base=1))
    assert len(source.poll().frames) == 0  # they may still be growing
    news = source.poll()
    assert np.array_equal(news.frames, np.arange(40))
    assert news.patterns is not None
    assert np.array_equal(news.patterns, counts[:40])


def test_files_with_their_own_positions(
    tmp_path: Path, counts: NDArray[Any], scan: pf.Scan
) -> None:
    for file in range(3):
        some = slice(50 * file, 50 * file + 50)
        x, y = scan.positions[some].T
        parts: dict[str, Any] = {"counts": counts[some], "x": x, "y": y, "probe": scan.probe}
        np.savez(tmp_path / f"part{file}.npz", **parts)
    reading: dict[str, Any] = {
        "diffraction": "counts",
        "x": "x",
        "y": "y",
        "unit": "px",
        "counts": True,
    }
    *_, last = pf.follow(tmp_path, final=QUICK, first=150, probe="probe", **reading)
    assert np.array_equal(last.scan.positions, scan.positions)
    assert np.array_equal(last.scan.diffraction, scan.diffraction)


def test_a_file_that_is_cut_short_is_waited_for(folder: Path, counts: NDArray[Any]) -> None:
    write(folder, counts, range(3))
    whole = (folder / "scan7_0001.npy").read_bytes()
    (folder / "scan7_0001.npy").write_bytes(whole[:-700])
    source = FolderSource(folder, **names(folder))
    source.poll()
    news = source.poll()
    assert np.array_equal(news.frames, [*range(10), *range(20, 30)])
    assert "scan7_0001.npy is cut short" in news.waits_for
    (folder / "scan7_0001.npy").write_bytes(whole)
    source.poll()
    assert np.array_equal(source.poll().frames, np.arange(10, 20))


def test_a_file_that_stays_damaged_is_told_at_the_end(
    folder: Path, counts: NDArray[Any], scan: pf.Scan
) -> None:
    write(folder, counts, range(15))
    (folder / "scan7_0003.npy").write_bytes(b"\x93NUMPY")
    with pytest.warns(UserWarning, match="scan7_0003.npy is an NPY file that is damaged"):
        *_, last = pf.follow(folder, patience=0.5, final=QUICK, **names(folder))
    told = " ".join(last.image.notes)
    assert "10 of 150 frames never came: 30, 31, 32, 33, 34, ..." in told
    assert "scan7_0003.npy is an NPY file that is damaged" in told
    assert np.array_equal(last.scan.diffraction, np.delete(scan.diffraction, range(30, 40), 0))


def test_files_of_unequal_length_are_refused(folder: Path, counts: NDArray[Any]) -> None:
    write(folder, counts, range(4))
    np.save(folder / "scan7_0002.npy", counts[20:27])
    source = FolderSource(folder, **names(folder))
    source.poll()
    with pytest.raises(ValueError, match="file 2 holds 7: only the last file may hold fewer"):
        source.poll()


def test_two_files_of_one_number_are_refused(folder: Path, counts: NDArray[Any]) -> None:
    write(folder, counts, range(1))
    np.save(folder / "scan8_0000.npy", counts[:10])
    with pytest.raises(ValueError, match="have the same number, 0"):
        FolderSource(folder, **names(folder)).poll()


def test_a_folder_that_is_late_is_waited_for(tmp_path: Path) -> None:
    late = tmp_path / "late"
    source = FolderSource(late, x="positions.csv:0", y="positions.csv:1", unit="px", counts=True)
    assert source.poll().waits_for == f"{late} is not there yet."
    late.mkdir()
    assert source.poll().waits_for == "positions.csv is not there yet."


def test_positions_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x=FILE:COLUMN, y=FILE:COLUMN"):
        pf.follow(tmp_path, unit="px", counts=True)
