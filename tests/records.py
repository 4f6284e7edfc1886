"""Records to test with, and what the tests of the drop-in share."""

from __future__ import annotations

import logging
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray

STACK_DTYPES = (np.float32, np.float64, np.uint16)

PLANNED = np.array([0.25, -0.5])
"""Planned positions minus positions."""


def positions_of(n: int, seed: int = 1) -> NDArray[np.float64]:
    """Positions without ties, well inside `make_object`."""
    return np.random.default_rng(seed).uniform(20, 80, (n, 2))


def make_object(shape: tuple[int, int] = (100, 90), seed: int = 2) -> NDArray[np.complex64]:
    """An object of complex noise, (H, W)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def make_stack(n: int, N: int = 8, dtype: Any = np.float32) -> NDArray[Any]:
    """Random amplitudes, (n, N, N)."""
    return (np.random.default_rng(3).uniform(1, 100, (n, N, N))).astype(dtype)


def make_record(n: int = 30, N: int = 8, dtype: Any = np.float32, **fields: Any) -> RawData:
    """A record of n positions with all that it can hold, but for what `fields` replace."""
    x, y = positions_of(n).T
    given: dict[str, Any] = {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x + PLANNED[0],
        "ycoords_start": y + PLANNED[1],
        "diff3d": make_stack(n, N, dtype),
        "probeGuess": np.ones((N, N), np.complex64),
        "scan_index": np.zeros(n, int),
    }
    return RawData(**given | fields)


def set_params(monkeypatch: pytest.MonkeyPatch, **cfg: Any) -> None:
    """Load a stub of the module `ptycho.params`."""
    module = types.ModuleType("ptycho.params")
    module.cfg = cfg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ptycho.params", module)


def info_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package logged at level INFO."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "ptycho_fast" and record.levelno == logging.INFO
    ]


def tolerance(obj: NDArray[Any]) -> float:
    """How far patches may be from the reference (docs/contract.md, section 5); it is 0 outside."""
    bordered = np.pad(obj, 1).astype(np.complex128)
    steps = max(np.abs(np.diff(bordered, axis=axis)).max() for axis in (0, 1))
    return float(1e-6 * np.abs(obj).max() + 1e-4 * steps)


def run_script(script: str) -> str:
    """Run Python in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
