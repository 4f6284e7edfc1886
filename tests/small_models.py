"""Small models for the tests: create, train, image, compare. Needs PyTorch and Lightning."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

import ptycho_fast as pf
from ptycho_fast.canvas import place
from ptycho_fast.metrics import score
from ptycho_fast.models import PtychoModel

if TYPE_CHECKING:
    from pathlib import Path

N, POSITIONS, EPOCHS, GROUPS = 16, 100, 4, 48
FILES = ("config.json", "probe.npy", "model.safetensors")
OF_A_RUN = ("history.csv", "last.ckpt", "run.json")


def make_scan(n: int = POSITIONS, **options: Any) -> Any:
    return pf.simulate_scan(n_positions=n, N=N, **{"seed": 0, **options})


def make_model(architecture: str = "cnn", **options: Any) -> PtychoModel:
    return PtychoModel(architecture, N=N, **{"width": 8, **options})


def train(model: PtychoModel, scan: Any, epochs: int = 2, **options: Any) -> list[dict[str, Any]]:
    options = {"batch_size": 8, "device": "cpu", "picture_every": 0, **options}
    return model.train(scan, max_epochs=epochs, **options)


def train_run(
    model: PtychoModel, scan: Any, epochs: int = 2, **options: Any
) -> list[dict[str, Any]]:
    """Train with few groups: enough to be interrupted and resumed."""
    return train(model, scan, epochs, **{"n_groups": GROUPS, **options})


def infer(model: PtychoModel, scan: Any, **options: Any) -> Any:
    return model.infer(scan, device="cpu", **options)


def told(rows: Any) -> list[dict[str, str]]:
    """Return a history without its seconds, as text, so that all bits are compared."""
    return [{k: str(v) for k, v in row.items() if k != "seconds"} for row in rows]


def history_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return told(csv.DictReader(file))


def same_weights(one: PtychoModel, other: PtychoModel) -> bool:
    assert one.network is not None
    assert other.network is not None
    mine, its = one.network.state_dict(), other.network.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[k], its[k]) for k in mine)


def against_nothing(made: Any, scan: Any) -> tuple[float, float]:
    """Return the complex error of an image, and that of an object of 1."""
    image = place(made.object, made.origin, scan.object.shape)
    nothing = score(np.ones_like(scan.object), scan.object, scan.positions, N)
    return score(image, scan.object, scan.positions, N).complex_error, nothing.complex_error


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class StoppedError(Exception):
    pass


def stopping(epoch: int) -> Any:
    class Stop(lightning.pytorch.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == epoch:
                raise StoppedError

    return lambda callbacks, **others: lightning.Trainer(callbacks=[*callbacks, Stop()], **others)
