"""Damaged model files are refused by name and cause, without allocating what they claim."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

from safetensors.torch import load, save  # noqa: E402

from ptycho_fast.models import PtychoModel  # noqa: E402
from small_runs import DEEP, STEM, N, contents, edit_json, put, resume  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def edit_weights(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = load((run / "model.safetensors").read_bytes())
        change(held)
        (run / "model.safetensors").write_bytes(save(held))

    return damage


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def of_lies(shape: str) -> bytes:
    """A probe whose header promises more than there is."""
    text = f"{{'descr': '<c8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0" * 4096


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
    ("model.safetensors", "beside the weights of the network, 'extra'", edit_weights(
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
def test_a_damaged_model_is_refused_by_file_and_cause(
    run: Path, filed_scan: Any, name: str, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    for attempt in (lambda: PtychoModel.load(run), lambda: resume(run, filed_scan)):
        with pytest.raises(ValueError) as refused:  # noqa: PT011  # looked at below
            attempt()
        said = str(refused.value)
        assert str(run / name) in said
        if message != "nested deeply":
            assert re.search(message, said), said
        assert len(said) < 1000
        assert "\n" not in said
    assert contents(run) == before


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
def test_a_configuration_of_a_huge_network_allocates_no_memory(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(run)], capture_output=True, text=True, check=True
    )
    *said, kilobytes = done.stdout.splitlines()
    assert len(said) == 4
    assert all(str(run) in line for line in said)
    assert int(kilobytes) < 200_000
