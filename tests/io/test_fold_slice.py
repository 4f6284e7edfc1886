"""Scans of fold_slice and PtychoShelves, written by the rules of their programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import (
    DISTANCE,
    ENERGY,
    OBJECT_PIXEL,
    PIXEL,
    WAVELENGTH,
    N,
    Truth,
    check_image,
    check_ways,
    misfit,
    n,
    truth,
)
from ptycho_fast.io.suggest import proposal

if TYPE_CHECKING:
    from pathlib import Path

h5py = pytest.importorskip("h5py")

GEOMETRY: dict[str, Any] = {
    "energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL,
}  # fmt: skip
WRONG = ["swap_xy", "flip_x", "flip_y"]


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def pair(folder: Path, of: Truth, **changes: Any) -> Path:
    """Write the two files as the scripts of a beamline do; None leaves an entry out."""
    with h5py.File(folder / "data_roi0_Ndp32_dp.hdf5", "w") as file:
        file.create_dataset("dp", data=of.counts.astype("f4"), compression="gzip")
    entries = {
        "ppX": of.x[:, np.newaxis], "ppY": of.y[:, np.newaxis],
        "dx": np.array([OBJECT_PIXEL]), "lambda": np.array([WAVELENGTH]), **changes,
    }  # fmt: skip
    with h5py.File(folder / "data_roi0_Ndp32_para.hdf5", "w") as file:
        for key, value in entries.items():
            if value is not None:
                file[key] = value
    return folder / "data_roi0_Ndp32_dp.hdf5"


@pytest.mark.parametrize("which", ["_dp", "_para"])
def test_a_pair_of_files_explains_its_patterns(tmp_path: Path, of: Truth, which: str) -> None:
    path = pair(tmp_path, of)
    scan = pf.read_scan(path.with_name(path.name.replace("_dp", which)))
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    assert scan.metadata["object_pixel_m"] == pytest.approx((OBJECT_PIXEL, OBJECT_PIXEL))
    check_ways(path, scan)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_pair_read_the_wrong_way_explains_nothing(tmp_path: Path, of: Truth, wrong: str) -> None:
    turned: dict[str, Any] = {wrong: True}
    assert misfit(pf.read_scan(pair(tmp_path, of), **turned), of) > 10


def test_cropping_makes_the_pixels_of_the_object_larger(tmp_path: Path, of: Truth) -> None:
    scan = pf.read_scan(pair(tmp_path, of), crop=16)
    step = np.diff(of.scan.positions, axis=0) / 2
    np.testing.assert_allclose(np.diff(scan.positions, axis=0), step, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "options"),
    [
        (1 / OBJECT_PIXEL, {"unit": "px"}),
        (1e6, {"unit": "um", **GEOMETRY}),
    ],
)
def test_without_dx_the_unit_is_asked_for(
    tmp_path: Path, of: Truth, factor: float, options: dict[str, Any]
) -> None:
    path = pair(tmp_path, of, dx=None, ppX=of.x * factor, ppY=of.y * factor)
    with pytest.raises(KeyError, match="does not say dx.*Pass unit=px, or unit=m"):
        pf.read_scan(path)
    assert "--unit ? --energy-eV ? --distance-m ?" in proposal(path)
    assert misfit(pf.read_scan(path, **options), of) == pytest.approx(1, abs=0.1)


def test_matlab_reverses_the_axes_of_what_it_saves(tmp_path: Path, of: Truth) -> None:
    path = tmp_path / "scan.mat"
    # dp(row, column, frame) and ppX(frame, 1) of MATLAB.
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, values in {
            "dp": of.counts.transpose(1, 2, 0).astype("f8"),
            "ppX": of.x[:, np.newaxis], "ppY": of.y[:, np.newaxis],
            "dx": np.full((1, 1), OBJECT_PIXEL),
        }.items():  # fmt: skip
            file[key] = values.transpose()
            file[key].attrs["MATLAB_class"] = np.bytes_("double")
    for load in (True, False):
        scan = pf.read_scan(path, load=load)
        assert misfit(scan, of) == pytest.approx(1, abs=0.1)
        np.testing.assert_array_equal(scan.diffraction[:], np.sqrt(of.counts, dtype="f4"))
    check_ways(path, pf.read_scan(path))
    assert misfit(pf.read_scan(path, swap_xy=True), of) > 10


def test_a_mask_of_matlab_is_turned_as_the_patterns_are(tmp_path: Path, of: Truth) -> None:
    path = pair(tmp_path, of)
    stored = of.counts[:, :, 4:28].astype("f4")
    bad = np.zeros(stored.shape[1:], bool)
    bad[10, 3] = True
    stored[:, bad] = 2 * stored.max()
    with h5py.File(path, "r+") as file:
        del file["dp"]
        file["dp"] = stored
        file["dp"].attrs["MATLAB_class"] = np.bytes_("single")
        file["bad"] = bad
    scan, plain = (pf.read_scan(path, mask=mask, crop=24) for mask in ("/bad", None))
    brightest = plain.diffraction == plain.diffraction[:].max()
    assert brightest[0].sum() == 1
    np.testing.assert_array_equal(scan.mask, ~brightest[0])


def matlab5(path: Path, of: Truth, **changes: Any) -> Path:
    """Save dp(row, column, frame), ppX(frame, 1) and ppY with MATLAB's default, version 5."""
    io = pytest.importorskip("scipy.io")
    arrays = {
        "dp": of.counts.transpose(1, 2, 0).astype("f8"), "ppX": of.x[:, np.newaxis],
        "ppY": of.y[:, np.newaxis], "dx": OBJECT_PIXEL, "note": "text", **changes,
    }  # fmt: skip
    io.savemat(path, {key: value for key, value in arrays.items() if value is not None})
    return path


