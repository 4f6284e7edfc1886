"""Patterns that stay in their NPZ file: the same numbers as loaded ones, in little memory."""

from __future__ import annotations

import concurrent.futures
import io
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import cache
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.npy import open_npy
from ptycho_fast.io.npz import stack as npz_stack
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.opening import open_container

if TYPE_CHECKING:
    from numpy.typing import NDArray

STORED = """
import sys
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.opening import open_container

def stored(path):
    with open_container(path) as container:
        return npz_scan.as_stored(container)
"""


def stored(path: Path) -> pf.Scan:
    """Read an NPZ scan as it is stored; its patterns stay in the file."""
    with open_container(path) as container:
        assert isinstance(container, NPZContainer)
        return npz_scan.as_stored(container)


posix = pytest.mark.skipif(os.name != "posix", reason="needs fork, locks and limits")
n, N = 7, 4


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of the test's own, which does not exist yet."""
    path = tmp_path_factory.mktemp("cache") / "deep" / "cache"
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(path))
    return path


def _counts(dtype: Any = "f4", n: int = n, N: int = N) -> NDArray[Any]:
    drawn = np.random.default_rng(0).integers(0, 2, (n, N, N)) if dtype == "?" else None
    counts = np.arange(n * N * N).reshape(n, N, N) % 120 if drawn is None else drawn
    return counts.astype(dtype)


def _written(path: Path, **stacks: Any) -> Path:
    save: Any = np.savez_compressed if stacks.pop("compressed", False) else np.savez
    length = len(stacks.pop("like", range(n)))
    save(path, xcoords=np.arange(float(length)), ycoords=np.zeros(length), **stacks)
    return path


LAYOUTS: dict[str, Any] = {
    "nNN": lambda stack: stack,
    "NNn": lambda stack: np.ascontiguousarray(stack.transpose(1, 2, 0)),
    "nNN1": lambda stack: stack[..., np.newaxis],
    "fortran nNN": np.asfortranarray,
    "fortran NNn": lambda stack: np.asfortranarray(stack.transpose(1, 2, 0)),
    "fortran nNN1": lambda stack: np.asfortranarray(stack[..., np.newaxis]),
}


