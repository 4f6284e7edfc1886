"""The counts of a scan, and their random split."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.reconstruction import counts as module
from ptycho_fast.reconstruction.counts import Counts, CountsOfScan, counts_of


@pytest.fixture
def scan() -> pf.Scan:
    return pf.simulate_scan(40, 16, photons=500, seed=0)


def test_counts_are_squared_amplitudes_and_bad_pixels_are_left_out(scan: pf.Scan) -> None:
    mask = np.ones((16, 16), bool)
    mask[3, 5] = False
    patterns = scan.diffraction.copy()
    patterns[:, 3, 5] = 1e9
    counts, notes = counts_of(dataclasses.replace(scan, diffraction=patterns, mask=mask))
    expected = np.square(scan.diffraction, dtype=np.float64)
    expected[:, 3, 5] = 0
    np.testing.assert_allclose(counts.take(np.arange(40)).kept().values, expected, rtol=1e-6)
    assert not counts.take(np.arange(40)).kept().good[0, 3, 5]  # type: ignore[index]
    assert notes == ()


def test_a_split_keeps_every_count_and_takes_a_tenth(scan: pf.Scan) -> None:
    counts = counts_of(scan)[0].take(np.arange(40)).kept()
    kept, held = counts.split(0.1, (5, 7))
    np.testing.assert_allclose(kept.values + held.values, counts.values, atol=1e-3)
    assert (held.values == np.rint(held.values)).all()
    assert (kept.values >= 0).all()
    total = float(counts.values.sum())
    # Binomial: the standard deviation is sqrt(n p (1 - p)).
    assert abs(held.values.sum() - 0.1 * total) < 4 * np.sqrt(0.09 * total)
    # Each pixel on its own, where there are enough counts.
    bright = counts.values > 20
    k = counts.values[bright].astype(float)
    deviates = (held.values[bright] - 0.1 * k) / np.sqrt(0.09 * k)
    assert abs(deviates.mean()) < 4 / np.sqrt(deviates.size)
    assert abs(deviates.var() - 1) < 0.2


def test_a_split_is_a_function_of_its_key_and_of_the_block(
    scan: pf.Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_PIXELS", 8 * 16 * 16)
    counts = counts_of(scan)[0].take(np.arange(40)).kept()
    first, second = counts.split(0.1, (5, 7)), counts.split(0.1, (5, 7))
    np.testing.assert_array_equal(first[1].values, second[1].values)
    assert (first[1].values != counts.split(0.1, (6, 7))[1].values).any()
    assert (first[1].values != counts.split(0.1, (5, 8))[1].values).any()
    part = counts.take(np.arange(16)).split(0.1, (5, 7))
    np.testing.assert_array_equal(part[1].values, first[1].values[:16])
    # By NumPy alone: the third block of 8 patterns.
    philox = np.random.Philox(key=np.array([5, 7], np.uint64), counter=[0, 2, 0, 0])
    whole = np.rint(counts.values[16:24]).astype(np.int64)
    expected = np.random.Generator(philox).binomial(whole, 0.1)
    np.testing.assert_array_equal(first[1].values[16:24], expected)


def test_blocks_of_a_large_scan_are_what_memory_would_hold(
    scan: pf.Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = counts_of(scan)[0]
    assert isinstance(whole, Counts)
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    monkeypatch.setattr(module, "BLOCK_PIXELS", 7 * 16 * 16)
    streamed = counts_of(scan)[0]
    assert isinstance(streamed, CountsOfScan)
    blocks = list(streamed.blocks())
    assert [some.stop - some.start for some, _, _ in blocks] == [7, 7, 7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate([each for _, each, _ in blocks]), whole.values)
    some = streamed.take(np.array([3, 30]))
    assert isinstance(some, Counts | CountsOfScan)
    assert len(some) == 2


def test_normalised_counts_are_found_and_told(
    scan: pf.Scan, caplog: pytest.LogCaptureFixture
) -> None:
    normalised = dataclasses.replace(scan, diffraction=0.01 * scan.diffraction, energies=None)
    with caplog.at_level(logging.INFO, "ptycho_fast"):
        counts, notes = counts_of(normalised)
    expected = np.square(scan.diffraction, dtype=np.float64)
    np.testing.assert_allclose(counts.take(np.arange(40)).kept().values, expected, rtol=1e-4)
    assert notes == (
        "The squared amplitudes are multiples of 0.0001, which is taken as one count.",
    )
    assert notes[0] in caplog.text


def test_what_is_not_counts_is_said() -> None:
    exact = pf.simulate_scan(40, 16, photons=None, seed=0)
    with pytest.warns(UserWarning, match=r"not counts of photons.*1e\+06 photons a pattern"):
        counts, notes = counts_of(exact)
    assert len(notes) == 1
    mean = counts.take(np.arange(40)).kept().values.sum() / 40
    assert mean == pytest.approx(1e6, rel=0.2)
    bright = dataclasses.replace(exact, diffraction=1000 * exact.diffraction, energies=None)
    counts, notes = counts_of(bright)
    assert "used as counts of photons" in notes[0]


def test_what_no_image_can_be_made_of_is_refused(scan: pf.Scan) -> None:
    dark = dataclasses.replace(scan, diffraction=0 * scan.diffraction, energies=None)
    with pytest.raises(ValueError, match="All 40 patterns are zero"):
        counts_of(dark)
    broken = scan.diffraction.copy()
    broken[17, 2, 2] = np.nan
    with pytest.raises(ValueError, match="the first is pattern 17"):
        counts_of(dataclasses.replace(scan, diffraction=broken, energies=None))
