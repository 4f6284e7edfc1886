"""`ptycho-fast compare`: scores of images from every kind of file, known beforehand."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.canvas import canvas, place
from ptycho_fast.cli import main
from ptycho_fast.reconstruction import Reconstruction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytest.importorskip("skimage")

NOISE = 0.1


@pytest.fixture
def large() -> pf.Scan:
    """A scan, which is in scan.npz, with its object."""
    scan = pf.simulate_scan(150, 32, seed=0)
    pf.write_scan(scan, "scan.npz")
    return scan


def reconstruction(scan: pf.Scan, image: NDArray[Any]) -> Reconstruction:
    """A reconstruction on the canvas of the scan, of an image on the grid of the object."""
    where = canvas(scan.positions, scan.N)
    placed = place(image, (-where.origin[0], -where.origin[1]), where.shape)
    return Reconstruction(
        object=placed.astype(np.complex64),
        origin=where.origin,
        probe=np.ones((1, scan.N, scan.N), np.complex64),
        positions=scan.positions,
        coverage=np.ones(where.shape, np.float32),
        deviance=1.0,
        mu=0.0,
    )


@pytest.fixture
def noisy(large: pf.Scan) -> NDArray[Any]:
    """The object with noise in its phase, on the grid of the object."""
    assert large.object is not None
    phase = np.random.default_rng(1).normal(0, NOISE, large.object.shape)
    noisy: NDArray[Any] = 3j * large.object * np.exp(1j * phase)
    return noisy


def scores(text: str) -> dict[str, float]:
    """The numbers that were printed, by their names."""
    found = re.findall(r"^([a-z]+ [a-z]+|frc) {2,}(-?[\d.e-]+)", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def compared(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["compare", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_scores_are_those_of_the_noise(
    large: pf.Scan, noisy: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reconstruction(large, noisy).save("OUT")
    out = compared(capsys, "OUT", "scan.npz")
    found = scores(out)
    # About 1000 pixels: the root mean square of the noise varies by 2 %. It changes no amplitude,
    # and |exp(i p) - 1| is |p|, to which the factor of least squares fits.
    assert found["phase rmse"] == pytest.approx(NOISE, rel=0.08)
    assert found["complex error"] == pytest.approx(NOISE, rel=0.08)
    assert found["amplitude correlation"] == pytest.approx(1, abs=2e-3)
    assert found["amplitude rmse"] < 0.01
    assert re.search(r"^shift +-?0\.0\d*(e-\d+)?, -?0\.0\d*(e-\d+)? pixels", out, re.MULTILINE)
    where = canvas(large.positions, 32)
    height, width = where.shape
    x, y = where.origin
    assert f"A           OUT: {width} x {height} pixels from x = {x}, y = {y}\n" in out
    assert "B           scan.npz: " in out
    assert "positions   150, of scan.npz\n" in out
    assert "of the twin            phase rmse " in out
    assert "fits B better" not in out


def test_every_kind_of_file_gives_the_same_scores(
    here: Path, large: pf.Scan, noisy: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = reconstruction(large, noisy)
    made.save("OUT")
    whole = place(made.object, made.origin, large.object.shape)  # type: ignore[union-attr]
    (here / "infer").mkdir()
    np.save("infer/object.npy", made.object)
    np.save("object.npy", whole)
    np.savez("object.npz", object=whole, probe=made.probe)
    (here / "infer" / "metrics.json").write_text(json.dumps({"origin": list(made.origin)}))
    expected = scores(compared(capsys, "OUT", "scan.npz"))
    assert len(expected) >= 8
    kinds = ["OUT/reconstruction.npz", "infer", "object.npy", "object.npz"]
    if (here / "OUT" / "object.h5").exists():
        told: Any = {"energy_eV": 8000, "distance_m": 1, "detector_pixel_m": 1e-4}
        scan = replace(made.on(large), metadata={})
        pf.write_scan(scan, "OUT/scan.cxi", **told)
        pf.write_scan(scan, "OUT/product.h5", "ptychodus", **told)
        kinds += ["OUT/object.h5", "OUT/scan.cxi", "OUT/product.h5"]
    for kind in kinds:
        out = compared(capsys, kind, "scan.npz")
        assert scores(out) == pytest.approx(expected, rel=1e-3), kind
        assert ("as assumed" in out) == kind.startswith("object.n")
    # An array of the same shape lies like the other image.
    np.save("same.npy", made.object)
    out = compared(capsys, "same.npy", "OUT", "--scan", "scan.npz")
    assert scores(out)["complex error"] < 1e-6
    assert f"x = {made.origin[0]}, y = {made.origin[1]}, as assumed" in out


def test_the_images_are_brought_to_one_canvas_by_their_origins(
    large: pf.Scan, noisy: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of the two halves of a scan, whose canvases differ."""
    rows = np.flatnonzero(large.positions[:, 0] < np.median(large.positions[:, 0]))
    left = large.take(rows, large.diffraction[rows])
    reconstruction(left, noisy).save("LEFT")
    reconstruction(large, noisy).save("ALL")
    assert canvas(left.positions, 32).shape != canvas(large.positions, 32).shape
    out = compared(capsys, "ALL", "LEFT")
    assert "positions   75, of LEFT\n" in out
    assert scores(out)["complex error"] < 1e-6
    # Without the left half's positions, pixels without an image count as random.
    out = compared(capsys, "LEFT", "ALL")
    assert "positions   150, of ALL\n" in out
    assert scores(out)["complex error"] > 0.1


def test_a_twin_is_recognised(
    large: pf.Scan, noisy: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("twin.npy", noisy[::-1, ::-1].conj())
    assert "The twin of A" in compared(capsys, "twin.npy", "scan.npz")


def test_what_can_not_be_compared_gets_a_sentence(
    here: Path, large: pf.Scan, refused: Callable[..., str]
) -> None:
    image = np.ones((40, 40), complex)
    np.save("a.npy", image)
    np.save("stack.npy", np.ones((2, 4, 4)))
    (here / "text.npy").write_text("1, 2, 3")
    (here / "empty").mkdir()
    np.savez("dark.npz", xcoords=large.positions[:, 0], ycoords=large.positions[:, 1],
             diff3d=large.diffraction)  # fmt: skip
    told = {
        ("a.npy", "a.npy"): "Neither a.npy nor a.npy has scan positions, .* --scan FILE",
        ("empty", "scan.npz"): "empty has neither reconstruction.npz nor object.npy",
        ("missing", "scan.npz"): "missing: No such file",
        ("dark.npz", "scan.npz"): "dark.npz is a scan without an object. Name a folder",
        ("stack.npy", "scan.npz"): r"stack.npy holds no image: .* float64 of shape \(2, 4, 4\)",
        ("text.npy", "scan.npz"): "text.npy is not an NPY file, or it is damaged",
    }
    for argv, sentence in told.items():
        assert re.search(sentence, refused("compare", *argv))
    np.save("empty/object.npy", image)
    (here / "empty" / "metrics.json").write_text("{}")
    assert "metrics.json does not say where" in refused("compare", "empty", "scan.npz")


@pytest.mark.usefixtures("large")
def test_without_scipy_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main(["compare", "scan.npz", "scan.npz"]) == 2
    assert capsys.readouterr().err.endswith('pip install "ptycho_fast[metrics]"\n')
