"""The scans, models and runs that the tests of this folder share. They are trained once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import ptycho_fast as pf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def scan() -> Any:
    """100 positions, patterns of 16 x 16 pixels."""
    return pf.simulate_scan(n_positions=100, N=16, seed=0)


@pytest.fixture(scope="session")
def trained(scan: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A model and its history, not to be trained any further."""
    from small_models import make_model, train  # noqa: PLC0415

    model = make_model()
    return model, train(model, scan, 10, batch_size=4)


@pytest.fixture(scope="session")
def model(trained: Any) -> Any:
    """A trained model, not to be trained any further."""
    return trained[0]


@pytest.fixture(scope="session")
def uninterrupted(scan: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and the folder of its run of 4 epochs, not to be changed."""
    from small_models import EPOCHS, make_model, train_run  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("whole") / "run"
    model = make_model()
    train_run(model, scan, EPOCHS, output=folder)
    return model, folder


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The table of registered architectures; what a test registers is forgotten after it."""
    from ptycho_fast.models.architectures import registry  # noqa: PLC0415

    table = dict(registry.registered)
    monkeypatch.setattr(registry, "registered", table)
    return table


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 48 positions in a file."""
    path = tmp_path_factory.mktemp("scans") / "gold.npz"
    pf.write_scan(pf.simulate_scan(n_positions=48, N=16, seed=0), path)
    return path


@pytest.fixture(scope="session")
def filed_scan(file: Path) -> Any:
    """The scan in `file`, in memory."""
    held = pf.read_scan(file)
    return replace(held, diffraction=held.diffraction[:], energies=None)


@pytest.fixture(scope="session")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on `file`, not to be changed."""
    from small_runs import make_model, train  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("runs") / "RUN"
    train(make_model(), file, output=folder)
    return folder


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return shutil.copytree(done, tmp_path / "RUN")
