"""`ptycho-fast train` and `infer`: files are written and read, mistakes are told."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.canvas import canvas
from ptycho_fast.cli import main

pytest.importorskip("lightning")
pytest.importorskip("skimage")

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scan and a run of two epochs."""
    folder = tmp_path_factory.mktemp("models")
    pf.write_scan(pf.simulate_scan(n_positions=150, N=16, seed=0), folder / "scan.npz")
    command = ["train", str(folder / "scan.npz"), "-o", str(folder / "RUN"), "--epochs", "2"]
    assert main([*command, "--picture-every", "1", "--device", "cpu"]) == 0
    return folder


def test_train_writes_model_checkpoint_history_and_pictures(run: Path) -> None:
    names = {path.name for path in (run / "RUN").iterdir()}
    assert {"config.json", "probe.npy", "model.safetensors", "last.ckpt"} < names
    assert {"epoch_0001.png", "epoch_0002.png"} < names
    with (run / "RUN" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_infer_writes_object_coverage_scores_and_picture(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run / "OUT"
    command = ["infer", str(run / "RUN"), str(run / "scan.npz"), "-o", str(out), "--device", "cpu"]
    assert main([*command, "--n-images", "100", "--refine", "2"]) == 0
    printed = capsys.readouterr().out
    scan = pf.read_scan(run / "scan.npz")
    image, coverage = np.load(out / "object.npy"), np.load(out / "coverage.npy")
    assert scan.object is not None
    area = canvas(scan.positions, scan.N)
    assert image.shape == coverage.shape == area.shape
    assert image.dtype == np.complex64
    assert (image[coverage == 0] == 0).all()
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    assert f"{metrics['phase_rmse']:.4f}" in printed
    assert metrics["origin"] == list(area.origin)
    assert metrics["twin"]["phase_rmse"] > metrics["phase_rmse"]
    assert (out / "image.png").read_bytes()[1:4] == b"PNG"


def test_resume_continues_a_run(run: Path) -> None:
    command = ["train", str(run / "scan.npz"), "-o", str(run / "RUN2"), "--picture-every", "0"]
    assert main([*command, "--epochs", "1", "--device", "cpu"]) == 0
    assert main([*command, "--epochs", "2", "--device", "cpu", "--resume"]) == 0
    assert len((run / "RUN2" / "history.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("train scan.npz -o RUN", "contains a run already"),
        ("train scan.npz -o RUN --resume --gridsize 2", "gridsize is 2 here, 1 there"),
        ("train scan.npz -o NEW --resume", "no run to resume"),
        ("train scan.npz -o NEW --architecture unet", "must be one of cnn, fno, hybrid"),
        ("train scan.npz -o NEW --gridsize 2 --neighbors 3", "neighbor_count=3"),
        ("train scan.npz -o NEW --batch-size 500", "150 groups"),
        ("train missing.npz -o NEW", "missing.npz"),
        ("infer NEW scan.npz -o OUT2", "is missing"),
        (
            "train scan.npz -o scan.npz",
            "scan.npz can't be the folder for the results: it is a file",
        ),
        ("train scan.npz -o NEW --epochs 0", "(On the command line max_epochs is --epochs.)"),
        ("infer RUN scan.npz -o OUT2 --refine -1", "refine"),
        ("infer RUN scan.npz -o scan.npz", "scan.npz can't be the folder for the results"),
    ],
)
def test_mistakes_get_a_sentence_and_leave_no_files(
    run: Path,
    command: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(command.split()) == 2
    assert told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not (run / "NEW").exists()
    assert not (run / "OUT2").exists()


def test_several_files_and_patterns_are_trained_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scans").mkdir()
    files = [tmp_path / "scans" / f"{name}.npz" for name in "abc"]
    for seed, file in enumerate(files):
        pf.write_scan(pf.simulate_scan(n_positions=40, N=16, seed=seed), file)
    options = ["--epochs", "1", "--picture-every", "0", "--device", "cpu", "--groups", "16"]
    command = ["train", str(tmp_path / "scans" / "[ab].npz"), *options]
    held_out = ["--validation", str(tmp_path / "scans" / "c*")]
    assert main([*command, "-o", str(tmp_path / "RUN"), *held_out]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}.npz: n = 40" in printed for name in "abc")
    record = json.loads((tmp_path / "RUN" / "run.json").read_text())
    assert [scan["file"] for scan in record["scans"]] == [str(file) for file in files[:2]]
    assert [scan["file"] for scan in record["validation_scans"]] == [str(files[2])]
    for file in files:
        out = str(tmp_path / "OUT" / file.stem)
        assert main(["infer", str(tmp_path / "RUN"), str(file), "-o", out, "--device", "cpu"]) == 0
    # One file that is no scan, or has another N, among many; a pattern without a file.
    (tmp_path / "scans" / "d.npz").write_text("no scan")
    pf.write_scan(pf.simulate_scan(n_positions=40, N=32, seed=0), tmp_path / "large.npz")
    capsys.readouterr()
    for given, told in (
        (["scans/*.npz"], "d.npz"),
        (["scans/a.npz", "large.npz"], "scan 1 (large.npz) has 32 x 32 pixels"),
        (["scans/a.npz", "nothing/*.h5"], "No file matches nothing/*.h5."),
        (["scans/a.npz", "scans/b.npz", "scans/a.npz"], "scan 0 (scans/a.npz) and scan 2"),
    ):
        assert main(["train", *given, "-o", "NEW", *options]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "NEW").exists()
