"""Every format, from files written here by its own rules, and each way in which they can be wrong.

The oracles are the rules of CONTRACT 8 and of the formats, computed here without the package.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from ptycho_fast.frames import FileFrames, Frames
from ptycho_fast.io import list_arrays
from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.recipe import Recipe, window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")

n, N = 12, 8
ENERGY, DISTANCE, PIXEL = 8800.0, 1.9, 75e-6
# h c / (e E), with the SI's exact constants.
WAVELENGTH = 6.62607015e-34 * 299792458 / (ENERGY * 1.602176634e-19)
GEOMETRY: dict[str, Any] = {"energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL}
KEYS: dict[str, Any] = {"diffraction": "/entry/data", "x": "/motors/x", "y": "/motors/y"}
METRES: dict[str, Any] = {**KEYS, **GEOMETRY, "unit": "m", "counts": True}


def object_pixel(N: int = N, pixel: float = PIXEL) -> float:
    return WAVELENGTH * DISTANCE / (N * pixel)


def counts(dtype: Any = "u2", shape: tuple[int, ...] = (n, N, N)) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def motors() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.random.default_rng(1).uniform(-2e-6, 3e-6, (2, n))
    return x, y


def expected(x: NDArray[np.float64], y: NDArray[np.float64], N: int = N) -> NDArray[np.float64]:
    """Positions in object pixels, the smallest at N // 2."""
    pixel = object_pixel(N)
    return np.stack([(x - x.min()) / pixel, (y - y.min()) / pixel], axis=1) + N // 2


def beamline(path: Path, stack: NDArray[Any] | None = None, **storage: Any) -> Path:
    """Write a file of a beamline: counts, motors in metres."""
    x, y = motors()
    with h5py.File(path, "w", **storage.pop("file", {})) as file:
        file.create_dataset("entry/data", data=counts() if stack is None else stack, **storage)
        file["motors/x"], file["motors/y"] = x, y
    return path


# --- any HDF5 file ----------------------------------------------------------------------------


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
def test_units_of_length(tmp_path: Path, unit: str, factor: float) -> None:
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
def test_axes_of_the_motors(tmp_path: Path, swap: bool, flip_x: bool, flip_y: bool) -> None:
    path = beamline(tmp_path / "a.h5")
    x, y = motors()
    scan = pf.read_scan(path, swap_xy=swap, flip_x=flip_x, flip_y=flip_y, **METRES)
    x, y = (y, x) if swap else (x, y)
    np.testing.assert_allclose(
        scan.positions, expected(-x if flip_x else x, -y if flip_y else y), rtol=1e-12
    )
    # The patterns do not turn.
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts(), dtype="f4"))


# --- pixels of weight 0, crop and bin ---------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4"])
def test_the_largest_integer_and_negative_ones_have_weight_0(tmp_path: Path, dtype: str) -> None:
    stack = counts(dtype) + np.dtype(dtype).type(1)
    stack[2, 3, 4] = np.iinfo(dtype).max
    if dtype[0] == "i":
        stack[5, 1, 1] = -1
    amplitude = pf.read_scan(beamline(tmp_path / "a.h5", stack), **METRES).diffraction
    weightless = np.argwhere(amplitude == 0).tolist()
    assert weightless == ([[2, 3, 4], [5, 1, 1]] if dtype[0] == "i" else [[2, 3, 4]])
    just_below = stack.copy()
    just_below[2, 3, 4] -= 1
    amplitude = pf.read_scan(beamline(tmp_path / "a.h5", just_below), **METRES).diffraction
    assert amplitude[2, 3, 4] == np.sqrt(np.float32(just_below[2, 3, 4]))


