"""Patterns that are unpacked once, into the cache, by one of several processes."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from npz_files import LAYOUTS, STORED, N, counts, n, output, posix, python, stored, written
from ptycho_fast.io import cache
from ptycho_fast.io.npy import open_npy

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("folder")


def compressed(path: Path, add: int = 0) -> Path:
    return written(path, compressed=True, diff3d=counts() + add)


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    assert cache.cache_folder() == folder
    monkeypatch.delenv("PTYCHO_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache.cache_folder() == Path("/var/xdg/ptycho_fast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "ptycho_fast"


def test_what_is_in_the_cache_is_shown_and_cleared(tmp_path: Path, folder: Path) -> None:
    assert cache.cached_files() == []
    assert cache.clear_cache() == 0
    lazy = [stored(compressed(tmp_path / f"{i}.npz", i)).diffraction for i in range(3)]
    assert cache.cached_files() == []  # nothing was wanted of them
    for patterns in lazy:
        patterns[0]
    (folder / "mine.npy").write_bytes(b"not yours")
    found = cache.cached_files()
    assert len(found) == 3
    for i, (path, size) in enumerate(found):
        assert path.name.startswith(f"{i}-diff3d-")
        assert size == path.stat().st_size > n * N * N * 4
        np.testing.assert_array_equal(open_npy(path), counts() + i)
    assert cache.clear_cache() == sum(size for _, size in found)
    assert cache.cached_files() == []
    assert [path.name for path in folder.iterdir()] == ["mine.npy"]
    for i in range(3):  # who has it open goes on reading
        np.testing.assert_array_equal(lazy[i], counts() + i)


def test_unpacking_logs_where_and_how_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "big.npz", compressed=True, like=range(160),
                    diff3d=np.zeros((160, 128, 128), np.float32))  # fmt: skip
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        stored(path).diffraction[0]
        stored(path).diffraction[0]
    ((entry, _),) = cache.cached_files()
    (line,) = caplog.messages
    assert line == f"{path}: 'diff3d' is unpacked, this once, to {entry} (10.0 MiB)."


def test_a_changed_file_is_unpacked_again(tmp_path: Path) -> None:
    for i in range(2):
        path = compressed(tmp_path / "scan.npz", i)
        os.utime(path, ns=(i, i))
        np.testing.assert_array_equal(stored(path).diffraction, counts() + i)
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    stored(link)
    assert len(cache.cached_files()) == 2


def test_a_damaged_entry_is_unpacked_again(tmp_path: Path) -> None:
    path = compressed(tmp_path / "scan.npz")
    stored(path).diffraction[0]
    ((entry, size),) = cache.cached_files()
    for spoil in (
        lambda: os.truncate(entry, size - 1),
        lambda: os.truncate(entry, 0),
        lambda: entry.write_bytes(b"what is this"),
        lambda: np.save(entry, np.zeros((2, 2, 2))),
    ):
        spoil()
        np.testing.assert_array_equal(stored(path).diffraction, counts())
        assert cache.cached_files() == [(entry, size)]


def test_a_cache_folder_that_cannot_be_written_to_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"can't be written to \(.*\). Set PTYCHO_FAST_CACHE"):
        stored(compressed(tmp_path / "scan.npz")).diffraction[0]


def test_too_little_space_is_seen_before_the_work(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.zeros((64, 64, 128), np.float32)
    path = written(tmp_path / "scan.npz", compressed=True, like=range(128), diff3d=stack)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    # 2 MiB of patterns, and as much again while they are turned round.
    with pytest.raises(OSError, match=r"needs 4.0 MiB in .*, where 3.0 MiB are free.*Make room"):
        stored(path).diffraction[0]
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.parametrize("layout", ["nNN", "NNn"])
def test_a_disk_that_fills_leaves_nothing(tmp_path: Path, folder: Path, layout: str) -> None:
    """The kernel refuses files beyond 100 kB; 256 kB are to be written."""
    stack = LAYOUTS[layout](np.zeros((64, 32, 32), np.float32))
    path = written(tmp_path / "scan.npz", compressed=True, like=range(64), diff3d=stack)
    script = (
        STORED
        + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    stored(sys.argv[1]).diffraction[0]
except OSError as error:
    print(error)
"""
    )
    said, _ = output(python(script, path))
    needed = "0.2 MiB" if layout == "nNN" else "0.5 MiB"
    assert f"needs {needed} in {folder}, where" in said
    assert "Make room" in said
    assert list(folder.iterdir()) == []


@posix
def test_one_of_two_processes_unpacks_and_the_other_waits(tmp_path: Path, folder: Path) -> None:
    path = compressed(tmp_path / "scan.npz")
    stored(path).diffraction[0]
    ((entry, _),) = cache.cached_files()
    cache.clear_cache()
    script = (
        STORED
        + """
import logging
import numpy as np
logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
print(np.asarray(stored(sys.argv[1]).diffraction).sum())
"""
    )
    with cache.locked(entry):  # both must wait, so that both come at once
        waiting = [python(script, path) for _ in range(2)]
        for process in waiting:
            assert process.stdout is not None
            assert "Waiting for another process" in process.stdout.readline()
        assert cache.clear_cache() == 0
        assert [file.name for file in folder.iterdir()] == [f"{entry.name}.lock"]
    said = [output(process)[0] for process in waiting]
    assert sum("is unpacked, this once" in output for output in said) == 1
    assert all(output.splitlines()[-1] == str(counts().sum()) for output in said)
    assert list(folder.iterdir()) == [entry]


@posix
def test_what_a_killed_process_leaves_is_cleared_up(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"anything")
    script = """
import os, signal, sys
import numpy as np
from ptycho_fast.io import cache
def blocks():
    yield np.ones((1, 512, 512))
    os.kill(os.getpid(), signal.SIGKILL)
cache.unpacked(sys.argv[1], "key", (2, 512, 512), np.dtype(float), blocks)
"""

    def kill() -> None:
        process = python(script, source)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL

    kill()
    ((rest, size),) = cache.cached_files()
    assert size > 0
    assert cache.clear_cache() == size
    assert list(folder.iterdir()) == []
    kill()
    stack = np.ones((2, 512, 512))
    frames = cache.unpacked(source, "key", stack.shape, stack.dtype, lambda: [stack])
    np.testing.assert_array_equal(frames, stack)
    assert [str(path) for path in folder.iterdir()] == [frames.path]
    assert rest.parent == folder


def test_threads_of_one_process_unpack_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"anything")
    stack, calls = np.ones((3, 4, 4)), []

    def blocks() -> list[NDArray[Any]]:
        calls.append(1)
        time.sleep(0.05)
        return [stack]

    def unpack(_: int) -> Any:
        return np.asarray(cache.unpacked(source, "key", (3, 4, 4), stack.dtype, blocks))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(unpack, range(8)):
            np.testing.assert_array_equal(found, stack)
    assert len(calls) == 1 or os.name != "posix"
