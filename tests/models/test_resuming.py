"""Runs that were stopped, resumed, finished or continued."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from hostile import MakesFolder, pickled  # noqa: E402
from ptycho_fast.models import PtychoModel  # noqa: E402
from small_models import (  # noqa: E402
    EPOCHS,
    FILES,
    GROUPS,
    OF_A_RUN,
    StoppedError,
    files_in,
    history_of,
    infer,
    make_model,
    same_weights,
    stopping,
    told,
    train,
    train_run,
)

if TYPE_CHECKING:
    from pathlib import Path


SCRIPT = """
import signal, sys, time
import torch
import ptycho_fast as pf
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from ptycho_fast.models import PtychoModel

torch.set_num_threads(1)
# A shell that runs the tests in the background may have SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
place, output, groups = sys.argv[1:]

class Wait(Callback):
    def wait(self):
        print("READY", flush=True)
        time.sleep(120)

    def on_train_batch_start(self, trainer, module, batch, index):
        if place == "batch" and trainer.current_epoch == 2 and index == 3:
            self.wait()

    def on_train_epoch_end(self, trainer, module):
        # The history contains this epoch already, the checkpoint does not.
        if place == "epoch end" and trainer.current_epoch == 2:
            self.wait()

def waiting(callbacks, **options):
    return Trainer(callbacks=[*callbacks, Wait()], **options)

scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
model = PtychoModel("cnn", N=16, width=8)
model.train(scan, n_groups=int(groups), batch_size=8, max_epochs=4, device="cpu", picture_every=0,
            output=output, trainer_cls=waiting)
