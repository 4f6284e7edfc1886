"""An HDF5 file that a second process writes while it is followed."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.live import HDF5Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

NAMES: dict[str, Any] = {
    "diffraction": "frames", "x": "x", "y": "y", "probe": "probe", "unit": "px", "counts": True,
}  # fmt: skip
QUICK: dict[str, Any] = {"num_threads": 1, "iterations": 2, "probe": "fixed", "prior": "none"}


def same(first: pf.Scan, second: pf.Scan) -> bool:
    return np.array_equal(first.positions, second.positions) and np.array_equal(
        first.diffraction, second.diffraction
    )


def opened(start: Callable[..., Any], path: Path, n: int = 0, **parts: Any) -> Any:
    """A process that has the file open in SWMR mode."""
    writer = start(**parts)
    writer("open", str(path), n, 1)
    writer("swmr")
    return writer


def test_every_frame_that_was_written_is_in_the_next_picture(
    start: Callable[..., Any], tmp_path: Path, scan: pf.Scan
) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path)
    updates = pf.follow(path, final=QUICK, **NAMES)
    for low, high in itertools.pairwise((0, 50, 75, 120, 150)):
        writer("frames", low, high)
        writer("positions", low, high)
        update = next(updates)
        assert (update.n, update.frames, update.final) == (high, high, False)
        assert same(update.scan, scan.take(np.arange(high), scan.diffraction[:high]))
    writer("close")
    last = next(updates)
    assert last.final
    assert last.stored
    assert "The writer has closed the file." in last.image.notes
    assert list(updates) == []
    finished = pf.read_scan(path, **NAMES)
    assert same(last.scan, finished)
    made = pf.reconstruct(finished, **QUICK)
    assert np.array_equal(last.image.object, made.object)
    assert np.array_equal(last.image.probe, made.probe)


def test_frames_count_once_their_positions_are_there(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path)
    updates = pf.follow(path, final=QUICK, **NAMES)
    writer("frames", 0, 100)
    writer("positions", 0, 60)
    update = next(updates)
    assert (update.n, update.frames) == (60, 100)
    writer("positions", 60, 150)
    update = next(updates)
    assert (update.n, update.frames) == (100, 100)


def test_positions_say_by_index_which_frame_is_theirs(
    start: Callable[..., Any], tmp_path: Path, scan: pf.Scan
) -> None:
    path = tmp_path / "scan.h5"
    order = np.random.default_rng(0).permutation(150)
    x, y = scan.positions[order].T
    writer = opened(start, path, x=x, y=y, index=order)
    updates = pf.follow(path, final=QUICK, index="index", index_base=0, **NAMES)
    writer("frames", 0, 150)
    writer("positions", 0, 80)
    there = np.sort(order[:80])
    assert same(next(updates).scan, scan.take(there, scan.diffraction[there]))
    writer("positions", 80, 150)
    assert next(updates).n == 150
    writer("close")
    assert same(next(updates).scan, scan)


def test_an_index_without_0_is_asked_about(start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path, index=np.arange(1, 151))
    writer("frames", 0, 50)
    writer("positions", 0, 50)
    source = HDF5Source(path, index="index", **NAMES)
    news = source.poll()
    assert "pass index_base=1" in news.waits_for
    assert len(news.places) == 0
    source.close()


def test_an_index_of_frames_puts_no_position_at_a_wrong_frame(
    tmp_path: Path, scan: pf.Scan
) -> None:
    h5py = pytest.importorskip("h5py")
    # All positions are planned; each frame says which of them is its own.
    path, x, y = tmp_path / "scan.h5", *scan.positions.T
    with h5py.File(path, "w", libver="latest") as file:
        for key, values in (
            ("frames", scan.diffraction[:50]),
            ("x", x),
            ("y", y),
            ("probe", scan.probe),
        ):
            file[key] = values
        file["index"] = np.arange(50)[::-1]
    source = HDF5Source(path, index="index", **NAMES)
    news = source.poll()
    assert len(news.frames) == 50
    assert len(news.places) == 0
    assert f"holds 50 numbers so far, but there are {len(x)} positions" in news.waits_for
    source.close()


def test_what_is_not_written_yet_is_no_dark_frame(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    """Data sets of full length, in which the rest is zero until it is written."""
    path = tmp_path / "scan.h5"
    writer = start()
    writer("open", str(path), 150, 30)
    writer("swmr")
    writer("frames", 0, 50)  # the second chunk is written in part
    writer("positions", 0, 70)
    source = HDF5Source(path, **NAMES)
    news = source.poll()
    assert np.array_equal(news.frames, np.arange(50))
    assert np.array_equal(news.places, np.arange(70))
    writer("frames", 50, 150)
    news = source.poll()
    assert np.array_equal(news.frames, np.arange(50, 150))
    assert not news.ended
    source.close()


def test_a_file_that_is_late_is_waited_for(start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    source = HDF5Source(path, **NAMES)
    assert source.poll().waits_for == f"{path} is not there yet."
    path.touch()
    assert source.poll().waits_for
    path.unlink()
    writer = start()
    writer("open", str(path), 0, 1)
    assert "not in SWMR mode" in source.poll().waits_for
    writer("swmr")
    assert not source.poll().waits_for
    writer("frames", 0, 20)
    assert len(source.poll().frames) == 20
    source.close()


def test_a_file_that_never_comes(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = tmp_path / "scan.h5"
    with (
        pytest.warns(UserWarning, match="is not there yet"),
        pytest.raises(OSError, match=r"Nothing that could be imaged came.*is not there yet"),
    ):
        next(pf.follow(path, patience=0.5, **NAMES))


def test_a_writer_that_dies_leaves_what_it_has_written(
    start: Callable[..., Any], tmp_path: Path, scan: pf.Scan
) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path)
    updates = pf.follow(path, patience=0.5, final=QUICK, **NAMES)
    writer("frames", 0, 90)
    writer("positions", 0, 88)
    assert next(updates).n == 88
    writer.kill()
    with pytest.warns(UserWarning, match="2 of 90 frames wait for their positions"):
        last = next(updates)
    assert last.final
    assert not last.stored
    assert same(last.scan, scan.take(np.arange(88), scan.diffraction[:88]))
    told = " ".join(last.image.notes)
    assert "Nothing new came for" in told
    assert "is open for writing" in told
    assert "h5clear -s" in told
    assert "2 of 90 frames have no position: 88, 89." in told


@pytest.mark.parametrize("moved", [True, False], ids=["another file", "the same file"])
def test_a_file_that_is_replaced_ends_the_scan(
    start: Callable[..., Any], tmp_path: Path, scan: pf.Scan, moved: bool
) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path)
    updates = pf.follow(path, final=QUICK, **NAMES)
    writer("frames", 0, 60)
    writer("positions", 0, 60)
    assert next(updates).n == 60
    if not moved:
        writer.kill()
    other = start(counts=np.roll(np.asarray(scan.diffraction, np.uint32) + 1, 40, axis=0))
    target = tmp_path / "other.h5" if moved else path
    other("open", str(target), 0, 1)
    other("frames", 0, 70)
    other("positions", 0, 70)
    other("close")
    if moved:
        target.replace(path)
    last = next(updates)
    assert last.final
    assert not last.stored
    assert "was replaced by another file after 60 frames" in " ".join(last.image.notes)
    assert same(last.scan, scan.take(np.arange(60), scan.diffraction[:60]))


def test_a_file_whose_first_frame_is_dark_is_told_from_another(
    start: Callable[..., Any], tmp_path: Path, counts: NDArray[Any]
) -> None:
    path, other_path = tmp_path / "scan.h5", tmp_path / "other.h5"
    dark = counts.copy()
    dark[0] = 0
    writer = opened(start, path, counts=dark)
    updates = pf.follow(path, final=QUICK, **NAMES)
    for key in ("frames", "positions"):
        writer(key, 0, 60)
    assert next(updates).n == 60
    other = start(counts=np.concatenate([dark[:1], counts[:0:-1]]))
    other("open", str(other_path), 0, 1)
    for key in ("frames", "positions"):
        other(key, 0, 150)
    other("close")
    other_path.replace(path)
    last = next(updates)
    assert (last.final, last.n, last.stored) == (True, 60, False)


@pytest.mark.parametrize("late", ["x", "y", "index"])
def test_zeros_of_one_coordinate_or_the_index_are_not_written_yet(
    start: Callable[..., Any], tmp_path: Path, late: str
) -> None:
    path = tmp_path / "scan.h5"
    # The arrays have their full length, and one is written after another.
    writer = opened(start, path, 150)
    for key in ("x", "y", "index"):
        writer(key, 0, 60 if key == late else 80)
    source = HDF5Source(path, index="index", **NAMES)
    assert source.poll().places.tolist() == list(range(60))
    writer(late, 60, 80)
    assert source.poll().places.tolist() == list(range(60, 80))
    source.close()


def test_an_index_that_counts_from_1_is_asked_about_in_an_array_of_full_length(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "scan.h5"
    writer = opened(start, path, 150, index=np.arange(1, 151))
    writer("positions", 0, 60)
    source = HDF5Source(path, index="index", **NAMES)
    news = source.poll()
    assert "holds 1 .. 60 so far, and no 0" in news.waits_for
    assert not len(news.places)
    source.close()


def test_a_copy_that_grows_is_the_same_scan(start: Callable[..., Any], tmp_path: Path) -> None:
    """Programs that copy a growing file give it another inode each time."""
    path, copy = tmp_path / "scan.h5", tmp_path / "copy.h5"
    writer = start()
    writer("open", str(path), 0, 1)
    writer("frames", 0, 60)
    writer("positions", 0, 60)
    writer("close")
    shutil.copy(path, copy)
    updates = pf.follow(copy, final=QUICK, first=150, **NAMES)
    assert next(updates).n == 60
    writer("open", str(path), 0, 1)
    writer("frames", 0, 150)
    writer("positions", 0, 150)
    writer("close")
    shutil.copy(path, tmp_path / "partial")
    (tmp_path / "partial").replace(copy)
    assert next(updates).n == 150
    last = next(updates)
    assert last.final
    assert last.stored


def test_a_damaged_chunk_costs_its_frame_alone(tmp_path: Path, scan: pf.Scan) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "scan.h5"
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)
    with h5py.File(path, "w") as file:
        frames = file.create_dataset(
            "frames", data=counts, chunks=(1, 16, 16), compression="gzip", fletcher32=True
        )
        file["x"], file["y"] = scan.positions.T
        file["probe"] = scan.probe
        place = frames.id.get_chunk_info(33).byte_offset
    with path.open("r+b") as raw:
        raw.seek(place + 5)
        raw.write(b"damage")
    with pytest.warns(UserWarning, match="1 frames can't be read: 33"):
        *_, last = pf.follow(path, patience=0.5, final=QUICK, **NAMES)
    kept = np.delete(np.arange(150), 33)
    assert same(last.scan, scan.take(kept, scan.diffraction[kept]))
    assert "1 of 150 frames never came: 33." in last.image.notes


def test_a_file_that_is_closed_and_opened_again(tmp_path: Path, scan: pf.Scan) -> None:
    """A writer without SWMR: with `first`, a closed file is not the end."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "scan.h5"
    counts = np.rint(scan.diffraction.astype(np.float64) ** 2).astype(np.uint32)

    def append(low: int, high: int) -> None:
        with h5py.File(path, "a") as file:
            for key, values in (("frames", counts), ("x", scan.positions[:, 0]),
                                ("y", scan.positions[:, 1])):  # fmt: skip
                if "probe" not in file:
                    file["probe"] = scan.probe
                if key not in file:
                    file.create_dataset(key, data=values[:0], maxshape=(None, *values.shape[1:]))
                file[key].resize(high, axis=0)
                file[key][low:high] = values[low:high]

    append(0, 110)
    updates = pf.follow(path, final=QUICK, first=150, **NAMES)
    assert next(updates).n == 110
    append(110, 150)
    assert next(updates).n == 150
    last = next(updates)
    assert last.final
    assert last.stored
    assert same(last.scan, scan)