def test_floats_that_are_not_finite_have_weight_0_and_negative_ones_are_refused(
    tmp_path: Path,
) -> None:
    stack = counts("f4") + 1
    stack[2, 3, 4], stack[5, 1, 1] = np.nan, np.inf
    amplitude = pf.read_scan(beamline(tmp_path / "a.h5", stack), **METRES).diffraction
    assert np.argwhere(amplitude == 0).tolist() == [[2, 3, 4], [5, 1, 1]]
    stack[7, 0, 0] = -3.5
    path = beamline(tmp_path / "a.h5", stack)
    with pytest.raises(ValueError, match=r"the lowest is -3\.5 \(pattern 7\)"):
        pf.read_scan(path, **METRES)
    scan = pf.read_scan(path, load=False, **METRES)
    assert scan.diffraction[:7].shape == (7, N, N)
    with pytest.raises(ValueError, match="pattern 7"):
        scan.diffraction[5:9]
    # Amplitudes may be what they like.
    assert pf.read_scan(path, **{**METRES, "counts": False}).diffraction[7, 0, 0] == -3.5


@pytest.mark.parametrize("dtype", ["?", "u1", "u4", "f4"])
def test_masked_pixels_have_weight_0(tmp_path: Path, dtype: str) -> None:
    bad = np.zeros((N, N), bool)
    bad[1, 2] = bad[6, 7] = True
    stack = counts("f4") + 1
    stack[:, 1, 2] = -5  # what is masked is not looked at
    path = beamline(tmp_path / "a.h5", stack)
    with h5py.File(path, "r+") as file:
        # Of bools True is good, of numbers 0 is.
        file["mask"] = ~bad if dtype == "?" else 3 * bad.astype(dtype)
    scan = pf.read_scan(path, mask="mask", **METRES)
    np.testing.assert_array_equal(scan.mask, ~bad)
    np.testing.assert_array_equal(scan.diffraction == 0, np.broadcast_to(bad, (n, N, N)))


def test_a_mask_that_leaves_little_is_suspected(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["mask"] = np.ones((N, N), "u1")
        file["small"] = np.ones((N, 3), "u1")
        few = np.ones((N, N), "u1")
        few[:2] = 0
        file["few"] = few
    with pytest.raises(ValueError, match=r"'mask' leaves none of 64 pixels.*invert_mask=True"):
        pf.read_scan(path, mask="mask", **METRES)
    with pytest.warns(UserWarning, match=r"'few' leaves 16 of 64 pixels \(25.00%\).*--invert-mask"):
        few_left = pf.read_scan(path, mask="few", **METRES).mask
    np.testing.assert_array_equal(few_left, few == 0)
    turned = pf.read_scan(path, mask="few", invert_mask=True, **METRES).mask
    np.testing.assert_array_equal(turned, few == 1)
    with pytest.raises(ValueError, match=r"'small' must be bools or numbers of shape"):
        pf.read_scan(path, mask="small", **METRES)
    with pytest.raises(ValueError, match="needs mask="):
        pf.read_scan(path, invert_mask=True, **METRES)


windows = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 30), st.integers(0, 30))


