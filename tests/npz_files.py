"""NPZ scans in every layout, and how they are read as they are stored."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.opening import open_container

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    import ptycho_fast as pf

STORED = """
import sys
from ptycho_fast.io.formats import npz_scan
from ptycho_fast.io.opening import open_container

def stored(path):
    with open_container(path) as container:
        return npz_scan.as_stored(container)
"""


def stored(path: Path) -> pf.Scan:
    """Read an NPZ scan as it is stored; its patterns stay in the file."""
    with open_container(path) as container:
        assert isinstance(container, NPZContainer)
        return npz_scan.as_stored(container)


posix = pytest.mark.skipif(os.name != "posix", reason="needs fork, locks and limits")
n, N = 7, 4


def counts(dtype: Any = "f4", n: int = n, N: int = N) -> NDArray[Any]:
    drawn = np.random.default_rng(0).integers(0, 2, (n, N, N)) if dtype == "?" else None
    counts = np.arange(n * N * N).reshape(n, N, N) % 120 if drawn is None else drawn
    return counts.astype(dtype)


def written(path: Path, **stacks: Any) -> Path:
    save: Any = np.savez_compressed if stacks.pop("compressed", False) else np.savez
    length = len(stacks.pop("like", range(n)))
    save(path, xcoords=np.arange(float(length)), ycoords=np.zeros(length), **stacks)
    return path


LAYOUTS: dict[str, Any] = {
    "nNN": lambda stack: stack,
    "NNn": lambda stack: np.ascontiguousarray(stack.transpose(1, 2, 0)),
    "nNN1": lambda stack: stack[..., np.newaxis],
    "fortran nNN": np.asfortranarray,
    "fortran NNn": lambda stack: np.asfortranarray(stack.transpose(1, 2, 0)),
    "fortran nNN1": lambda stack: np.asfortranarray(stack[..., np.newaxis]),
}


def python(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
    )


def output(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output, errors
