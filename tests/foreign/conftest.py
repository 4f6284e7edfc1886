"""Files that other programs write themselves, with the interpreter that has them installed.

These tests run where ``PTYCHO_FAST_FOREIGN_PYTHON`` names a Python in whose environment the
programs are: ``python3 -m venv foreign``, then ``pip install ptychodus PtyLab cdtools-py`` there.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
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
        if program not in done:
            folder = tmp_path_factory.mktemp(program)
            run_in(folder, f"write_{program}", of)
            done[program] = folder
        return done[program]

    return write


def run_in(folder: Path, script: str, of: Truth) -> None:
    """Run a script of this folder with the other programs; it finds the truth in its argument."""
    if not INTERPRETER:
        pytest.skip("PTYCHO_FAST_FOREIGN_PYTHON names no Python with the other programs")
    assert of.scan.object is not None
    assert of.scan.probe is not None
    np.savez(
        folder / "truth.npz",
        counts=of.counts, x=of.x, y=of.y, object=of.scan.object, probe=of.scan.probe,
        positions=of.scan.positions, energy=ENERGY, distance=DISTANCE, pixel=PIXEL,
        wavelength=WAVELENGTH, N=N,
    )  # fmt: skip
    run = subprocess.run(
        [INTERPRETER, str(Path(__file__).with_name(f"{script}.py")), str(folder)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "", "MPLBACKEND": "agg"},
    )  # fmt: skip
    if run.returncode == 3:
        pytest.skip(f"{INTERPRETER}: {run.stderr.strip()}")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="session")
def read_by(of: Truth, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that has a program read what this package wrote, and returns the folder."""
    done: dict[str, Path] = {}

    def read(program: str) -> Path:
        if program not in done:
            folder = tmp_path_factory.mktemp(f"read_{program}")
            mask = np.ones((N, N), bool)
            mask[3, 4] = mask[20, 11] = False
            patterns = of.scan.diffraction.copy()
            patterns[:, ~mask] = 999
            scan = replace(
                of.scan, diffraction=patterns, mask=mask, metadata={},
                scan_index=None if program == "cdtools" else 7 + 2 * np.arange(len(of.scan)),
            )  # fmt: skip
            told: Any = {"energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL}
            pf.write_scan(replace(scan, scan_index=None), folder / "scan.cxi", **told)
            pf.write_scan(scan, folder / "product.h5", "ptychodus", **told)
            run_in(folder, f"read_{program}", of)
            done[program] = folder
        return done[program]

    return read
