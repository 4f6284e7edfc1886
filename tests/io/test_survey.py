"""What a reader knows, or can see, about patterns reaches the scan, or is said."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.cli import main
from ptycho_fast.io import convert
from ptycho_fast.io.masks import good_pixels, names_a_mask

h5py = pytest.importorskip("h5py")

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

n, N = 60, 16
NAMES: dict[str, Any] = {"diffraction": "data", "x": "x", "y": "y", "unit": "px", "counts": True}
SCAN = pf.simulate_scan(n_positions=n, N=N, seed=3, photons=3e4)
COUNTS = np.rint(np.asarray(SCAN.diffraction, float) ** 2)


def hdf5(path: Path, counts: NDArray[Any], **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["data"], file["x"], file["y"] = counts, SCAN.positions[:, 0], SCAN.positions[:, 1]
        for key, value in more.items():
            file[key] = value
    return path


def npz(path: Path, patterns: NDArray[Any], **more: Any) -> Path:
    assert SCAN.probe is not None
    x, y = SCAN.positions.T
    np.savez(path, xcoords=x, ycoords=y, diff3d=patterns, probeGuess=SCAN.probe, **more)
    return path


def warned(path: Path, **options: Any) -> tuple[pf.Scan, str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scan = pf.read_scan(path, **options)
    return scan, "\n".join(str(warning.message) for warning in told)


def flagged(dtype: str, value: float) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return counts with a gap in every pattern and some more flags, and where each is good."""
    always, sometimes = np.ones((N, N), bool), np.ones((n, N, N), bool)
    always[5] = False
    sometimes[7, 8, 8] = sometimes[31, 2, 3] = sometimes[31, 9, 9] = False
    counts = COUNTS.astype(dtype)
    counts[~(always & sometimes)] = value
    return counts, always, sometimes


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("u2", 65535),
        ("u4", 2**32 - 1),
        ("i4", -1),
        ("i8", 2**63 - 1),
        ("f4", np.nan),
        ("f8", np.inf),
    ],
)
def test_flagged_pixels_are_not_measured(
    tmp_path: Path, dtype: str, value: float, load: bool
) -> None:
    counts, always, sometimes = flagged(dtype, value)
    files = {
        "h5": (hdf5(tmp_path / "a.h5", counts), NAMES),
        "counts": (npz(tmp_path / "a.npz", counts), {"counts": True}),
    }
    for path, options in files.values():
        scan, said = warned(path, load=load, **options)
        np.testing.assert_array_equal(scan.mask, always)
        patterns, good = scan.measured(np.arange(n))
        assert good is not None
        np.testing.assert_array_equal(good, always & sometimes)
        np.testing.assert_array_equal(patterns, np.sqrt(np.where(good, COUNTS, 0)).astype("f4"))
        assert f"{N} of {N * N} pixels were not measured in any" in said
        assert f"In 2 of {n} patterns" in said
        assert "3 in all" in said


@pytest.mark.parametrize("load", [True, False])
def test_amplitudes_that_are_not_finite_are_not_measured(tmp_path: Path, load: bool) -> None:
    counts, always, sometimes = flagged("f8", np.nan)
    scan, said = warned(npz(tmp_path / "a.npz", np.sqrt(counts)), load=load)
    assert scan.diffraction.dtype == np.float64
    np.testing.assert_array_equal(scan.mask, always)
    np.testing.assert_array_equal(scan.measured(np.arange(n))[1], always & sometimes)
    assert "not finite" in said


def test_bad_pixels_survive_convert_and_write_scan(tmp_path: Path) -> None:
    counts, always, sometimes = flagged("u4", 2**32 - 1)
    with pytest.warns(UserWarning, match="were not measured"):
        convert(hdf5(tmp_path / "a.h5", counts), tmp_path / "b.npz", **NAMES)
    first, said = warned(tmp_path / "b.npz")
    assert "not measured" not in said  # it was said before
    pf.write_scan(first, tmp_path / "c.npz")
    lazy, _ = warned(tmp_path / "a.h5", load=False, **NAMES)
    pf.write_scan(lazy, tmp_path / "d.npz")
    for path in ("b.npz", "c.npz", "d.npz"):
        for load in (True, False):
            scan = pf.read_scan(tmp_path / path, load=load)
            np.testing.assert_array_equal(scan.mask, always)
            np.testing.assert_array_equal(scan.measured(np.arange(n))[1], always & sometimes)


@pytest.mark.parametrize("load", [True, False])
def test_bad_pixels_survive_bins_and_crops(tmp_path: Path, load: bool) -> None:
    counts, always, sometimes = flagged("u2", 65535)
    path = hdf5(tmp_path / "a.h5", counts)
    scan, _ = warned(path, load=load, crop=12, bin=2, **NAMES)
    both: Any = always & sometimes
    good = both[:, 2:14, 2:14].reshape(n, 6, 2, 6, 2).all(axis=(2, 4))
    np.testing.assert_array_equal(scan.measured(np.arange(n))[1], good)
    thinned = scan.subsample(50, seed=0)
    kept = thinned.metadata["sample_indices"]
    np.testing.assert_array_equal(thinned.measured(np.arange(50))[1], good[kept])