@settings(max_examples=60, deadline=None)
@given(drawn=windows, intensity=st.booleans(), data=st.data())
def test_crop_and_bin_against_loops(
    drawn: tuple[int, int, int, int], intensity: bool, data: st.DataObject
) -> None:
    b, small, *above = drawn
    size = b * small
    # A detector in which the window fits, `above` pixels from its edges.
    height, width = (a + size + data.draw(st.integers(0, 3)) for a in above)
    centre = (above[0] + size // 2, above[1] + size // 2)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    raw = rng.integers(0, 9, (3, height, width)).astype("u1")
    raw[rng.random(raw.shape) < 0.1] = 255
    mask = rng.random((height, width)) > 0.1

    class Held(Frames):
        shape, dtype = raw.shape, raw.dtype

        def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
            out[...] = raw[rows]

    part = window(raw.shape, Recipe(crop=size, centre=centre, bin=b))
    frames = PreparedFrames(Held(), part, intensity=intensity, mask=mask)
    oracle = np.zeros((3, small, small))
    good = np.ones((small, small), bool)
    for frame, row, column in np.ndindex(3, small, small):
        values = []
        for i, j in np.ndindex(b, b):
            place = above[0] + row * b + i, above[1] + column * b + j
            good[row, column] &= mask[place]
            value = int(raw[frame][place])
            values.append(np.nan if value == 255 or not mask[place] else value)
        total = np.sum(values if intensity else np.square(values))
        oracle[frame, row, column] = 0 if np.isnan(total) else np.sqrt(total)
    np.testing.assert_allclose(frames[:], oracle, rtol=1e-6)
    np.testing.assert_allclose(next(frames.blocks())[1], oracle, rtol=1e-6)
    np.testing.assert_allclose(frames[[2, 0]], oracle[[2, 0]], rtol=1e-6)
    np.testing.assert_array_equal(part.good(mask), good)


def test_bins_enlarge_neither_field_nor_pixel_of_the_object(tmp_path: Path) -> None:
    path = beamline(tmp_path / "a.h5", counts(shape=(n, 12, 16)))
    whole = pf.read_scan(path, crop=12, **METRES)
    binned = pf.read_scan(path, crop=12, bin=3, **METRES)
    assert (whole.N, binned.N) == (12, 4)
    np.testing.assert_allclose(
        binned.positions - binned.positions.min(axis=0),
        whole.positions - whole.positions.min(axis=0),
        rtol=1e-12,
    )
    np.testing.assert_allclose(whole.positions, expected(*motors(), N=12), rtol=1e-12)
    assert binned.positions.min() == 2


def test_the_default_centre_is_the_pixel_of_zero_frequency(tmp_path: Path) -> None:
    stack = np.zeros((n, 16, 12), "u2")
    stack[:, 8, 6] = 1
    for size in (4, 5, 8):
        scan = pf.read_scan(beamline(tmp_path / "a.h5", stack), crop=size, **METRES)
        assert np.argwhere(scan.diffraction[0]).tolist() == [[size // 2, size // 2]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"square, but these are 10 rows x 16 columns\. Pass crop=10"),
        ({"bin": 3}, r"10 rows x 16 columns\. Pass crop=9"),
        ({"crop": (4, 6)}, "4 rows x 6 columns"),
        ({"crop": 12}, r"crop=12 about centre=\(5, 8\) reaches from row -1, .*10x16 pixels"),
        ({"crop": 4, "centre": (9, 8)}, "to row 10, column 9"),
        ({"crop": 8, "bin": 3}, "8 pixels can't be binned by 3: crop=6"),
        ({"crop": 0}, "crop must be a whole number"),
        ({"crop": "big"}, "crop must be a number of pixels"),
        ({"crop": 4, "centre": (1, 2, 3)}, r"centre \(row, column\)"),
        ({"crop": 4, "centre": (np.inf, 2)}, r"centre \(row, column\)"),
        ({"centre": (5, 5)}, "centre says where to crop, so it needs crop"),
        ({"crop": 8, "bin": 0}, "bin must be a whole number"),
    ],
)
def test_windows_that_can_not_be(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    path = beamline(tmp_path / "a.h5", counts(shape=(n, 10, 16)))
    with pytest.raises(ValueError, match=sentence):
        pf.read_scan(path, **METRES, **options)


def test_a_centre_between_pixels_is_rounded(tmp_path: Path) -> None:
    stack = counts(shape=(n, 10, 16))
    scan = pf.read_scan(beamline(tmp_path / "a.h5", stack), crop=4, centre=(4.6, 7.2), **METRES)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(stack[:, 3:7, 5:9], dtype="f4"))


# --- frames and positions ---------------------------------------------------------------------


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
def test_index_of_a_frame_for_each_position(tmp_path: Path, dtype: Any) -> None:
    with pytest.warns(
        UserWarning, match="3 of 6 frames have no position, and 2 of 5 positions no frame"
    ):
        scan = joined(tmp_path, 6, 5, np.array([4, 9, 0, 60, 3]).astype(dtype))
    assert pairs(scan) == [(0, 2), (3, 4), (4, 0)]


def test_index_of_a_position_for_each_frame(tmp_path: Path) -> None:
    # Two frames at one position, and one that lost its own.
    with pytest.warns(UserWarning, match="1 of 4 frames .* 2 of 4|1 of 4 frames"):
        scan = joined(tmp_path, 4, 7, np.array([5, 1, -1, 5]))
    assert pairs(scan) == [(0, 5), (1, 1), (3, 5)]


def test_index_where_both_are_as_many_names_the_frame_of_a_position(tmp_path: Path) -> None:
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
def test_frames_and_positions_that_do_not_join(
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


# --- what must be said, and what is refused ---------------------------------------------------


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
def test_what_must_be_said(
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


# --- damage -----------------------------------------------------------------------------------


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
def test_files_of_no_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(OSError, match=r"a\.h5 is not an (NPZ|HDF5) file, or it is damaged"):
        pf.read_scan(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError):
        pf.read_scan(tmp_path / "nothing.h5")


def test_without_h5py_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = beamline(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ImportError, match=r'HDF5 files need h5py.*pip install "ptycho_fast\[hdf5\]"'
    ):
        pf.read_scan(path, **METRES)


# --- chunks, processes, threads ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "amplification"),
    [((1, N, N), None), ((4, N, N), None), ((5, N, N), 5), ((1, 3, 3), None), ((n, N, 5), 15)],
)
def test_chunks_that_make_random_patterns_dear_are_named(
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


# --- CXI --------------------------------------------------------------------------------------

DETECTOR = "entry_1/instrument_1/detector_1"
TRANSLATION = "entry_1/sample_1/geometry_1/translation"


def cxi(path: Path, shape: Any = (N, N), **changes: Any) -> Path:
    """Write CXI by the rules of cxidb.org; a change of None leaves something out."""
    x, y = motors()
    entries = {
        "cxi_version": 160,
        f"{DETECTOR}/data": counts("i4", (n, *shape)),
        # The columns are the slow axis (rows, down) and the fast axis (columns).
        f"{DETECTOR}/basis_vectors": np.array([[0, -PIXEL, 0], [-PIXEL, 0, 0]]).T,
        f"{DETECTOR}/distance": DISTANCE,
        f"{DETECTOR}/x_pixel_size": PIXEL,
        f"{DETECTOR}/y_pixel_size": PIXEL,
        "entry_1/instrument_1/source_1/energy": ENERGY * 1.602176634e-19,
        # So that minus it, along the axes, is (x, y).
        TRANSLATION: np.stack([x, y, np.full(n, 0.3)], axis=1),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for key, value in entries.items():
            if value is not None:
                file[key] = value
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
    return path


def test_cxi(tmp_path: Path) -> None:
    scan = pf.read_scan(cxi(tmp_path / "a.cxi"))
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts("i4"), dtype="f4"))
    assert scan.mask is None
    # Patterns that are amplitudes are told to be.
    told = pf.read_scan(tmp_path / "a.cxi", counts=False, load=False)
    np.testing.assert_array_equal(told.diffraction[2], counts("i4")[2])


@pytest.mark.parametrize("layout", ["3x2", "2x3", "n32", "n23"])
def test_cxi_positions_are_minus_the_translation_along_the_basis(
    tmp_path: Path, layout: str
) -> None:
    rng = np.random.default_rng(3)
    # A detector turned about the beam and tilted; its pixels are not square.
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    height, width = 50e-6, 75e-6
    basis = np.stack([height * axes[0], width * axes[1]], axis=1)
    moved = rng.uniform(-2e-6, 3e-6, (n, 3))
    given_ = basis if "32" in layout or layout == "3x2" else basis.T
    given_ = np.broadcast_to(given_, (n, *given_.shape)) if layout[0] == "n" else given_
    path = cxi(
        tmp_path / "a.cxi",
        **{
            f"{DETECTOR}/basis_vectors": given_,
            f"{DETECTOR}/x_pixel_size": None,
            f"{DETECTOR}/y_pixel_size": None,
            TRANSLATION: moved,
        },
    )
    oracle = []
    for sample in moved:
        along_rows = -sum(s * a for s, a in zip(sample, axes[0], strict=True))
        along_columns = -sum(s * a for s, a in zip(sample, axes[1], strict=True))
        scale = N / (WAVELENGTH * DISTANCE)
        oracle.append((along_columns * width * scale, along_rows * height * scale))
    oracle = np.array(oracle) - np.min(oracle, axis=0) + N // 2
    np.testing.assert_allclose(pf.read_scan(path).positions, oracle, rtol=1e-9)


def test_cxi_leaves_out_what_it_may(tmp_path: Path) -> None:
    x, y = motors()
    bare = dict.fromkeys(
        ("cxi_version", f"{DETECTOR}/basis_vectors", "entry_1/instrument_1/source_1/energy")
    )
    path = cxi(
        tmp_path / "a.cxi",
        **bare,
        **{
            "entry_1/instrument_1/source_1/wavelength": WAVELENGTH,
            f"{DETECTOR}/distance": np.full(n, DISTANCE),
            TRANSLATION: np.stack([x, y, 0 * x]),  # as some programs write it
        },
    )
    # CXI's x is to the left and y upwards, rows and columns run against them.
    np.testing.assert_allclose(pf.read_scan(path).positions, expected(x, y), rtol=1e-9)


def test_cxi_mask_probe_and_window(tmp_path: Path) -> None:
    bits = np.zeros((12, 14), "u4")
    bits[3, 4], bits[6, 7], bits[7, 7] = 1, 0x1000, 0x1200  # invalid, has signal, and missing too
    probe = np.ones((N, N), complex)
    path = cxi(
        tmp_path / "a.cxi",
        shape=(12, 14),
        **{f"{DETECTOR}/mask": bits, "entry_1/instrument_1/source_1/illumination": probe},
    )
    scan = pf.read_scan(path, crop=N)
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[1, 1], [5, 4]]
    assert not scan.diffraction[:, 1, 1].any()
    np.testing.assert_array_equal(scan.probe, probe)
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    per_frame = np.zeros((n, 12, 14), "u4")
    per_frame[5] = bits
    with h5py.File(path, "r+") as file:
        del file[f"{DETECTOR}/mask"]
        file[f"{DETECTOR}/mask"] = per_frame
    # A mask of each frame holds for that frame.
    for load in (True, False):
        again = pf.read_scan(path, crop=N, load=load)
        assert again.mask is None
        good = again.measured(np.arange(n))[1]
        assert good is not None
        assert np.argwhere(~good).tolist() == [[5, 1, 1], [5, 5, 4]]


@pytest.mark.parametrize(
    ("changes", "options", "error", "sentence"),
    [
        ({TRANSLATION: None}, {}, KeyError, "has no positions: no /entry_1/sample_1"),
        ({TRANSLATION: np.zeros((n, 2))}, {}, ValueError, r"must be \(n, 3\), got \(12, 2\)"),
        ({TRANSLATION: np.zeros((7, 3))}, {}, ValueError, "12 frames, but 7 positions"),
        ({f"{DETECTOR}/distance": None}, {}, KeyError, r"has no distance\. Pass distance_m="),
        ({f"{DETECTOR}/distance": [1.0, 2.0]}, {}, ValueError, "no positive number"),
        ({f"{DETECTOR}/distance": 0.0}, {}, ValueError, "no positive number"),
        (
            {"entry_1/instrument_1/source_1/energy": 8800.0}, {},
            ValueError, "is 8800; CXI says joules.*Pass energy_eV=",
        ),
        ({"entry_1/instrument_1/source_1/energy": None}, {}, KeyError, "Pass energy_eV="),
        (
            {f"{DETECTOR}/x_pixel_size": None, f"{DETECTOR}/basis_vectors": None}, {},
            KeyError, "has no x_pixel_size. Pass detector_pixel_m=",
        ),
        ({f"{DETECTOR}/basis_vectors": np.zeros((3, 2))}, {}, ValueError, "two directions"),
        ({f"{DETECTOR}/basis_vectors": np.eye(3)}, {}, ValueError, "two directions"),
        ({f"{DETECTOR}/basis_vectors": np.ones((5, 2, 3))}, {}, ValueError, "5 basis_vectors"),
        ({f"{DETECTOR}/mask": np.zeros((3, 3), int)}, {}, ValueError, "bools or numbers"),
        ({}, {"unit": "px"}, ValueError, "CXI positions are in metres"),
        ({}, {"x": "a"}, ValueError, "so x can't be named alone"),
    ],
)  # fmt: skip
def test_cxi_that_is_wrong(
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        pf.read_scan(cxi(tmp_path / "a.cxi", **changes), **options)


def test_cxi_geometry_can_be_overruled(tmp_path: Path) -> None:
    path = cxi(
        tmp_path / "a.cxi",
        **{
            "entry_1/instrument_1/source_1/energy": 500.0,
            f"{DETECTOR}/distance": None,
            f"{DETECTOR}/x_pixel_size": 1.0,
        },
    )
    np.testing.assert_allclose(
        pf.read_scan(path, **GEOMETRY).positions, expected(*motors()), rtol=1e-12
    )


def test_an_epoch_from_cxi_that_stays_in_its_file(tmp_path: Path) -> None:
    path = cxi(tmp_path / "a.cxi")
    with h5py.File(path, "r+") as file:
        del file[f"{DETECTOR}/data"]
        file.create_dataset(f"{DETECTOR}/data", data=counts("u2"), chunks=(2, N, N),
                            compression="gzip")  # fmt: skip
    epochs = []
    for load in (True, False):
        scan = pf.read_scan(path, load=load)
        data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=1))
        epochs.append([batch["diffraction"].copy() for batch in data.batches(5, shuffle=True)])
    for loaded, lazy in zip(*epochs, strict=True):
        np.testing.assert_array_equal(lazy, loaded)


