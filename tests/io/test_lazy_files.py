"""Patterns that stay in their NPZ file: the same numbers as loaded ones, in little memory."""

from __future__ import annotations

import concurrent.futures
import io
import os
import pickle
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from npz_files import LAYOUTS, N, counts, n, posix, stored, written
from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import cache
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.hdf5.writing import Outgoing
from ptycho_fast.io.npz import stack as npz_stack

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize("intensity", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "dtype", ["f4", "f8", "u2", ">f8", ">u2", "i8", "u1", "i2", "u4", "f2", "?"]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lazy_and_loaded_are_the_same_bits(
    tmp_path: Path, layout: str, dtype: str, compressed: bool, intensity: bool
) -> None:
    stack = LAYOUTS[layout](counts(dtype))
    path = written(tmp_path / "scan.npz", compressed=compressed, diff3d=stack)
    loaded = pf.read_scan(path, intensity=intensity).diffraction
    assert not cache.cached_files()
    lazy = pf.read_scan(path, intensity=intensity, load=False).diffraction
    assert not cache.cached_files()
    assert isinstance(loaded, np.ndarray)
    assert loaded.flags.c_contiguous
    assert isinstance(lazy, Frames)
    assert (lazy.shape, lazy.dtype) == (loaded.shape, loaded.dtype)
    assert np.asarray(lazy).tobytes() == loaded.tobytes()
    expected = np.sqrt(counts(dtype).astype("f8")) if intensity else counts(dtype)
    np.testing.assert_allclose(loaded, expected, rtol=1e-6)
    in_place = layout in ("nNN", "nNN1") and not compressed
    assert len(cache.cached_files()) == (not in_place)


def test_what_needs_no_conversion_is_read_from_the_file_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
    lazy = stored(path).diffraction
    assert isinstance(lazy, FileFrames)
    assert lazy.path == str(path)


def test_where_both_layouts_fit_axis_0_is_the_frames(tmp_path: Path) -> None:
    cube = counts(n=4)
    for name, stack in {"c": cube, "fortran": np.asfortranarray(cube)}.items():
        path = written(tmp_path / f"{name}.npz", like=cube, diff3d=stack)
        np.testing.assert_array_equal(stored(path).diffraction, cube)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_patterns_are_the_same_in_small_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool, order: Any
) -> None:
    """Blocks of 3, 3 and 1 patterns, and pieces that end within a number."""
    monkeypatch.setattr(npz_stack, "GATHERED_BYTES", 3 * N * N * 4)
    monkeypatch.setattr(npz_stack, "COPY_BYTES", 13)
    for axes in ((0, 1, 2), (1, 2, 0)):
        stack = np.array(counts().transpose(axes), order=order)
        path = written(tmp_path / f"{axes}.npz", compressed=compressed, diff3d=stack)
        np.testing.assert_array_equal(stored(path).diffraction, counts())


def test_every_way_to_write_a_zip_member_is_read(tmp_path: Path) -> None:
    """No zip64 field, a long extra field, bytes before the archive, a pipe (sizes come after)."""
    member = io.BytesIO()
    np.save(member, counts())
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
        np.testing.assert_array_equal(stored(path).diffraction, counts())


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(0, n - 1), max_size=20),
    order=st.sampled_from(["as drawn", "ascending", "descending"]),
    dtype=st.sampled_from([np.int32, np.int64, np.uint64, np.uint8]),
    kind=st.sampled_from(["stored", "swapped bytes", "converted", "compressed"]),
)
def test_any_choice_of_rows_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], order: str, dtype: Any, kind: str
) -> None:
    stack = counts({"swapped bytes": ">f8", "converted": "i4"}.get(kind, "f4"))
    path = tmp_path_factory.mktemp("rows") / "scan.npz"
    written(path, compressed=kind == "compressed", diff3d=stack)
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
        "stored": written(tmp_path / "stored.npz", diff3d=counts()),
        "converted": written(tmp_path / "converted.npz", diff3d=counts("i4")),
        "compressed": written(tmp_path / "compressed.npz", compressed=True, diff3d=counts()),
    }
    return [stored(path).diffraction for path in paths.values()]


def test_frames_can_be_pickled_after_use(tmp_path: Path) -> None:
    for lazy in _frames_of_every_kind(tmp_path):
        again = pickle.loads(pickle.dumps(lazy))
        np.testing.assert_array_equal(lazy[3], again[3])
        np.testing.assert_array_equal(again, counts())