def test_matlab_files_of_version_5_are_read(tmp_path: Path, of: Truth) -> None:
    path = matlab5(tmp_path / "scan.mat", of)
    scan = pf.read_scan(path)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(of.counts, dtype="f4"))
    check_ways(path, scan)
    assert misfit(pf.read_scan(path, swap_xy=True), of) > 10
    named = pf.read_scan(
        path, diffraction="dp", x="ppX", y="ppY", unit="m", counts=True, **GEOMETRY
    )
    np.testing.assert_allclose(named.positions, scan.positions)
    with pytest.raises(KeyError, match=r"has no 'dq'. It has: dp \(32, 32, 60\)"):
        pf.read_scan(path, diffraction="dq", x="ppX", y="ppY", unit="px", counts=True)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(OSError, match="is damaged or cut short at byte 3000 of 3000"):
        pf.read_scan(path)


def test_what_holds_no_real_numbers_in_matlab_is_refused(tmp_path: Path, of: Truth) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    cells = np.empty(n, object)
    cells[:] = list(of.counts)
    frames = of.counts.transpose(1, 2, 0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"dp": frames * (1 + 1j)}, "'/dp' must be frames .* real numbers, got complex128 of"),
        ({"dp": cells}, r"'dp' is of MATLAB's class cell .*1, 60.*Save cat\(3, dp\{:\}\) instead"),
        ({"dp": {"a": frames}}, r"'dp' is of MATLAB's class struct .*Save dp\.FIELD"),
        ({"ppX": "text"}, "'ppX' is of MATLAB's class char"),
        ({"ppX": sparse.csc_matrix(of.x[:, None])}, r"class sparse .*Save full\(ppX\)"),
    ]
    for changes, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            pf.read_scan(matlab5(tmp_path / "scan.mat", of, **changes))
    with pytest.raises(KeyError, match=r"no layout that is known.* dq \(1, 60\)"):
        pf.read_scan(matlab5(tmp_path / "scan.mat", of, dp=None, dq=cells))