def test_naming_everything_reads_cxi_as_any_file(tmp_path: Path) -> None:
    scan = pf.read_scan(
        cxi(tmp_path / "a.cxi"), diffraction=f"{DETECTOR}/data", x=f"{TRANSLATION}[:,1]",
        y=f"{TRANSLATION}[:,0]", unit="px", counts=False,
    )  # fmt: skip
    x, y = motors()
    np.testing.assert_array_equal(scan.positions, np.stack([y, x], axis=1))


# --- ptychodus --------------------------------------------------------------------------------

OBJECT_PIXEL = (21e-9, 18e-9)
CENTER = (0.4e-6, -0.7e-6)


def product(path: Path, **changes: Any) -> Path:
    """Write a product as ptychodus does; its positions are in another order than the frames."""
    x, y = motors()
    order = np.random.default_rng(5).permutation(n)
    attributes = {
        "pixel_width_m": OBJECT_PIXEL[0], "pixel_height_m": OBJECT_PIXEL[1],
        "center_x_m": CENTER[0], "center_y_m": CENTER[1],
        **{key: value for key, value in changes.items() if key.endswith("_m")},
    }  # fmt: skip
    arrays = {
        "probe_position_indexes": 100 + order,
        "probe_position_x_m": x[order],
        "probe_position_y_m": y[order],
        "probe": np.arange(2 * N * N).reshape(1, 2, N, N) * 1j,
        "object": np.ones((1, 300, 400), "c8"),
        **{key: value for key, value in changes.items() if not key.endswith("_m")},
    }
    with h5py.File(path, "w") as file:
        file.attrs["name"] = "gold"
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
        for key, value in attributes.items():
            if value is not None:
                file["object"].attrs[key] = value
    return path


