"""`ptycho-fast cache`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import ptycho_fast as pf
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_cache_lists_files_and_clears_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PTYCHO_FAST_CACHE", str(tmp_path / "cache"))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"0 files, 0.0 MiB, in {tmp_path / 'cache'}.\n"
    scan = pf.simulate_scan(20, 16, seed=0)
    x, y = scan.positions.T
    np.savez_compressed(tmp_path / "scan.npz", xcoords=x, ycoords=y, diff3d=scan.diffraction)
    pf.read_scan(tmp_path / "scan.npz", load=False).diffraction[0]
    assert main(["cache"]) == 0
    assert "scan-diff3d-" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "Freed 0.0 MiB" in capsys.readouterr().out
    assert not list((tmp_path / "cache").iterdir())
