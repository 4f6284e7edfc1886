"""What the tests of the drop-in start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.ptychopinn import RawData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _global_stream() -> Iterator[None]:
    """Leave NumPy's global stream as it was."""
    kept = np.random.get_state()  # noqa: NPY002
    yield
    np.random.set_state(kept)  # noqa: NPY002


@pytest.fixture(scope="module")
def scan() -> pf.Scan:
    """A scan of 60 positions with patterns of 16 x 16 pixels."""
    return pf.simulate_scan(60, 16, seed=0)


@pytest.fixture
def path(scan: pf.Scan, tmp_path: Path) -> Path:
    """The scan's file."""
    pf.write_scan(scan, tmp_path / "scan.npz")
    return tmp_path / "scan.npz"


@pytest.fixture
def record(path: Path) -> RawData:
    """The record of the scan's file."""
    return RawData.from_file(path)
