"""Two processes train one model, on one machine or on two."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel  # noqa: E402
from ptycho_fast.models.training.options import TrainingOptions  # noqa: E402
from small_models import against_nothing, history_of, infer  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


TWO = """
import sys
import numpy as np
import torch
import ptycho_fast as pf
from ptycho_fast.models import PtychoModel

if __name__ == "__main__":
    torch.set_num_threads(1)
    scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
    model = PtychoModel("cnn", N=16, width=8)
    model.train(scan, batch_size=4, max_epochs=3, device="cpu", devices=2, picture_every=3,
                output=sys.argv[1])
    import torch.distributed as dist
    weights = torch.cat([p.detach().reshape(-1) for p in model.network.stages.parameters()])
    path = f"{sys.argv[1]}.{dist.get_rank()}.{dist.get_world_size()}"
    np.savetxt(path, weights.double().numpy())
"""


def test_two_processes_train_one_model(scan: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO))
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    one, other = (np.loadtxt(tmp_path / f"run.{rank}.2") for rank in (0, 1))
    assert np.array_equal(one, other)  # both have learned the same
    rows = history_of(folder)
    assert len(rows) == 3
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert (folder / "epoch_0003.png").exists()
    loaded = PtychoModel.load(folder)
    assert loaded.network is not None
    kept = torch.cat([p.detach().reshape(-1) for p in loaded.network.stages.parameters()])
    assert np.array_equal(kept.double().numpy(), one)
    error, nothing = against_nothing(infer(loaded, scan), scan)
    assert error < 0.9 * nothing


SEVERAL = """
import sys
import numpy as np
import torch
from ptycho_fast.models import PtychoModel
from two_probes import two_scans

if __name__ == "__main__":
    torch.set_num_threads(1)
    scans = list(two_scans(40))
    model = PtychoModel("cnn", N=16, width=4, stages=1, trainable_probe=True)
    model.train(scans, batch_size=4, max_epochs=1, device="cpu", output=sys.argv[1],
                validation=0.3)
    import torch.distributed as dist
    state = torch.cat([t.detach().reshape(-1) for t in model.network.state_dict().values()])
    np.save(f"{sys.argv[1]}.{dist.get_rank()}.npy", state.numpy())
"""


def test_two_machines_train_one_model_on_two_scans(tmp_path: Path) -> None:
    """As torchrun starts them: here both are this machine, with one process each."""
    pytest.importorskip("matplotlib")
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    machines = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(rank), str(script), str(tmp_path / "run")],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    for machine in machines:
        _, said = machine.communicate(timeout=180)
        assert machine.returncode == 0, said
    one, other = (np.load(tmp_path / f"run.{rank}.npy") for rank in (0, 1))
    assert np.array_equal(one, other)  # probes and exposures too
    assert float(history_of(tmp_path / "run")[0]["validation_loss"]) > 0
    loaded = PtychoModel.load(tmp_path / "run")
    assert loaded.network is not None
    kept = torch.cat([t.detach().reshape(-1) for t in loaded.network.state_dict().values()])
    assert np.array_equal(kept.numpy(), one)


@pytest.mark.parametrize(
    ("local", "world", "devices", "words"),
    [
        ("2", "4", 3, "devices=3, but torchrun started 2 processes on this machine"),
        ("2", "3", 1, "torchrun started 2 processes on this machine, and 3 in all"),
    ],
)
def test_processes_of_torchrun_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, local: str, world: str, devices: int, words: str
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ValueError, match=words):
        TrainingOptions(devices=devices)
