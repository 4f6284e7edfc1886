"""The same results as the existing implementation, whose outputs were recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from places import SHARED
from ptycho_fast.ptychopinn import RawData, get_image_patches
from records import tolerance

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GOLDENS = ("goldballs_als_simdiff_n104", "run1084_xpp_simdiff_n64", "siemens_star_aps_n128")


@pytest.fixture(params=GOLDENS)
def golden(request: pytest.FixtureRequest) -> tuple[Path, dict[str, NDArray[Any]]]:
    frozen, scan = (SHARED / folder / f"{request.param}.npz" for folder in ("goldens", "data"))
    if not (frozen.exists() and scan.exists()):
        pytest.skip(f"{frozen} or {scan} is missing")
    with np.load(frozen) as file:
        return scan, dict(file)


def test_groups_are_those_of_the_existing_implementation(
    golden: tuple[Path, dict[str, NDArray[Any]]],
) -> None:
    _, arrays = golden
    x, y = arrays["xcoords"], arrays["ycoords"]
    record = RawData(x, y, x, y, None, None, None)
    compared = 0
    for name, expected in arrays.items():
        if match := re.fullmatch(r"groups_gridsize(\d+)_K(\d+)_nsamples(\d+)_seed(\d+)", name):
            gridsize, K, B, seed = map(int, match.groups())
            groups = record._generate_groups_efficiently(B, K, gridsize**2, seed=seed)
            np.testing.assert_array_equal(groups, expected, err_msg=name)
            compared += 1
    assert compared == 16


def test_grouped_data_is_that_of_the_existing_implementation(
    golden: tuple[Path, dict[str, NDArray[Any]]],
) -> None:
    scan, arrays = golden
    words = str(arrays["dict_args"]).split()
    arguments: dict[str, Any] = {
        name: int(value) for name, value in (word.split("=") for word in words)
    }
    data = RawData.from_file(scan).generate_grouped_data(**arguments)
    np.testing.assert_array_equal(data["nn_indices"], arrays["dict_nn_indices"])
    np.testing.assert_array_equal(data["coords_nn"], arrays["dict_coords_nn"])
    for key in ("coords_offsets", "coords_relative"):
        np.testing.assert_allclose(data[key], arrays[f"dict_{key}"], rtol=0, atol=1e-12)
    first, total = arrays["dict_X_full_first2"], float(arrays["dict_X_full_sum"])
    np.testing.assert_allclose(data["X_full"][:2], first, rtol=1e-6)
    assert float(data["X_full"].sum(dtype=np.float64)) == pytest.approx(total, rel=1e-6)


def test_patches_are_those_of_the_existing_implementation() -> None:
    name = "goldballs_als_simdiff_n104.npz"
    if not ((SHARED / "goldens" / name).exists() and (SHARED / "data" / name).exists()):
        pytest.skip(f"{SHARED} has no {name}")
    arrays = dict(np.load(SHARED / "goldens" / name))
    obj = RawData.from_file(SHARED / "data" / name).objectGuess
    assert obj is not None

    offsets, relative = arrays["dict_coords_offsets"][:4], arrays["dict_coords_relative"][:4]
    patches = get_image_patches(obj, offsets, relative, N=64, gridsize=2)
    expected = arrays["patches_N64_gridsize2_first4"]
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))

    positions = np.stack([arrays["xcoords"], arrays["ycoords"]], axis=1)[:6, None, :, None]
    patches = get_image_patches(obj, positions, np.zeros_like(positions), N=64, gridsize=1)
    expected = arrays["patches_N64_gridsize1_first6"]
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))
