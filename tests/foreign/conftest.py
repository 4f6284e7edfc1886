"""Files that other programs write themselves, with the interpreter that has them installed.

These tests run where ``PTYCHO_FAST_FOREIGN_PYTHON`` names a Python in whose environment the
programs are: ``python3 -m venv foreign``, then ``pip install ptychodus PtyLab cdtools-py`` there.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from explained import DISTANCE, ENERGY, PIXEL, WAVELENGTH, N, Truth, truth

if TYPE_CHECKING:
    from collections.abc import Callable

INTERPRETER = os.environ.get("PTYCHO_FAST_FOREIGN_PYTHON", "")


@pytest.fixture(scope="session")
def of() -> Truth:
    """Return the scan at whole pixels, as programs differ in how they interpolate."""
    return truth(whole_pixels=True)


@pytest.fixture(scope="session")
def written(of: Truth, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that has a program write its files, and returns their folder."""
    done: dict[str, Path] = {}

    def write(program: str) -> Path:
        if not INTERPRETER:
            pytest.skip("PTYCHO_FAST_FOREIGN_PYTHON names no Python with the other programs")
        if program not in done:
            folder = tmp_path_factory.mktemp(program)
            assert of.scan.object is not None
            assert of.scan.probe is not None
            np.savez(
                folder / "truth.npz",
                counts=of.counts, x=of.x, y=of.y, object=of.scan.object, probe=of.scan.probe,
                positions=of.scan.positions, energy=ENERGY, distance=DISTANCE, pixel=PIXEL,
                wavelength=WAVELENGTH, N=N,
            )  # fmt: skip
            script = Path(__file__).with_name(f"write_{program}.py")
            run = subprocess.run(
                [INTERPRETER, str(script), str(folder)],
                capture_output=True, text=True, check=False,
                env={**os.environ, "PYTHONPATH": "", "MPLBACKEND": "agg"},
            )  # fmt: skip
            if run.returncode == 3:
                pytest.skip(f"{INTERPRETER}: {run.stderr.strip()}")
            assert run.returncode == 0, run.stdout + run.stderr
            done[program] = folder
        return done[program]

    return write
