"""`ptycho-fast inspect`."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from commands import ERROR, file_names, needs_matplotlib
from ptycho_fast.cli import main
from ptycho_fast.cli.inspect import PROPOSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_inspect_tells_what_a_file_holds(scan: pf.Scan, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "scan.npz"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert scan.object is not None
    for line in (
        r"diff3d +float32 +\(40, 8, 8\)",
        r"probeGuess +complex64 +\(8, 8\)",
        r"seed +int64 +\(\)",
        r"positions +40",
        r"N +8 pixels",
        rf"amplitude +0 \.\. {re.escape(f'{scan.diffraction.max():g}')}",
        rf"object +{re.escape(str(scan.object.shape))} complex64",
        r"duplicates +0 of 40 positions coincide with another",
        r"ties +0\.0% of positions have neighbours 7 and 8 at the same distance",
        r"memory +0\.\d MiB",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), line


def test_inspect_counts_duplicates_and_ties_of_a_raster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    raster = 3.0 * np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2)
    positions = np.concatenate([raster, raster[:1], raster[:1]])
    np.savez("scan.npz", xcoords=positions[:, 0], ycoords=positions[:, 1],
             diff3d=np.ones((32, 4, 4), np.uint16))  # fmt: skip
    # By brute force; what column 0 holds is the distance to itself.
    distance = np.sort(np.linalg.norm(positions[:, np.newaxis] - positions, axis=2), axis=1)
    tied = np.mean(np.isclose(distance[:, 7], distance[:, 8]))
    assert 0.2 < tied < 0.9
    assert main(["inspect", "scan.npz"]) == 0
    out = capsys.readouterr().out
    assert f"{tied:.1%} of positions have neighbours 7 and 8 at the same distance" in out
    assert "3 of 32 positions coincide with another" in out
    assert "median 3, 0 .. 3 pixels to the nearest neighbour" in out
    assert "x 0 .. 15, y 0 .. 12 pixels" in out
    assert re.search("^probe +absent$", out, re.MULTILINE)
    assert re.search("^object +absent$", out, re.MULTILINE)


@pytest.mark.parametrize("n", [1, 2, 8, 9])
def test_inspect_of_few_positions_leaves_out_what_needs_more(
    n: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pf.write_scan(pf.simulate_scan(n, 4, seed=0), "scan.npz")
    assert main(["inspect", "scan.npz"]) == 0
    out = capsys.readouterr().out
    assert ("at the same distance" in out) == (n > 8)
    assert ("coincide" in out) == (n > 1)


def test_inspect_of_unknown_keys_shows_them_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez("other.npz", frames=np.zeros((3, 2, 2)), xcoords=np.zeros(3))
    assert main(["inspect", "other.npz"]) == PROPOSED
    out, err = capsys.readouterr()
    assert re.search(r"^frames +float64 +\(3, 2, 2\)$", out, re.MULTILINE)
    assert re.search("^other.npz is not a scan: it lacks ycoords, diff3d", out, re.MULTILINE)
    assert "\n\nThis command may read it" in out
    assert err == ""
    wrong = "--diffraction frame --x xcoords --y xcoords --unit px --counts"
    assert main(["inspect", "other.npz", *wrong.split()]) == 2
    out, err = capsys.readouterr()
    assert "This command may read it" in out
    assert err.startswith(ERROR)


def test_group_and_inspect_print_coverage(
    scan: pf.Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", "--seed", "1", "--groups", "9"]) == 0
    groups = pf.group_positions(scan.positions, 9, seed=1)
    assert f"\n{pf.coverage(scan, groups)}\n" in capsys.readouterr().out
    assert main(["inspect", "scan.npz"]) == 0
    groups = pf.group_positions(scan.positions, n_neighbors=7, seed=0)
    heading = "Groups of 4 of the 7 neighbours of every position, seed 0:"
    assert f"\n{heading}\n{pf.coverage(scan, groups)}\n" in capsys.readouterr().out


@needs_matplotlib
@pytest.mark.usefixtures("scan")
def test_inspect_writes_a_picture(here: Path) -> None:
    assert main(["inspect", "scan.npz", "--plot", "scan.png"]) == 0
    assert file_names(here) == ["scan.npz", "scan.png"]
    assert (here / "scan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("scan")
def test_inspect_refuses_a_picture_over_the_scan(refused: Callable[..., str]) -> None:
    assert "scan.npz is the scan itself" in refused("inspect", "scan.npz", "--plot", "scan.npz")
    assert "no folder nowhere" in refused("inspect", "scan.npz", "--plot", "nowhere/a.png")


def test_intensity_reaches_the_reader(scan: pf.Scan, capsys: pytest.CaptureFixture[str]) -> None:
    pf.write_scan(dataclasses.replace(scan, diffraction=-scan.diffraction), "scan.npz")
    assert main(["inspect", "scan.npz"]) == 0
    capsys.readouterr()
    for option in ("--counts", "--intensity"):
        assert main(["inspect", "scan.npz", option]) == 2
        assert "Intensities can't be negative" in capsys.readouterr().err
