"""`ptycho-fast example`, and images that are written for other programs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from commands import file_names
from ptycho_fast.cli import main
from ptycho_fast.cli.example import GEOMETRY, example_scan
from ptycho_fast.reconstruction import Reconstruction

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("h5py")


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        ("-o my.npz", ["my.npz"]),
        ("-o my.cxi", ["my.cxi"]),
        ("ptychodus -o product.h5", ["diffraction.h5", "product.h5"]),
        ("ptypy -o my.ptyd", ["my.ptyd"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*has no place for Scan.probe")
def test_every_format_has_an_example(
    here: Path, capsys: pytest.CaptureFixture[str], argv: str, files: list[str]
) -> None:
    assert main(["example", *argv.split()]) == 0
    assert file_names(here) == files
    out = capsys.readouterr().out
    assert f"write       {' and '.join(reversed(files))} " in out
    # The commands that it proposes name the file.
    lines = [shlex.split(line) for line in out.splitlines() if line.startswith("  ptycho-fast ")]
    assert [line[1] for line in lines] == ["inspect", "reconstruct"]
    read = pf.read_scan(lines[1][2])
    np.testing.assert_array_equal(read.diffraction, example_scan().diffraction)
    assert main(lines[0][1:]) == 0
    if argv != "ptychodus -o product.h5":  # one of them is enough
        return
    assert main([*lines[1][1:], "--iterations", "2", "--prior", "none"]) == 0
    made = Reconstruction.load(lines[1][-1])
    assert made.pixel_size == pytest.approx(
        1.2398419843e-6 / 8800 * GEOMETRY["distance_m"] / (64 * GEOMETRY["detector_pixel_m"])
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("-o a.h5", "a.h5 does not say its format by its name. Name one of npz, cxi"),
        ("cxi -o a.npz", "a.npz is named as a file of the format 'npz', but is to be written as"),
        ("npz -o a.h5", "a.h5 is named as a file of the format 'hdf5', but is to be written as"),
        ("cxi -o a.tif", "a.tif is named as a file of the format 'tiff', but is to be written as"),
        ("-o no/a.cxi", "there is no folder no"),
    ],
)
def test_examples_that_cannot_be_written_are_refused(
    here: Path, refused: Callable[..., str], argv: str, words: str
) -> None:
    assert words in refused("example", *argv.split())
    assert file_names(here) == []


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "file"),
    [("cxi", "scan.cxi"), ("npz", "scan.npz"), ("ptypy", "scan.ptyd"), ("ptychodus", "product.h5")],
)
@pytest.mark.filterwarnings("ignore:.*has no place for")
def test_an_image_is_written_for_another_program(scan: pf.Scan, to: str, file: str) -> None:
    shifted = replace(scan, positions=scan.positions + np.array([30, -17]), metadata={})
    pf.write_scan(shifted, "s.npz", energy_eV=8000, distance_m=1, detector_pixel_m=1e-4)
    argv = f"reconstruct s.npz -o out --iterations 3 --refine-positions --to {to}"
    assert main(argv.split()) == 0
    made, again = Reconstruction.load("out"), pf.read_scan(f"out/{file}")
    np.testing.assert_array_equal(again.diffraction, scan.diffraction)
    np.testing.assert_allclose(
        np.diff(again.positions, axis=0), np.diff(made.positions, axis=0), atol=1e-12
    )
    np.testing.assert_allclose(again.metadata["energy_eV"], 8000)
    if to == "ptypy":
        return
    np.testing.assert_allclose(again.positions, made.positions - made.origin, atol=1e-12)
    np.testing.assert_array_equal(again.object, made.object)
    assert again.probe is not None
    np.testing.assert_array_equal(again.probe.reshape(made.probe.shape), made.probe)


@pytest.mark.usefixtures("scan")
def test_what_cannot_be_written_is_refused_before_the_work(
    here: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = "--energy-eV 8000 --distance-m 1 --detector-pixel-m 1e-4"
    assert "Pass energy_eV=" in refused("reconstruct", "scan.npz", "-o", "out", "--to", "cxi")
    assert file_names(here) == ["scan.npz"]
    argv = f"convert scan.npz product.h5 --to ptychodus {told}"
    assert main(argv.split()) == 0
    capsys.readouterr()
    before = Path("product.h5").read_bytes()
    sentence = refused("reconstruct", "product.h5", "-o", ".", "--to", "ptychodus")
    assert "product.h5 is the scan itself" in sentence
    assert Path("product.h5").read_bytes() == before
    # Its patterns are linked from another file, of the name that would be written.
    Path("product.h5").rename("run.h5")
    before = Path("diffraction.h5").read_bytes()
    sentence = refused("reconstruct", "run.h5", "-o", ".", "--to", "ptychodus")
    assert "diffraction.h5 is the scan itself" in sentence
    assert Path("diffraction.h5").read_bytes() == before
