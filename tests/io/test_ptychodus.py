"""Products of ptychodus, and the files of their patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from beamline_files import N, counts, motors, n
from explained import misfit, truth

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")


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
def test_a_ptychodus_product_is_joined_with_its_patterns(tmp_path: Path) -> None:
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


def test_a_ptychodus_product_may_hold_its_patterns(tmp_path: Path) -> None:
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
        (
            {"pixel_width_m": None, "pixel_height_m": None}, {},
            KeyError, "the object lacks pixel_width_m, pixel_height_m",
        ),
        ({}, {"flip_x": True}, ValueError, "which says itself.*leave out flip_x"),
        ({}, {"unit": "m", "y": "b"}, ValueError, "leave out y, unit"),
        ({"dp": counts("u2", (n, 16, 16))}, {}, ValueError, "8 pixels a side.*Pass crop=8"),
        ({"dp": counts("u2", (n, 16, 16))}, {"bin": 2, "crop": 8}, ValueError, "Pass crop=16"),
        ({"dp": counts()}, {"index": "probe_position_x_m"}, ValueError, "must be whole numbers"),
    ],
)  # fmt: skip
def test_wrong_ptychodus_products_are_refused(
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        pf.read_scan(product(tmp_path / "a.h5", **changes), **options)


@pytest.mark.parametrize("name", ["pixel_width_m", "pixel_height_m", "center_x_m"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1j, "1e-8", np.ones(2), np.zeros(0)])
def test_a_length_of_the_object_is_one_number(tmp_path: Path, name: str, value: Any) -> None:
    path = product(tmp_path / "a.h5", dp=counts(), **{name: value})
    with pytest.raises(ValueError, match=f"{name} of the object is .*which is no"):
        pf.read_scan(path)


@pytest.mark.parametrize("value", [0.0, -1e-8])
def test_a_pixel_of_the_object_has_a_size(tmp_path: Path, value: float) -> None:
    path = product(tmp_path / "a.h5", dp=counts(), pixel_width_m=value)
    with pytest.raises(ValueError, match="pixel_width_m of the object is .*no positive number"):
        pf.read_scan(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"object": 1.0}, {"object": np.ones(300)}, {"object": np.full((300, 400), b"a")},
        {"probe": 1.0}, {"probe": np.ones((0, 1, N, N))}, {"probe": np.ones((2, 0, N, N))},
        {"probe": np.full((N, N), b"a")}, {"probe": np.ones((1, 1, 1, N, N))},
    ],
)  # fmt: skip
def test_what_is_no_object_or_probe_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = product(tmp_path / "a.h5", dp=counts(), **changes)
    (what,) = changes
    with pytest.raises(ValueError, match=f"the {what} has shape .* but .* complex is needed"):
        pf.read_scan(path)


@pytest.mark.parametrize("said", ["False", np.array([False, False]), np.bytes_("false"), 0])
def test_near_fields_are_noticed_however_they_are_said(tmp_path: Path, said: Any) -> None:
    path = product(tmp_path / "a.h5", dp=counts(), probe_position_indexes=np.arange(n))
    with h5py.File(path, "r+") as file:
        file.attrs["far_field"] = said
    with pytest.warns(UserWarning, match="near-field ones"):
        pf.read_scan(path)


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


@pytest.mark.parametrize("side", [31, 32])
@pytest.mark.parametrize("kind", ["h5", "npz", "training"])
def test_windows_lie_on_the_object_as_ptychodus_lays_them(
    tmp_path: Path, side: int, kind: str
) -> None:
    of = truth(side, whole_pixels=True)
    assert of.scan.object is not None
    height, width = of.scan.object.shape
    # The middle of n pixels is at (n - 1) / 2: of a window, and of the object.
    middle = of.scan.positions - side // 2 + (side - 1) / 2
    x, y = ((middle - (np.array([width, height]) - 1) / 2) * OBJECT_PIXEL + CENTER).T
    common = {"object": of.scan.object, "probe": of.scan.probe, "patterns": of.counts}
    metres = {"probe_position_x_m": x, "probe_position_y_m": y}
    grid = {"center_x_m": CENTER[0], "center_y_m": CENTER[1], "pixel_width_m": OBJECT_PIXEL[0],
            "pixel_height_m": OBJECT_PIXEL[1]}  # fmt: skip
    path = tmp_path / "a.h5"
    if kind == "npz":
        path = tmp_path / "a.npz"
        turned = {f"object_{name}": value for name, value in grid.items()}
        np.savez_compressed(path, **common, **metres, **turned)  # type: ignore[arg-type]
    else:
        pixels = {"probe_position_x_px": middle[:, 0], "probe_position_y_px": middle[:, 1]}
        with h5py.File(path, "w") as file:
            for key, value in {**common, **(pixels if kind == "training" else metres)}.items():
                file[key] = value
            if kind == "h5":
                file["object"].attrs.update(grid)
    scan = pf.read_scan(path)
    assert scan.object is not None
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(scan.positions, of.scan.positions, atol=1e-6)


@pytest.mark.parametrize("which", ["_dp", "_para"])
@pytest.mark.parametrize("centre", [True, False])
def test_a_product_and_its_patterns_may_be_a_pair(tmp_path: Path, which: str, centre: bool) -> None:
    of = truth(whole_pixels=True)
    assert of.scan.object is not None
    pixel, (height, width) = 1e-8, of.scan.object.shape
    x, y = ((of.scan.positions - np.array([width, height]) / 2) * pixel + CENTER).T
    with h5py.File(tmp_path / "scan_dp.hdf5", "w") as file:
        file["dp"] = of.counts
    with h5py.File(tmp_path / "scan_para.hdf5", "w") as file:
        file["object"], file["probe"] = of.scan.object[np.newaxis], of.scan.probe
        file["probe_position_x_m"], file["probe_position_y_m"] = x, y
        file["object"].attrs["pixel_height_m"] = pixel
        if centre:
            file["object"].attrs.update(center_x_m=CENTER[0], center_y_m=CENTER[1])
    path = tmp_path / f"scan{which}.hdf5"
    if centre:
        scan = pf.read_scan(path)
        np.testing.assert_allclose(scan.positions, of.scan.positions, atol=1e-6)
    else:
        with pytest.warns(UserWarning, match="does not say where its object lies"):
            scan = pf.read_scan(path)
    assert (scan.object is not None) == centre
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
