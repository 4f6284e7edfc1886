"""NPZ scan files by the rules of docs/contract.md, section 8, and the errors of damaged ones."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from places import SHARED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MEASURED = [path for path in sorted((SHARED / "data").glob("*_n*.npz")) if "epie" not in path.name]
n, N = 6, 4


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "xcoords": np.arange(6.0),
        "ycoords": np.arange(6.0)[::-1],
        "diff3d": rng.uniform(1, 2, (n, N, N)).astype(np.float32),
        "probeGuess": rng.normal(size=(2, N, N)) + 1j,
        "objectGuess": np.ones((9, 11), np.complex64),
        "scan_index": np.arange(n),
    }


def _written(tmp_path: Path, **changes: Any) -> Path:
    arrays = {key: value for key, value in (_arrays() | changes).items() if value is not None}
    path = tmp_path / "scan.npz"
    np.savez(path, **arrays)
    return path


def test_every_key_has_its_place(tmp_path: Path) -> None:
    path = _written(
        tmp_path, xcoords_start=np.zeros(n), ycoords_start=np.ones(n), energy=8.8, note="gold",
        _metadata=np.array('{"a": 1}'), Y=np.ones((n, N, N)),
    )  # fmt: skip
    arrays, scan = _arrays(), pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions[:, 0], arrays["xcoords"])
    np.testing.assert_array_equal(scan.positions[:, 1], arrays["ycoords"])
    np.testing.assert_array_equal(scan.positions_start, [[0, 1]] * n)
    np.testing.assert_array_equal(scan.diffraction, arrays["diff3d"])
    np.testing.assert_array_equal(scan.probe, arrays["probeGuess"])
    np.testing.assert_array_equal(scan.object, arrays["objectGuess"])
    np.testing.assert_array_equal(scan.scan_index, arrays["scan_index"])
    assert set(scan.metadata) == {"energy", "note", "_metadata", "Y"}
    assert scan.metadata["energy"] == 8.8
    assert scan.metadata["note"] == "gold"
    assert (len(scan), scan.N) == (n, N)


def test_a_scan_is_printed_on_one_line(tmp_path: Path) -> None:
    path = _written(tmp_path)
    shown = "probe (2, 4, 4), object (9, 11))"
    assert repr(pf.read_scan(path)) == f"Scan(6 positions, N=4, float32, {shown}"
    lazy = pf.read_scan(path, load=False)
    assert repr(lazy) == f"Scan(6 positions, N=4, float32 in a file, {shown}"
    alone = _written(tmp_path, probeGuess=None, objectGuess=None)
    assert repr(pf.read_scan(alone)) == "Scan(6 positions, N=4, float32)"


def test_only_positions_and_patterns_are_needed(tmp_path: Path) -> None:
    path = _written(tmp_path, probeGuess=None, objectGuess=None, scan_index=None)
    scan = pf.read_scan(path)
    assert scan.probe is None
    assert scan.object is None
    assert scan.scan_index is None
    np.testing.assert_array_equal(scan.positions_start, scan.positions)


@pytest.mark.parametrize("key", ["diff3d", "diffraction"])
@pytest.mark.parametrize("layout", ["nNN", "NNn", "nNN1"])
def test_every_layout_is_recognised(tmp_path: Path, key: str, layout: str) -> None:
    stack = _arrays()["diff3d"]
    given = {"nNN": stack, "NNn": stack.transpose(1, 2, 0), "nNN1": stack[..., np.newaxis]}[layout]
    scan = pf.read_scan(_written(tmp_path, **{"diff3d": None, key: given}))
    np.testing.assert_array_equal(scan.diffraction, stack)
    assert scan.diffraction.flags.c_contiguous


def test_where_both_layouts_fit_axis_0_is_the_frames(tmp_path: Path) -> None:
    cube = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    path = _written(
        tmp_path, xcoords=np.arange(4.0), ycoords=np.arange(4.0), diff3d=cube, scan_index=None
    )
    np.testing.assert_array_equal(pf.read_scan(path).diffraction, cube)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("f4", "f4"), ("f8", "f8"), ("u2", "u2"), (">f8", "f8"), ("i8", "i8"), ("u1", "u1"),
     ("f2", "f2"), (">u4", "u4"), ("?", "?")],
)  # fmt: skip
def test_patterns_keep_their_dtype(tmp_path: Path, given: str, kept: str) -> None:
    stack = np.arange(n * N * N).reshape(n, N, N).astype(given)
    scan = pf.read_scan(_written(tmp_path, diff3d=stack))
    assert scan.diffraction.dtype == np.dtype(kept)
    np.testing.assert_array_equal(scan.diffraction, stack)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_intensity_is_rooted_when_the_reader_is_told(tmp_path: Path, dtype: Any) -> None:
    counts = np.arange(n * N * N).reshape(n, N, N).astype(dtype)
    scan = pf.read_scan(_written(tmp_path, diff3d=counts), intensity=True)
    assert scan.diffraction.dtype == np.float32
    np.testing.assert_allclose(scan.diffraction, np.sqrt(counts), rtol=1e-6)
    counts[0, 0, 0] = 5
    if np.dtype(dtype).kind == "f":  # a negative integer is a flag
        counts[1, 2, 3] = -2
        with pytest.raises(ValueError, match="negative; the lowest is -2"):
            pf.read_scan(_written(tmp_path, diff3d=counts), intensity=True)


def test_two_stacks_must_be_equal(tmp_path: Path) -> None:
    stack = _arrays()["diff3d"]
    scan = pf.read_scan(_written(tmp_path, diffraction=stack.transpose(1, 2, 0)))
    np.testing.assert_array_equal(scan.diffraction, stack)
    with pytest.raises(ValueError, match="both 'diff3d' and 'diffraction', and they differ"):
        pf.read_scan(_written(tmp_path, diffraction=stack + 1))


class _Payload:
    """Leaves a trace if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import builtins; builtins.unpickled = True",))