@pytest.mark.parametrize("intensity", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "dtype", ["f4", "f8", "u2", ">f8", ">u2", "i8", "u1", "i2", "u4", "f2", "?"]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lazy_and_loaded_are_the_same_bits(
    tmp_path: Path, layout: str, dtype: str, compressed: bool, intensity: bool
) -> None:
    stack = LAYOUTS[layout](_counts(dtype))
    path = _written(tmp_path / "scan.npz", compressed=compressed, diff3d=stack)
    loaded = pf.read_scan(path, intensity=intensity).diffraction
    assert not cache.cached_files()
    lazy = pf.read_scan(path, intensity=intensity, load=False).diffraction
    assert not cache.cached_files()
    assert isinstance(loaded, np.ndarray)
    assert loaded.flags.c_contiguous
    assert isinstance(lazy, Frames)
    assert (lazy.shape, lazy.dtype) == (loaded.shape, loaded.dtype)
    assert np.asarray(lazy).tobytes() == loaded.tobytes()
    expected = np.sqrt(_counts(dtype).astype("f8")) if intensity else _counts(dtype)
    np.testing.assert_allclose(loaded, expected, rtol=1e-6)
    in_place = layout in ("nNN", "nNN1") and not compressed
    assert len(cache.cached_files()) == (not in_place)


def test_what_needs_no_conversion_is_read_from_the_file_itself(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    lazy = stored(path).diffraction
    assert isinstance(lazy, FileFrames)
    assert lazy.path == str(path)


def test_where_both_layouts_fit_axis_0_is_the_frames(tmp_path: Path) -> None:
    cube = _counts(n=4)
    for name, stack in {"c": cube, "fortran": np.asfortranarray(cube)}.items():
        path = _written(tmp_path / f"{name}.npz", like=cube, diff3d=stack)
        np.testing.assert_array_equal(stored(path).diffraction, cube)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_patterns_of_which_a_block_holds_only_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool, order: Any
) -> None:
    """Blocks of 3, 3 and 1 patterns, and pieces that end within a number."""
    monkeypatch.setattr(npz_stack, "GATHERED_BYTES", 3 * N * N * 4)
    monkeypatch.setattr(npz_stack, "COPY_BYTES", 13)
    for axes in ((0, 1, 2), (1, 2, 0)):
        stack = np.array(_counts().transpose(axes), order=order)
        path = _written(tmp_path / f"{axes}.npz", compressed=compressed, diff3d=stack)
        np.testing.assert_array_equal(stored(path).diffraction, _counts())


def test_a_member_that_zip_writes_in_other_ways(tmp_path: Path) -> None:
    """No zip64 field, a long extra field, bytes before the archive, a pipe (sizes come after)."""
    member = io.BytesIO()
    np.save(member, _counts())
    coordinate = io.BytesIO()
    np.save(coordinate, np.arange(float(n)))
    rest = {"xcoords.npy": coordinate.getvalue(), "ycoords.npy": coordinate.getvalue()}

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.content += data
            return len(data)

    for prefix, extra in ((b"", b""), (b"#!", b"\x35\xd9\x05\x00hello")):
        pipe = Pipe()
        pipe.write(prefix)
        with zipfile.ZipFile(pipe, "w") as archive:
            for name, content in rest.items():
                archive.writestr(name, content)
            entry = zipfile.ZipInfo("diffraction.npy")
            entry.extra = extra
            archive.writestr(entry, member.getvalue())
        path = tmp_path / "piped.npz"
        path.write_bytes(pipe.content)
        np.testing.assert_array_equal(stored(path).diffraction, _counts())


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(0, n - 1), max_size=20),
    order=st.sampled_from(["as drawn", "ascending", "descending"]),
    dtype=st.sampled_from([np.int32, np.int64, np.uint64, np.uint8]),
    kind=st.sampled_from(["stored", "swapped bytes", "converted", "compressed"]),
)
def test_any_choice_of_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], order: str, dtype: Any, kind: str
) -> None:
    stack = _counts({"swapped bytes": ">f8", "converted": "i4"}.get(kind, "f4"))
    path = tmp_path_factory.mktemp("rows") / "scan.npz"
    _written(path, compressed=kind == "compressed", diff3d=stack)
    lazy = stored(path).diffraction
    chosen = np.array(rows if order == "as drawn" else sorted(rows), dtype)
    chosen = chosen[::-1] if order == "descending" else chosen
    out = np.full((len(rows), N, N), -1, lazy.dtype)
    lazy.read(chosen, out)
    np.testing.assert_array_equal(out, stack[chosen])
    np.testing.assert_array_equal(lazy[chosen], stack[chosen])
    np.testing.assert_array_equal(lazy[1:6:2], stack[1:6:2])
    for part, block in lazy.blocks():
        np.testing.assert_array_equal(block, stack[part])
    shutil.rmtree(path.parent)


def _frames_of_every_kind(tmp_path: Path) -> list[Frames]:
    paths = {
        "stored": _written(tmp_path / "stored.npz", diff3d=_counts()),
        "converted": _written(tmp_path / "converted.npz", diff3d=_counts("i4")),
        "compressed": _written(tmp_path / "compressed.npz", compressed=True, diff3d=_counts()),
    }
    return [stored(path).diffraction for path in paths.values()]


def test_they_can_be_pickled_after_use(tmp_path: Path) -> None:
    for lazy in _frames_of_every_kind(tmp_path):
        again = pickle.loads(pickle.dumps(lazy))
        np.testing.assert_array_equal(lazy[3], again[3])
        np.testing.assert_array_equal(again, _counts())


@posix
def test_a_forked_child_and_its_parent_read_the_same_file_at_once(tmp_path: Path) -> None:
    for lazy in _frames_of_every_kind(tmp_path):
        child = os.fork()
        if child == 0:
            same = False
            try:
                same = all(np.array_equal(lazy[::-1], _counts()[::-1]) for _ in range(100))
            finally:
                os._exit(0 if same else 1)
        for _ in range(100):
            np.testing.assert_array_equal(lazy[:], _counts())
        assert os.waitpid(child, 0)[1] == 0


