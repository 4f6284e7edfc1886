"""Pixels that were not measured in some patterns: lists, and what a scan says of them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ptycho_fast as pf
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.notices import warn
from ptycho_fast.patterns import measured_energies

if TYPE_CHECKING:
    from pathlib import Path

STACKS = st.integers(0, 5).flatmap(lambda n: arrays(np.bool_, (n, 3, 3)))


@given(bad=STACKS, data=st.data())
def test_lists_agree_with_a_stack_of_bools(bad: Any, data: Any) -> None:
    found = BadPixels.of(bad)
    n = len(bad)
    rows = np.array(
        data.draw(st.lists(st.integers(0, n - 1), max_size=6) if n else st.just([])), int
    )
    mask = data.draw(arrays(np.bool_, (3, 3)))
    assert len(found) == n
    np.testing.assert_array_equal(found.good(rows, 3), ~bad[rows])
    np.testing.assert_array_equal(found.take(rows).good(np.arange(len(rows)), 3), ~bad[rows])
    np.testing.assert_array_equal(found.without(mask).good(np.arange(n), 3), ~(bad & mask))
    other = data.draw(arrays(np.bool_, bad.shape))
    both = found.union(BadPixels.of(other))
    np.testing.assert_array_equal(both.good(np.arange(n), 3), ~(bad | other))
    joined = BadPixels.join([BadPixels.of(bad[:2]), BadPixels.of(bad[2:])])
    np.testing.assert_array_equal(joined.starts, found.starts)
    np.testing.assert_array_equal(joined.pixels, found.pixels)


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise from 0"):
        BadPixels(np.array([0, 2]), np.array([1], np.int32))
    with pytest.raises(ValueError, match="numbered from 0"):
        BadPixels(np.array([0, 1]), np.array([-1], np.int32))
    scan = pf.simulate_scan(n_positions=9, N=16, seed=0)
    with pytest.raises(ValueError, match="bad_pixels"):
        replace(scan, bad_pixels=BadPixels.of(np.zeros((8, 16, 16), bool)))
    with pytest.raises(ValueError, match="0..255"):
        replace(scan, bad_pixels=BadPixels(np.repeat([0, 1], [1, 9]), np.array([256], np.int32)))


def test_a_scan_returns_which_pixels_were_measured() -> None:
    scan = pf.simulate_scan(n_positions=9, N=16, seed=0)
    bad = np.zeros((9, 16, 16), bool)
    bad[4, 8, 8:10] = True
    mask = np.ones((16, 16), bool)
    mask[8, 7] = False
    marked = replace(scan, bad_pixels=BadPixels.of(bad), mask=mask)
    patterns, good = marked.measured(np.array([4, 5]))
    assert good is not None
    np.testing.assert_array_equal(good, ~bad[[4, 5]] & mask)
    np.testing.assert_array_equal(patterns, np.where(good, scan.diffraction[[4, 5]], 0))
    assert scan.measured(np.array([4]))[1] is None
    thinned = marked.subsample(8, seed=1)
    kept = thinned.metadata["sample_indices"]
    assert thinned.bad_pixels is not None
    np.testing.assert_array_equal(thinned.bad_pixels.good(np.arange(8), 16), ~bad[kept])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["npz", "cxi", "ptyd"])
def test_bad_pixels_that_are_listed_for_patterns_in_a_file_count(
    tmp_path: Path, suffix: str
) -> None:
    pytest.importorskip("h5py")
    geometry: dict[str, Any] = {"energy_eV": 8e3, "distance_m": 2.0, "detector_pixel_m": 1e-4}
    scan = pf.simulate_scan(n_positions=9, N=16, photons=1e4, seed=0)
    known, listed = np.zeros((2, 9, 16, 16), bool)
    known[4, 8, 8:10] = listed[4, 8, 8] = listed[7, 8, 7] = True
    path, again = tmp_path / "scan.cxi", tmp_path / f"again.{suffix}"
    for bad in (known, np.zeros_like(known)):  # with and without such that the file knows
        pf.write_scan(replace(scan, bad_pixels=BadPixels.of(bad)), path, **geometry)
        lazy = replace(pf.read_scan(path, load=False), bad_pixels=BadPixels.of(listed))
        patterns = np.where(bad | listed, 0, scan.diffraction)
        pf.write_scan(lazy, again)
        for read in (lazy, lazy.subsample(9, seed=0), pf.read_scan(again)):
            found, good = read.measured(np.arange(9))
            np.testing.assert_array_equal(good, ~(bad | listed))
            np.testing.assert_array_equal(found, patterns)
        energies = np.square(patterns, dtype=np.float64).sum(axis=(1, 2))
        np.testing.assert_allclose(measured_energies(lazy), energies)


def test_warnings_point_at_the_line_of_the_caller() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn("here")
        pf.group_positions(np.random.default_rng(0).random((20, 2)), n_groups=30)
    assert [message.filename for message in told] == [__file__, __file__]