@pytest.mark.parametrize("which", ["_dp", "_para"])
def test_a_pair_needs_both_files(tmp_path: Path, of: Truth, which: str) -> None:
    path = pair(tmp_path, of)
    other = path.with_name(path.name.replace("_dp", "_para"))
    path, other = (path, other) if which == "_dp" else (other, path)
    other.rename(tmp_path / "moved.hdf5")
    with pytest.raises(KeyError, match=rf"it holds .*, but {other} is missing. Copy it too.* It h"):
        pf.read_scan(path)
    with h5py.File(other, "w") as file:
        file["other"] = 1
    with pytest.raises(KeyError, match=f"but {other} does not hold "):
        pf.read_scan(path)
    assert "--diffraction" in proposal(path)
    h5py.File(tmp_path / "plain.hdf5", "w").close()
    with pytest.raises(KeyError, match="no layout that is known"):
        pf.read_scan(tmp_path / "plain.hdf5")


def shelves(path: Path, of: Truth) -> Path:
    """Write what PtychoShelves prepares, with whole pixels for positions."""
    corners = np.rint(of.scan.positions[:, ::-1] - N // 2).astype("u4")
    with h5py.File(path, "w") as file:
        file.attrs["format"] = 2
        file["measurement/n0/data"] = of.counts.astype("f4")
        file["measurement/n0/positions"] = corners
        file["measurement/n0"].attrs["detector"] = np.uint32(0)
        # Rows and columns of each module, and its first row and column.
        file["detector/n0/modules"] = np.array([[10, N, 0, 0], [N - 13, N, 13, 0]], "u4")
        file["detector/n0/bad_pixels"] = np.array([[20, 3], [21, 7]], "u4")
    return path


def test_data_prepared_by_ptychoshelves_explain_themselves(tmp_path: Path) -> None:
    of = truth(whole_pixels=True)
    path = shelves(tmp_path / "a.h5", of)
    scan = pf.read_scan(path)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    # The first pixel of a window is no mean that may be shifted.
    np.testing.assert_array_equal(scan.positions, of.scan.positions)
    for wrong in WRONG:
        turned: dict[str, Any] = {wrong: True}
        assert misfit(pf.read_scan(path, **turned), of) > 10
    check_ways(path, scan)
    good = np.ones((N, N), bool)
    good[10:13], good[20, 3], good[21, 7] = False, False, False
    np.testing.assert_array_equal(scan.mask, good)


def test_pixels_that_ptychoshelves_masks_in_single_frames(tmp_path: Path, of: Truth) -> None:
    path = shelves(tmp_path / "a.h5", of)
    ends = np.full(n, 3)
    ends[:5] = 0
    with h5py.File(path, "r+") as file:
        file["measurement/n0/bad_pixels"] = np.array([[15, 16], [17, 18], [19, 20]], "u4")
        file["measurement/n0/bad_pixels_index"] = ends
    measured = pf.read_scan(path).measured(np.arange(n))[1]
    assert measured is not None
    found = np.argwhere(measured[0] & ~measured)
    assert found.tolist() == [[5, 15, 16], [5, 17, 18], [5, 19, 20]]
    with h5py.File(path, "r+") as file:
        del file["measurement/n0/bad_pixels_index"]
    with pytest.warns(UserWarning, match="without .*bad_pixels_index it is not known of which"):
        pf.read_scan(path)


def test_one_of_several_scans_must_be_named(tmp_path: Path, of: Truth) -> None:
    path = shelves(tmp_path / "a.h5", of)
    with h5py.File(path, "r+") as file:
        file.copy("measurement/n0", "measurement/n1")
        file["measurement/n1/positions"][:, 0] += 2
    with pytest.raises(KeyError, match="holds 2 scans. Name one of them: diffraction=/meas"):
        pf.read_scan(path)
    assert "--diffraction ?" in proposal(path)
    scan = pf.read_scan(path, diffraction="/measurement/n1/data")
    first = pf.read_scan(path, diffraction="/measurement/n0/data")
    np.testing.assert_array_equal(scan.positions - first.positions, np.tile([0, 2], (n, 1)))
    with pytest.raises(ValueError, match="is none of them"):
        pf.read_scan(path, diffraction="/dp")


def test_wrong_windows_of_ptychoshelves_are_refused(tmp_path: Path, of: Truth) -> None:
    path = shelves(tmp_path / "a.h5", of)
    with h5py.File(path, "r+") as file:
        del file["measurement/n0/positions"]
        file["measurement/n0/positions"] = np.zeros((2, n))
    with pytest.raises(ValueError, match=r"positions must be \(60, 2\), row and column"):
        pf.read_scan(path)


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        (
            "detector/n0/bad_pixels",
            np.array([[0, N]]),
            "row 0, column 32 of a detector of 32 x 32",
        ),
        ("detector/n0/bad_pixels", np.array([1, 2, 3]), r"must be whole numbers \(m, 2\)"),
        ("detector/n0/modules", np.zeros((2, 4)), r"must be whole numbers \(m, 4\)"),
        # A picture of the bad pixels has as many numbers as some list.
        ("detector/n0/bad_pixels", np.zeros((N, N), "i4"), r"whole numbers \(m, 2\).*\(32, 32\)"),
        ("detector/n0/bad_pixels", np.array([[-1, 2]]), "none of them negative"),
        ("detector/n0/modules", np.array([[N, N, -1, 0]]), "none of them negative"),
        (
            "detector/n0/modules",
            np.array([[N, N, 1, 0]]),
            "module of 32 x 32 pixels from row 1, column 0, beyond the detector's 32 x 32",
        ),
        ("measurement/n0/bad_pixels_index", np.full(n - 1, 3), r"60 whole numbers that rise to 3"),
        ("measurement/n0/bad_pixels_index", np.full(n, 3.0), r"60 whole numbers that rise to 3"),
        ("measurement/n0/bad_pixels_index", np.full(n, 2), r"rise to 3.* that ends in 2"),
        (
            "measurement/n0/bad_pixels_index",
            np.r_[3, 2, np.full(n - 2, 3)],
            "whole numbers that rise to 3",
        ),
    ],
)
def test_wrong_masks_of_ptychoshelves_are_refused(
    tmp_path: Path, of: Truth, key: str, values: Any, sentence: str
) -> None:
    path = shelves(tmp_path / "a.h5", of)
    with h5py.File(path, "r+") as file:
        file["measurement/n0/bad_pixels"] = np.array([[15, 16], [17, 18], [19, 20]], "u4")
        if key in file:
            del file[key]
        file[key] = values
    with pytest.raises(ValueError, match=sentence):
        pf.read_scan(path)