def test_threads_share_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    choices = [rng.integers(0, n, 50) for _ in range(200)]
    for lazy in _frames_of_every_kind(tmp_path):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for chosen, found in zip(choices, pool.map(lazy.__getitem__, choices), strict=True):
                np.testing.assert_array_equal(found, _counts()[chosen])


# --- two stacks in one file -------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_stacks_are_compared_without_unpacking_the_second(
    tmp_path: Path, layout: str, compressed: bool
) -> None:
    same, other = LAYOUTS[layout](_counts("f8")), LAYOUTS[layout](_counts("f8"))
    other[tuple(length - 1 for length in other.shape)] += 1
    both = {"compressed": compressed, "diff3d": _counts()}
    path = _written(tmp_path / "same.npz", diffraction=same, **both)
    np.testing.assert_array_equal(stored(path).diffraction, _counts())
    assert len(cache.cached_files()) == compressed
    path = _written(tmp_path / "other.npz", diffraction=other, **both)
    with pytest.raises(ValueError, match="both 'diff3d' and 'diffraction', and they differ"):
        stored(path)


def test_equal_stacks_need_no_second_look(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts(), diffraction=_counts())
    for load in (True, False):
        np.testing.assert_array_equal(pf.read_scan(path, load=load).diffraction, _counts())
    path = _written(tmp_path / "scan.npz", diff3d=_counts(), diffraction=_counts() + 1)
    for load in (True, False):
        with pytest.raises(ValueError, match="they differ"):
            pf.read_scan(path, load=load)


# --- files that are wrong, or become so -------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (np.zeros((5, 4, 4), np.float32), r"shape \(5, 4, 4\), which holds no 7 square patterns"),
        (np.zeros((7, 4, 3), np.float32), "no 7 square patterns"),
        (np.zeros((7, 4, 4), complex), "real numbers, got complex128"),
        (np.array([None] * 7), "is a pickled object"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    tmp_path: Path, folder: Path, stack: NDArray[Any], words: str
) -> None:
    for compressed in (False, True):
        path = _written(tmp_path / "scan.npz", compressed=compressed, diff3d=stack)
        with pytest.raises(ValueError, match=words):
            stored(path)
    assert not folder.exists()


def test_missing_keys_and_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", xcoords=np.zeros(3), other=np.zeros(3))
    with pytest.raises(KeyError, match=r"lacks ycoords, diff3d \(or diffraction\)"):
        stored(tmp_path / "scan.npz")
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "nothing.npz")


def test_negative_intensities_are_named_when_they_are_read(tmp_path: Path) -> None:
    counts = _counts("f4")
    counts[5, 1, 2] = -3
    path = _written(tmp_path / "scan.npz", diff3d=counts)
    lazy = pf.read_scan(path, load=False, intensity=True).diffraction
    lazy[:5]
    for read in (lambda: lazy[5], lambda: pf.read_scan(path, intensity=True)):
        with pytest.raises(ValueError, match=r"negative; the lowest is -3 \(pattern 5\)"):
            read()


def test_an_encrypted_member_is_an_error_in_words(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    content = path.read_bytes()
    # Bit 0 of the flags: in the header before the first member, and in the directory.
    for sign, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(sign) + flags
        content = content[:at] + bytes([content[at] | 1]) + content[at + 1 :]
    path.write_bytes(content)
    for load in (True, False):
        with pytest.raises(OSError, match="is encrypted"):
            pf.read_scan(path, load=load)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), compressed=st.booleans())
def test_a_damaged_file_never_does_worse_than_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, layout: str, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "scan.npz"
    _written(path, compressed=compressed, diff3d=LAYOUTS[layout](_counts()))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "truncate"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        content[data.draw(st.integers(0, len(content) - 1), "byte")] ^= 64
    path.write_bytes(content)
    try:
        lazy = stored(path).diffraction
        numbers = np.asarray(lazy)
    except (OSError, KeyError, ValueError):
        assert not [file for file, _ in cache.cached_files() if file.name.startswith(".")]
        return
    assert numbers.shape == (n, N, N)
    if compressed and lazy.dtype == np.float32:  # the checksum vouches for them
        np.testing.assert_array_equal(numbers, _counts())


