"""Files that are none, lead elsewhere, were never filled, or claim more than they hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast import groups_cache
from ptycho_fast.io import list_arrays
from ptycho_fast.io.foreign import what_it_is
from ptycho_fast.io.opening import open_container
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")
posix = pytest.mark.skipif(os.name != "posix", reason="needs pipes and limits")

n, N = 10, 8
NAMES: dict[str, Any] = {"diffraction": "data", "x": "x", "y": "y", "unit": "px", "counts": True}


def frames(n: int = n) -> NDArray[np.uint32]:
    return np.random.default_rng(0).poisson(50, (n, N, N)).astype("u4")


def write_h5(path: str = "scan.h5", **arrays: Any) -> str:
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(float(n))
        file["y"] = np.arange(float(n)) ** 2
        for key, value in arrays.items():
            file[key] = value
    return path


# --- only files are opened --------------------------------------------------------------------


@posix
def test_pipes_and_devices_are_refused_without_waiting() -> None:
    os.mkfifo("pipe")
    for name, kind in {"pipe": "a pipe", "/dev/zero": "a device"}.items():
        for read in (pf.read_scan, open_regular, what_it_is, list_arrays, open_container):
            with pytest.raises(OSError, match=f"{name} is {kind}, not a file"):
                read(name)
    with pytest.raises(OSError, match="pipe is a pipe"):
        pf.read_scan(write_h5(data=frames()), **{**NAMES, "x": "pipe:x"})


@posix
def test_hdf5_files_lead_to_no_pipe() -> None:
    os.mkfifo("pipe")
    path = write_h5(data=frames())
    with h5py.File(path, "r+") as file:
        file["link"] = h5py.ExternalLink("pipe", "/d")
        file["soft"] = h5py.SoftLink("/link/deeper")
        layout = h5py.VirtualLayout((n, N, N), "u4")
        layout[:] = h5py.VirtualSource("pipe", "d", (n, N, N))
        file.create_virtual_dataset("virtual", layout)
        layout = h5py.VirtualLayout((n, N, N), "u4", maxshape=(None, N, N))
        growing = h5py.VirtualSource("pipe", "d", (n, N, N), maxshape=(None, N, N))
        layout[: h5py.h5s.UNLIMITED] = growing[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("growing", layout)
        layout = h5py.VirtualLayout((n, N, N), "u4")
        layout[:] = h5py.VirtualSource("other.h5", "virtual", (n, N, N))
        file.create_virtual_dataset("nested", layout)
        file.create_dataset("raw", (n, N, N), "u4", external=[("pipe", 0, h5py.h5f.UNLIMITED)])
    # The same, one link further on.
    shutil.copy(path, "other.h5")
    with h5py.File(path, "r+") as file:
        file["far"] = h5py.ExternalLink("other.h5", "/link")
    assert set(list_arrays(path)) == {"/data", "/nested", "/x", "/y"}
    for key in ("link", "soft", "far", "virtual", "growing", "nested", "raw"):
        with pytest.raises(OSError, match="pipe is a pipe, not a file"):
            pf.read_scan(path, **{**NAMES, "diffraction": key})
        with pytest.raises(OSError, match="pipe is a pipe, not a file"):
            pf.read_scan(path, **{**NAMES, "x": key})


def test_links_in_a_circle_are_refused() -> None:
    path = write_h5(data=frames())
    with h5py.File(path, "r+") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["out"] = h5py.ExternalLink(path, "/out")
        layout = h5py.VirtualLayout((n, N, N), "u4")
        layout[:] = h5py.VirtualSource(".", "self", (n, N, N))
        file.create_virtual_dataset("self", layout)
    for key in ("a", "out"):
        with pytest.raises(OSError, match="leads through more than 64 links"):
            pf.read_scan(path, **{**NAMES, "diffraction": key})
    with pytest.raises(OSError, match="a circle"):
        pf.read_scan(path, **{**NAMES, "diffraction": "self"})
    assert "/data" in list_arrays(path)


@posix
def test_a_pipe_in_the_place_of_a_groups_cache_is_replaced() -> None:
    scan = pf.simulate_scan(n_positions=40, N=16, seed=0)
    pf.write_scan(scan, "scan.npz")
    path = groups_cache.cache_path("scan.npz", 2, 5)
    os.mkfifo(path)
    options: dict[str, Any] = {"gridsize": 2, "n_neighbors": 5, "strategy": "group-then-sample"}
    made = pf.group_positions(scan.positions, seed=0, cache="scan.npz", **options)
    plain = pf.group_positions(scan.positions, seed=0, **options)
    np.testing.assert_array_equal(made.indices, plain.indices)
    assert path.is_file()


def test_a_committed_datatype_is_not_listed_but_may_be_used() -> None:
    path = write_h5()
    with h5py.File(path, "r+") as file:
        file["type"] = np.dtype("u4")
        file.create_dataset("data", data=frames(), dtype=file["type"])
    assert set(list_arrays(path)) == {"/data", "/x", "/y"}
    np.testing.assert_array_equal(
        pf.read_scan(path, **NAMES).diffraction, np.sqrt(frames(), dtype="f4")
    )
    with pytest.raises(KeyError, match="'type' is not a data set"):
        pf.read_scan(path, **{**NAMES, "x": "type"})


# --- what HDF5 makes up -----------------------------------------------------------------------


def virtual(path: str, *parts: tuple[slice, str, str, int]) -> str:
    """Write a stack of parts of others: which rows, file, data set, and how many frames it has."""
    write_h5(path)
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((n, N, N), "u4")
        for rows, other, key, count in parts:
            layout[rows] = h5py.VirtualSource(other, key, (count, N, N))
        file.create_virtual_dataset("data", layout)
    return path


def partly(path: str, written: Any, chunks: tuple[int, ...] = (1, N, N)) -> str:
    write_h5(path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("data", (n, N, N), "u4", chunks=chunks)[written] = frames()[written]
    return path


def test_frames_that_were_never_written_are_counted_and_named() -> None:
    half = write_h5("half.h5", data=frames()[:5])
    partly("chunks.h5", slice(7))
    cases: dict[str, tuple[str, list[int]]] = {
        "chunks": ("chunks.h5", [7, 8, 9]),
        "chunks of two": (partly("two.h5", slice(2, 8), (2, N, N)), [0, 1, 8, 9]),
        "parts of frames": (partly("part.h5", np.s_[:, :4], (1, 4, N)), []),
        "hole": (virtual("hole.h5", (slice(5), half, "data", 5)), [5, 6, 7, 8, 9]),
        "strided": (virtual("strided.h5", (slice(0, 10, 2), half, "data", 5)), [1, 3, 5, 7, 9]),
        "nested": (virtual("nested.h5", (slice(n), "hole.h5", "data", n)), [5, 6, 7, 8, 9]),
        "of chunks": (virtual("of.h5", (slice(n), "chunks.h5", "data", n)), [7, 8, 9]),
    }
    with h5py.File("link.h5", "w") as file:
        file["data"] = h5py.ExternalLink("nested.h5", "/data")
        file["x"], file["y"] = np.arange(float(n)), np.zeros(n)
    cases["linked"] = ("link.h5", [5, 6, 7, 8, 9])
    for name, (path, missing) in cases.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            scan = pf.read_scan(path, load=False, **NAMES)
        said = "\n".join(str(warning.message) for warning in told)
        assert scan.diffraction.source.unwritten().tolist() == missing, name
        if missing:
            first = ", ".join(map(str, missing[:5]))
            assert f"{len(missing)} of {n} frames were never written" in said, name
            assert f"not wholly: {first}" in said, name
        else:
            assert f"{N * N // 2} of {N * N} pixels lie in no file" in said
        # What is said to be missing is what HDF5 makes up, and nothing else.
        dark = np.flatnonzero(~scan.diffraction[:].any(axis=(1, 2)))
        np.testing.assert_array_equal(dark, missing, err_msg=name)
        if missing:
            kept = np.setdiff1d(np.arange(n), missing)
            dropped = pf.read_scan(path, drop_dark=True, **NAMES)
            np.testing.assert_array_equal(dropped.positions[:, 0], kept)


@pytest.mark.filterwarnings("ignore:.*never written")
def test_a_virtual_source_that_has_shrunk_is_an_error() -> None:
    half = write_h5("half.h5", data=frames()[:5])
    path = virtual("shorter.h5", (slice(n), half, "data", n))
    with pytest.raises(OSError, match=r"shorter\.h5: '/data', pattern"):
        pf.read_scan(path, **NAMES)


@pytest.mark.filterwarnings("error")
def test_complete_stacks_give_no_warning() -> None:
    write_h5("a.h5", data=frames()[:5])
    write_h5("b.h5", data=frames()[5:])
    path = virtual("whole.h5", (slice(5), "a.h5", "data", 5), (slice(5, n), "b.h5", "data", 5))
    nested = virtual("nested.h5", (slice(n), "whole.h5", "data", n))
    chunked = partly("chunked.h5", slice(n), (3, 3, 5))
    for each in (path, nested, chunked):
        np.testing.assert_array_equal(
            pf.read_scan(each, **NAMES).diffraction, np.sqrt(frames(), dtype="f4")
        )


def test_missing_and_truncated_sources_are_named() -> None:
    virtual("inner.h5", (slice(n), "gone.h5", "data", n))
    nested = virtual("nested.h5", (slice(n), "inner.h5", "data", n))
    for path in ("inner.h5", nested):
        with pytest.raises(
            OSError, match=r"inner\.h5: '/data' is made of gone\.h5, which is missing"
        ):
            pf.read_scan(path, **NAMES)
    with h5py.File("linked.h5", "w") as file:
        file["data"] = h5py.ExternalLink(nested, "/data")
        file["x"], file["y"] = np.arange(float(n)), np.zeros(n)
    with pytest.raises(OSError, match=r"gone\.h5, which is missing"):
        pf.read_scan("linked.h5", **NAMES)
    write_h5("raw.h5")
    with h5py.File("raw.h5", "r+") as file:
        parts = [("first.bin", 16, 5 * N * N * 4), ("second.bin", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("data", (n, N, N), "u4", external=parts)
    with pytest.raises(OSError, match=r"first\.bin, which is missing"):
        pf.read_scan("raw.h5", **NAMES)
    with open("first.bin", "wb") as raw:
        raw.write(bytes(16) + frames()[:5].tobytes())
    with open("second.bin", "wb") as raw:
        raw.write(frames()[5:].tobytes()[:-1])
    with pytest.raises(OSError, match=r"second\.bin is cut short: .* 1280 bytes .* ends at 1279"):
        pf.read_scan("raw.h5", **NAMES)
    with open("second.bin", "ab") as raw:
        raw.write(frames().tobytes()[-1:])
    scan = pf.read_scan("raw.h5", load=False, **NAMES)
    np.testing.assert_array_equal(scan.diffraction[:], np.sqrt(frames(), dtype="f4"))
    os.truncate("second.bin", 1000)
    with pytest.raises(OSError, match=r"second\.bin was changed"):
        scan.diffraction[9]


def test_arrays_that_were_never_written_are_refused_or_warned_of() -> None:
    path = write_h5()
    with h5py.File(path, "r+") as file:
        file.create_dataset("data", (n, N, N), "u4")
        file.create_dataset("chunks", (n, N, N), "u4", chunks=(1, N, N))
        file["real"] = frames()
        file.create_dataset("px", (n,), "f8", chunks=(5,))[:5] = 1.0
    for key in ("data", "chunks"):
        with pytest.raises(ValueError, match="none of its 10 frames was ever written"):
            pf.read_scan(path, **{**NAMES, "diffraction": key})
    with pytest.warns(UserWarning, match=r"'px': 5 of 10 numbers were never written"):
        pf.read_scan(path, **{**NAMES, "diffraction": "real", "x": "px"})


@posix
def test_a_file_that_is_being_written_is_named_as_such() -> None:
    script = (
        "import h5py, sys; f = h5py.File('scan.h5', 'w', libver='latest');"
        "f.create_dataset('data', (4, 8, 8), maxshape=(None, 8, 8)); f.swmr_mode = True;"
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(OSError, match=r"scan\.h5 is an HDF5 file that is open for writing"):
            pf.read_scan("scan.h5")
        writer.communicate(b"")
    with pytest.raises(KeyError, match="no layout that is known"):
        pf.read_scan("scan.h5")


# --- more than there is -----------------------------------------------------------------------


def scan_npz(path: str, member: str, header: dict[str, Any], content: Iterator[bytes]) -> str:
    """Write a scan of which one member has a header and a content of the caller's."""
    arrays = {"xcoords": np.arange(float(n)), "ycoords": np.zeros(n), "diff3d": frames()}
    arrays.pop(member, None)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, array)
        with archive.open(f"{member}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"fortran_order": False, **header})
            for part in content:
                file.write(part)
    return path


@pytest.mark.parametrize("member", ["extra", "diff3d", "probeGuess"])
@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"descr": "<f4", "shape": (n, 2**30, 2**30)}, "228 of its|bytes are there"),
        ({"descr": "<f8", "shape": (2**60,)}, "bytes are there"),
        ({"descr": "|S0", "shape": (2**60,)}, "which has no size"),
        ({"descr": "|V0", "shape": (n, N, N)}, "which has no size"),
        ({"descr": "<f8", "shape": (-1,)}, "which has no size"),
        ({"descr": "(" * 3000, "shape": (1,)}, "can't be read"),
    ],
)
def test_impossible_headers_are_refused(member: str, header: dict[str, Any], words: str) -> None:
    path = scan_npz("scan.npz", member, header, iter([bytes(100)]))
    for read in (pf.read_scan, list_arrays):
        with pytest.raises(OSError, match=words) as caught:
            read(path)
        assert len(str(caught.value)) < 500


