"""The command line: every command, and every mistake that a user can make with one."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from places import SHARED
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from pathlib import Path

STAR = SHARED / "data" / "siemens_star_aps_n128.npz"
ERROR = "ptycho-fast: error: "

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run each test in a folder of its own, where relative names point."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scan() -> pf.Scan:
    scan = pf.simulate_scan(40, 8, seed=0)
    pf.write_scan(scan, "scan.npz")
    return scan


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail, and return the one sentence it says."""
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(ERROR)
    assert err.count("\n") == 1
    sentence = err.removeprefix(ERROR).rstrip("\n")
    assert not sentence.startswith(("'", '"', "(", "["))
    assert not sentence.endswith(("'", '"'))
    return sentence


# --- simulate ---------------------------------------------------------------------------------


def test_simulate_writes_the_scan_of_its_arguments(here: Path) -> None:
    argv = "simulate -o a.npz --positions 30 --pixels 9 --trajectory spiral --photons 1e4 --seed 3"
    assert main(argv.split()) == 0
    assert names(here) == ["a.npz"]
    read = pf.read_scan("a.npz")
    expected = pf.simulate_scan(30, 9, trajectory="spiral", photons=1e4, seed=3)
    for field in ("positions", "positions_start", "diffraction", "probe", "object"):
        np.testing.assert_array_equal(getattr(read, field), getattr(expected, field))
    assert read.metadata == expected.metadata


def test_simulate_without_seed_records_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "-o", "a.npz", "--positions", "4", "--pixels", "8"]) == 0
    seed = int(pf.read_scan("a.npz").metadata["seed"])
    assert f"seed {seed}" in capsys.readouterr().out


# --- group ------------------------------------------------------------------------------------


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
    assert names(here) == ["groups.npz", "scan.npz"]
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


