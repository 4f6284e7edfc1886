"""CXI files of cdtools, with patterns that it simulated in its own geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, OBJECT_PIXEL, PIXEL, WAVELENGTH, Truth, misfit

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


def test_cdtools_reads_what_is_written_for_it(read_by: Callable[[str], Path], of: Truth) -> None:
    theirs = np.load(read_by("cdtools") / "cdtools.npz")
    # Its own model explains the patterns, at the positions as it read them.
    assert theirs["misfit"] == pytest.approx(1, abs=0.1)
    assert np.argwhere(~theirs["mask"]).tolist() == [[3, 4], [20, 11]]
    np.testing.assert_array_equal(theirs["patterns"], of.counts * theirs["mask"])
    step = np.diff(theirs["pixels"], axis=0)[:, ::-1]
    np.testing.assert_allclose(step, np.diff(of.scan.positions, axis=0), atol=1e-3)
    np.testing.assert_allclose(theirs["wavelength"], WAVELENGTH, rtol=1e-6)
    np.testing.assert_allclose(theirs["distance"], DISTANCE, rtol=1e-6)
    axes = np.array([[0.0, -PIXEL], [-PIXEL, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(theirs["basis"], axes, rtol=1e-12)