def test_a_file_that_is_cut_short_while_it_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    lazy = stored(path).diffraction
    os.truncate(path, lazy.offset + 4 * N * N * 4 + 7)  # within pattern 4
    for rows in ([1, 2, 3, 4, 5], [6, 4], [4]):
        pattern = 6 if rows[0] == 6 else 4
        with pytest.raises(OSError, match=f"cut short while it was read: pattern {pattern} of 7"):
            lazy[rows]
    with pytest.raises(OSError, match="was changed since it was opened"):
        lazy[[0, 1]]  # still there, but of what?


def test_a_file_that_is_changed_under_its_readers(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    lazy = stored(path).diffraction
    pickled = pickle.dumps(lazy)
    _written(path, diff3d=_counts() + 1)
    os.utime(path, ns=(1, 1))  # a coarse clock might say the same
    with pytest.raises(OSError, match="was changed since it was opened"):
        lazy[0]
    with pytest.raises(OSError, match="was changed since it was opened"):
        pickle.loads(pickled)
    np.testing.assert_array_equal(stored(path).diffraction, _counts() + 1)


def test_a_file_that_is_replaced_stays_what_it_was_for_its_readers(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    scan = stored(path)
    changed = pf.Scan(scan.positions, _counts() + 1)
    npz_scan.write(changed, path)
    np.testing.assert_array_equal(scan.diffraction, _counts())
    np.testing.assert_array_equal(stored(path).diffraction, _counts() + 1)


# --- the cache --------------------------------------------------------------------------------


def _compressed(path: Path, add: int = 0) -> Path:
    return _written(path, compressed=True, diff3d=_counts() + add)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert cache.cache_folder() == folder
    monkeypatch.delenv("PTYCHO_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache.cache_folder() == Path("/var/xdg/ptycho_fast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "ptycho_fast"


def test_what_is_in_the_cache_is_shown_and_cleared(tmp_path: Path, folder: Path) -> None:
    assert cache.cached_files() == []
    assert cache.clear_cache() == 0
    lazy = [stored(_compressed(tmp_path / f"{i}.npz", i)).diffraction for i in range(3)]
    assert cache.cached_files() == []  # nothing was wanted of them
    for patterns in lazy:
        patterns[0]
    (folder / "mine.npy").write_bytes(b"not yours")
    found = cache.cached_files()
    assert len(found) == 3
    for i, (path, size) in enumerate(found):
        assert path.name.startswith(f"{i}-diff3d-")
        assert size == path.stat().st_size > n * N * N * 4
        np.testing.assert_array_equal(open_npy(path), _counts() + i)
    assert cache.clear_cache() == sum(size for _, size in found)
    assert cache.cached_files() == []
    assert [path.name for path in folder.iterdir()] == ["mine.npy"]
    for i in range(3):  # who has it open goes on reading
        np.testing.assert_array_equal(lazy[i], _counts() + i)


def test_it_is_said_where_and_how_large(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _written(tmp_path / "big.npz", compressed=True, like=range(160),
                    diff3d=np.zeros((160, 128, 128), np.float32))  # fmt: skip
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        stored(path).diffraction[0]
        stored(path).diffraction[0]
    ((entry, _),) = cache.cached_files()
    (line,) = caplog.messages
    assert line == f"{path}: 'diff3d' is unpacked, this once, to {entry} (10.0 MiB)."


def test_a_changed_file_is_unpacked_again(tmp_path: Path) -> None:
    for i in range(2):
        path = _compressed(tmp_path / "scan.npz", i)
        os.utime(path, ns=(i, i))
        np.testing.assert_array_equal(stored(path).diffraction, _counts() + i)
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    stored(link)
    assert len(cache.cached_files()) == 2


def test_what_is_spoilt_is_unpacked_again(tmp_path: Path) -> None:
    path = _compressed(tmp_path / "scan.npz")
    stored(path).diffraction[0]
    ((entry, size),) = cache.cached_files()
    for spoil in (
        lambda: os.truncate(entry, size - 1),
        lambda: os.truncate(entry, 0),
        lambda: entry.write_bytes(b"what is this"),
        lambda: np.save(entry, np.zeros((2, 2, 2))),
    ):
        spoil()
        np.testing.assert_array_equal(stored(path).diffraction, _counts())
        assert cache.cached_files() == [(entry, size)]


def test_a_folder_that_can_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"can't be written to \(.*\). Set PTYCHO_FAST_CACHE"):
        stored(_compressed(tmp_path / "scan.npz")).diffraction[0]


def test_too_little_space_is_seen_before_the_work(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.zeros((64, 64, 128), np.float32)
    path = _written(tmp_path / "scan.npz", compressed=True, like=range(128), diff3d=stack)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    # 2 MiB of patterns, and as much again while they are turned round.
    with pytest.raises(OSError, match=r"needs 4.0 MiB in .*, where 3.0 MiB are free.*Make room"):
        stored(path).diffraction[0]
    assert list(folder.iterdir()) == []


def _python(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
    )


def _output(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors


@posix
@pytest.mark.parametrize("layout", ["nNN", "NNn"])
def test_a_disk_that_fills_leaves_nothing(tmp_path: Path, folder: Path, layout: str) -> None:
    """The kernel refuses files beyond 100 kB; 256 kB are to be written."""
    stack = LAYOUTS[layout](np.zeros((64, 32, 32), np.float32))
    path = _written(tmp_path / "scan.npz", compressed=True, like=range(64), diff3d=stack)
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
    said, _ = _output(_python(script, path))
    needed = "0.2 MiB" if layout == "nNN" else "0.5 MiB"
    assert f"needs {needed} in {folder}, where" in said
    assert "Make room" in said
    assert list(folder.iterdir()) == []


@posix
def test_of_two_processes_one_unpacks(tmp_path: Path, folder: Path) -> None:
    path = _compressed(tmp_path / "scan.npz")
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
        waiting = [_python(script, path) for _ in range(2)]
        for process in waiting:
            assert process.stdout is not None
            assert "Waiting for another process" in process.stdout.readline()
        assert cache.clear_cache() == 0
        assert [file.name for file in folder.iterdir()] == [f"{entry.name}.lock"]
    said = [_output(process)[0] for process in waiting]
    assert sum("is unpacked, this once" in output for output in said) == 1
    assert all(output.splitlines()[-1] == str(_counts().sum()) for output in said)
    assert list(folder.iterdir()) == [entry]


@posix
def test_a_process_that_is_killed_while_it_unpacks(tmp_path: Path, folder: Path) -> None:
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
        process = _python(script, source)
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


# --- NPY --------------------------------------------------------------------------------------


def test_open_npy(tmp_path: Path) -> None:
    path = tmp_path / "patterns.npy"
    for dtype in ("f4", ">f8", "u1"):
        np.save(path, _counts(dtype))
        np.testing.assert_array_equal(open_npy(path), _counts(dtype))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(OSError, match="is cut short: 7 patterns of 4 x 4 uint8"):
        open_npy(path)
    path.write_bytes(whole[:20])
    with pytest.raises(OSError, match="is not an NPY file, or it is damaged"):
        open_npy(path)
    fortran, pickled = np.asfortranarray(_counts()), np.full((2, 2, 2), None)
    for wrong in (np.zeros((3, 4, 5)), np.zeros(3), np.zeros((2, 2, 2), complex), fortran, pickled):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=r"patterns must be \(n, N, N\) real numbers in C"):
            open_npy(path)


# --- writing, and memory ----------------------------------------------------------------------


def test_masks_and_energies_survive_a_round_trip(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((N, N)) > 0.3
    energies = np.arange(7.0)
    scan = pf.Scan(np.zeros((n, 2)), _counts("u2"), mask=mask, energies=energies)
    npz_scan.write(scan, tmp_path / "scan.npz")
    for load in (True, False):
        again = pf.read_scan(tmp_path / "scan.npz", load=load)
        np.testing.assert_array_equal(again.mask, mask)
        np.testing.assert_array_equal(again.energies, energies)
        assert not again.metadata
    # Energies are those of what is stored, not of its roots.
    assert pf.read_scan(tmp_path / "scan.npz", intensity=True).energies is None
    with pytest.raises(ValueError, match=r"metadata\['detector_mask'\].*the name is taken"):
        npz_scan.write(
            pf.Scan(np.zeros((n, 2)), _counts(), metadata={"detector_mask": 1}), tmp_path
        )


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("detector_mask", np.ones((N, N)), r"leaves none of 16 pixels: in a mask of numbers, 0"),
        ("detector_mask", np.ones((3, 3), bool), r"must be bools or numbers of shape \(4, 4\)"),
    ],
)
def test_masks_that_do_not_fit(tmp_path: Path, field: str, value: NDArray[Any], words: str) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts(), **{field: value})
    with pytest.raises(ValueError, match=words):
        stored(path)


def test_lazy_scans_are_written_as_they_are(tmp_path: Path) -> None:
    scan = pf.simulate_scan(n_positions=30, N=16, seed=0)
    npz_scan.write(scan, tmp_path / "loaded.npz")
    lazy = stored(tmp_path / "loaded.npz")
    npz_scan.write(lazy, tmp_path / "lazy.npz")
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "loaded.npz").read_bytes()
    npz_scan.write(lazy, tmp_path / "loaded.npz")  # onto the very file it reads
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "loaded.npz").read_bytes()
    with np.load(tmp_path / "lazy.npz") as others:
        np.testing.assert_array_equal(others["diff3d"], scan.diffraction)


