"""CXI files of cdtools, with patterns that it simulated in its own geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from explained import OBJECT_PIXEL, Truth, misfit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("h5py")


@pytest.mark.parametrize("detector", ["plain", "turned"])
def test_cxi_of_cdtools_explains_the_patterns_of_its_program(
    written: Callable[[str], Path], of: Truth, detector: str
) -> None:
    scan = pf.read_scan(written("cdtools") / f"{detector}.cxi")
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert pf.reconstruct(replace(scan, probe=of.scan.probe)).deviance < 1.05
    for wrong in (scan.positions[:, ::-1], -scan.positions, scan.positions * (1, -1)):
        assert misfit(replace(scan, positions=wrong), of) > 10
    np.testing.assert_allclose(scan.metadata["object_pixel_m"], OBJECT_PIXEL, rtol=1e-5)
    assert scan.mask is not None
    assert np.argwhere(~scan.mask).tolist() == [[3, 4]]