@pytest.mark.parametrize("named", [3, "n0", np.zeros(2), 0.5])
def test_a_detector_that_ptychoshelves_lacks_is_missed(
    tmp_path: Path, of: Truth, named: Any
) -> None:
    path = shelves(tmp_path / "a.h5", of)
    with h5py.File(path, "r+") as file:
        file["measurement/n0"].attrs["detector"] = named
    with pytest.raises(ValueError, match="names .* as its detector, but there is no /detector/n"):
        pf.read_scan(path)


def test_patterns_of_ptychoshelves_that_are_a_group_are_missed(tmp_path: Path, of: Truth) -> None:
    path = shelves(tmp_path / "a.h5", of)
    with h5py.File(path, "r+") as file:
        del file["measurement/n0/data"]
        file.create_group("measurement/n0/data")
    with pytest.raises(ValueError, match="its data is no array"):
        pf.read_scan(path)


@pytest.mark.parametrize("dx", [0.0, np.nan, np.zeros(0), np.ones(2)])
def test_a_pixel_of_the_object_is_one_positive_number(tmp_path: Path, of: Truth, dx: Any) -> None:
    path = pair(tmp_path, of, dx=dx)
    with pytest.raises(ValueError, match="dx, the size of a pixel of the object, is"):
        pf.read_scan(path)
    assert misfit(pf.read_scan(path, unit="m", **GEOMETRY), of) == pytest.approx(1, abs=0.1)


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    check_image(lambda of: pf.read_scan(pair(tmp_path, of)))
    check_image(lambda of: pf.read_scan(shelves(tmp_path / "a.h5", of)))