def limited(code: str, megabytes: int) -> str:
    """Run Python in so much more memory than it has at first; return its last line."""
    script = (
        "import resource\nimport ptycho_fast as pf, h5py\n"
        "now = next(int(l.split()[1]) for l in open('/proc/self/status') if l[:6] == 'VmData')\n"
        f"most = now * 1024 + {megabytes} * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (most, most))\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


linux = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")


@linux
def test_what_would_unpack_to_gigabytes_is_refused_before() -> None:
    zeros = bytes(2**20)
    header = {"descr": "<f8", "shape": (2**27 + 2**17,)}
    path = scan_npz("scan.npz", "extra", header, (zeros for _ in range(2**10 + 1)))
    assert os.path.getsize(path) < 2**22
    said = limited(f"pf.read_scan({path!r})", 300)
    assert said.startswith("ValueError: scan.npz: ")
    assert "would unpack to 1 GiB" in said


@linux
@pytest.mark.parametrize(
    ("option", "key", "words"),
    [
        ("x", "chunk", "but chunks of (134217728,): to read anything of it takes 1 GiB"),
        ("x", "long", "of which the file holds 0 bytes"),
        ("mask", "mask", "of which the file holds 0 bytes"),
        ("diffraction", "frames", "more than the 33554432 that a scan may have"),
        ("diffraction", "many", "none of its 33554432 frames was ever written"),
        ("diffraction", "chunks", "to read anything of it takes 1 GiB"),
    ],
)
def test_hdf5_that_claims_far_more_than_it_holds_is_refused(
    option: str, key: str, words: str
) -> None:
    path = write_h5(data=frames())
    with h5py.File(path, "r+") as file:
        packed = {"compression": "gzip", "maxshape": (None,)}
        file.create_dataset("chunk", (n,), "f8", chunks=(2**27,), **packed)
        file.create_dataset("long", (2**40,), "f8", chunks=(2**20,))
        file.create_dataset("mask", (2**20, 2**20), "u1", chunks=(2**10, 2**10))
        file.create_dataset("frames", (2**40, N, N), "f4", chunks=(1, N, N))
        file.create_dataset("many", (2**25, N, N), "f4", chunks=(1, N, N))
        big = {"chunks": (2**22, N, N), "maxshape": (None, N, N), "compression": "gzip"}
        file.create_dataset("chunks", (n, N, N), "f4", **big)
    said = limited(f"pf.read_scan({path!r}, **{ {**NAMES, option: key}!r})", 900)
    assert said.startswith("ValueError: ")
    assert words in said


def test_parameters_nested_too_deeply_are_refused() -> None:
    groups = pf.group_positions(np.random.default_rng(0).uniform(0, 50, (40, 2)), gridsize=2)
    groups.save("groups.npz")
    with np.load("groups.npz") as file:
        arrays = dict(file)
    for text in ("[" * 100_000, '{"a":' * 100_000, json.dumps("text"), "{"):
        np.savez("deep.npz", **{**arrays, "parameters": np.array(text)})
        with pytest.raises(ValueError, match=r"deep\.npz was not written by Groups\.save"):
            pf.Groups.load("deep.npz")


def test_a_broken_pickle_is_a_damaged_file() -> None:
    path = scan_npz("scan.npz", "extra", {"descr": "|O", "shape": (3,)}, iter([bytes(50)]))
    with pytest.raises(ValueError, match="unpickling runs code"):
        pf.read_scan(path)
    with pytest.raises(OSError, match="'extra' can't be read"):
        pf.read_scan(path, allow_pickle=True, counts=True)


# --- many -------------------------------------------------------------------------------------


def test_a_message_about_many_arrays_is_short() -> None:
    many: dict[str, Any] = {f"g/d{number}": 0.0 for number in range(3000)}
    path = write_h5("many.h5", **many)
    assert len(list_arrays(path)) == 3002
    for missing in ({"x": "nothing"}, {"x": None}):
        with pytest.raises(KeyError, match="and more") as caught:
            pf.read_scan(path, **{**NAMES, "diffraction": "x", **missing})
        assert len(str(caught.value)) < 1000


# --- other formats ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"1,2\n3,4\n", "is text.*columns of a text file can be named.*a.csv:0"),
        ("a.fits", b"SIMPLE  = T" + bytes(100), "is a FITS file.*astropy.*numpy.savez"),
        ("a.mat", b"MATLAB 5.0 MAT-file, Platform" + bytes(100), "a.mat is damaged or cut short"),
        ("a.h5.gz", b"\x1f\x8b\x08" + bytes(100), "is compressed. Decompress it first: gzip -d"),
        ("a.bin", bytes(range(256)), "is not an NPZ file, or it is damaged"),
        ("cut.npz", b"PK\x03\x04" + bytes(100), "is not an NPZ file, or it is damaged"),
    ],
)
def test_other_formats_are_named(name: str, content: bytes, words: str) -> None:
    with open(name, "wb") as file:
        file.write(content)
    with pytest.raises(OSError, match=words):
        pf.read_scan(name)
