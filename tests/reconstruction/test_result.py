"""What a reconstruction writes is read back: by itself, by h5py, and as a scan."""

from __future__ import annotations

import dataclasses
import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from commands import file_names
from explained import misfit, truth
from ptycho_fast.canvas import Canvas, place
from ptycho_fast.reconstruction.history import Step
from ptycho_fast.reconstruction.resolution import Resolution
from ptycho_fast.reconstruction.result import Reconstruction
from records import info_lines

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = ["amplitude.png", "phase.png", "probe.png", "reconstruction.npz", "report.html"]


def assert_same(found: Reconstruction, wanted: Reconstruction) -> None:
    for field in dataclasses.fields(Reconstruction):
        got, expected = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(expected, Resolution):
            for part in dataclasses.fields(Resolution):
                np.testing.assert_array_equal(getattr(got, part.name), getattr(expected, part.name))
        elif isinstance(expected, np.ndarray):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
        else:
            assert got == expected, field.name
            assert type(got) is type(expected), field.name


@pytest.mark.parametrize("which", ["made", "bare"])
def test_what_is_saved_is_loaded(
    tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    wanted = request.getfixturevalue(which)
    folder = tmp_path / "deep" / "out"
    wanted.save(folder)
    assert_same(Reconstruction.load(folder), wanted)
    assert_same(Reconstruction.load(folder / "reconstruction.npz"), wanted)
    more = ["frc.svg", "history.svg", "phase_sigma.png"] if which == "made" else []
    written = [name for name in file_names(folder) if name != "object.h5"]
    assert written == sorted([*ALWAYS, *more])


def test_numpy_reads_the_arrays(tmp_path: Path, made: Reconstruction) -> None:
    made.save(tmp_path)
    with np.load(tmp_path / "reconstruction.npz") as held:
        np.testing.assert_array_equal(held["object"], made.object)
        np.testing.assert_array_equal(held["positions"], made.positions)
        np.testing.assert_array_equal(held["frc_half_bit"], made.resolution.half_bit)  # type: ignore[union-attr]
        assert held["history_mu"].tolist() == [3e5, 3e5, 31.5]
        assert held["history_held_out"][1:].tolist() == [4.5, 1.0625]
        assert held["pixel_size"] == 23.6e-9
        assert held["notes"].tolist() == list(made.notes)


def test_the_canvas_is_where_the_object_lies(made: Reconstruction) -> None:
    assert made.canvas == Canvas((-7, 12), (40, 50))
    whole = place(made.object, made.origin, (60, 60))
    assert whole[12 + 5, 3] == made.object[5, 3 + 7]


def test_it_says_what_it_is(made: Reconstruction, bare: Reconstruction) -> None:
    # Of ring n + 1, 1 - 1.1 / 19 n meets 0.8 - 0.6 / 19 n at n = 7.6; 20 / 8.6 = 2.33.
    assert repr(made) == (
        "Reconstruction(50 x 40 pixels from 11 patterns of 16 x 16, 2 probe modes, deviance 1.017, "
        "resolution 2.33 pixels = 54.9 nm)"
    )
    assert repr(bare) == (
        "Reconstruction(50 x 40 pixels from 11 patterns of 16 x 16, deviance 1.017)"
    )


def test_lists_become_tuples(fields: dict[str, Any]) -> None:
    made = Reconstruction(**fields | {"history": [Step(1, 2, 3)], "notes": ["A."]})
    assert (made.history, made.notes) == ((Step(1, 2, 3),), ("A.",))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"probe": np.ones((8, 8), np.complex64)}, r"probe must have 3 axes, got shape \(8, 8\)"),
        ({"positions": np.ones(4)}, "positions must have 2 axes"),
        ({"coverage": np.ones((40, 49))}, r"coverage has shape \(40, 49\), but \(40, 50\)"),
        ({"phase_sigma": np.ones((1, 1))}, "phase_sigma has shape"),
        ({"pixel_size": 0.0}, "pixel_size must be a length in metres or None, got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(
    fields: dict[str, Any], change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Reconstruction(**fields | change)


def test_h5py_reads_object_probe_and_positions(tmp_path: Path, made: Reconstruction) -> None:
    h5py = pytest.importorskip("h5py")
    made.save(tmp_path)
    size = 23.6e-9
    with h5py.File(tmp_path / "object.h5") as file:
        assert file["cxi_version"][()] == 160
        np.testing.assert_array_equal(file["entry_1/image_1/data"], made.object)
        np.testing.assert_array_equal(file["entry_1/data_1/data"], made.object)
        assert file["entry_1/image_1/data"].dtype == np.complex64
        np.testing.assert_array_equal(
            file["entry_1/image_1/mask"], (np.arange(40) < 4)[:, None] * np.ones(50, int)
        )
        np.testing.assert_array_equal(
            file["entry_1/instrument_1/source_1/illumination"], made.probe
        )
        moved = file["entry_1/sample_1/geometry_1/translation"][()]
        assert moved.shape == (11, 3)
        np.testing.assert_allclose(moved[:, :2], made.positions * size, rtol=1e-14)
        # Columns -7..42 and rows 12..51: their middles, and the lengths.
        image = file["entry_1/image_1"]
        np.testing.assert_allclose(image["image_center"], [17.5 * size, 31.5 * size, 0])
        np.testing.assert_allclose(image["image_size"], [50 * size, 40 * size, 0])
        assert image["origin_px"][()].tolist() == [-7, 12]
        np.testing.assert_array_equal(image["positions_px"], made.positions)
        np.testing.assert_array_equal(image["phase_sigma"], made.phase_sigma)
        assert file["entry_1/program_name"][()].decode() == f"ptycho_fast {pf.__version__}"


def test_the_cxi_file_gives_a_scan_its_probe_and_positions(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """With the patterns of another file, and a geometry of the same pixel size."""
    h5py = pytest.importorskip("h5py")
    wavelength, distance, detector_pixel = 1.24e-10, 2.0, 75e-6
    size = wavelength * distance / (16 * detector_pixel)
    Reconstruction(**fields | {"pixel_size": size}).save(tmp_path)
    with h5py.File(tmp_path / "patterns.h5", "w") as file:
        file["patterns"] = np.random.default_rng(0).poisson(3, (11, 16, 16))
    scan = pf.read_scan(
        tmp_path / "object.h5",
        diffraction=f"{tmp_path / 'patterns.h5'}:/patterns",
        energy_eV=1.239841984332e-6 / wavelength,
        distance_m=distance,
        detector_pixel_m=detector_pixel,
    )
    positions = fields["positions"]
    np.testing.assert_allclose(scan.positions, positions - positions.min(axis=0) + 8, atol=1e-6)
    np.testing.assert_array_equal(scan.probe, fields["probe"])


def test_without_a_pixel_size_nothing_is_in_metres(tmp_path: Path, bare: Reconstruction) -> None:
    h5py = pytest.importorskip("h5py")
    bare.save(tmp_path)
    with h5py.File(tmp_path / "object.h5") as file:
        assert "entry_1/sample_1" not in file
        assert "entry_1/image_1/image_size" not in file
        np.testing.assert_array_equal(file["entry_1/image_1/positions_px"], bare.positions)
        illumination = file["entry_1/instrument_1/source_1/illumination"]
        np.testing.assert_array_equal(illumination, bare.probe[0])
    assert "object.h5 has positions in pixels only" in (tmp_path / "report.html").read_text()


def test_without_h5py_everything_else_is_written(
    tmp_path: Path,
    made: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "object.h5").write_text("of an earlier one")
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        made.save(tmp_path)
    (said,) = info_lines(caplog)
    assert said.startswith("object.h5 was not written: HDF5 files need h5py")
    assert "object.h5 was not written" in (tmp_path / "report.html").read_text()
    assert file_names(tmp_path) == sorted([*ALWAYS, "frc.svg", "history.svg", "phase_sigma.png"])


def test_a_second_reconstruction_leaves_nothing_of_the_first(
    tmp_path: Path, made: Reconstruction, bare: Reconstruction
) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    made.save(tmp_path)
    bare.save(tmp_path)
    written = [name for name in file_names(tmp_path) if name != "object.h5"]
    assert written == sorted([*ALWAYS, "mine.txt"])
    assert_same(Reconstruction.load(tmp_path), bare)


def test_a_full_disk_leaves_the_old_files(
    tmp_path: Path, made: Reconstruction, bare: Reconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.save(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    before = file_names(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        bare.save(tmp_path)
    assert file_names(tmp_path) == before
    assert_same(Reconstruction.load(tmp_path), made)


@pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        ("missing", OSError, "No such file"),
        ("cut", OSError, "damaged or cut short"),
        ("other", ValueError, "is not a reconstruction: it lacks coverage, format, positions"),
        ("newer", ValueError, "has format 2, this version reads 1. Update ptycho_fast"),
    ],
)
def test_what_is_no_reconstruction_is_refused(
    tmp_path: Path, bare: Reconstruction, damage: str, error: type[Exception], sentence: str
) -> None:
    path = tmp_path / "reconstruction.npz"
    if damage != "missing":
        bare.save(tmp_path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "other":
        np.savez(path, object=bare.object, probe=bare.probe)
    elif damage == "newer":
        with np.load(path) as held:
            arrays = dict(held)
        np.savez(path, **arrays | {"format": 2})
    with pytest.raises(error, match=sentence):
        Reconstruction.load(tmp_path)


# --- on its scan ----------------------------------------------------------------------------------


def test_a_scan_with_its_image_explains_its_patterns() -> None:
    of = truth()
    scan = dataclasses.replace(
        of.scan, positions=of.scan.positions + np.array([-40, 25]), probe=None, object=None
    )
    image = pf.reconstruct(scan, iterations=60)
    both = image.on(scan)
    assert misfit(both, of) < 1.1
    assert misfit(dataclasses.replace(both, positions=both.positions[:, ::-1]), of) > 2
    np.testing.assert_array_equal(both.positions, image.positions - image.origin)
    moved = both.positions_start - both.positions
    np.testing.assert_allclose(moved, scan.positions_start - scan.positions, atol=1e-9)
    assert both.diffraction is scan.diffraction
    assert both.probe is not None
    assert both.probe.shape == (32, 32)


def test_an_image_of_another_scan_is_refused(made: Reconstruction, bare: Reconstruction) -> None:
    patterns = np.ones((11, 16, 16), np.float32)
    on = made.on(pf.Scan(made.positions + 3, patterns))
    assert on.probe is made.probe  # two modes
    assert bare.on(pf.Scan(made.positions, patterns)).object is bare.object
    with pytest.raises(ValueError, match="of 11 patterns of 16 x 16 pixels, but the scan has 10"):
        made.on(pf.Scan(made.positions[1:], patterns[1:]))
    with pytest.raises(ValueError, match="but the scan has 11 of 8 x 8"):
        made.on(pf.Scan(made.positions, patterns[:, :8, :8]))
    with pytest.raises(ValueError, match="is 17 pixels from that of the scan, farther than a win"):
        made.on(pf.Scan(made.positions + 17, patterns))
    near = dataclasses.replace(made, positions=made.positions / 2)
    with pytest.raises(ValueError, match="Is the scan in another order"):
        near.on(pf.Scan(near.positions[::-1], patterns))