def test_positions_come_from_a_table_that_grows(
    start: Callable[..., Any], tmp_path: Path, scan: pf.Scan
) -> None:
    path, table = tmp_path / "scan.h5", tmp_path / "positions.csv"
    writer = opened(start, path)
    names = {**NAMES, "x": f"{table}:sx", "y": f"{table}:sy"}
    updates = pf.follow(path, final=QUICK, **names)
    writer("frames", 0, 150)
    lines = [f"{x!r},{y!r}\n" for x, y in scan.positions.tolist()]
    with table.open("w") as file:
        file.write("sx,sy\n" + "".join(lines[:40]) + lines[40][:-2])
        file.flush()
        assert next(updates).n == 40  # the last line has not ended
        file.write(lines[40][-2:] + "".join(lines[41:]))
        file.flush()
        assert next(updates).n == 150
    writer("close")
    assert same(next(updates).scan, scan)


def test_names_must_be_given() -> None:
    with pytest.raises(ValueError, match=r"diffraction=KEY, x=KEY, y=KEY"):
        pf.follow("scan.h5")
    with pytest.raises(ValueError, match="pass counts=True or counts=False"):
        pf.follow("scan.h5", diffraction="d", x="x", y="y")
    with pytest.raises(ValueError, match="pass unit="):
        pf.follow("scan.h5", diffraction="d", x="x", y="y", counts=True)
    with pytest.raises(ValueError, match="patience must be"):
        pf.follow("scan.h5", patience=0)


def test_a_closed_file_without_the_array_is_an_error(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(KeyError, match="'frames' is not a data set of the file"):
        next(pf.follow(path, **NAMES))
    assert os.path.exists(path)