def test_a_look_at_a_few_finds_what_is_bad_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_fast.frames.LOOK_BYTES", 2000)
    monkeypatch.setattr("ptycho_fast.frames.LOOKED_AT", 5)
    counts, always, sometimes = flagged("u4", 2**32 - 1)
    scan, said = warned(hdf5(tmp_path / "a.h5", counts), load=False, **NAMES)
    assert "patterns looked at (of 60)" in said
    np.testing.assert_array_equal(scan.mask, always)
    assert scan.diffraction.may_be_bad
    np.testing.assert_array_equal(scan.measured(np.arange(n))[1], always & sometimes)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2**32 - 1, "f4"), (2**32 - 1, "f8"), (2**32 - 1, "i8"), (65535, "u4"), (2**31 - 1, "f4")],
)
def test_a_flag_of_narrower_integers_is_warned_of(tmp_path: Path, value: int, dtype: str) -> None:
    counts, always, _ = flagged("u8", 0)
    counts[:, ~always] = value
    path = hdf5(tmp_path / "a.h5", counts.astype(dtype))
    scan, said = warned(path, **NAMES)
    assert scan.mask is None
    assert f"in {N * n} pixels of {n} patterns, marks bad pixels in integers" in said
    told, said = warned(path, bad_value=float(np.array(value, dtype)), **NAMES)
    np.testing.assert_array_equal(told.mask, always)
    assert "marks bad pixels" not in said
    # Roots that somebody took of such flags.
    _, said = warned(npz(tmp_path / "a.npz", np.sqrt(counts.astype("f4"))))
    assert "marks bad pixels in integers" in said


def test_empty_patterns_are_warned_of_and_left_out_on_request(tmp_path: Path) -> None:
    counts = COUNTS.astype("u2")
    counts[[4, 17]] = 0
    counts[40] = 65535
    path = hdf5(tmp_path / "a.h5", counts)
    for load in (True, False):
        scan, said = warned(path, load=load, **NAMES)
        assert len(scan) == n
        assert (
            f"3 of {n} patterns are empty (all zero, or without a good pixel): 4, 17, 40." in said
        )
        scan, said = warned(path, load=load, drop_dark=True, **NAMES)
        assert "are empty" not in said
        kept = np.setdiff1d(np.arange(n), [4, 17, 40])
        np.testing.assert_array_equal(scan.positions, SCAN.positions[kept])
        center = np.asarray(scan.diffraction)[:, 8, 8]
        np.testing.assert_allclose(center**2, COUNTS[kept, 8, 8], rtol=1e-6)
    convert(path, tmp_path / "b.npz", drop_dark=True, **NAMES)
    assert len(pf.read_scan(tmp_path / "b.npz")) == n - 3
    with pytest.raises(ValueError, match="all 60 patterns are empty"):
        pf.read_scan(hdf5(tmp_path / "z.h5", 0 * counts), drop_dark=True, **NAMES)


def test_patterns_that_were_never_written_are_left_out_on_request(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", np.zeros((1, N, N), "u4"))
    with h5py.File(path, "r+") as file:
        del file["data"]
        data = file.create_dataset("data", (n, N, N), "u4", chunks=(1, N, N), fillvalue=7)
        data[:50] = COUNTS[:50]
    for load in (True, False):
        scan, said = warned(path, load=load, **NAMES)
        assert len(scan) == n
        assert said.count("never written") == 1
        assert "are empty" not in said
        scan, _ = warned(path, load=load, drop_dark=True, first=55, **NAMES)
        np.testing.assert_array_equal(scan.positions, SCAN.positions[:50])


def test_a_look_unpacks_no_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("frames", "io.unpacked"):
        monkeypatch.setattr(f"ptycho_fast.{module}.LOOK_BYTES", 2000)
    x, y = SCAN.positions.T
    for name, stack in {"a": SCAN.diffraction, "b": SCAN.diffraction.transpose(1, 2, 0)}.items():
        monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / f"cache_{name}"))
        np.savez_compressed(tmp_path / f"{name}.npz", xcoords=x, ycoords=y, diff3d=stack)
        scan, said = warned(tmp_path / f"{name}.npz", load=False)
        assert not said
        assert not (tmp_path / f"cache_{name}").exists()
        np.testing.assert_array_equal(np.asarray(scan.diffraction), SCAN.diffraction)


@pytest.mark.parametrize("side", [16, 15])
def test_zero_frequency_in_the_corner_is_warned_of_and_moved_on_request(
    tmp_path: Path, side: int
) -> None:
    patterns = np.asarray(SCAN.diffraction)[:, :side, :side] if side == 15 else SCAN.diffraction
    # The middle of 15 pixels is 7, where the simulated light of 16 lies about 8.
    patterns = np.roll(patterns, -(side % 2), axis=(1, 2))
    x, y = SCAN.positions.T
    path, bad = tmp_path / "a.npz", np.zeros((side, side), bool)
    bad[1, 2] = True
    np.savez(
        path, xcoords=x, ycoords=y, bad_pixels=np.fft.ifftshift(bad),
        diff3d=np.fft.ifftshift(patterns, axes=(1, 2)),
    )  # fmt: skip
    _, said = warned(path)
    assert "pass fftshift=True (--fftshift)" in said
    for load in (True, False):
        scan, said = warned(path, fftshift=True, mask="bad_pixels", load=load)
        assert "fftshift" not in said
        np.testing.assert_array_equal(scan.mask, ~bad)
        expected = np.where(bad, 0, patterns)
        np.testing.assert_array_equal(scan.measured(np.arange(n))[0], expected)
    _, said = warned(npz(tmp_path / "b.npz", SCAN.diffraction))
    assert not said


