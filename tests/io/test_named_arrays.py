"""HDF5 files of no known format, whose arrays are named, and what must be said about them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from beamline_files import KEYS, METRES, N, beamline, counts, expected, motors, n, object_pixel
from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import list_arrays

if TYPE_CHECKING:
    from pathlib import Path


h5py = pytest.importorskip("h5py")


# --- any HDF5 file -----------------------------------------------------------------------------


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", ">u2", ">i4", "f4", "f8", ">f4"])
def test_counts_in_metres_become_amplitudes_on_object_pixels(
    tmp_path: Path, dtype: str, load: bool
) -> None:
    stack = counts(dtype)
    scan = pf.read_scan(beamline(tmp_path / "a.h5", stack), load=load, **METRES)
    assert isinstance(scan.diffraction, np.ndarray if load else Frames)
    assert scan.diffraction.dtype == np.float32
    np.testing.assert_allclose(scan.diffraction[:], np.sqrt(stack.astype("f8")), rtol=1e-7)
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    assert scan.metadata["object_pixel_m"] == pytest.approx([object_pixel()] * 2, rel=1e-12)
    assert scan.mask is None


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"file": {"userblock_size": 1024}},
        {"chunks": (1, N, N)},
        {"chunks": (5, 3, 5)},
        {"chunks": (4, N, N), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, N, N), "compression": "lzf"},
        {"chunks": (2, N, N), "maxshape": (None, N, N)},
    ],
    ids=lambda storage: "-".join(storage) or "contiguous",
)
def test_every_storage_gives_the_same_patterns(tmp_path: Path, storage: dict[str, Any]) -> None:
    stack = counts("u4")
    path = beamline(tmp_path / "a.h5", stack, **storage)
    with warnings.catch_warnings(record=True):  # of chunks
        scan = pf.read_scan(path, load=False, **METRES)
    contiguous = isinstance(scan.diffraction.source, FileFrames)
    assert contiguous == ("chunks" not in storage)
    rows = np.array([3, 4, 5, 0, 11, 3, 7, 6, 2])
    np.testing.assert_array_equal(scan.diffraction[rows], np.sqrt(stack[rows], dtype="f4"))
    np.testing.assert_array_equal(np.asarray(scan.diffraction), np.sqrt(stack, dtype="f4"))
    assert scan.diffraction[[]].shape == (0, N, N)


def test_detector_compression_is_read(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    stack = counts("u4")
    path = beamline(tmp_path / "a.h5", stack, chunks=(1, N, N), **hdf5plugin.Bitshuffle())
    np.testing.assert_array_equal(
        pf.read_scan(path, **METRES).diffraction, np.sqrt(stack, dtype="f4")
    )


def test_a_filter_that_is_not_there_is_named(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = beamline(tmp_path / "a.h5", chunks=(1, N, N), **hdf5plugin.Bitshuffle())
    script = f"""
import sys
sys.modules["hdf5plugin"] = None
import ptycho_fast as pf
try:
    pf.read_scan({str(path)!r}, **{METRES!r})
except OSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "filter that is not installed: pip install" in done.stdout