def test_a_source_that_is_cut_short_while_it_is_written(tmp_path: Path) -> None:
    path = _written(tmp_path / "scan.npz", diff3d=_counts())
    scan = stored(path)
    os.truncate(path, scan.diffraction.offset + 100)
    target = tmp_path / "copy.npz"
    target.write_bytes(b"before")
    with pytest.raises(OSError, match="cut short while it was read"):
        npz_scan.write(scan, target)
    assert target.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.npz", "scan.npz"]


LIMIT = 150 * 2**20
LIMITED = f"""
import resource, sys
import numpy as np
from ptycho_fast.frames import Frames
from ptycho_fast.scan import Scan
{STORED}
resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))

class Made(Frames):
    # Pattern i holds i everywhere.
    shape, dtype = (5000, 128, 128), np.dtype(np.float32)
    def read(self, rows, out):
        out[...] = rows[:, np.newaxis, np.newaxis]

def check(frames):
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = rng.integers(0, 5000, 128)
        batch = frames[rows]
        assert (batch == rows[:, np.newaxis, np.newaxis]).all()

def refused(frames):
    try:
        np.asarray(frames)
    except MemoryError:
        return True
    return False
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all memory on Linux only")
def test_a_file_of_twice_the_memory_is_written_and_read(tmp_path: Path) -> None:
    """5000 patterns of 64 KiB, 313 MiB, by processes that may have 150 MiB."""
    first, copy = tmp_path / "first.npz", tmp_path / "copy.npz"
    write = "npz_scan.write(Scan(np.zeros((5000, 2)), Made()), sys.argv[1])"
    _output(_python(LIMITED + write, first))
    assert first.stat().st_size > 2 * LIMIT
    read = """
