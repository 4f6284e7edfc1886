"""Scan files of a series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def write_scans(tmp_path: Path) -> Callable[..., list[Path]]:
    """Write small scans scan_0.npz, scan_1.npz, ... and return their paths."""

    def write(count: int, n: int = 20, N: int = 8) -> list[Path]:
        paths = [tmp_path / f"scan_{seed}.npz" for seed in range(count)]
        for seed, path in enumerate(paths):
            pf.write_scan(pf.simulate_scan(n, N, seed=seed), path)
        return paths

    return write


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A scan file that was cut short."""
    path, whole = tmp_path / "damaged.npz", tmp_path / "whole.npz"
    pf.write_scan(pf.simulate_scan(20, 8, seed=9), whole)
    path.write_bytes(whole.read_bytes()[:3000])
    return path