def patterns(path: Path) -> Path:
    """Write what ptychodus calls assembled diffraction data."""
    bad = np.zeros((N, N), bool)
    bad[2, 3] = True
    with h5py.File(path, "w") as file:
        file.create_dataset("patterns", data=counts("i4"), compression="lzf")
        file.create_dataset("indexes", data=100 + np.arange(n), compression="lzf")
        file.create_dataset("bad_pixels", data=bad, compression="lzf")
    return path


def on_object() -> NDArray[np.float64]:
    x, y = motors()
    return np.stack(
        [(x - CENTER[0]) / OBJECT_PIXEL[0] + 200, (y - CENTER[1]) / OBJECT_PIXEL[1] + 150], axis=1
    )


@pytest.mark.filterwarnings("ignore:.*the chunks of")
def test_ptychodus_product_with_its_patterns(tmp_path: Path) -> None:
    diffraction = f"{patterns(tmp_path / 'diffraction.h5')}:/patterns"
    scan = pf.read_scan(product(tmp_path / "product-out.h5"), diffraction=diffraction)
    # Frame by frame, whatever the order of the product.
    np.testing.assert_allclose(scan.positions, on_object(), rtol=1e-12)
    good = np.ones((N, N), bool)
    good[2, 3] = False
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts("i4"), dtype="f4") * good)
    np.testing.assert_array_equal(scan.mask, good)
    assert scan.object is not None
    assert scan.object.shape == (300, 400)
    assert scan.probe is not None
    assert scan.probe.shape == (2, N, N)


