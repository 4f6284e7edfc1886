"""Training and imaging leave the process as they found it."""

from __future__ import annotations

import logging
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel  # noqa: E402
from small_models import infer, make_model, train  # noqa: E402


def state_of_everything() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": (numpy["key"].tobytes(), numpy["pos"]),
        "python": random.getstate(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "terminate": signal.getsignal(signal.SIGTERM),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "level": logging.getLogger("lightning.pytorch").level,
        "precision": torch.get_float32_matmul_precision(),
        "folder": (Path.cwd(), sorted(os.listdir())),
    }


def test_training_and_imaging_change_no_global_state(
    scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(make_model(), scan, 1, n_groups=8)  # what is imported on the way draws random numbers
    before = state_of_everything()
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    model = make_model("hybrid", gridsize=2)
    train(model, scan, 1, n_groups=24, refine_probe=1)
    infer(model, scan, refine=1)
    (tmp_path.parent / "state").mkdir()
    model.save(tmp_path.parent / "state")
    PtychoModel.load(tmp_path.parent / "state")
    assert model.n_parameters > 0
    assert state_of_everything() == before
    assert {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} == variables
