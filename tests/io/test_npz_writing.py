"""NPZ scans that are written, NPY files, and scans that are larger than the memory."""

from __future__ import annotations

import os
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from npz_files import STORED, N, counts, n, output, python, stored, written
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.hdf5.writing import Outgoing
from ptycho_fast.io.npy import open_npy

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("folder")


def test_open_npy_reads_stacks_and_refuses_other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "patterns.npy"
    for dtype in ("f4", ">f8", "u1"):
        np.save(path, counts(dtype))
        np.testing.assert_array_equal(open_npy(path), counts(dtype))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(OSError, match="is cut short: 7 patterns of 4 x 4 uint8"):
        open_npy(path)
    path.write_bytes(whole[:20])
    with pytest.raises(OSError, match="is not an NPY file, or it is damaged"):
        open_npy(path)
    fortran, pickled = np.asfortranarray(counts()), np.full((2, 2, 2), None)
    for wrong in (np.zeros((3, 4, 5)), np.zeros(3), np.zeros((2, 2, 2), complex), fortran, pickled):
        np.save(path, wrong)
        with pytest.raises(ValueError, match=r"patterns must be \(n, N, N\) real numbers in C"):
            open_npy(path)


# --- writing, and memory -------------------------------------------------------------------------


def test_masks_and_energies_survive_a_round_trip(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((N, N)) > 0.3
    energies = np.arange(7.0)
    scan = pf.Scan(np.zeros((n, 2)), counts("u2"), mask=mask, energies=energies)
    npz_scan.write(Outgoing(scan), tmp_path / "scan.npz")
    for load in (True, False):
        again = pf.read_scan(tmp_path / "scan.npz", load=load)
        np.testing.assert_array_equal(again.mask, mask)
        np.testing.assert_array_equal(again.energies, energies)
        assert not again.metadata
    # Energies are those of what is stored, not of its roots.
    assert pf.read_scan(tmp_path / "scan.npz", intensity=True).energies is None
    with pytest.raises(ValueError, match=r"metadata\['detector_mask'\].*the name is taken"):
        npz_scan.write(
            Outgoing(pf.Scan(np.zeros((n, 2)), counts(), metadata={"detector_mask": 1})), tmp_path
        )


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("detector_mask", np.ones((N, N)), r"leaves none of 16 pixels: in a mask of numbers, 0"),
        ("detector_mask", np.ones((3, 3), bool), r"must be bools or numbers of shape \(4, 4\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    tmp_path: Path, field: str, value: NDArray[Any], words: str
) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts(), **{field: value})
    with pytest.raises(ValueError, match=words):
        stored(path)


def test_lazy_scans_are_written_as_they_are(tmp_path: Path) -> None:
    scan = pf.simulate_scan(n_positions=30, N=16, seed=0)
    npz_scan.write(Outgoing(scan), tmp_path / "loaded.npz")
    lazy = stored(tmp_path / "loaded.npz")
    npz_scan.write(Outgoing(lazy), tmp_path / "lazy.npz")
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "loaded.npz").read_bytes()
    npz_scan.write(Outgoing(lazy), tmp_path / "loaded.npz")  # onto the very file it reads
    assert (tmp_path / "lazy.npz").read_bytes() == (tmp_path / "loaded.npz").read_bytes()
    with np.load(tmp_path / "lazy.npz") as others:
        np.testing.assert_array_equal(others["diff3d"], scan.diffraction)


def test_a_source_cut_short_leaves_the_target_unchanged(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.npz", diff3d=counts())
    scan = stored(path)
    os.truncate(path, scan.diffraction.offset + 100)
    target = tmp_path / "copy.npz"
    target.write_bytes(b"before")
    with pytest.raises(OSError, match="cut short while it was read"):
        npz_scan.write(Outgoing(scan), target)
    assert target.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.npz", "scan.npz"]


LIMIT = 150 * 2**20
LIMITED = f"""
import resource, sys
import numpy as np
from ptycho_fast.frames import Frames
from ptycho_fast.io.hdf5.writing import Outgoing
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
    write = "npz_scan.write(Outgoing(Scan(np.zeros((5000, 2)), Made())), sys.argv[1])"
    output(python(LIMITED + write, first))
    assert first.stat().st_size > 2 * LIMIT
    read = """
scan = stored(sys.argv[1])
check(scan.diffraction)
assert refused(scan.diffraction)
npz_scan.write(Outgoing(scan), sys.argv[2])
check(stored(sys.argv[2]).diffraction)
"""
    output(python(LIMITED + read, first, copy))
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
    output(python(LIMITED + read + "assert refused(frames)", path))
