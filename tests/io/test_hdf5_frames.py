"""Patterns that stay in an HDF5 file: damage, chunks, processes and threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from beamline_files import METRES, N, beamline, counts, n

if TYPE_CHECKING:
    from pathlib import Path


h5py = pytest.importorskip("h5py")


# --- damage ------------------------------------------------------------------------------------


def test_a_chunk_that_fails_its_checksum_names_its_patterns(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5", chunks=(1, N, N), fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["entry/data"].id.get_chunk_info_by_coord((5, 0, 0))
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset + 7)
        raw.write(b"\xff\xee")
    frames = pf.read_scan(path, load=False, **METRES).diffraction
    with pytest.raises(OSError, match=r"'/entry/data', pattern 4\.\.6 of 12, can't be read"):
        frames[[1, 4, 5, 6]]
    with pytest.raises(OSError, match=r"pattern 5 of 12, can't be read.*damaged"):
        frames[[5, 2]]
    # The others are as they were.
    np.testing.assert_array_equal(frames[[4, 6]], np.sqrt(counts()[[4, 6]], dtype="f4"))


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, N, N)}], ids=["contiguous", "chunked"])
def test_a_file_cut_short_is_an_oserror(tmp_path: Path, storage: dict[str, Any]) -> None:
    path = beamline(tmp_path / "a.h5", **storage)
    os.truncate(path, os.path.getsize(path) - 100)
    with pytest.raises(OSError, match="damaged or cut short"):
        pf.read_scan(path, **METRES)


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, N, N)}], ids=["contiguous", "chunked"])
def test_a_file_cut_short_while_it_is_read_is_an_oserror(
    tmp_path: Path, storage: dict[str, Any]
) -> None:
    path = beamline(tmp_path / "a.h5", **storage)
    frames = pf.read_scan(path, load=False, **METRES).diffraction
    frames[0]
    os.truncate(path, 1000)
    with pytest.raises(OSError, match=r"a\.h5"):
        frames[:]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" * 99])
def test_files_of_no_known_format_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    told = "not an (NPZ|HDF5) file, or it is damaged" if content else "empty"
    with pytest.raises(OSError, match=rf"a\.h5 is {told}"):
        pf.read_scan(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        pf.read_scan(tmp_path / "nothing.h5")


def test_without_h5py_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = beamline(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ImportError, match=r'HDF5 files need h5py.*pip install "ptycho_fast\[hdf5\]"'
    ):
        pf.read_scan(path, **METRES)


# --- chunks, processes, threads ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "amplification"),
    [((1, N, N), None), ((4, N, N), None), ((5, N, N), 5), ((1, 3, 3), None), ((n, N, 5), 15)],
)
def test_expensive_chunks_are_warned_of(
    tmp_path: Path, chunks: tuple[int, ...], amplification: float | None
) -> None:
    path = beamline(tmp_path / "a.h5", chunks=chunks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pf.read_scan(path, load=False, **METRES)
        given = [str(warning.message) for warning in caught]
        pf.read_scan(path, **METRES)  # which reads them once, in order
    assert [str(warning.message) for warning in caught] == given
    if amplification is None:
        assert not given
    else:
        (sentence,) = given
        assert f"cost {amplification} times its bytes" in sentence
        assert "ptycho-fast convert" in sentence


def _energies(frames: Any) -> list[float]:
    return [float(np.square(frames[row]).sum()) for row in (3, 0, 9)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_reads_what_its_parent_opened(tmp_path: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    path = beamline(tmp_path / "a.h5", chunks=(2, N, N), compression="gzip")
    frames = pf.read_scan(path, load=False, **METRES).diffraction
    here = _energies(frames)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_energies, [frames] * 4) == [here] * 4
    if method == "fork":
        read, write = os.pipe()
        if (child := os.fork()) == 0:  # what is open, not a pickled copy
            os.write(write, b"y" if _energies(frames) == here else b"n")
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1) == b"y"
    assert _energies(frames) == here


def test_frames_are_pickled_by_name_not_by_content(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5", chunks=(2, N, N))
    frames = pf.read_scan(path, load=False, crop=6, **METRES).diffraction
    frames[0]
    content = pickle.dumps(frames)
    assert len(content) < 2000
    np.testing.assert_array_equal(pickle.loads(content)[:], frames[:])


def test_threads_share_frames(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5", chunks=(2, N, N), compression="gzip")
    frames = pf.read_scan(path, load=False, **METRES).diffraction
    truth = np.sqrt(counts(), dtype="f4")
    wrong = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            rows = rng.integers(0, n, 5)
            if not np.array_equal(frames[rows], truth[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
