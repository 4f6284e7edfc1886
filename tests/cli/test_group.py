"""`ptycho-fast group`."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from commands import file_names, needs_matplotlib
from places import SHARED
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STAR = SHARED / "data" / "siemens_star_aps_n128.npz"


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ("--gridsize 2 --neighbors 7 --groups 20 --seed 42", {"n_groups": 20, "n_neighbors": 7}),
        ("--seed 42 --threads 1", {"num_threads": 2}),
        ("--seed 42 --gridsize 1 --groups 5", {"gridsize": 1, "n_groups": 5}),
        ("--seed 42 --gridsize 3 --epoch 2", {"gridsize": 3, "epoch": 2}),
        ("--seed 42 --rng numpy --groups 9", {"rng": "numpy", "n_groups": 9}),
        ("--seed 42 --include-center", {"include_center": True}),
        ("--seed 42 --n-groups 7", {"n_groups": 7}),
        ("--seed 42 --n-images 7", {"n_groups": 7}),
        ("--seed 42 --n-images 7 --gridsize 1", {"n_groups": 7, "gridsize": 1}),
        ("--seed 42 --engine kdtree", {"engine": "kdtree"}),
        (
            "--seed 42 --max-distance 30 --min-distance 5",
            {"max_distance": 30.0, "min_distance": 5.0},
        ),
        ("--seed 42 --bounds 0,0.5,0.25,1", {"bounds": ((0.0, 0.5), (0.25, 1.0))}),
        ("--seed 42 --rule oversample --groups 90", {"rule": "oversample", "n_groups": 90}),
        ("--seed 42 --rule quadrant --max-distance 40", {"rule": "quadrant", "max_distance": 40.0}),
        (
            "--seed 42 --rule overlap --min-overlap 0.1",
            {"rule": "overlap", "N": 8, "min_overlap": 0.1},
        ),
        ("--seed 42 --strategy group-then-sample", {"strategy": "group-then-sample"}),
    ],
)
def test_group_saves_what_group_positions_draws(
    here: Path,
    scan: pf.Scan,
    capsys: pytest.CaptureFixture[str],
    options: str,
    arguments: dict[str, Any],
) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", *options.split()]) == 0
    assert file_names(here) == ["groups.npz", "scan.npz"]
    saved = pf.Groups.load("groups.npz", scan.positions)
    expected = pf.group_positions(scan.positions, seed=42, **arguments)
    for field in dataclasses.fields(pf.Groups):
        np.testing.assert_array_equal(getattr(saved, field.name), getattr(expected, field.name))
    out, err = capsys.readouterr()
    assert "n = 40 positions" in out
    assert f"B = {len(expected)} groups of C = {expected.group_size}" in out
    assert f"K = {expected.n_neighbors}, seed 42, epoch {expected.epoch}" in out
    assert f"\npatterns    {expected.indices.size}, {expected.group_size} a group\n" in out
    for reason, count in expected.left_out.items():
        assert f"\nleft out    {count} centres, by {reason}\n" in out
    assert ("left out" in out) == bool(expected.left_out)
    assert err == ""


def test_group_of_a_subsampled_scan_is_that_of_scan_subsample(
    scan: pf.Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = "group scan.npz -o groups.npz --seed 1 --n-subsample 39"
    assert main([*argv.split(), "--subsample-seed", "5"]) == 0
    assert "39 of 40 positions, subsample seed 5" in capsys.readouterr().out
    thinned = scan.subsample(39, 5)
    saved = pf.Groups.load("groups.npz", thinned.positions)
    expected = pf.group_positions(thinned.positions, seed=1)
    np.testing.assert_array_equal(saved.indices, expected.indices)
    assert main(argv.split()) == 0
    (seed,) = re.findall(r"subsample seed (\d+)", capsys.readouterr().out)
    pf.Groups.load("groups.npz", scan.subsample(39, int(seed)).positions)


def test_group_prints_the_spread_of_the_groups(
    scan: pf.Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", "--seed", "1"]) == 0
    members = scan.positions[pf.group_positions(scan.positions, seed=1).indices]
    from_mean = np.linalg.norm(members - members.mean(axis=1, keepdims=True), axis=2)
    spread = from_mean.max(axis=1)
    expected = f"median {np.median(spread):.4g}, largest {spread.max():.4g} pixels"
    assert expected in capsys.readouterr().out


@pytest.mark.usefixtures("scan")
def test_group_without_seed_records_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz"]) == 0
    saved = pf.Groups.load("groups.npz")
    assert f"seed {saved.seed}," in capsys.readouterr().out
    again = pf.group_positions(saved.positions, seed=saved.seed)
    np.testing.assert_array_equal(saved.indices, again.indices)


@pytest.mark.usefixtures("scan")
def test_group_warns_in_a_sentence_of_more_groups_than_positions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", "--groups", "41"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("ptycho-fast: warning: n_groups=41 exceeds the 40 positions")
    assert err.count("\n") == 1
    assert len(pf.Groups.load("groups.npz")) == 40


@needs_matplotlib
@pytest.mark.usefixtures("scan")
def test_group_writes_a_picture(here: Path) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", "--plot", "groups.png"]) == 0
    assert file_names(here) == ["groups.npz", "groups.png", "scan.npz"]
    assert (here / "groups.png").read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
@pytest.mark.skipif(not STAR.exists(), reason="no measured scan here")
def test_group_of_a_measured_scan_draws_what_group_positions_draws(here: Path) -> None:
    options = "--gridsize 2 --neighbors 7 --groups 512 --seed 42 -o groups.npz --plot groups.png"
    assert main(["group", str(STAR), *options.split()]) == 0
    assert file_names(here) == ["groups.npz", "groups.png"]
    positions = pf.read_scan(STAR).positions
    expected = pf.group_positions(positions, 512, gridsize=2, n_neighbors=7, seed=42)
    saved = pf.Groups.load("groups.npz", positions)
    np.testing.assert_array_equal(saved.indices, expected.indices)
    np.testing.assert_array_equal(saved.centers, expected.centers)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--gridsize 2 --neighbors 3", "K=3 must be >= C=4"),
        ("--gridsize 2 --neighbors 3", "(On the command line n_neighbors is --neighbors.)"),
        ("--gridsize 7", "only 40 points but 49 coordinates per group"),
        ("--gridsize 0", "gridsize must be a whole number in 1..46340, got 0."),
        ("--groups 0", "n_groups must be a whole number in 1..2147483647, got 0."),
        ("--seed -1", "seed must be a whole number in 0.."),
        ("--threads 0", "num_threads must be a whole number in 1..4096, got 0."),
        ("--rng numpy --epoch 1", 'rng="numpy" repeats what older code drew'),
        ("--rule quadrant", "rule='quadrant' needs max_distance"),
        ("--rule quadrant --max-distance 9 --gridsize 3", "C must be 4 (gridsize 2), got C=9"),
        ("--rule overlap --min-overlap 2", "min_overlap must be a number in 0..1, got 2.0."),
        ("--min-overlap 0.3", "min_overlap=0.3 is for rule='overlap' alone"),
        ("--bounds 0.5,0.2,0,1", "along x are reversed. Pass (0.2, 0.5)."),
        ("--max-distance 0.001", "Raise max_distance to "),
        ("--n-images 0", "n_images must be a whole number in 1..2147483647, got 0."),
        ("--subsample-seed 1", "--subsample-seed is for --n-subsample, which is not given."),
        ("--compress", "--compress is for the file of --cache, which is not given."),
        ("--n-subsample 0", "n_subsample must be a whole number in 1..2147483647, got 0."),
        ("--cache", "cache= keeps the pool of strategy='group-then-sample'"),
        ("-o nowhere/out.npz", "nowhere/out.npz can't be written: there is no folder nowhere."),
        ("-o a.HDF5", "a.HDF5 is named as a file of the format 'hdf5', but is to be written as"),
        ("-o folder", "folder can't be written: it is a folder."),
        ("-o scan.npz", "scan.npz is the scan itself, which would be overwritten."),
        ("--plot nowhere/a.png", "nowhere/a.png can't be written: there is no folder nowhere."),
        ("--plot scan.npz", "scan.npz is the scan itself, which would be overwritten."),
    ],
)
@pytest.mark.usefixtures("scan")
def test_bad_arguments_of_group_get_a_sentence(
    here: Path, refused: Callable[..., str], options: str, expected: str
) -> None:
    (here / "folder").mkdir()
    content = (here / "scan.npz").read_bytes()
    argv = ["group", "scan.npz", "-o", "out.npz", *options.split()]
    assert expected in refused(*argv)
    assert file_names(here) == ["folder", "scan.npz"]
    assert (here / "scan.npz").read_bytes() == content


@pytest.mark.parametrize("text", ["0,1", "0,1,0,x", "0 1 0 1", "0,1,0,1,"])
def test_bounds_that_are_not_four_numbers_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["group", "scan.npz", "-o", "a.npz", "--bounds", text])
    expected = f"--bounds: 4 numbers with commas between them are needed, got {text!r}"
    assert expected in capsys.readouterr().err