def test_group_of_a_thinned_scan(scan: pf.Scan, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_group_plots(here: Path) -> None:
    assert main(["group", "scan.npz", "-o", "groups.npz", "--plot", "groups.png"]) == 0
    assert names(here) == ["groups.npz", "groups.png", "scan.npz"]
    assert (here / "groups.png").read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
@pytest.mark.usefixtures("scan")
def test_inspect_plots(here: Path) -> None:
    assert main(["inspect", "scan.npz", "--plot", "scan.png"]) == 0
    assert names(here) == ["scan.npz", "scan.png"]
    assert (here / "scan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("scan")
def test_inspect_refuses_a_picture_over_the_scan(capsys: pytest.CaptureFixture[str]) -> None:
    assert "scan.npz is the scan itself" in refused(
        capsys, "inspect", "scan.npz", "--plot", "scan.npz"
    )
    assert "no folder nowhere" in refused(capsys, "inspect", "scan.npz", "--plot", "nowhere/a.png")


@needs_matplotlib
@pytest.mark.skipif(not STAR.exists(), reason="no measured scan here")
def test_group_on_the_measured_star(here: Path) -> None:
    options = "--gridsize 2 --neighbors 7 --groups 512 --seed 42 -o groups.npz --plot groups.png"
    assert main(["group", str(STAR), *options.split()]) == 0
    assert names(here) == ["groups.npz", "groups.png"]
    positions = pf.read_scan(STAR).positions
    expected = pf.group_positions(positions, 512, gridsize=2, n_neighbors=7, seed=42)
    saved = pf.Groups.load("groups.npz", positions)
    np.testing.assert_array_equal(saved.indices, expected.indices)
    np.testing.assert_array_equal(saved.centers, expected.centers)


def test_intensity_reaches_the_reader(scan: pf.Scan, capsys: pytest.CaptureFixture[str]) -> None:
    pf.write_scan(dataclasses.replace(scan, diffraction=-scan.diffraction), "scan.npz")
    assert main(["inspect", "scan.npz"]) == 0
    capsys.readouterr()
    for option in ("--counts", "--intensity"):
        assert main(["inspect", "scan.npz", option]) == 2
        assert "Intensities can't be negative" in capsys.readouterr().err


# --- inspect ----------------------------------------------------------------------------------


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
def test_inspect_of_a_few_positions(n: int, capsys: pytest.CaptureFixture[str]) -> None:
    pf.write_scan(pf.simulate_scan(n, 4, seed=0), "scan.npz")
    assert main(["inspect", "scan.npz"]) == 0
    out = capsys.readouterr().out
    assert ("at the same distance" in out) == (n > 8)
    assert ("coincide" in out) == (n > 1)


def test_inspect_of_unknown_keys_shows_them_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez("other.npz", frames=np.zeros((3, 2, 2)), xcoords=np.zeros(3))
    assert main(["inspect", "other.npz"]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"^frames +float64 +\(3, 2, 2\)$", out, re.MULTILINE)
    assert err.startswith(f"{ERROR}other.npz is no scan: it lacks ycoords, diff3d")


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["group", "inspect"])
@pytest.mark.parametrize("mistake", ["missing", "folder", "text", "empty", "cut", "keys", "nan"])
def test_bad_files_get_a_sentence(
    here: Path, scan: pf.Scan, capsys: pytest.CaptureFixture[str], command: str, mistake: str
) -> None:
    path = here / "bad.npz"
    whole = (here / "scan.npz").read_bytes()
    expected = "bad.npz is no NPZ file, or it is damaged or cut short"
    if mistake == "missing":
        expected = "bad.npz: No such file or directory."
    elif mistake == "folder":
        path.mkdir()
        expected = "bad.npz: Is a directory."
    elif mistake == "text":
        path.write_text("xcoords = 1, 2, 3\n")
        expected = "bad.npz is text: that is not a format that is read"
    elif mistake == "empty":
        path.write_bytes(b"")
    elif mistake == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif mistake == "keys":
        np.savez(path, xcoords=np.zeros(3), diff3d=np.zeros((3, 2, 2)))
        expected = "bad.npz is no scan: it lacks ycoords."
    else:
        positions = scan.positions.copy()
        positions[[3, 5], 1] = np.nan
        pf.write_scan(dataclasses.replace(scan, positions=positions), path)
        expected = "3"
    before = names(here)
    argv = [command, "bad.npz", *(["-o", "out.npz"] if command == "group" else [])]
    assert expected in refused(capsys, *argv)
    assert names(here) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--gridsize 2 --neighbors 3", "K=3 must be >= C=4"),
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
        ("--n-subsample 0", "n_subsample must be a whole number in 1..2147483647, got 0."),
        ("--cache", "cache= keeps the pool of strategy='group-then-sample'"),
        ("-o nowhere/out.npz", "nowhere/out.npz can't be written: there is no folder nowhere."),
        ("-o folder", "folder can't be written: it is a folder."),
        ("-o scan.npz", "scan.npz is the scan itself, which would be overwritten."),
        ("--plot nowhere/a.png", "nowhere/a.png can't be written: there is no folder nowhere."),
        ("--plot scan.npz", "scan.npz is the scan itself, which would be overwritten."),
    ],
)
@pytest.mark.usefixtures("scan")
def test_bad_arguments_of_group_get_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], options: str, expected: str
) -> None:
    (here / "folder").mkdir()
    content = (here / "scan.npz").read_bytes()
    argv = ["group", "scan.npz", "-o", "out.npz", *options.split()]
    assert expected in refused(capsys, *argv)
    assert names(here) == ["folder", "scan.npz"]
    assert (here / "scan.npz").read_bytes() == content


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--positions 0", "n_positions must be a whole number"),
        ("--positions 2000000000 --pixels 4096", "Unable to allocate"),
        ("--photons nan", "photons must be more than 0"),
        ("--seed -5", "seed must be a whole number"),
        ("-o nowhere/a.npz", "there is no folder nowhere"),
    ],
)
def test_bad_arguments_of_simulate_get_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], options: str, expected: str
) -> None:
    assert expected in refused(capsys, "simulate", "-o", "a.npz", *options.split())
    assert names(here) == []


