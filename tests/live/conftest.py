"""What the tests of scans that grow share: a scan, and a second process that writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

N = 16

WRITER = """
import json, sys
import h5py, numpy as np
held = np.load(sys.argv[1])
file = None
for line in sys.stdin:
    what, *rest = json.loads(line)
    if what == "open":
        path, n, k = rest
        file = h5py.File(path, "w", libver="latest")
        side = held["counts"].shape[1:]
        made = {"chunks": (k, *side), "maxshape": (None, *side)}
        file.create_dataset("frames", (n, *side), held["counts"].dtype, **made)
        for key in ("x", "y"):
            file.create_dataset(key, (n,), "f8", maxshape=(None,), chunks=(64,))
        file.create_dataset("index", (n,), "i8", maxshape=(None,), chunks=(64,))
        file["probe"] = held["probe"]
        file.flush()
    elif what == "swmr":
        file.swmr_mode = True
    elif what in ("frames", "positions", "x", "y", "index"):
        low, high = rest
        for key in ("x", "y", "index") if what == "positions" else (what,):
            values = held["counts" if key == "frames" else key][low:high]
            if len(file[key]) < high:
                file[key].resize(high, axis=0)
            file[key][low:high] = values
            file[key].flush()
    elif what == "close":
        file.close()
    print("done", flush=True)
"""


class Writer:
    """A process that writes a scan, step by step, as it is told."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *command: Any) -> None:
        """Carry a command out; it is done when this returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def scan() -> pf.Scan:
    """A scan of whole counts."""
    made = pf.simulate_scan(n_positions=150, N=N, photons=1e4, seed=0)
    counts = np.rint(made.diffraction.astype(np.float64) ** 2)
    amplitudes = np.sqrt(counts).astype(np.float32)
    return pf.Scan(made.positions, amplitudes, probe=made.probe, object=made.object)


@pytest.fixture(scope="session")
def counts(scan: pf.Scan) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """What the detector recorded."""
    return np.asarray(np.rint(scan.diffraction.astype(np.float64) ** 2), np.uint32)


@pytest.fixture
def start(
    scan: pf.Scan, counts: np.ndarray[Any, np.dtype[np.uint32]], tmp_path: Path
) -> Iterator[Callable[..., Writer]]:
    """Start a process that writes the scan; arguments replace parts of it."""
    pytest.importorskip("h5py")
    started: list[Writer] = []

    def begin(**parts: Any) -> Writer:
        x, y = scan.positions.T
        whole = {"counts": counts, "x": x, "y": y, "index": np.arange(len(x)), "probe": scan.probe}
        data = tmp_path / f"data{len(started)}.npz"
        np.savez(data, **{**whole, **parts})
        started.append(Writer(data))
        return started[-1]

    yield begin
    for writer in started:
        writer.kill()