def test_ptychodus_product_and_patterns_in_one_file(tmp_path: Path) -> None:
    path = product(tmp_path / "a.h5", probe_position_indexes=np.arange(n), dp=counts("f4"))
    x, y = motors()
    with h5py.File(path, "r+") as file:
        file["probe_position_x_m"][:], file["probe_position_y_m"][:] = x, y
    scan = pf.read_scan(path)
    np.testing.assert_allclose(scan.positions, on_object(), rtol=1e-12)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(counts("f4")))
    assert scan.mask is None


def test_ptychodus_drops_frames_that_the_product_lacks(tmp_path: Path) -> None:
    x, y = motors()
    path = product(
        tmp_path / "a.h5",
        probe_position_indexes=np.array([104, 102]),
    )
    with h5py.File(path, "r+") as file:
        del file["probe_position_x_m"], file["probe_position_y_m"]
        file["probe_position_x_m"], file["probe_position_y_m"] = x[[4, 2]], y[[4, 2]]
    diffraction = f"{patterns(tmp_path / 'd.h5')}:patterns"
    with pytest.warns(UserWarning, match="10 of 12 frames have no position, and 0 of 2"):
        scan = pf.read_scan(path, diffraction=diffraction)
    np.testing.assert_allclose(scan.positions, on_object()[[2, 4]], rtol=1e-12)
    np.testing.assert_array_equal(
        scan.diffraction[:, 0], np.sqrt(counts("i4")[[2, 4], 0], dtype="f4")
    )