@posix
def test_a_forked_child_and_its_parent_read_the_same_file_at_once(tmp_path: Path) -> None:
    for lazy in _frames_of_every_kind(tmp_path):
        child = os.fork()
        if child == 0:
            same = False
            try:
                same = all(np.array_equal(lazy[::-1], counts()[::-1]) for _ in range(100))
            finally:
                os._exit(0 if same else 1)
        for _ in range(100):
            np.testing.assert_array_equal(lazy[:], counts())
        assert os.waitpid(child, 0)[1] == 0


def test_threads_share_npz_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    choices = [rng.integers(0, n, 50) for _ in range(200)]
    for lazy in _frames_of_every_kind(tmp_path):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for chosen, found in zip(choices, pool.map(lazy.__getitem__, choices), strict=True):
                np.testing.assert_array_equal(found, counts()[chosen])


# --- two stacks in one file -------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_stacks_are_compared_without_unpacking_the_second(
    tmp_path: Path, layout: str, compressed: bool
) -> None:
    same, other = LAYOUTS[layout](counts("f8")), LAYOUTS[layout](counts("f8"))
    other[tuple(length - 1 for length in other.shape)] += 1
    both = {"compressed": compressed, "diff3d": counts()}
    path = written(tmp_path / "same.npz", diffraction=same, **both)
    np.testing.assert_array_equal(stored(path).diffraction, counts())
    assert len(cache.cached_files()) == compressed
    path = written(tmp_path / "other.npz", diffraction=other, **both)
    with pytest.raises(ValueError, match="both 'diff3d' and 'diffraction', and they differ"):
        stored(path)


def test_equal_stacks_need_no_second_look(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts(), diffraction=counts())
    for load in (True, False):
        np.testing.assert_array_equal(pf.read_scan(path, load=load).diffraction, counts())
    path = written(tmp_path / "scan.npz", diff3d=counts(), diffraction=counts() + 1)
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
        path = written(tmp_path / "scan.npz", compressed=compressed, diff3d=stack)
        with pytest.raises(ValueError, match=words):
            stored(path)
    assert not folder.exists()


def test_missing_keys_and_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", xcoords=np.zeros(3), other=np.zeros(3))
    with pytest.raises(KeyError, match=r"lacks ycoords, diff3d \(or diffraction\)"):
        stored(tmp_path / "scan.npz")
    with pytest.raises(FileNotFoundError):
        stored(tmp_path / "nothing.npz")


def test_negative_intensities_are_named_when_they_are_read(tmp_path: Path) -> None:
    stack = counts("f4")
    stack[5, 1, 2] = -3
    path = written(tmp_path / "scan.npz", diff3d=stack)
    lazy = pf.read_scan(path, load=False, intensity=True).diffraction
    lazy[:5]
    for read in (lambda: lazy[5], lambda: pf.read_scan(path, intensity=True)):
        with pytest.raises(ValueError, match=r"negative; the lowest is -3 \(pattern 5\)"):
            read()


def test_an_encrypted_member_is_an_error_in_words(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
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
    written(path, compressed=compressed, diff3d=LAYOUTS[layout](counts()))
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
        np.testing.assert_array_equal(numbers, counts())


def test_a_file_cut_short_while_it_is_read_is_an_oserror(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
    lazy = stored(path).diffraction
    os.truncate(path, lazy.offset + 4 * N * N * 4 + 7)  # within pattern 4
    for rows in ([1, 2, 3, 4, 5], [6, 4], [4]):
        pattern = 6 if rows[0] == 6 else 4
        with pytest.raises(OSError, match=f"cut short while it was read: pattern {pattern} of 7"):
            lazy[rows]
    with pytest.raises(OSError, match="was changed since it was opened"):
        lazy[[0, 1]]  # still there, but of what?


def test_a_file_changed_under_its_readers_is_an_oserror(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
    lazy = stored(path).diffraction
    pickled = pickle.dumps(lazy)
    written(path, diff3d=counts() + 1)
    os.utime(path, ns=(1, 1))  # a coarse clock might say the same
    with pytest.raises(OSError, match="was changed since it was opened"):
        lazy[0]
    with pytest.raises(OSError, match="was changed since it was opened"):
        pickle.loads(pickled)
    np.testing.assert_array_equal(stored(path).diffraction, counts() + 1)


def test_a_file_that_is_replaced_stays_what_it_was_for_its_readers(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
    scan = stored(path)
    changed = pf.Scan(scan.positions, counts() + 1)
    npz_scan.write(Outgoing(changed), path)
    np.testing.assert_array_equal(scan.diffraction, counts())
    np.testing.assert_array_equal(stored(path).diffraction, counts() + 1)