def test_links_and_virtual_data_sets_lead_to_the_patterns(tmp_path: Path) -> None:
    stack = counts("u2")
    for number, part in enumerate(np.split(stack, 3)):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as file:
            file.create_dataset("d", data=part, chunks=(1, N, N), compression="gzip")
    layout = h5py.VirtualLayout((n, N, N), "u2")
    for number in range(3):
        source = h5py.VirtualSource(f"part{number}.h5", "d", (n // 3, N, N))
        layout[number * (n // 3) : (number + 1) * (n // 3)] = source
    beamline(tmp_path / "contiguous.h5")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file["external"] = h5py.ExternalLink("contiguous.h5", "/entry/data")
        file["soft"] = h5py.SoftLink("/external")
        file["gone"] = h5py.ExternalLink("nothing.h5", "/entry/data")
        file["x"] = h5py.ExternalLink("contiguous.h5", "/motors/x")
        file["y"] = h5py.ExternalLink("contiguous.h5", "/motors/y")
    names = {**METRES, "x": "x", "y": "y"}
    for key in ("virtual", "external", "soft"):
        scan = pf.read_scan(tmp_path / "master.h5", load=False, **{**names, "diffraction": key})
        np.testing.assert_array_equal(np.asarray(scan.diffraction), np.sqrt(stack, dtype="f4"))
        assert isinstance(scan.diffraction.source, FileFrames) == (key != "virtual")
    assert set(list_arrays(tmp_path / "master.h5")) == {"/external", "/virtual", "/x", "/y"}
    with pytest.raises(KeyError, match="'gone' is a broken link: its target does not exist"):
        pf.read_scan(tmp_path / "master.h5", **{**names, "diffraction": "gone"})
    # HDF5 would make up zeros for what is cut short or missing.
    virtual = {**names, "diffraction": "virtual"}
    frames = pf.read_scan(tmp_path / "master.h5", load=False, **virtual).diffraction
    os.truncate(tmp_path / "part1.h5", 1000)
    with pytest.raises(OSError, match=r"part1\.h5 was changed|truncated file"):
        frames[6]
    # Where no handle of before is open.
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"part1\.h5 is not an HDF5 file, or it is damaged"):
        pf.read_scan(tmp_path / "elsewhere" / "master.h5", **virtual)
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(OSError, match=r"'/virtual' is made of part1\.h5, which is missing"):
        pf.read_scan(tmp_path / "master.h5", **virtual)


def test_data_sets_of_other_files_and_columns_are_named(tmp_path: Path) -> None:
    path = beamline(tmp_path / "frames.h5")
    x, y = motors()
    with h5py.File(tmp_path / "motors.h5", "w") as file:
        file["13IDE:m1"] = np.stack([x, y, 0 * x], axis=1)
        file["rows"] = np.stack([y, x])
    np.savez(tmp_path / "encoder.npz", xy=np.stack([x, y]))
    other = tmp_path / "motors.h5"
    for names in (
        {"x": f"{other}:/13IDE:m1[:,0]", "y": f"{other}:13IDE:m1[:,1]"},
        {"x": f"{other}:rows[1]", "y": f"{other}:rows[0]"},
        {"x": f"{tmp_path / 'encoder.npz'}:xy[0]", "y": f"{tmp_path / 'encoder.npz'}:xy[1]"},
    ):
        scan = pf.read_scan(path, **{**METRES, **names})
        np.testing.assert_allclose(scan.positions, expected(x, y), rtol=1e-12)
    with pytest.raises(ValueError, match=r"Cannot select 'rows\[7\]': 'rows' has shape \(2, 12\)"):
        pf.read_scan(path, **{**METRES, "x": f"{other}:rows[7]"})
    with pytest.raises(ValueError, match=r"must be real numbers \(n,\).*Name one row: x=.*\[0\]"):
        pf.read_scan(path, **{**METRES, "x": f"{other}:rows"})


@pytest.mark.parametrize(("unit", "factor"), [("m", 1.0), ("mm", 1e3), ("um", 1e6), ("nm", 1e9)])
def test_every_unit_of_length_gives_the_same_positions(
    tmp_path: Path, unit: str, factor: float
) -> None:
    path = beamline(tmp_path / "a.h5")
    x, y = motors()
    with h5py.File(path, "r+") as file:
        file["motors/x"][:], file["motors/y"][:] = x * factor, y * factor
    scan = pf.read_scan(path, **{**METRES, "unit": unit})
    np.testing.assert_allclose(scan.positions, expected(x, y), rtol=1e-9)


def test_positions_in_pixels_stay_but_shrink_with_the_window(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5", counts(shape=(n, 10, 16)))
    x, y = motors()
    scan = pf.read_scan(path, counts=True, unit="px", crop=8, **KEYS)
    # A pixel of the object is wavelength * distance / (pixels * pixel): half the pixels, twice it.
    np.testing.assert_allclose(scan.positions, np.stack([x / 2, y * 0.8], axis=1), rtol=1e-14)
    assert "object_pixel_m" not in scan.metadata
    binned = pf.read_scan(path, counts=True, unit="px", crop=8, bin=2, **KEYS)
    np.testing.assert_array_equal(binned.positions, scan.positions)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
def test_axes_of_the_motors_are_exchanged_and_mirrored(
    tmp_path: Path, swap: bool, flip_x: bool, flip_y: bool
) -> None:
    path = beamline(tmp_path / "a.h5")
    x, y = motors()
    scan = pf.read_scan(path, swap_xy=swap, flip_x=flip_x, flip_y=flip_y, **METRES)
    x, y = (y, x) if swap else (x, y)
    np.testing.assert_allclose(
        scan.positions, expected(-x if flip_x else x, -y if flip_y else y), rtol=1e-12
    )
    # The patterns do not turn.
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts(), dtype="f4"))


# --- frames and positions ----------------------------------------------------------------------


def joined(tmp_path: Path, n_frames: int, n_positions: int, index: Any) -> pf.Scan:
    """Read frame i, which holds i everywhere, and position j, which is (j, -j)."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames"] = np.arange(n_frames, dtype="u2")[:, None, None] * np.ones((4, 4), "u2")
        file["x"] = np.arange(n_positions, dtype=float)
        file["y"] = -np.arange(n_positions, dtype=float)
        if index is not None:
            file["index"] = index
    return pf.read_scan(
        tmp_path / "a.h5", diffraction="frames", x="x", y="y", unit="px", counts=False,
        index=None if index is None else "index",
    )  # fmt: skip


def pairs(scan: pf.Scan) -> list[tuple[int, int]]:
    np.testing.assert_array_equal(scan.positions[:, 0], -scan.positions[:, 1])
    frames = scan.diffraction[:, 0, 0].astype(int).tolist()
    return list(zip(frames, scan.positions[:, 0].astype(int).tolist(), strict=True))


@pytest.mark.parametrize("dtype", [int, float, "u2"])
def test_an_index_may_name_the_frame_of_each_position(tmp_path: Path, dtype: Any) -> None:
    with pytest.warns(
        UserWarning, match="3 of 6 frames have no position, and 2 of 5 positions no frame"
    ):
        scan = joined(tmp_path, 6, 5, np.array([4, 9, 0, 60, 3]).astype(dtype))
    assert pairs(scan) == [(0, 2), (3, 4), (4, 0)]


def test_an_index_may_name_the_position_of_each_frame(tmp_path: Path) -> None:
    # Two frames at one position, and one that lost its own.
    with pytest.warns(UserWarning, match="1 of 4 frames .* 2 of 4|1 of 4 frames"):
        scan = joined(tmp_path, 4, 7, np.array([5, 1, -1, 5]))
    assert pairs(scan) == [(0, 5), (1, 1), (3, 5)]


def test_with_equal_numbers_an_index_names_the_frame_of_each_position(tmp_path: Path) -> None:
    assert pairs(joined(tmp_path, 3, 3, np.array([1, 2, 0]))) == [(0, 2), (1, 0), (2, 1)]


def test_equal_lengths_join_in_order(tmp_path: Path) -> None:
    assert pairs(joined(tmp_path, 3, 3, None)) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("n_frames", "n_positions", "index", "sentence"),
    [
        (4, 5, None, "There are 4 frames, but 5 positions.*index=KEY"),
        (4, 5, [0, 1, 1, 2, 1], "3 positions belong to frame 1.*average_positions=True"),
        (4, 5, [0, 1], r"index='index' has 2 numbers, one for neither each of 5 .* each of 4"),
        (4, 4, [0.5, 1, 2, 3], r"must be whole numbers \(n,\)"),
        (4, 4, [[0, 1], [2, 3]], r"must be whole numbers \(n,\)"),
        (4, 4, [7, 8, 9, 10], "None of 4 frames belongs to one of 4 positions"),
    ],
)
def test_frames_and_positions_that_do_not_join_are_refused(
    tmp_path: Path, n_frames: int, n_positions: int, index: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        joined(tmp_path, n_frames, n_positions, index)


def test_positions_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5")
    x, y = motors()
    with h5py.File(path, "r+") as file:
        file["motors/x"][3] = np.nan
        file["motors/y"][5] = np.inf
    with pytest.warns(UserWarning, match="2 of 12 frames .* 2 of 12 positions"):
        scan = pf.read_scan(path, **METRES)
    kept = [row for row in range(n) if row not in (3, 5)]
    np.testing.assert_allclose(scan.positions, expected(x[kept], y[kept]), rtol=1e-12)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts()[kept], dtype="f4"))


# --- what must be said, and what is refused ----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"counts": None}, ValueError, "never guessed: pass counts=True"),
        ({"counts": True, "intensity": False}, ValueError, "are the same thing"),
        ({"unit": None}, ValueError, "In which unit are x and y"),
        ({"unit": "inch"}, ValueError, "unit must be one of m, mm, um, nm or px"),
        ({"energy_eV": None, "distance_m": None}, ValueError, "Pass energy_eV=, distance_m= too"),
        ({"distance_m": -1.0}, ValueError, r"distance_m must be a positive number, got -1\.0"),
        ({"energy_eV": np.nan}, ValueError, "energy_eV must be a positive number"),
        ({"x": None}, KeyError, "no layout that is known.*x=KEY.*It has: .*/entry/data"),
        ({"diffraction": None}, KeyError, "diffraction=KEY"),
        (
            {"x": "/motors/z"},
            KeyError,
            r"'/motors/z' is not a data set of the file\. .*/entry/data",
        ),
        ({"x": "/motors"}, KeyError, "'/motors' is not a data set"),
        ({"x": "/entry/data"}, ValueError, r"x='/entry/data' must be real numbers \(n,\)"),
        ({"diffraction": "/motors/x"}, ValueError, "must be frames"),
        ({"y": "/short"}, ValueError, "has 12 positions, but y='/short' has 3"),
        ({"diffraction": "/complex"}, ValueError, "must be frames .* of real numbers"),
        ({"diffraction": "/none"}, ValueError, "must be frames"),
    ],
)
def test_options_that_cannot_be_guessed_are_asked_for(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    path = beamline(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["short"] = np.zeros(3)
        file["complex"] = np.zeros((n, N, N), complex)
        file["none"] = np.zeros((0, N, N))
    with pytest.raises(error, match=sentence):
        pf.read_scan(path, **{**METRES, **change})


def test_a_probe_is_read_and_one_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5")
    probe = np.arange(2 * N * N).reshape(2, N, N) * (1 + 2j)
    with h5py.File(path, "r+") as file:
        file["probe"] = probe
    np.testing.assert_array_equal(pf.read_scan(path, probe="probe", **METRES).probe, probe)
    with pytest.warns(UserWarning, match=r"probe has shape \(2, 8, 8\), which does not fit"):
        assert pf.read_scan(path, probe="probe", crop=4, **METRES).probe is None