@pytest.mark.parametrize(
    ("changes", "options", "error", "sentence"),
    [
        ({}, {}, KeyError, "holds no patterns. Name those.*diffraction="),
        ({"center_x_m": None}, {}, KeyError, "the object lacks center_x_m"),
        ({}, {"flip_x": True}, ValueError, "which says itself.*leave out flip_x"),
        ({}, {"unit": "m", "y": "b"}, ValueError, "leave out y, unit"),
        ({"dp": counts("u2", (n, 16, 16))}, {}, ValueError, "8 pixels a side.*Pass crop=8"),
        ({"dp": counts("u2", (n, 16, 16))}, {"bin": 2, "crop": 8}, ValueError, "Pass crop=16"),
        ({"dp": counts()}, {"index": "probe_position_x_m"}, ValueError, "must be whole numbers"),
    ],
)
def test_ptychodus_product_that_is_wrong(
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        pf.read_scan(product(tmp_path / "a.h5", **changes), **options)


def test_ptychodus_raw_patterns_are_cropped_to_the_probe(tmp_path: Path) -> None:
    raw = counts("u2", (n, 20, 30))
    path = product(tmp_path / "a.h5", probe_position_indexes=np.arange(n), dp=raw)
    scan = pf.read_scan(path, crop=N, centre=(9, 13))
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(raw[:, 5:13, 9:17], dtype="f4"))