def test_nothing_is_unpickled_unasked(tmp_path: Path) -> None:
    import builtins  # noqa: PLC0415

    evil = np.array(_Payload(), dtype=object)
    path = _written(tmp_path, _metadata=evil)
    with pytest.raises(ValueError, match=r"'_metadata' can't be read: it names builtins\.exec"):
        pf.read_scan(path)
    with pytest.raises(ValueError, match="'probeGuess' is a pickled object.*allow_pickle=True"):
        pf.read_scan(_written(tmp_path, probeGuess=evil))
    assert not hasattr(builtins, "unpickled")


def test_pickles_are_read_when_asked(tmp_path: Path) -> None:
    path = _written(
        tmp_path, _metadata=np.array({"a": 1}, object), probeGuess=np.array(None, object)
    )
    scan = pf.read_scan(path, allow_pickle=True)
    assert scan.metadata["_metadata"] == {"a": 1}
    assert scan.probe is None


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"xcoords": None}, KeyError, "lacks xcoords. Its keys: .*diff3d"),
        ({"diff3d": None}, KeyError, r"lacks diff3d \(or diffraction\)"),
        ({"ycoords": np.zeros(5)}, ValueError, "Coordinate arrays must have matching shapes"),
        ({"xcoords": np.full(6, "a")}, ValueError, "xcoords must be real numbers"),
        (
            {"diff3d": np.zeros((5, 4, 4), np.float32)},
            ValueError,
            r"shape \(5, 4, 4\), which holds no 6 square patterns",
        ),
        ({"diff3d": np.zeros((6, 4, 3), np.float32)}, ValueError, "no 6 square patterns"),
        ({"diff3d": np.zeros((6, 4, 4), complex)}, ValueError, "real numbers, got complex128"),
        ({"probeGuess": np.zeros((3, 3))}, ValueError, r"probe has shape \(3, 3\), but \(4, 4\)"),
        ({"objectGuess": np.zeros(3)}, ValueError, "object has shape"),
        ({"scan_index": np.zeros(3)}, ValueError, "scan_index has shape"),
        ({"xcoords_start": np.zeros(3)}, ValueError, "must have matching shapes"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        pf.read_scan(_written(tmp_path, **changes))


def test_files_that_are_not_scans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pf.read_scan(tmp_path / "nothing.npz")
    with pytest.raises(OSError, match=f"{tmp_path} is a folder"):
        pf.read_scan(tmp_path)
    text = tmp_path / "text.npz"
    text.write_text("hello")
    with pytest.raises(OSError, match="text.npz is not an NPZ file, or it is damaged or cut short"):
        pf.read_scan(text)
    array = tmp_path / "array.npz"
    with array.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"must be frames \(n, rows, columns\), got shape \(3,\)"):
        pf.read_scan(array)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(KeyError, match="Its keys: none"):
        pf.read_scan(tmp_path / "other.npz")


@settings(deadline=None, max_examples=150)
@given(data=st.data(), compressed=st.booleans())
def test_a_damaged_file_is_an_error_in_words_or_the_same_scan(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "scan.npz"
    (np.savez_compressed if compressed else np.savez)(path, **_arrays())
    whole = pf.read_scan(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "truncate"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        at = data.draw(st.integers(0, len(content) - 1), "byte")
        content[at] ^= data.draw(st.integers(1, 255), "flip")
    path.write_bytes(content)
    try:
        scan = pf.read_scan(path)
    except (OSError, KeyError, ValueError):
        return
    # Time stamps and the like may change without harm; numbers may not.
    np.testing.assert_array_equal(scan.diffraction, whole.diffraction)
    np.testing.assert_array_equal(scan.positions, whole.positions)


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_the_measured_scans_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    scan = pf.read_scan(path)
    pf.write_scan(scan, tmp_path / "copy.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["copy.npz"]
    again = pf.read_scan(tmp_path / "copy.npz")
    for name in ("positions", "positions_start", "diffraction", "probe", "object", "scan_index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scan, name))
    assert dict(again.metadata) == dict(scan.metadata)


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """The kernel refuses files beyond 20 kB, half-way through the write."""
    script = """
import resource, signal, sys
import ptycho_fast as pf
scan = pf.simulate_scan(n_positions=30, N=32, seed=0)
groups = pf.group_positions(scan.positions, seed=0, centers=[0] * 3000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for write in (lambda: pf.write_scan(scan, sys.argv[1]), lambda: groups.save(sys.argv[1])):
    try:
        write()
    except OSError:
        pass
    else:
        sys.exit("it was written")
"""
    path = tmp_path / "scan.npz"
    path.write_bytes(b"before")
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["scan.npz"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    path.write_bytes(b"before")
    stack: NDArray[np.float32] = _arrays()["diff3d"]
    positions = np.zeros((n, 2))
    with pytest.raises(ValueError, match="'lens' can't be written: it would need pickling"):
        pf.write_scan(pf.Scan(positions, stack, metadata={"lens": object()}), path)
    with pytest.raises(ValueError, match=r"metadata\['diff3d'\].*the name is taken"):
        pf.write_scan(pf.Scan(positions, stack, metadata={"diff3d": 1}), path)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["scan.npz"]
    with pytest.raises(FileNotFoundError):
        pf.write_scan(pf.Scan(positions, stack), tmp_path / "nowhere" / "scan.npz")
