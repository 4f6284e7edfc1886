"""The core depends on NumPy alone, and the version is one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires, version

import ptycho_fast as pf

HEAVY = (
    "tensorflow",
    "torch",
    "scipy",
    "skimage",
    "h5py",
    "matplotlib",
    "tqdm",
    "lightning",
    "distributed",
)


def test_importing_imports_numpy_and_nothing_heavier() -> None:
    """Every module that a plain import, a scan, groups and patches touch, in a fresh process."""
    script = f"""
import sys
import ptycho_fast as pf, ptycho_fast.ptychopinn, ptycho_fast.cli, ptycho_fast.series
scan = pf.simulate_scan(n_positions=30, N=16, seed=0)
groups = pf.group_positions(scan.positions, 5, seed=0)
pf.extract_patches(scan.object, groups.coords, 16)
for shown in scan, groups, pf.coverage(scan, groups):
    shown._repr_html_()
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_numpy_is_required() -> None:
    needed = [need for need in requires("ptycho_fast") or [] if "extra ==" not in need]
    assert len(needed) == 1
    assert needed[0].startswith("numpy")


def test_the_version_is_one() -> None:
    assert pf.__version__ == version("ptycho_fast")