print("DONE", flush=True)
"""


def test_a_run_leaves_its_files_and_its_history(uninterrupted: tuple[Any, Path], scan: Any) -> None:
    model, folder = uninterrupted
    assert files_in(folder) == sorted([*FILES, *OF_A_RUN])
    assert [row["epoch"] for row in history_of(folder)] == [str(e) for e in range(EPOCHS)]
    loaded = PtychoModel.load(folder)
    assert same_weights(loaded, model)
    # Without an output nothing is written, but the returned history is the same.
    again = make_model()
    assert told(train_run(again, scan, EPOCHS)) == history_of(folder)
    assert same_weights(again, model)


@pytest.mark.parametrize(
    ("place", "stop"),
    [
        ("epoch end", signal.SIGKILL),
        ("batch", signal.SIGINT),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bits(
    place: str, stop: signal.Signals, uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, place, str(folder), str(GROUPS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "READY" in line:
                break
        process.send_signal(stop)
        out, errors = process.communicate(timeout=60)
    assert "DONE" not in out, errors
    if stop == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode in {-signal.SIGINT, 128 + signal.SIGINT}, errors
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert f"in {folder}, and the last complete epoch in {folder / 'last.ckpt'}" in errors
    # The files that were written are complete.
    assert files_in(folder) == sorted([*FILES, *OF_A_RUN])
    assert len(history_of(folder)) == (3 if place == "epoch end" else 2)
    left = PtychoModel.load(folder)
    assert np.isfinite(infer(left, scan).object).all()
    # Resume in a process that knows nothing of the first.
    model = make_model()
    rows = train_run(model, scan, EPOCHS, output=folder, resume=True)
    whole, expected = uninterrupted
    assert history_of(folder) == history_of(expected)
    assert told(rows) == history_of(expected)
    assert same_weights(model, whole)
    assert same_weights(PtychoModel.load(folder), whole)
    assert files_in(folder) == files_in(expected)


def test_the_plateau_schedule_resumes_where_it_was(scan: Any, tmp_path: Path) -> None:
    """The run is stopped just before the schedule lowers the learning rate."""

    few = replace(
        scan,
        positions=scan.positions[:24],
        positions_start=scan.positions_start[:24],
        diffraction=scan.diffraction[:24],
    )
    # The rate is so high that the loss does not fall.
    options: dict[str, Any] = {"schedule": "plateau", "learning_rate": 0.5, "stages": 1}
    whole = told(train(make_model(**options), few, 12, batch_size=12))
    rates = [float(row["learning_rate"]) for row in whole]
    falls = [epoch for epoch in range(1, 12) if rates[epoch] < 0.75 * rates[epoch - 1]]
    assert falls, rates
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(
            make_model(**options),
            few,
            12,
            batch_size=12,
            output=folder,
            trainer_cls=stopping(falls[0] - 1),
        )
    rows = train(make_model(**options), few, 12, batch_size=12, output=folder, resume=True)
    assert told(rows) == whole


def test_a_finished_run_can_be_given_more_epochs(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(uninterrupted[1], tmp_path / "run")
    model = make_model()
    rows = train_run(model, scan, EPOCHS + 2, output=folder, resume=True)
    assert len(rows) == EPOCHS + 2
    assert told(rows)[:EPOCHS] == history_of(uninterrupted[1])
    assert told(rows) == history_of(folder)
    assert same_weights(PtychoModel.load(folder), model)


def test_resuming_a_finished_run_changes_nothing(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    """No epoch is left to do."""
    folder = shutil.copytree(uninterrupted[1], tmp_path / "run")
    model = make_model()
    train_run(model, scan, EPOCHS, output=folder, resume=True)
    assert same_weights(model, uninterrupted[0])
    assert history_of(folder) == history_of(uninterrupted[1])


def test_runs_are_never_overwritten(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(uninterrupted[1], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="contains a run already. Resume it"):
        train_run(make_model(), scan, output=folder)
    message = "contains a run of another model: seed is 3 here, 0 there; loss is 'amplitude' here"
    with pytest.raises(ValueError, match=message):
        train_run(make_model(seed=3, loss="amplitude"), scan, output=folder, resume=True)
    (folder / "last.ckpt").unlink()
    with pytest.raises(ValueError, match="contains a run already"):
        train_run(make_model(), scan, output=folder)
    with pytest.raises(ValueError, match=r"There is no run to resume: .*last\.ckpt is missing"):
        train_run(make_model(), scan, output=folder, resume=True)
    with pytest.raises(ValueError, match="pass output="):
        train_run(make_model(), scan, resume=True)
    with pytest.raises(ValueError, match="no run to resume"):
        train_run(make_model(), scan, output=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    for name in files_in(folder):
        assert (folder / name).read_bytes() == before[name]


@pytest.mark.parametrize("damage", ["pickle", "torch", "empty", "cut", "text"])
def test_a_damaged_checkpoint_leaves_the_model_loadable(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(uninterrupted[1], tmp_path / "run")
    path = folder / "last.ckpt"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "pickle": pickled(MakesFolder(tmp_path / "was here"), "pickle"),
            "torch": pickled(MakesFolder(tmp_path / "was here"), "torch"),
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "text": b"no checkpoint",
        }[damage]
    )
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        train_run(make_model(), scan, EPOCHS + 1, output=folder, resume=True)
    assert not (tmp_path / "was here").exists()
    # The model itself can still be loaded.
    assert same_weights(PtychoModel.load(folder), uninterrupted[0])


def test_an_infinite_loss_stops_training_and_keeps_the_files(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    """One pattern is so bright that its counts overflow float32."""
    folder = tmp_path / "run"
    train_run(make_model(), scan, 2, output=folder)
    before = {name: (folder / name).read_bytes() for name in (*FILES, "last.ckpt")}
    stack = scan.diffraction.copy()
    stack[17] *= 1e30
    bad = replace(scan, diffraction=stack)
    # Without the record, resuming cannot tell that this is not the scan of the run.
    record = (folder / "run.json").read_bytes()
    (folder / "run.json").unlink()
    with (
        pytest.raises(FloatingPointError, match="scan indices") as refused,
        pytest.warns(UserWarning, match="can't be checked"),
    ):
        train_run(make_model(), bad, EPOCHS, output=folder, resume=True, batch_size=1)
    (folder / "run.json").write_bytes(record)
    message = str(refused.value)
    found = re.search(r"in epoch (\d+), batch (\d+), of scan indices ([\d, ]+)\.", message)
    assert found is not None, message
    assert int(found[1]) == 2
    assert 17 in [int(i) for i in found[3].split(",")]
    assert len(found[3].split(",")) <= 4
    for name, kept in before.items():
        assert (folder / name).read_bytes() == kept
    assert len(history_of(folder)) == 2
    # The schedule depends on max_epochs, so the losses differ from those of the whole run.
    rows = train_run(make_model(), scan, EPOCHS, output=folder, resume=True)
    assert len(rows) == EPOCHS
    assert all(math.isfinite(float(row["loss"])) for row in rows)


def test_a_run_with_thinned_patterns_resumes_to_the_same_bits(scan: Any, tmp_path: Path) -> None:
    whole = told(train_run(make_model(least_exposure=1e-2), scan, 3))
    assert whole != told(train_run(make_model(), scan, 3))
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train_run(make_model(least_exposure=1e-2), scan, 3, output=folder, trainer_cls=stopping(1))
    rows = train_run(make_model(least_exposure=1e-2), scan, 3, output=folder, resume=True)
    assert told(rows) == whole
