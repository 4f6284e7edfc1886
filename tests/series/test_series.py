"""A series in one process: what is written, what is kept, and what goes on."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.frames import Frames
from ptycho_fast.reconstruction.result import ARRAYS
from ptycho_fast.series import SeriesEntry, reconstruct_series, work
from ptycho_fast.series.entry import RECORD
from series_tables import assert_same_image, statuses, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK: dict[str, Any] = {"iterations": 1, "prior": "none", "probe": "fixed"}
"""Options with which a scan takes a moment."""


def series(paths: list[Path], folder: Path, **arguments: Any) -> dict[str, str]:
    """Run a series; return "done", "kept" or "failed" for each folder."""
    entries = reconstruct_series(paths, folder, num_threads=1, **(QUICK | arguments))
    return {entry.folder: "kept" if entry.kept else entry.status for entry in entries}


def test_each_scan_gets_a_folder_and_a_failure_stops_nothing(
    tmp_path: Path, write_scans: Callable[..., list[Path]], damaged: Path
) -> None:
    first, second = write_scans(2, n=40, N=16)
    missing = tmp_path / "missing.npz"
    told: list[SeriesEntry] = []
    entries = reconstruct_series(
        [first, damaged, missing, second], tmp_path / "OUT", progress=told.append, **QUICK
    )
    assert told == entries
    assert [entry.status for entry in entries] == ["done", "failed", "failed", "done"]
    assert "damaged.npz" in entries[1].error
    assert "cut short" in entries[1].error
    assert entries[2].error == f"{missing}: No such file or directory."
    for entry, path in ((entries[0], first), (entries[3], second)):
        alone = pf.reconstruct(pf.read_scan(path), **QUICK)
        made = pf.Reconstruction.load(tmp_path / "OUT" / entry.folder)
        assert_same_image(made, alone)
        assert entry.file == str(path)
        assert (entry.patterns, entry.N) == (40, 16)
        assert (entry.height, entry.width) == made.object.shape
        assert entry.deviance == made.deviance
        assert made.resolution is not None
        assert entry.resolution_px == made.resolution.pixels()
        assert entry.notes == made.notes
        row = table(tmp_path / "OUT")[entry.folder]
        assert row["status"] == "done"
        assert float(row["deviance"]) == pytest.approx(made.deviance, rel=1e-5)
    assert table(tmp_path / "OUT")["damaged"]["error"] == entries[1].error
    page = (tmp_path / "OUT" / "series.html").read_text()
    assert "2 of 4 scans done" in page
    assert 'href="scan_0/report.html"' in page
    assert 'href="damaged/report.html"' not in page
    assert not (tmp_path / "OUT" / "missing").exists()


def test_the_same_call_does_what_is_missing_has_failed_or_changed(
    tmp_path: Path, write_scans: Callable[..., list[Path]], damaged: Path
) -> None:
    paths, out = [*write_scans(3), damaged], tmp_path / "OUT"
    first = series(paths, out)
    assert first == {"scan_0": "done", "scan_1": "done", "scan_2": "done", "damaged": "failed"}
    assert series(paths, out) == {**dict.fromkeys(first, "kept"), "damaged": "failed"}
    # One is new, one was repaired, one written again, the image of one removed, one stays.
    pf.write_scan(pf.simulate_scan(20, 8, seed=7), damaged)
    pf.write_scan(pf.simulate_scan(20, 8, seed=8), paths[0])
    (out / "scan_1" / ARRAYS).unlink()
    new = tmp_path / "new.npz"
    pf.write_scan(pf.simulate_scan(20, 8, seed=5), new)
    again = series([*paths, new], out)
    assert again == {**dict.fromkeys(again, "done"), "scan_2": "kept"}
    alone = pf.reconstruct(pf.read_scan(paths[0]), **QUICK)
    assert_same_image(pf.Reconstruction.load(out / "scan_0"), alone)
    # Other options make other images; what does not change them keeps them.
    assert series(paths[:1], out, seed=1) == {"scan_0": "done"}
    assert series(paths[:1], out, seed=1, modes=1, positions="fixed") == {"scan_0": "kept"}
    assert series(paths[:1], out, seed=1, read={"first": 15}) == {"scan_0": "done"}
    assert len(pf.Reconstruction.load(out / "scan_0").positions) == 15
    assert series(paths[:1], out, seed=1, read={"crop": (8, 8)}) == {"scan_0": "done"}
    assert series(paths[:1], out, seed=1, read={"crop": (8, 8)}) == {"scan_0": "kept"}


def test_without_a_record_a_scan_is_done_again(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    """As after a process that was killed, or whose record nobody can read."""
    paths, out = write_scans(3), tmp_path / "OUT"
    series(paths, out)
    (out / "scan_0" / RECORD).unlink()
    (out / "scan_1" / RECORD).write_text('{"format": 99}')
    assert series(paths, out) == {"scan_0": "done", "scan_1": "done", "scan_2": "kept"}


def test_a_file_that_an_option_names_counts_too(
    tmp_path: Path, write_scans: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    [path], out = write_scans(1), tmp_path / "OUT"
    monkeypatch.chdir(tmp_path)
    positions = pf.read_scan(path).positions
    np.savetxt("places.csv", positions)
    read: dict[str, Any] = {"x": "places.csv:0", "y": "places.csv:1", "diffraction": "diff3d"}
    read |= {"probe": "probeGuess", "unit": "px", "counts": False}
    assert series([path], out, read=read) == {"scan_0": "done"}
    assert series([path], out, read=read) == {"scan_0": "kept"}
    np.savetxt("places.csv", positions[::-1] + 1000)
    assert series([path], out, read=read) == {"scan_0": "done"}
    np.testing.assert_allclose(
        pf.Reconstruction.load(out / "scan_0").positions, positions[::-1] + 1000
    )


def test_a_failure_says_that_an_older_image_is_left(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    [path], out = write_scans(1), tmp_path / "OUT"
    series([path], out)
    before = pf.Reconstruction.load(out / "scan_0")
    path.write_bytes(b"")
    [entry] = reconstruct_series([path], out, **QUICK)
    assert entry.status == "failed"
    assert entry.error.endswith("scan_0/ still holds an image that was made before.")
    assert_same_image(pf.Reconstruction.load(out / "scan_0"), before)
    assert statuses(out) == {"scan_0": "failed"}


def test_the_table_keeps_the_scans_of_other_calls(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    paths, out = write_scans(3), tmp_path / "OUT"
    series(paths[:2], out)
    assert series(paths[1:], out) == {"scan_1": "kept", "scan_2": "done"}
    assert statuses(out) == {"scan_0": "done", "scan_1": "done", "scan_2": "done"}


def test_files_of_one_name_keep_their_folders(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    paths = []
    for path in write_scans(3):
        place = tmp_path / path.stem.upper() / "data.npz"
        place.parent.mkdir()
        paths.append(path.rename(place))
    out = tmp_path / "OUT"
    assert list(series([*paths[:2], paths[0]], out)) == ["SCAN_0_data", "SCAN_1_data"]
    assert series(paths[2:], out) == {"SCAN_2_data": "done"}
    assert series(paths[:1], out) == {"SCAN_0_data": "kept"}


def test_what_a_file_warns_of_is_among_the_notes(tmp_path: Path) -> None:
    scan = pf.simulate_scan(20, 8, seed=0)
    scan.diffraction[3] = 0
    pf.write_scan(scan, tmp_path / "odd.npz")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        pf.reconstruct(pf.read_scan(tmp_path / "odd.npz"), **QUICK)
    assert any("zero" in str(warning.message) for warning in said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [entry] = reconstruct_series([tmp_path / "odd.npz"], tmp_path / "OUT", **QUICK)
    assert {str(warning.message) for warning in said} <= set(entry.notes)


def test_patterns_that_do_not_fit_stay_in_their_file(
    tmp_path: Path, write_scans: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = write_scans(1)
    read, given = pf.read_scan, list[bool]()

    def reading(*arguments: Any, **options: Any) -> pf.Scan:
        scan = read(*arguments, **options)
        given.append(isinstance(scan.diffraction, Frames))
        return scan

    monkeypatch.setattr(work, "read_scan", reading)
    needed = 2 * 4 * 20 * 8 * 8
    for free in (needed, needed - 1):
        monkeypatch.setattr(work, "available", lambda free=free: free)
        series([path], tmp_path / f"OUT{free}")
    assert given == [False, True]
    assert_same_image(
        *(pf.Reconstruction.load(tmp_path / f"OUT{free}/scan_0") for free in (needed, needed - 1))
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"modes": 0}, ValueError, "modes must be a whole number in 1..100, got 0."),
        ({"prior": "smoth"}, ValueError, "prior must be 'smooth', 'learned'"),
        ({"device": "tpu"}, ValueError, "device must be one of 'auto', 'cpu', 'gpu'"),
        ({"num_threads": 0}, ValueError, "num_threads must be a whole number"),
        ({"iteration": 3}, TypeError, "A series has no option 'iteration' of reconstruct; it has"),
        ({"read": {"units": "px"}}, TypeError, "no option 'units' of read_scan"),
        ({"read": {"unit": "inch"}}, ValueError, "unit must be one of"),
        ({"workers": 0}, ValueError, "workers must be a whole number in 1..4096, got 0."),
        ({"workers": 1, "scheduler": "tcp://a:1"}, ValueError, "exclude each other"),
    ],
)
def test_what_would_fail_for_every_scan_is_refused_first(
    tmp_path: Path,
    write_scans: Callable[..., list[Path]],
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        reconstruct_series(write_scans(1), tmp_path / "OUT", **arguments)
    assert not (tmp_path / "OUT").exists()


def test_the_patterns_of_one_file_are_not_those_of_all_scans(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    paths = write_scans(2)
    named = f"{paths[0]}:diff3d"
    with pytest.raises(ValueError, match="names the patterns of one file"):
        reconstruct_series(paths, tmp_path / "OUT", read={"diffraction": named})
    assert not (tmp_path / "OUT").exists()


def test_without_distributed_only_workers_are_refused(
    tmp_path: Path, write_scans: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_scans(1)
    monkeypatch.setitem(sys.modules, "distributed", None)
    asked: list[dict[str, Any]] = [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:9"}]
    for arguments in asked:
        with pytest.raises(ImportError, match=r'pip install "ptycho_fast\[cluster\]"'):
            reconstruct_series(paths, tmp_path / "OUT", **arguments)
        assert not (tmp_path / "OUT").exists()
    assert series(paths, tmp_path / "OUT") == {"scan_0": "done"}


def test_an_interrupted_scan_leaves_no_record(
    tmp_path: Path, write_scans: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where `reconstruct` answers an interrupt with the image so far."""
    paths, out = write_scans(2), tmp_path / "OUT"
    true = pf.reconstruct

    def interrupted(*arguments: Any, progress: Callable[[Any], None], **options: Any) -> Any:
        def interrupt(report: Any) -> None:
            progress(report)
            raise KeyboardInterrupt

        return true(*arguments, progress=interrupt, **options)

    with monkeypatch.context() as patch:
        patch.setattr(work, "reconstruct", interrupted)
        with pytest.raises(KeyboardInterrupt):
            series(paths, out)
    assert statuses(out) == {"scan_0": "waiting", "scan_1": "waiting"}
    assert os.listdir(out / "scan_0") == []
    assert series(paths, out) == {"scan_0": "done", "scan_1": "done"}


def test_each_scan_is_written_for_another_program_too(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    pytest.importorskip("h5py")
    known, unknown = write_scans(2, n=40, N=16)
    scan = pf.read_scan(known)
    geometry = {"energy_eV": 8800.0, "distance_m": 2.0, "detector_pixel_m": 75e-6}
    pf.write_scan(replace(scan, metadata=geometry), known)
    out = tmp_path / "OUT"
    assert series([known], out) == {"scan_0": "done"}
    # With another file to write, the scan is not done yet.
    found = series([known, unknown], out, to="ptypy")
    assert found == {"scan_0": "done", "scan_1": "failed"}
    assert "energy_eV=" in table(out)["scan_1"]["error"]
    [written] = (out / "scan_0").glob("*.ptyd")
    np.testing.assert_array_equal(pf.read_scan(written).diffraction, scan.diffraction)
    assert series([known], out, to="ptypy") == {"scan_0": "kept"}
    with pytest.raises(ValueError, match="to must be one of 'npz', 'cxi'"):
        series([known], out, to="tiff")
