"""Every public behaviour of scan files (docs/contract.md, section 8), one test each, by name.

This is the list to go through before a release: short, from the outside, on a file. Variants and
edges are tested in test_scan_files.py and test_formats.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def arrays(n: int = 7, N: int = 4) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(5, 15, (2, n))
    return {"xcoords": x, "ycoords": y, "diff3d": rng.uniform(0, 9, (n, N, N)).astype("f4")}


def saved(folder: Path, **changes: Any) -> Path:
    """Write an NPZ scan by np.savez; a change of None leaves a key out."""
    content = {key: value for key, value in (arrays() | changes).items() if value is not None}
    np.savez(folder / "a.npz", **content)
    return folder / "a.npz"


def test_xcoords_ycoords_diff3d_are_enough(tmp_path: Path) -> None:
    scan, given = pf.read_scan(saved(tmp_path)), arrays()
    np.testing.assert_array_equal(scan.positions, np.stack([given["xcoords"], given["ycoords"]], 1))
    np.testing.assert_array_equal(scan.diffraction, given["diff3d"])
    assert (scan.probe, scan.object, scan.scan_index, dict(scan.metadata)) == (None, None, None, {})


@pytest.mark.parametrize("missing", ["xcoords", "ycoords", "diff3d"])
def test_a_file_without_positions_or_patterns_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        pf.read_scan(saved(tmp_path, **{missing: None}))


def test_patterns_may_be_named_diff3d_or_diffraction(tmp_path: Path) -> None:
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=None, diffraction=stack))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_frames_last_are_recognised_by_the_length_of_xcoords(tmp_path: Path) -> None:
    """(N,N,n)"""
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=stack.transpose(1, 2, 0)))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_a_last_axis_of_one_is_dropped(tmp_path: Path) -> None:
    """(n,N,N,1)"""
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diff3d=stack[..., np.newaxis]))
    np.testing.assert_array_equal(scan.diffraction, stack)


def test_if_both_layouts_fit_axis_0_is_the_frames(tmp_path: Path) -> None:
    """(n = N)"""
    scan = pf.read_scan(saved(tmp_path, **arrays(n=4, N=4)))
    np.testing.assert_array_equal(scan.diffraction, arrays(n=4, N=4)["diff3d"])


def test_diff3d_and_diffraction_may_both_be_there_if_equal(tmp_path: Path) -> None:
    stack = arrays()["diff3d"]
    scan = pf.read_scan(saved(tmp_path, diffraction=stack))
    np.testing.assert_array_equal(scan.diffraction, stack)
    assert "diffraction" not in scan.metadata


def test_diff3d_and_diffraction_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'diff3d' and 'diffraction', and they differ"):
        pf.read_scan(saved(tmp_path, diffraction=arrays()["diff3d"] + 1))


def test_the_optional_keys_have_their_places(tmp_path: Path) -> None:
    start, probe, obj = np.arange(7.0), np.ones((2, 4, 4), complex), np.ones((30, 40), complex)
    path = saved(
        tmp_path, xcoords_start=start, ycoords_start=-start, probeGuess=probe, objectGuess=obj,
        scan_index=np.arange(7), Y=np.ones((7, 4, 4)), temperature=21.5,
    )  # fmt: skip
    scan = pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions_start, np.stack([start, -start], 1))
    assert scan.probe is not None
    assert scan.probe.shape == (2, 4, 4)
    assert scan.object is not None
    assert scan.object.shape == (30, 40)
    np.testing.assert_array_equal(scan.scan_index, np.arange(7))
    # Keys not named there are kept in Scan.metadata.
    assert scan.metadata["temperature"] == 21.5
    assert RawData.from_file(path).Y.shape == (7, 4, 4)  # type: ignore[union-attr]


def test_the_start_coordinates_are_by_default_the_coordinates(tmp_path: Path) -> None:
    scan = pf.read_scan(saved(tmp_path))
    np.testing.assert_array_equal(scan.positions_start, scan.positions)


def test_a_scan_index_without_repeats_separates_nothing(tmp_path: Path) -> None:
    """A counter, not a label."""
    counter, none = np.arange(7), None
    drawn = [
        RawData.from_file(saved(tmp_path, scan_index=each)).generate_grouped_data(
            4, K=6, nsamples=7, seed=1, gridsize=2
        )["nn_indices"]
        for each in (counter, none)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    "stored",
    [
        np.array({"a": 1, "nphotons": 1e9}, object),
        np.array('{"a": 1, "nphotons": 1e9}'),
        np.array(['{"a": 1, "nphotons": 1e9}'], object),
    ],
)
def test_metadata_is_read_without_running_code(tmp_path: Path, stored: Any) -> None:
    path = saved(tmp_path, _metadata=stored)
    expected = {"a": 1, "nphotons": 1e9}
    assert pf.read_scan(path).metadata["_metadata"] == expected
    assert RawData.from_file(path).metadata == expected


def test_metadata_that_would_run_code_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path, _metadata=np.array({"a": np.load}, object))
    for read in (pf.read_scan, RawData.from_file):
        with pytest.raises(ValueError, match=r"'_metadata' can't be read: it names numpy\.load"):
            read(path)


def test_any_other_pickled_key_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, probeGuess=np.array({"a": 1}, object))
    with pytest.raises(ValueError, match=r"'probeGuess'.*allow_pickle=True"):
        pf.read_scan(path)


def test_intensity_takes_square_roots(tmp_path: Path) -> None:
    """... it never guesses (section 1)"""
    path = saved(tmp_path)
    amplitude = pf.read_scan(path).diffraction
    np.testing.assert_array_equal(amplitude, arrays()["diff3d"])
    rooted = pf.read_scan(path, intensity=True).diffraction
    np.testing.assert_allclose(rooted, np.sqrt(amplitude), rtol=1e-6)


def test_positions_of_a_ptychodus_product_are_pixels_of_its_object(tmp_path: Path) -> None:
    """x = (probe_position_x_m - center_x_m) / pixel_width_m + W/2, y alike"""
    h5py = pytest.importorskip("h5py")
    height, width, pixel = 40, 50, 2e-9
    x, y = np.random.default_rng(1).uniform(-15, 15, (2, 7)) * pixel
    with h5py.File(tmp_path / "product.h5", "w") as file:
        file["object"] = np.ones((1, height, width), complex)
        file["object"].attrs.update({
            "pixel_width_m": pixel, "pixel_height_m": 1.5 * pixel, "center_x_m": 3e-9,
            "center_y_m": -4e-9,
        })  # fmt: skip
        file["probe_position_x_m"], file["probe_position_y_m"] = x, y
        file["probe_position_indexes"] = np.arange(7)
        file["patterns"] = np.ones((7, 4, 4), "u2")
    scan = pf.read_scan(tmp_path / "product.h5", counts=True)
    expected = [(x - 3e-9) / pixel + width / 2, (y + 4e-9) / (1.5 * pixel) + height / 2]
    np.testing.assert_allclose(scan.positions, np.stack(expected, 1), rtol=1e-9)


def test_positions_of_cxi_are_minus_the_translation_along_the_basis(tmp_path: Path) -> None:
    """Minus the translation along the basis vectors ... the smallest x and y are N//2."""
    h5py = pytest.importorskip("h5py")
    side, distance, pixel, wavelength = 4, 2.0, 1e-4, 1e-10
    moved = np.random.default_rng(1).uniform(0, 1e-5, (7, 3))
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["cxi_version"] = 160
        detector = file.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = np.ones((7, side, side), "u2")
        detector["distance"], detector["x_pixel_size"], detector["y_pixel_size"] = (
            distance, pixel, pixel,
        )  # fmt: skip
        # Slow axis, then fast: (rows go down, columns to the left).
        detector["basis_vectors"] = np.array([[0, -pixel, 0], [-pixel, 0, 0]])
        file["entry_1/instrument_1/source_1/wavelength"] = wavelength
        file["entry_1/sample_1/geometry_1/translation"] = moved
    scan = pf.read_scan(tmp_path / "a.cxi")
    step = wavelength * distance / (side * pixel)
    expected = moved[:, :2] / step
    expected += side // 2 - expected.min(axis=0)
    np.testing.assert_allclose(scan.positions, expected, rtol=1e-9)
