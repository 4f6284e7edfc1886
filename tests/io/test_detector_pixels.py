"""Bad pixels, masks, crops and bins, against loops over the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from beamline_files import METRES, N, beamline, counts, expected, motors, n
from ptycho_fast.frames import Frames
from ptycho_fast.io.amplitudes import PreparedFrames
from ptycho_fast.io.recipe import Recipe, window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4"])
def test_the_largest_and_negative_integers_have_weight_0(tmp_path: Path, dtype: str) -> None:
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
def test_crop_and_bin_equal_loops_over_pixels(
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
        ({"crop": 8, "bin": 3}, "8 pixels can't be binned by 3: pass crop=6"),
        ({"crop": 0}, "crop must be a whole number"),
        ({"crop": "big"}, "crop must be a number of pixels"),
        ({"crop": 4, "centre": (1, 2, 3)}, r"centre \(row, column\)"),
        ({"crop": 4, "centre": (np.inf, 2)}, r"centre \(row, column\)"),
        ({"centre": (5, 5)}, "centre says where to crop, so it needs crop"),
        ({"crop": 8, "bin": 0}, "bin must be a whole number"),
    ],
)
def test_impossible_windows_are_refused(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    path = beamline(tmp_path / "a.h5", counts(shape=(n, 10, 16)))
    with pytest.raises(ValueError, match=sentence):
        pf.read_scan(path, **METRES, **options)


def test_a_centre_between_pixels_is_rounded(tmp_path: Path) -> None:
    stack = counts(shape=(n, 10, 16))
    scan = pf.read_scan(beamline(tmp_path / "a.h5", stack), crop=4, centre=(4.6, 7.2), **METRES)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(stack[:, 3:7, 5:9], dtype="f4"))
