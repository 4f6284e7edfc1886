"""The smallest model that can be trained, to test the files of its run. Needs PyTorch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ptycho_fast.models import PtychoModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N, POSITIONS, EPOCHS = 16, 48, 2
FILES = (
    "config.json", "probe.npy", "model.safetensors", "last.ckpt", "history.csv", "run.json",
)  # fmt: skip
DEEP = b"[" * 100_000 + b"]" * 100_000
STEM = "stages.0.stem.0.bias"


def make_model(**options: Any) -> PtychoModel:
    return PtychoModel(**{"N": N, "width": 2, "stages": 1, **options})


def train(model: PtychoModel, scan: Any, epochs: int = EPOCHS, **options: Any) -> Any:
    options = {"batch_size": 8, "n_groups": 16, "device": "cpu", "picture_every": 0, **options}
    return model.train(scan, max_epochs=epochs, **options)


def resume(folder: Path, scan: Any, epochs: int = EPOCHS + 1, **options: Any) -> Any:
    return train(make_model(), scan, epochs, output=folder, resume=True, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def edit_json(name: str, **entries: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**held, **entries}))

    return damage


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes(content)

    return damage