def test_whole_numbers_read_as_amplitudes_are_warned_of(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", COUNTS.astype("u4"))
    assert "whole numbers (uint32" in warned(path)[1]
    assert not warned(path, counts=True)[1]
    assert "whole numbers" not in warned(path, counts=False)[1]


def test_an_unused_mask_is_warned_of(tmp_path: Path) -> None:
    bad = np.zeros((N, N), bool)
    bad[3, 4] = True
    path = npz(tmp_path / "a.npz", SCAN.diffraction, bad_pixels=bad)
    scan, said = warned(path)
    assert scan.mask is None
    assert "'bad_pixels' (16, 16) looks like a mask of the detector and is not used" in said
    scan, said = warned(path, mask="bad_pixels")
    np.testing.assert_array_equal(scan.mask, ~bad)
    assert not said


@pytest.mark.parametrize(
    ("key", "dtype", "good_is"),
    [
        ("mask", "?", True), ("mask", "u1", 0), ("pixel_mask", "u4", 0),
        ("bad_pixels", "?", False), ("bad_pixels", "i4", 0), ("entry/good_pixels", "?", True),
        ("good_pixels", "u1", 1), ("hot", "?", False), ("a.h5:/dead_mask", "f4", 0),
        ("valid", "u1", 1), ("invalid", "?", False),
    ],
)  # fmt: skip
def test_the_name_and_dtype_decide_what_a_mask_marks(key: str, dtype: str, good_is: Any) -> None:
    good = np.random.default_rng(0).random((5, 6)) < 0.8
    values = np.where(good, good_is, not good_is).astype(dtype)
    assert names_a_mask(key)
    np.testing.assert_array_equal(good_pixels(key, values, (9, 5, 6)), good)
    turned = np.where(good, not good_is, good_is).astype(dtype)
    np.testing.assert_array_equal(good_pixels(key, turned, (9, 5, 6), invert=True), good)
    assert not names_a_mask("diffraction")


def test_a_scan_without_a_measured_pixel_is_refused(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", np.full((n, N, N), 65535, "u2"))
    for load in (True, False):
        with pytest.raises(ValueError, match="no pixel was measured in any of 60 patterns"):
            pf.read_scan(path, load=load, **NAMES)
    with pytest.raises(ValueError, match="no pixel was measured"):
        convert(path, tmp_path / "b.npz", **NAMES)
    assert not (tmp_path / "b.npz").exists()


def test_inspect_prints_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts, *_ = flagged("u4", 2**32 - 1)
    counts[9] = 0
    options = ["--diffraction", "data", "--x", "x", "--y", "y", "--unit", "px", "--counts"]
    assert main(["inspect", str(hdf5(tmp_path / "a.h5", counts)), *options]) == 0
    captured = capsys.readouterr()
    for line in (
        f"stored      counts as uint32, 0 .. {COUNTS[1:].max():.0f}",
        "bad pixels  16 of 256 in every pattern, 3 more in 2 patterns",
        "dark        1 of 60 patterns are all zero or have no good pixel",
    ):
        assert line in captured.out
    assert "light       about row" in captured.out
    assert captured.err.count("warning") == 3


def test_near_field_patterns_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "product.h5"
    pixel = 2e-8
    with h5py.File(path, "w") as file:
        file.attrs["far_field"] = False
        file["patterns"], file["object"] = COUNTS.astype("u4"), SCAN.object
        file["object"].attrs.update(
            center_x_m=0.0, center_y_m=0.0, pixel_width_m=pixel, pixel_height_m=pixel
        )
        assert SCAN.object is not None
        x, y = (SCAN.positions - np.array(SCAN.object.shape[::-1]) / 2).T * pixel
        file["probe_position_x_m"], file["probe_position_y_m"] = x, y
    assert "near-field" in warned(path)[1]
    with h5py.File(path, "r+") as file:
        file.attrs["far_field"] = True
    scan, said = warned(path)
    assert not said
    np.testing.assert_allclose(scan.positions, SCAN.positions)


def test_bad_pixels_of_a_scan_made_by_hand_are_written(tmp_path: Path) -> None:
    bad = np.zeros((n, N, N), bool)
    bad[3, 4, 5] = True
    scan = replace(SCAN, bad_pixels=BadPixels.of(bad))
    pf.write_scan(scan, tmp_path / "a.npz")
    for load in (True, False):
        again = pf.read_scan(tmp_path / "a.npz", load=load)
        np.testing.assert_array_equal(again.measured(np.arange(n))[1], ~bad)
