"""NPZ scans of SLAC, which have planned positions alone."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, ENERGY, PIXEL, Truth, check_image, check_ways, misfit, truth
from ptycho_fast.cli import main
from ptycho_fast.io.recipe import NotGivenError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def of() -> Truth:
    return truth()


def slac(path: Path, of: Truth, *, metres: bool, **changes: Any) -> Path:
    x, y = (of.x, of.y) if metres else of.scan.positions.T
    arrays: dict[str, Any] = {
        "diffraction": of.counts.transpose(1, 2, 0),
        "xcoords_start": x,
        "ycoords_start": y,
        "probeGuess": of.scan.probe,
        "objectGuess": of.scan.object,
    }
    if metres:
        arrays |= {
            "photon_energy_eV": ENERGY,
            "detector_distance_m": DISTANCE,
            "detector_pixel_size_m": PIXEL,
        }
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize("unit", ["m", "px"])
def test_scans_of_slac_explain_themselves(tmp_path: Path, of: Truth, unit: str) -> None:
    path = slac(tmp_path / "a.npz", of, metres=unit == "m")
    scan = pf.read_scan(path, unit=unit, counts=True)
    assert scan.probe is not None
    assert (scan.object is not None) == (unit == "px")
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    for wrong in ("swap_xy", "flip_x", "flip_y"):
        options: dict[str, Any] = {wrong: True}
        assert misfit(pf.read_scan(path, unit=unit, counts=True, **options), of) > 10
    check_ways(path, scan, unit=unit, counts=True)


def test_a_cropped_pattern_has_no_object(tmp_path: Path, of: Truth) -> None:
    path = slac(tmp_path / "a.npz", of, metres=False, probeGuess=None)
    scan = pf.read_scan(path, unit="px", counts=True, crop=16)
    assert scan.object is None
    np.testing.assert_allclose(scan.positions, of.scan.positions / 2)


def test_what_the_file_does_not_say_is_asked_for(tmp_path: Path, of: Truth) -> None:
    path = slac(tmp_path / "a.npz", of, metres=True, photon_energy_eV=None, probe_energy_ev=ENERGY)
    with pytest.raises(NotGivenError) as refused:
        pf.read_scan(path)
    assert refused.value.options == ("unit", "counts")
    with pytest.raises(NotGivenError) as refused:
        pf.read_scan(slac(tmp_path / "b.npz", of, metres=False), unit="m", counts=True)
    assert refused.value.options == ("energy_eV", "distance_m", "detector_pixel_m")


def test_inspect_proposes_the_command_that_reads_it(
    tmp_path: Path, of: Truth, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slac(tmp_path / "a.npz", of, metres=True)
    main(["inspect", "a.npz"])
    line = next(line for line in capsys.readouterr().out.splitlines() if "convert" in line)
    command = line.replace("--unit ?", "--unit m")
    assert main(shlex.split(command)[1:]) == 0
    assert misfit(pf.read_scan("a_converted.npz"), of) == pytest.approx(1, abs=0.1)


def test_refined_positions_make_it_an_ordinary_scan(tmp_path: Path, of: Truth) -> None:
    x, y = of.scan.positions.T
    path = slac(tmp_path / "a.npz", of, metres=False, xcoords=x + 1, ycoords=y, diffraction=None,
                diff3d=of.scan.diffraction)  # fmt: skip
    scan = pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions[:, 0], x + 1)
    np.testing.assert_array_equal(scan.positions_start, of.scan.positions)


def test_the_image_explains_the_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    check_image(lambda of: pf.read_scan(slac(path, of, metres=True), unit="m", counts=True))
