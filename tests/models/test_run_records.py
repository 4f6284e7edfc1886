"""A run is only resumed with the scan and the options that it began with."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.cli import main

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

import small_runs  # noqa: E402
from small_runs import DEEP, EPOCHS, POSITIONS, N, contents, edit_json, make_model, resume, train  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_run_json_records_scan_and_options(run: Path, file: Path, filed_scan: Any) -> None:

    record = json.loads((run / "run.json").read_text())
    positions = hashlib.sha256(filed_scan.positions.astype("<f8").tobytes()).hexdigest()
    assert record["positions_sha256"] == positions
    assert (record["file"], record["n_positions"], record["N"]) == (str(file), POSITIONS, N)
    assert record["options"] == {
        # At gridsize 1 it is the number of positions within N/4.
        "neighbor_count": record["options"]["neighbor_count"],
        "n_groups": 16,
        "batch_size": 8,
        "validation": None,
        "refine_probe": 0,
        "devices": 1,
    }
    assert record["options"]["neighbor_count"] >= 4
    for name in ("patterns_sha256", "probe_sha256"):
        assert re.fullmatch("[0-9a-f]{64}", record[name])


def turned(scan: Any) -> Any:
    """Return the scan with its patterns turned by 180 degrees, which keeps their energies."""
    return replace(scan, diffraction=np.ascontiguousarray(scan.diffraction[:, ::-1, ::-1]))


def one_moved(scan: Any) -> Any:
    positions = scan.positions.copy()
    positions[-1, 0] += 1e-9
    return replace(scan, positions=positions, positions_start=None)


def one_brighter(scan: Any) -> Any:
    stack = scan.diffraction.copy()
    stack[POSITIONS // 2, 3, 4] += 1
    return replace(scan, diffraction=stack)


def masked(scan: Any) -> Any:
    mask = np.ones((N, N), bool)
    mask[2, 3] = False
    return replace(scan, mask=mask)


OTHERS: list[tuple[Callable[[Any], Any], dict[str, Any], str]] = [
    (lambda scan: scan.subsample(47, seed=0), {}, "number of positions was 48 and is 47 now"),
    (one_moved, {}, "checksum of the positions was"),
    (one_brighter, {}, "checksum of the patterns was"),
    (turned, {}, "checksum of the patterns was"),
    (lambda scan: replace(scan, probe=scan.probe * 1j), {}, "checksum of the probe was"),
    (masked, {}, "checksum of the mask was None and is"),
    (lambda scan: scan, {"n_groups": 24}, "n_groups was 16 and is 24 now"),
    (lambda scan: scan, {"n_groups": None}, "n_groups was 16 and is 48 now"),
    (lambda scan: scan, {"neighbor_count": 40}, r"neighbor_count was \d+ and is 40 now"),
    (lambda scan: scan, {"batch_size": 4}, "batch_size was 8 and is 4 now"),
    (lambda scan: scan, {"batch_size": None}, "batch_size was 8 and is 2 now"),
    (lambda scan: scan, {"validation": 0.25}, "validation was None and is 0.25 now"),
    (lambda scan: scan, {"refine_probe": 3}, "refine_probe was 0 and is 3 now"),
]


@pytest.mark.parametrize(("change", "options", "message"), OTHERS)
def test_resuming_with_another_scan_or_option_is_refused_with_the_difference(
    run: Path, filed_scan: Any, change: Callable[[Any], Any], options: dict[str, Any], message: str
) -> None:
    before = contents(run)
    model = make_model()
    with pytest.raises(ValueError, match=f"RUN contains another run: .*{message}"):
        train(model, change(filed_scan), EPOCHS + 1, output=run, resume=True, **options)
    assert contents(run) == before
    assert "untrained" in repr(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, "seed is 4 here, 0 there"),
        ({"architecture": "fno"}, "architecture is 'fno' here, 'cnn' there"),
        ({"width": 3}, "options is"),
        ({"least_exposure": 0.1}, "least_exposure is 0.1 here"),
    ],
)
def test_resuming_with_another_model_is_refused_with_the_difference(
    run: Path, filed_scan: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"contains a run of another model: .*{message}"):
        train(make_model(**options), filed_scan, EPOCHS + 1, output=run, resume=True)


class StoppedError(Exception):
    pass


class Stop(lightning.pytorch.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise StoppedError


def stopping(callbacks: Any, **others: Any) -> Any:
    return lightning.Trainer(callbacks=[*callbacks, Stop()], **others)


def test_a_moved_compressed_or_float64_scan_is_the_same_scan(
    file: Path, filed_scan: Any, tmp_path: Path
) -> None:
    """Resumed with any of them, a run has the losses of one that was not stopped."""
    whole = train(make_model(), filed_scan, 3)
    with np.load(file) as held:
        np.savez_compressed(tmp_path / "moved.npz", **held)
    doubles = replace(filed_scan, diffraction=filed_scan.diffraction.astype(np.float64))
    for name, same in (("a", tmp_path / "moved.npz"), ("b", doubles)):
        run = tmp_path / name
        with pytest.raises(StoppedError):
            train(make_model(), file, 3, output=run, trainer_cls=stopping)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = resume(run, same, 3, source="elsewhere.cxi")
        assert [row["loss"] for row in rows] == [row["loss"] for row in whole]
        recorded = json.loads((run / "run.json").read_text())["file"]
        assert recorded == os.path.abspath("elsewhere.cxi")


def test_fewer_epochs_than_were_done_are_refused(
    run: Path, filed_scan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(run)
    message = "RUN contains a run of 2 epochs, but max_epochs=1,"
    with pytest.raises(ValueError, match=message):
        resume(run, filed_scan, 1)
    rows = resume(run, filed_scan, EPOCHS)
    assert "All 2 epochs were done before. Ask for more" in caplog.text
    assert [row["epoch"] for row in rows] == [0, 1]
    assert contents(run) == before


def test_a_run_without_a_record_resumes_with_a_warning(run: Path, filed_scan: Any) -> None:
    (run / "run.json").unlink()
    with pytest.warns(UserWarning, match=r"RUN has no run\.json.*can't be checked") as warned:
        resume(run, turned(filed_scan))
    assert [w.filename for w in warned if "run.json" in str(w.message)] == [small_runs.__file__]
    # From now on it has a record.
    with pytest.raises(ValueError, match="checksum of the patterns was"):
        resume(run, filed_scan, EPOCHS + 2)


def test_resuming_on_another_device_warns(run: Path, filed_scan: Any) -> None:
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "gpu"}))
    with pytest.warns(UserWarning, match="was trained on the gpu and is resumed on the cpu"):
        resume(run, filed_scan)


def test_the_command_line_records_a_run_and_refuses_another(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "RUN"
    command = ["train", str(file), "-o", str(run), "--groups", "8", "--picture-every", "0"]
    command += ["--device", "cpu"]
    assert main([*command, "--epochs", "2"]) == 0
    assert json.loads((run / "run.json").read_text())["file"] == str(file)
    other = tmp_path / "other.npz"
    pf.write_scan(pf.simulate_scan(n_positions=POSITIONS, N=N, seed=1), other)
    for arguments, told in (
        (["--epochs", "1", "--resume"], "contains a run of 2 epochs, but max_epochs=1,"),
        (["--epochs", "3", "--resume", "--batch-size", "1"], "batch_size was 2 and is 1 now"),
        (
            ["--epochs", "3", "--resume", "--validation", "0.3"],
            "validation was None and is 0.3 now",
        ),
    ):
        assert main([*command, *arguments]) == 2
        assert told in capsys.readouterr().err
    assert main([command[0], str(other), *command[2:], "--epochs", "3", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "checksum of the patterns was" in said
    assert f"The scan of that run was {file}." in said
    # If all epochs are done, a missing history does not matter.
    (run / "history.csv").unlink()
    assert main([*command, "--epochs", "2", "--resume"]) == 0
    shutil.move(file, tmp_path / "moved.npz")
    try:
        moved = [command[0], str(tmp_path / "moved.npz"), *command[2:]]
        assert main([*moved, "--epochs", "3", "--resume"]) == 0
    finally:
        shutil.move(tmp_path / "moved.npz", file)
    with (run / "history.csv").open(newline="") as history:
        assert [row["epoch"] for row in csv.DictReader(history)] == ["2"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", DEEP, b"\xff", b'{"format": 1, "ptycho_fast": "0", "surprise": 3}',
     b" " * (2**24 + 1)],
)  # fmt: skip
def test_a_damaged_record_is_refused(run: Path, filed_scan: Any, content: bytes) -> None:
    (run / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged: "):
        resume(run, filed_scan)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"options": None}, "is damaged"),
        ({"N": [[[]]]}, "is damaged"),
        ({"N": "sixteen"}, "N was 'sixteen' and is 16 now"),
        ({"positions_sha256": 5}, "checksum of the positions was 5"),
    ],
)
def test_a_record_of_another_run_or_format_is_refused(
    run: Path, filed_scan: Any, entries: dict[str, Any], message: str
) -> None:
    edit_json("run.json", **entries)(run)
    with pytest.raises(ValueError, match=message):
        resume(run, filed_scan)