def test_demo_into_a_missing_folder_gets_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no folder nowhere" in refused(capsys, "demo", "-o", "nowhere")


@pytest.mark.parametrize(
    "argv", [[], ["polish"], ["group", "scan.npz"], ["simulate", "-o", "a", "--pixels", "many"]]
)
def test_usage_errors_exit_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(argv)
    assert exited.value.code == 2
    assert "usage: ptycho-fast" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0,1", "0,1,0,x", "0 1 0 1", "0,1,0,1,"])
def test_bounds_are_four_numbers(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["group", "scan.npz", "-o", "a.npz", "--bounds", text])
    expected = f"--bounds: 4 numbers with commas between them are needed, got {text!r}"
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("scan")
def test_full_disk_leaves_the_old_file(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(file: Any, *_: Any, **__: Any) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    (here / "out.npz").write_bytes(b"old")
    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    assert "No space left" in refused(capsys, "group", "scan.npz", "-o", "out.npz")
    assert "No space left" in refused(capsys, "simulate", "-o", "out.npz", "--positions", "2")
    assert names(here) == ["out.npz", "scan.npz"]
    assert (here / "out.npz").read_bytes() == b"old"


# --- demo, help, the command itself -----------------------------------------------------------


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ptycho_fast.cli", *argv],
        capture_output=True,
        text=True,
        check=False,
    )


@needs_matplotlib
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
def test_demo_feeds_tensorflow_and_keeps_it_quiet(here: Path) -> None:
    done = run("demo")
    assert done.stderr == ""
    assert done.returncode == 0
    assert "8 of 32 groups through tf.data" in done.stdout
    assert "diffraction (32, 64, 64, 4) float32" in done.stdout
    assert "coords_relative (32, 1, 2, 4) float64" in done.stdout
    assert "Y (32, 64, 64, 4) complex64" in done.stdout
    assert names(here) == ["demo.png"]
    assert (here / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_tensorflow_and_matplotlib_says_what_is_missing(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorflow", "matplotlib", "matplotlib.figure", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "8 of 32 groups through NumPy" in out
    assert "Y (32, 64, 64, 4) complex64" in out
    assert 'pip install "ptycho_fast[tensorflow]"' in out
    assert 'pip install "ptycho_fast[plot]"' in out
    assert names(here) == []


def test_demo_survives_a_broken_tensorflow(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "tensorflow.py").write_text("raise RuntimeError('not for this processor')\n")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "importing it fails: RuntimeError: not for this processor" in out
    assert "8 of 32 groups through NumPy" in out


@needs_matplotlib
@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize("command", ["demo", "simulate", "inspect", "convert", "group"])
def test_help_has_an_example_that_runs(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # a demo without it is a quick one
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    example = capsys.readouterr().out.split("example:\n")[1].split()
    assert example[:2] == ["ptycho-fast", command]
    assert main(example[1:]) == 0


def test_verbose_shows_the_log_and_silence_is_the_default() -> None:
    loud, quiet = (run("simulate", "-o", "a.npz", "--positions", "2", *v) for v in (["-v"], []))
    assert (loud.returncode, quiet.returncode) == (0, 0)
    assert loud.stderr.startswith(f"ptycho_fast: {pf.__version__}, Python ")
    assert quiet.stderr == ""


def test_exit_code_and_sentence_of_the_command_itself() -> None:
    done = run("inspect", "nothing.npz")
    assert done.returncode == 2
    assert done.stderr == f"{ERROR}nothing.npz: No such file or directory.\n"


def test_cache_shows_and_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / "cache"))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == ""
    scan = pf.simulate_scan(20, 16, seed=0)
    x, y = scan.positions.T
    np.savez_compressed(tmp_path / "scan.npz", xcoords=x, ycoords=y, diff3d=scan.diffraction)
    pf.read_scan(tmp_path / "scan.npz", load=False).diffraction[0]
    assert main(["cache"]) == 0
    assert "scan-diff3d-" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "Freed 0.0 MiB" in capsys.readouterr().out
    assert not list((tmp_path / "cache").iterdir())
