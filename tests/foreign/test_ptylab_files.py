"""Data that PtyLab wrote, and data that it reads to the same effect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from explained import Truth, misfit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("h5py")


def test_both_programs_explain_the_patterns_of_a_file(
    written: Callable[[str], Path], of: Truth
) -> None:
    folder = written("ptylab")
    computed = np.load(folder / "computed.npz")
    scan = pf.read_scan(folder / "data.hdf5")
    assert computed["misfit"] == pytest.approx(1, abs=0.1)
    assert misfit(scan, of) == pytest.approx(1, abs=0.1)
    assert pf.reconstruct(replace(scan, probe=of.scan.probe)).deviance < 1.05
    step = np.diff(computed["corners"], axis=0)[:, ::-1]
    np.testing.assert_allclose(np.diff(scan.positions, axis=0), step, atol=1e-5)
    np.testing.assert_allclose(scan.metadata["object_pixel_m"], computed["pixel"], rtol=1e-6)


def test_a_scan_that_ptylab_simulated_is_read_as_it_reads_it(
    written: Callable[[str], Path],
) -> None:
    folder = written("ptylab")
    theirs = np.load(folder / "simu.npz")
    scan = pf.read_scan(folder / "simu.hdf5")
    np.testing.assert_array_equal(scan.diffraction, np.sqrt(theirs["ptychogram"]))
    np.testing.assert_allclose(scan.metadata["object_pixel_m"], theirs["pixel"], rtol=1e-6)
    # PtyLab rounds to whole pixels.
    corners = scan.positions[:, ::-1] - scan.positions[0, ::-1]
    np.testing.assert_allclose(corners, theirs["corners"] - theirs["corners"][0], atol=1)
