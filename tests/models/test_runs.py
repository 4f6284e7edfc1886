"""The folder of a run: it goes on only as itself, and what is damaged in it is told."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.cli import main

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

from safetensors.torch import load, save  # noqa: E402

from ptycho_fast.models import PtychoModel, register_architecture  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch.set_num_threads(1)

N, POSITIONS, EPOCHS = 16, 48, 2
FILES = (
    "config.json", "probe.npy", "model.safetensors", "last.ckpt", "history.csv", "run.json",
)  # fmt: skip


def make_model(**options: Any) -> PtychoModel:
    return PtychoModel(**{"N": N, "width": 2, "stages": 1, **options})


def train(model: PtychoModel, scan: Any, epochs: int = EPOCHS, **options: Any) -> Any:
    options = {"batch_size": 8, "n_groups": 16, "device": "cpu", "picture_every": 0, **options}
    return model.train(scan, max_epochs=epochs, **options)


def go_on(folder: Path, scan: Any, epochs: int = EPOCHS + 1, **options: Any) -> Any:
    return train(make_model(), scan, epochs, output=folder, resume=True, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "gold.npz"
    pf.write_scan(pf.simulate_scan(n_positions=POSITIONS, N=N, seed=0), path)
    return path


@pytest.fixture(scope="module")
def scan(file: Path) -> Any:
    held = pf.read_scan(file)
    return replace(held, diffraction=held.diffraction[:], energies=None)


@pytest.fixture(scope="module")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "RUN"
    train(make_model(), file, output=folder)
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(done, tmp_path / "RUN")


# --- a run goes on only as itself ----------------------------------------------------------------


def test_what_a_run_was_trained_on_is_recorded(run: Path, file: Path, scan: Any) -> None:
    import hashlib  # noqa: PLC0415

    record = json.loads((run / "run.json").read_text())
    positions = hashlib.sha256(scan.positions.astype("<f8").tobytes()).hexdigest()
    assert record["positions_sha256"] == positions
    assert (record["file"], record["n_positions"], record["N"]) == (str(file), POSITIONS, N)
    assert record["options"] == {
        # At gridsize 1: as many as lie within N/4, which these have.
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
    """Patterns turned round: of the same energies."""
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
    (lambda scan: scan.subsample(47, seed=0), {}, "number of positions was 48, is 47 now"),
    (one_moved, {}, "checksum of the positions was"),
    (one_brighter, {}, "checksum of the patterns was"),
    (turned, {}, "checksum of the patterns was"),
    (lambda scan: replace(scan, probe=scan.probe * 1j), {}, "checksum of the probe was"),
    (masked, {}, "checksum of the mask was None, is"),
    (lambda scan: scan, {"n_groups": 24}, "n_groups was 16, is 24 now"),
    (lambda scan: scan, {"n_groups": None}, "n_groups was 16, is 48 now"),
    (lambda scan: scan, {"neighbor_count": 40}, r"neighbor_count was \d+, is 40 now"),
    (lambda scan: scan, {"batch_size": 4}, "batch_size was 8, is 4 now"),
    (lambda scan: scan, {"batch_size": None}, "batch_size was 8, is 2 now"),
    (lambda scan: scan, {"validation": 0.25}, "validation was None, is 0.25 now"),
    (lambda scan: scan, {"refine_probe": 3}, "refine_probe was 0, is 3 now"),
]


@pytest.mark.parametrize(("change", "options", "message"), OTHERS)
def test_another_run_is_refused_with_the_difference(
    run: Path, scan: Any, change: Callable[[Any], Any], options: dict[str, Any], message: str
) -> None:
    before = contents(run)
    model = make_model()
    with pytest.raises(ValueError, match=f"RUN holds another run: .*{message}"):
        train(model, change(scan), EPOCHS + 1, output=run, resume=True, **options)
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
def test_another_model_is_refused_with_the_difference(
    run: Path, scan: Any, options: dict[str, Any], message: str
) -> None:
    if "architecture" in options:
        pytest.importorskip("neuralop")
    with pytest.raises(ValueError, match=f"holds a run of another model: .*{message}"):
        train(make_model(**options), scan, EPOCHS + 1, output=run, resume=True)


class StoppedError(Exception):
    pass


class Stop(lightning.pytorch.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise StoppedError


def stopping(callbacks: Any, **others: Any) -> Any:
    return lightning.Trainer(callbacks=[*callbacks, Stop()], **others)


def test_the_same_content_is_the_same_scan(file: Path, scan: Any, tmp_path: Path) -> None:
    """Moved and compressed, or in memory as doubles: it goes on as if it had not been stopped."""
    whole = train(make_model(), scan, 3)
    with np.load(file) as held:
        np.savez_compressed(tmp_path / "moved.npz", **held)
    doubles = replace(scan, diffraction=scan.diffraction.astype(np.float64))
    for name, same in (("a", tmp_path / "moved.npz"), ("b", doubles)):
        run = tmp_path / name
        with pytest.raises(StoppedError):
            train(make_model(), file, 3, output=run, trainer_cls=stopping)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = go_on(run, same, 3, source="elsewhere.cxi")
        assert [row["loss"] for row in rows] == [row["loss"] for row in whole]
        recorded = json.loads((run / "run.json").read_text())["file"]
        assert recorded == os.path.abspath("elsewhere.cxi")


def test_fewer_epochs_than_were_done(
    run: Path, scan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(run)
    message = "RUN holds a run of 2 epochs, and 1 were asked for"
    with pytest.raises(ValueError, match=message):
        go_on(run, scan, 1)
    rows = go_on(run, scan, EPOCHS)
    assert "All 2 epochs were done before: ask for more" in caplog.text
    assert [row["epoch"] for row in rows] == [0, 1]
    assert contents(run) == before


def test_a_run_without_a_record_goes_on_with_a_word(run: Path, scan: Any) -> None:
    (run / "run.json").unlink()
    with pytest.warns(UserWarning, match=r"RUN has no run\.json: .*can't be checked") as warned:
        go_on(run, turned(scan))
    assert [w.filename for w in warned if "run.json" in str(w.message)] == [__file__]
    # From here on it has one.
    with pytest.raises(ValueError, match="checksum of the patterns was"):
        go_on(run, scan, EPOCHS + 2)


def test_another_device_is_told(run: Path, scan: Any) -> None:
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "gpu"}))
    with pytest.warns(UserWarning, match="was trained on the gpu and goes on on the cpu"):
        go_on(run, scan)


def test_the_command_line_records_and_refuses(
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
        (["--epochs", "1", "--resume"], "holds a run of 2 epochs, and 1 were asked for"),
        (["--epochs", "3", "--resume", "--batch-size", "1"], "batch_size was 2, is 1 now"),
        (["--epochs", "3", "--resume", "--validation", "0.3"], "validation was None, is 0.3 now"),
    ):
        assert main([*command, *arguments]) == 2
        assert told in capsys.readouterr().err
    assert main([command[0], str(other), *command[2:], "--epochs", "3", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "checksum of the patterns was" in said
    assert f"which was read from {file}" in said
    # All done and the history gone: nothing is left to say.
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


# --- damaged folders -----------------------------------------------------------------------------


LIST = object()


def edit_checkpoint(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = torch.load(run / "last.ckpt", weights_only=True)
        made = change(held)
        torch.save([1] if made is LIST else held, run / "last.ckpt")

    return damage


def edit_weights(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = load((run / "model.safetensors").read_bytes())
        change(held)
        (run / "model.safetensors").write_bytes(save(held))

    return damage


def edit_json(name: str, **entries: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**held, **entries}))

    return damage


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(content)

    return damage


def edit_history(change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "history.csv"
        with path.open(newline="") as file:
            text = file.read()
        path.write_bytes(change(text).encode())

    return damage


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def spoil(held: Any, *path: Any, value: Any) -> None:
    *before, last = path
    for name in before:
        held = held[name]
    held[last] = value


def of_lies(shape: str) -> bytes:
    """A probe whose header promises more than there is."""
    text = f"{{'descr': '<c8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0" * 4096


DEEP = b"[" * 100_000 + b"]" * 100_000
STEM = "stages.0.stem.0.bias"

LOADED: list[tuple[str, str, Callable[[Path], None]]] = [
    ("config.json", "nested deeply", put("config.json", DEEP)),
    ("config.json", "nested deeply", put("config.json", b'{"a":' * 100_000)),
    ("config.json", "width", edit_json("config.json", options={"width": 100_000})),
    ("model.safetensors", "bytes", edit_json("config.json", options={"width": 4000})),
    ("config.json", "N", edit_json("config.json", options={"width": 2, "N": 32})),
    ("config.json", "self", edit_json("config.json", self=1)),
    ("probe.npy", "N=100000", edit_json("config.json", N=100_000)),
    ("probe.npy", "N=True", edit_json("config.json", N=True)),
    ("config.json", "stages", edit_json("config.json", stages=10**9)),
    ("config.json", "seed", edit_json("config.json", seed=10**4000)),
    ("config.json", "damaged", edit_json("config.json", mean_energy=10**4000)),
    ("config.json", "learning_rate", edit_json("config.json", learning_rate=10**400)),
    ("config.json", "architecture", edit_json("config.json", architecture=["cnn"])),
    ("config.json", "least_exposure", edit_json("config.json", least_exposure="all")),
    ("config.json", "bytes", put("config.json", b" " * (2**24 + 1))),
    ("model.safetensors", "NaN", edit_weights(lambda w: w[STEM].fill_(torch.nan))),
    ("model.safetensors", "infinity", edit_weights(lambda w: w["log_intensity"].fill_(torch.inf))),
    ("model.safetensors", "float64", edit_weights(lambda w: w.update({STEM: w[STEM].double()}))),
    ("model.safetensors", "shape", edit_weights(lambda w: w.update({STEM: w[STEM][:, None]}))),
    ("model.safetensors", "lacks 'stages.0.stem.0.bias'", edit_weights(
        lambda w: w.update(extra=w.pop(STEM)))),
    ("model.safetensors", "beside those .*'extra'", edit_weights(
        lambda w: w.update(extra=torch.zeros(1)))),
    ("model.safetensors", "bytes", edit_weights(lambda w: w.update(extra=torch.zeros(2**21)))),
    ("model.safetensors", "damaged", put(
        "model.safetensors", (2**62).to_bytes(8, "little") + b"{}" * 9999)),
    ("probe.npy", "bytes", put("probe.npy", of_lies("(1152921504606846976, 16, 16)"))),
    ("probe.npy", "bytes", put("probe.npy", of_lies("(2, 16, 16)") + b"\0")),
    ("probe.npy", "damaged", put("probe.npy", of_lies("(" * 500 + ")" * 500))),
    ("probe.npy", "damaged", put("probe.npy", npy(np.zeros((1, N, N), "V8")))),
    ("probe.npy", "float32", put("probe.npy", npy(np.ones((1, N, N), np.float32)))),
    ("probe.npy", "shape", put("probe.npy", npy(np.ones((1, N, N, 1), np.complex64)))),
    ("probe.npy", "shape", put("probe.npy", npy(np.complex64(1)))),
    ("probe.npy", "not finite", put("probe.npy", npy(np.full((1, N, N), np.inf, np.complex64)))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message", "damage"), LOADED)
def test_a_model_that_is_damaged(
    run: Path, scan: Any, name: str, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    for attempt in (lambda: PtychoModel.load(run), lambda: go_on(run, scan)):
        with pytest.raises(ValueError) as refused:  # noqa: PT011  # looked at below
            attempt()
        said = str(refused.value)
        assert str(run / name) in said
        if message != "nested deeply":
            assert re.search(message, said), said
        assert len(said) < 1000
        assert "\n" not in said
    assert contents(run) == before


LOOPS = ("loops", "fit_loop", "epoch_progress", "current")
ADAM = ("optimizer_states", 0)
WEIGHT = "network." + STEM

CHECKPOINTS: list[tuple[str, Callable[[Path], None]]] = [
    *((name, edit_checkpoint(lambda c, name=name: c.pop(name)))  # type: ignore[misc]
      for name in ("loops", "epoch", "global_step", "state_dict", "optimizer_states",
                   "lr_schedulers")),
    ("no run", edit_checkpoint(lambda c: LIST)),
    ("lacks", edit_checkpoint(lambda c: c["state_dict"].pop(WEIGHT))),
    (r"shape \(3,\)", edit_checkpoint(
        lambda c: spoil(c, "state_dict", WEIGHT, value=torch.zeros(3)))),
    ("NaN", edit_checkpoint(lambda c: c["state_dict"][WEIGHT].fill_(torch.nan))),
    ("'much'", edit_checkpoint(lambda c: spoil(c, "state_dict", WEIGHT, value="much"))),
    ("shape", edit_checkpoint(lambda c: spoil(
        c, "state_dict", WEIGHT, value=torch.zeros(1).expand(2**40)))),
    ("its epoch", edit_checkpoint(lambda c: spoil(c, "epoch", value="two"))),
    ("its epoch", edit_checkpoint(lambda c: spoil(c, "epoch", value=-5))),
    ("loops have 2 epochs, not 11", edit_checkpoint(lambda c: spoil(c, "epoch", value=10))),
    ("epochs", edit_checkpoint(lambda c: spoil(c, *LOOPS, "processed", value=None))),
    ("lacks 'epoch_progress'", edit_checkpoint(lambda c: spoil(c, *LOOPS[:2], value={}))),
    ("indices", edit_checkpoint(lambda c: spoil(c, *LOOPS[:1], value=[]))),
    ("lacks 'exp_avg'", edit_checkpoint(lambda c: spoil(c, "optimizer_states", value=[]))),
    ("lacks 'param_groups'", edit_checkpoint(lambda c: spoil(c, *ADAM, value={}))),
    ("parameter groups", edit_checkpoint(lambda c: spoil(c, *ADAM, "param_groups", value=[]))),
    (r"'exp_avg' is .* \(5,\)", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "state", 1, "exp_avg", value=torch.zeros(5)))),
    ("lacks 'exp_avg'", edit_checkpoint(lambda c: spoil(c, *ADAM, "state", 1, value={}))),
    ("'exp_avg_sq' holds NaN", edit_checkpoint(
        lambda c: c["optimizer_states"][0]["state"][1]["exp_avg_sq"].fill_(torch.nan))),
    ("not the one of training", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "param_groups", 0, "betas", value=(2.0, 3.0)))),
    ("not the one of training", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "param_groups", 0, "lr", value="fast"))),
    ("TypeError", edit_checkpoint(lambda c: spoil(
        c, "lr_schedulers", 0, "last_epoch", value="x"))),
    ("lacks 'lr_lambdas'", edit_checkpoint(
        lambda c: spoil(c, "lr_schedulers", value=[{"last_epoch": "x"}]))),
    ("not iterable", edit_checkpoint(lambda c: spoil(c, "lr_schedulers", value=7))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "damage"), CHECKPOINTS)
def test_a_checkpoint_that_is_damaged(
    run: Path, scan: Any, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"last\.ckpt is damaged: .*{message}") as refused:
        go_on(run, scan)
    assert "PtychoModel.load reads it" in str(refused.value)
    assert len(str(refused.value)) < 800
    assert contents(run) == before
    PtychoModel.load(run)


def test_a_checkpoint_of_another_network(run: Path, scan: Any, tmp_path: Path) -> None:
    train(make_model(width=3), scan, output=tmp_path / "other")
    shutil.copy(tmp_path / "other" / "last.ckpt", run / "last.ckpt")
    with pytest.raises(
        ValueError, match=r"last\.ckpt is damaged: 'network.* and that of this network"
    ):
        go_on(run, scan)


def test_a_bit_that_fell_over_in_the_checkpoint(run: Path, scan: Any) -> None:
    """In the numbers, where every value is a valid one."""
    path = run / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        piece = max(
            archive.infolist(), key=lambda piece: piece.file_size * ("data/" in piece.filename)
        )
        held = archive.read(piece)
    content = bytearray(path.read_bytes())
    content[content.find(held) + len(held) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged: .* is not what was written"):
        go_on(run, scan)


HISTORIES: list[tuple[str, Callable[[Path], None]]] = [
    ("begin", edit_history(lambda text: "")),
    ("begin", edit_history(lambda text: text.replace("loss", "cost"))),
    ("begin", edit_history(lambda text: text[:-3])),
    ("counted", edit_history(lambda text: text.splitlines(keepends=True)[0])),
    ("ends with epoch 0", edit_history(lambda text: "".join(text.splitlines(keepends=True)[:2]))),
    ("counted", edit_history(lambda text: text + text.splitlines(keepends=True)[1])),
    ("columns", edit_history(lambda text: text + "2,0.5\r\n")),
    ("columns", edit_history(lambda text: text + "2,0.5,,,0.1,1e-3,1,7,8\r\n")),
    ("could not convert", edit_history(lambda text: text + "2,much,,,0.1,1e-3,1\r\n")),
    ("could not convert", edit_history(lambda text: text + "2,,,,0.1,1e-3,1\r\n")),
    ("invalid literal", edit_history(lambda text: text + "2.5,1,,,0.1,1e-3,1\r\n")),
    ("field larger than field limit", edit_history(lambda text: text + "9" * 200_000 + "\r\n")),
    ("can't decode", put("history.csv", b"\xff\xfe\0\n")),
    ("bytes", put("history.csv", b"\n" * (2**24 + 1))),
]


@pytest.mark.parametrize(("message", "damage"), HISTORIES)
def test_a_history_that_is_damaged(
    run: Path, scan: Any, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"history\.csv is damaged: .*{message}"):
        go_on(run, scan)
    assert contents(run) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", DEEP, b"\xff", b'{"format": 1, "ptycho_fast": "0", "surprise": 3}',
     b" " * (2**24 + 1)],
)  # fmt: skip
def test_a_record_that_is_damaged(run: Path, scan: Any, content: bytes) -> None:
    (run / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged: "):
        go_on(run, scan)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"options": None}, "is damaged"),
        ({"N": [[[]]]}, "is damaged"),
        ({"N": "sixteen"}, "N was 'sixteen', is 16 now"),
        ({"positions_sha256": 5}, "checksum of the positions was 5"),
    ],
)
def test_a_record_of_something_else(
    run: Path, scan: Any, entries: dict[str, Any], message: str
) -> None:
    edit_json("run.json", **entries)(run)
    with pytest.raises(ValueError, match=message):
        go_on(run, scan)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_not_waited_for(run: Path, scan: Any, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(OSError, match=f"{re.escape(str(run / name))} is a pipe"):
        go_on(run, scan)
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(OSError, match=re.escape(str(run / name))):
        go_on(run, scan)


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["pickle", "torch", "in a checkpoint", "numpy"])
def test_no_code_is_run(run: Path, scan: Any, tmp_path: Path, name: str, way: str) -> None:
    hostile = Touch(tmp_path / "touched")
    file = io.BytesIO()
    if way == "pickle":
        pickle.dump(hostile, file)
    elif way == "numpy":
        np.save(file, np.array([hostile], object))
    elif way == "torch":
        torch.save(hostile, file)
    else:
        held = torch.load(run / "last.ckpt", weights_only=True)
        torch.save({**held, "callbacks": {"Watch": hostile}}, file)
    # It is a file that would: PyTorch and NumPy run it where they are told that they may.
    file.seek(0)
    if way in ("torch", "in a checkpoint"):
        torch.load(file, weights_only=False)
    else:
        np.load(file, allow_pickle=True) if way == "numpy" else pickle.load(file)
    (tmp_path / "touched").rmdir()
    (run / name).write_bytes(file.getvalue())
    with pytest.raises(ValueError, match=re.escape(str(run / name))):
        go_on(run, scan)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", FILES)
def test_files_cut_short_and_bits_that_fell_over(run: Path, scan: Any, name: str) -> None:
    """Whatever comes of it: the file works, or is named in one sentence."""
    whole = (run / name).read_bytes()
    rng = np.random.default_rng(len(name))
    spoiled = [whole[:length] for length in rng.integers(0, len(whole), 6)]
    # Half of them at the ends, where headers and directories are.
    places = rng.integers(0, len(whole), 12)
    places[:3], places[3:6] = places[:3] % 200, -1 - places[3:6] % 400
    for place in places:
        turned_over = bytearray(whole)
        turned_over[place] ^= 1 << int(rng.integers(8))
        spoiled.append(bytes(turned_over))
    kept = contents(run)
    for content in spoiled:
        (run / name).write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                go_on(run, scan, EPOCHS)
        except (KeyError, OSError, ValueError) as error:
            assert len(str(error)) < 1000  # noqa: PT017
            assert name in str(error) or "holds" in str(error), error  # noqa: PT017
        for other, its in kept.items():
            (run / other).write_bytes(its)


HUGE = """
import json, resource, sys
from pathlib import Path
from ptycho_fast.models import PtychoModel

run = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = run / "config.json"
held = json.loads(path.read_text())
for change in ({"options": {"width": 4096}}, {"options": {"width": 4096}, "gridsize": 8},
               {"N": 30000}, {"options": {"width": 2**31 - 1}}):
    path.write_text(json.dumps({**held, **change}))
    try:
        PtychoModel.load(run)
    except ValueError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_sizes_that_a_configuration_makes_up_take_no_memory(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(run)], capture_output=True, text=True, check=True
    )
    *said, kilobytes = done.stdout.splitlines()
    assert len(said) == 4
    assert all(str(run) in line for line in said)
    assert int(kilobytes) < 200_000


def test_a_folder_that_is_none(file: Path, scan: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gold\.npz is a file. Name the folder of a trained"):
        PtychoModel.load(file)
    with pytest.raises(ValueError, match=r"gold\.npz is a file. Name a folder for the run"):
        train(make_model(), scan, output=file)
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        PtychoModel.load(tmp_path)


# --- small models, few groups, neighbours --------------------------------------------------------


@pytest.mark.parametrize("architecture", ["cnn", "fno", "hybrid", "hybrid_resnet"])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_patterns_of_four_pixels(architecture: str, gridsize: int) -> None:
    if architecture != "cnn":
        pytest.importorskip("neuralop")
    scan = pf.simulate_scan(n_positions=60, N=4, seed=0)
    model = PtychoModel(architecture, N=4, gridsize=gridsize, width=4)
    history = model.train(scan, n_groups=32, max_epochs=3, picture_every=0, device="cpu")
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    made = model.infer(scan, device="cpu", refine=1)
    assert made.object is not None
    assert np.isfinite(made.object).all()
    assert made.metrics["pattern_correlation"] > 0.8


@pytest.mark.parametrize("n_groups", [1, 3])
def test_the_batch_shrinks_to_the_groups_there_are(
    scan: Any, n_groups: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": None, "n_groups": n_groups}
    model = make_model(overlap=2)  # 4 groups a step, where there are as many
    rows = train(model, scan, output=tmp_path / "run", **options)
    assert all(np.isfinite(row["loss"]) for row in rows)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["options"]["batch_size"] == n_groups
    with pytest.raises(ValueError, match="are fewer than a batch of 2"):
        train(make_model(), scan, n_groups=1, batch_size=2)


def test_imaging_from_more_neighbours(scan: Any) -> None:
    model = make_model(gridsize=2)
    train(model, scan, 1)
    shown: list[Any] = [
        model.infer(scan, stitching=False, device="cpu", n_groups=20, neighbor_count=k).positions
        for k in (4, 4, 12, None)
    ]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[3])  # the nearest, by default
    assert not np.array_equal(shown[0], shown[2])
    spread = [np.ptp(one.reshape(20, 4, 2), axis=1).mean() for one in shown]
    assert spread[2] > spread[0]
    with pytest.raises(ValueError, match=r"neighbor_count=3 must be at least gridsize² = 4"):
        model.infer(scan, neighbor_count=3)
    with pytest.raises(ValueError, match="neighbor_count"):
        model.infer(scan, neighbor_count=0)


def test_single_patterns_are_their_centres_whatever_the_neighbours(scan: Any) -> None:
    model = make_model()
    train(model, scan, 1)
    few, more = (
        np.asarray(
            model.infer(
                scan, stitching=False, device="cpu", n_groups=20, neighbor_count=k
            ).positions
        )
        for k in (1, 4)
    )
    assert np.array_equal(few, more)
    assert len(np.unique(more, axis=0)) == 20


def test_a_network_that_needs_real_numbers(
    scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks at what it was filled with can't be sketched, and is made as it is."""
    package: Any = sys.modules["ptycho_fast.models.architectures"]
    monkeypatch.setattr(package, "_registered", dict(package._registered))

    class Looks(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *, features: int, channels: int, N: int) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(features, channels, 3, padding=1)
            with torch.no_grad():
                self.layer.weight /= float(self.layer.weight.abs().max())

        def forward(self, features: Any) -> Any:
            phase = 0.1 * self.layer(features)
            return torch.polar(torch.ones_like(phase), phase)

    register_architecture("looks")(Looks)
    model = PtychoModel("looks", N=N)
    assert model.n_parameters > 0
    train(model, scan, 1)
    model.save(tmp_path / "model")
    one, other = model.infer(scan, device="cpu"), PtychoModel.load(tmp_path / "model")
    assert np.array_equal(one.object, other.infer(scan, device="cpu").object)  # type: ignore[arg-type]
