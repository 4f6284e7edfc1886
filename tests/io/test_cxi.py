"""CXI files, written by the rules of cxidb.org."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import explained
import ptycho_fast as pf
from beamline_files import (
    DISTANCE,
    ENERGY,
    GEOMETRY,
    PIXEL,
    WAVELENGTH,
    N,
    counts,
    expected,
    motors,
    n,
)
from explained import Truth, check_image, check_ways, misfit, truth
from ptycho_fast.io.suggest import proposal

if TYPE_CHECKING:
    from pathlib import Path


h5py = pytest.importorskip("h5py")


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


def test_cxi_is_read_by_its_own_rules(tmp_path: Path) -> None:
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


def test_cxi_is_read_without_its_optional_entries(tmp_path: Path) -> None:
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


def test_cxi_mask_and_probe_are_cropped_with_the_patterns(tmp_path: Path) -> None:
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
            ValueError, "is 8800 J, and no photon has so many.*Pass energy_eV=",
        ),
        ({"entry_1/instrument_1/source_1/energy": None}, {}, KeyError, "Pass energy_eV="),
        (
            {f"{DETECTOR}/x_pixel_size": None, f"{DETECTOR}/basis_vectors": None}, {},
            KeyError, "has no x_pixel_size. Pass detector_pixel_m=",
        ),
        ({f"{DETECTOR}/basis_vectors": np.zeros((3, 2))}, {}, ValueError, "two directions"),
        ({f"{DETECTOR}/basis_vectors": np.eye(3)}, {}, ValueError, "two directions"),
        ({f"{DETECTOR}/basis_vectors": np.ones((5, 2, 3))}, {}, ValueError, "5 basis_vectors"),
        (
            {f"{DETECTOR}/basis_vectors": np.full((3, 2), b"a")}, {},
            ValueError, r"two directions.* got shape \(3, 2\) of \|S1",
        ),
        ({f"{DETECTOR}/basis_vectors": np.full((3, 2), np.nan)}, {}, ValueError, "two directions"),
        ({f"{DETECTOR}/distance": b"1 m"}, {}, ValueError, "no positive number"),
        (
            {"entry_1/instrument_1/source_1/illumination": np.full((N, N), b"a")}, {},
            ValueError, r"is the illumination, but it has shape \(8, 8\) of \|S1",
        ),
        (
            {"entry_1/instrument_1/source_1/illumination": np.ones((1, 0, N, N))}, {},
            ValueError, r"is the illumination, but it has shape \(1, 0, 8, 8\)",
        ),
        ({f"{DETECTOR}/mask": np.zeros((3, 3), int)}, {}, ValueError, "bools or numbers"),
        ({}, {"unit": "px"}, ValueError, "CXI positions are in metres"),
        ({}, {"x": "a"}, ValueError, "so x can't be named alone"),
    ],
)  # fmt: skip
def test_wrong_cxi_files_are_refused(
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


def test_an_epoch_from_a_cxi_file_is_the_same_lazily(tmp_path: Path) -> None:
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


def test_patterns_of_a_cxi_file_may_be_in_another(tmp_path: Path) -> None:
    whole = cxi(tmp_path / "whole.cxi", **{f"{DETECTOR}/mask": np.eye(N, dtype="u4")})
    with h5py.File(whole) as old, h5py.File(tmp_path / "positions.cxi", "w") as file:
        for key in ("cxi_version", TRANSLATION, "entry_1/instrument_1/source_1/energy"):
            file[key] = old[key][()]
    with h5py.File(whole, "r+") as file:
        del file[TRANSLATION]
    with pytest.raises(KeyError, match="has no positions"):
        pf.read_scan(whole)
    with pytest.raises(KeyError, match="holds no patterns. Name those.*diffraction='FILE:/entry_1"):
        pf.read_scan(tmp_path / "positions.cxi")
    assert "--diffraction ?" in proposal(tmp_path / "positions.cxi")
    scan = pf.read_scan(tmp_path / "positions.cxi", diffraction=f"{whole}:/{DETECTOR}/data")
    np.testing.assert_allclose(scan.positions, expected(*motors()), rtol=1e-12)
    # What is said of the detector lies beside the patterns.
    np.testing.assert_array_equal(scan.mask, ~np.eye(N, dtype=bool))


def nexus(path: Path, of: Truth) -> Path:
    """Write NXcxi_ptycho: the names of CXI, but units of anyone's choice."""
    # The sample moves against the beam; x is to the left and y upwards, against the columns and
    # rows of the detector.
    moved = np.stack([of.x, of.y, 0 * of.x], axis=1)
    entries = {
        f"{DETECTOR}/data": (of.counts, None),
        f"{DETECTOR}/translation": (moved * 1e6, "um"),
        f"{DETECTOR}/distance": (explained.DISTANCE * 1e3, "mm"),
        f"{DETECTOR}/x_pixel_size": (explained.PIXEL * 1e6, "micron"),
        f"{DETECTOR}/y_pixel_size": (explained.PIXEL * 1e6, "micron"),
        "entry_1/instrument_1/beam_1/energy": (explained.ENERGY / 1e3, "keV"),
        "entry_1/instrument_1/source_1/energy": (3.0, "GeV"),
        "entry_1/sample_1/name": (b"star", None),
    }
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/definition"] = "NXcxi_ptycho"
        for key, (value, unit) in entries.items():
            file[key] = value
            if unit is not None:
                file[key].attrs["units"] = unit
        file["entry_1/data_1/data"] = h5py.SoftLink(f"/{DETECTOR}/data")
        file["entry_1/sample_1/geometry_1/translation"] = file[f"{DETECTOR}/translation"]
    return path


def test_units_of_nexus_are_honoured(tmp_path: Path) -> None:
    of = truth()
    scan = pf.read_scan(nexus(tmp_path / "a.nxs", of))
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    for wrong in ("swap_xy", "flip_x", "flip_y"):
        options: dict[str, Any] = {wrong: True}
        assert misfit(pf.read_scan(tmp_path / "a.nxs", **options), of) > 10
    np.testing.assert_allclose(scan.metadata["object_pixel_m"], explained.OBJECT_PIXEL)
    check_ways(tmp_path / "a.nxs", scan)


def test_text_in_units_is_refused_by_name(tmp_path: Path) -> None:
    path = nexus(tmp_path / "a.nxs", truth())
    with h5py.File(path, "r+") as file:
        del file[f"{DETECTOR}/distance"]
        file[f"{DETECTOR}/distance"] = "1.9"
        file[f"{DETECTOR}/distance"].attrs["units"] = "m"
    with pytest.raises(ValueError, match="distance is .*no positive number"):
        pf.read_scan(path)


def test_units_that_are_not_known_are_refused(tmp_path: Path) -> None:
    path = nexus(tmp_path / "a.nxs", truth())
    with h5py.File(path, "r+") as file:
        file[f"{DETECTOR}/distance"].attrs["units"] = "furlong"
    with pytest.raises(ValueError, match="distance is said to be in 'furlong', which is not one"):
        pf.read_scan(path)
    with h5py.File(path, "r+") as file:
        file[f"{DETECTOR}/distance"].attrs["units"] = np.bytes_("mm")
        del file["entry_1/instrument_1/beam_1"]
    # The energy of the machine is no photon's.
    with pytest.raises(ValueError, match="'GeV', which is not one of ev, kev"):
        pf.read_scan(path)
    assert len(pf.read_scan(path, energy_eV=explained.ENERGY)) == explained.n


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    check_image(lambda of: pf.read_scan(nexus(tmp_path / "a.nxs", of)))