def test_an_object_of_layers_is_left_out(tmp_path: Path) -> None:
    path = product(tmp_path / "a.h5", object=np.ones((3, 300, 400), "c8"),
                   probe_position_indexes=np.arange(n), dp=counts())  # fmt: skip
    with pytest.warns(UserWarning, match="the object has 3 layers"):
        assert pf.read_scan(path).object is None


# --- NPZ that is to be prepared ---------------------------------------------------------------


def npz(path: Path, stack: NDArray[Any], **more: Any) -> Path:
    x, y = motors()
    np.savez(path, xcoords=x, ycoords=y, diff3d=stack, **more)
    return path


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
def test_npz_of_counts_in_metres(tmp_path: Path, dtype: str, load: bool) -> None:
    stack = counts(dtype) + np.dtype(dtype).type(1)
    if dtype[0] == "u":
        stack[3, 2, 1] = np.iinfo(dtype).max
    path = npz(tmp_path / "a.npz", stack, scan_index=np.arange(n), note="gold")
    scan = pf.read_scan(path, load=load, counts=True, unit="m", **GEOMETRY)
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    amplitude = np.sqrt(stack, dtype="f4")
    if dtype[0] == "u":
        amplitude[3, 2, 1] = 0
    np.testing.assert_array_equal(np.asarray(scan.diffraction), amplitude)
    np.testing.assert_array_equal(scan.scan_index, np.arange(n))
    assert scan.metadata["note"] == "gold"


def test_npz_keeps_its_object_while_positions_lie_on_it(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", counts("f4"), objectGuess=np.ones((20, 30), "c8"),
               xcoords_start=np.zeros(n), ycoords_start=np.ones(n))  # fmt: skip
    scan = pf.read_scan(path, counts=False, bin=2)
    assert scan.object is not None
    np.testing.assert_array_equal(scan.positions_start, [[0, 1]] * n)
    with pytest.warns(UserWarning, match="no longer lie on the object"):
        assert pf.read_scan(path, crop=4).object is None
    with pytest.warns(UserWarning, match="no longer lie on the object"):
        flipped = pf.read_scan(path, flip_x=True)
    x, y = motors()
    np.testing.assert_allclose(
        flipped.positions, np.stack([x.min() + x.max() - x, y], axis=1), rtol=1e-12
    )


def test_npz_by_other_keys(tmp_path: Path) -> None:
    x, y = motors()
    stack = counts(shape=(n, 10, 12))
    np.savez(tmp_path / "a.npz", images=stack, posx=x, posy=y, bad=np.eye(10, 12, dtype=int))
    options: dict[str, Any] = {**METRES, "diffraction": "images", "x": "posx", "y": "posy"}
    scan = pf.read_scan(tmp_path / "a.npz", mask="bad", crop=8, **options)
    np.testing.assert_allclose(scan.positions, expected(x, y), rtol=1e-12)
    good = np.eye(10, 12)[1:9, 2:10] == 0
    np.testing.assert_array_equal(scan.mask, good)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(stack[:, 1:9, 2:10], dtype="f4") * good)
    with pytest.raises(KeyError, match=r"no 'image'.*images \(12, 10, 12\)"):
        pf.read_scan(tmp_path / "a.npz", crop=8, **{**options, "diffraction": "image"})
    with pytest.raises(ValueError, match="x can't be named alone"):
        pf.read_scan(npz(tmp_path / "b.npz", counts()), x="posx")