scan = stored(sys.argv[1])
check(scan.diffraction)
assert refused(scan.diffraction)
npz_scan.write(scan, sys.argv[2])
check(stored(sys.argv[2]).diffraction)
"""
    _output(_python(LIMITED + read, first, copy))
    assert copy.stat().st_size == first.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all memory on Linux only")
@pytest.mark.parametrize(("layout", "compressed"), [("nNN", True), ("NNn", False), ("NNn", True)])
def test_a_file_of_twice_the_memory_is_unpacked(
    tmp_path: Path, layout: str, compressed: bool
) -> None:
    path = tmp_path / "scan.npz"
    ramp = np.arange(5000, dtype=np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in ("xcoords", "ycoords"):
            with archive.open(f"{key}.npy", "w") as file:
                np.save(file, ramp)
        entry = zipfile.ZipInfo("diffraction.npy")
        entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        with archive.open(entry, "w", force_zip64=True) as file:
            shape = (5000, 128, 128) if layout == "nNN" else (128, 128, 5000)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for i in range(shape[0]):
                row = np.full(shape[1:], i, np.float32) if layout == "nNN" else np.tile(ramp, 128)
                file.write(row.tobytes())
    read = "frames = stored(sys.argv[1]).diffraction; check(frames)\n"
    _output(_python(LIMITED + read + "assert refused(frames)", path))
