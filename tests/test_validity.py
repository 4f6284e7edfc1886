"""Pixels that were not measured in some patterns have no weight in means, batches and feeds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from bad_patterns import Stored, spoilt
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.patterns import mean_pattern, measured_energies

if TYPE_CHECKING:
    from numpy.typing import NDArray

PHOTONS = 1e5
LAYOUTS = ("channels_last", "channels_first")


def test_the_mean_pattern_is_taken_over_measured_pixels() -> None:
    rng = np.random.default_rng(0)
    stack = rng.uniform(1, 3, (40, 8, 8)).astype(np.float32)
    bad = rng.random(stack.shape) < 0.3
    bad[:, 2, 3] = True
    mask = rng.random((8, 8)) < 0.9
    for rubbish in (0, np.inf, np.nan, 7):
        seen = np.where(bad, rubbish, stack).astype(np.float32)
        seen[:, ~mask] = rubbish
        scan = pf.Scan(rng.uniform(9, 20, (40, 2)), seen, mask=mask, bad_pixels=BadPixels.of(bad))
        expected = np.ma.masked_array(np.square(stack.astype(float)), bad | ~mask).mean(axis=0)
        np.testing.assert_allclose(mean_pattern(scan), expected.filled(np.nan), rtol=1e-12)
        energies = (np.square(stack.astype(float)) * ~(bad | ~mask)).sum(axis=(1, 2))
        np.testing.assert_allclose(measured_energies(scan), energies, rtol=1e-6)
    scan = replace(scan, diffraction=np.where(bad, stack, np.nan))
    with pytest.raises(ValueError, match="40 of 40 patterns are not finite, .* scan index 0"):
        mean_pattern(scan)


def test_bad_pixels_do_not_lower_the_energy_of_the_mean_pattern() -> None:
    """The estimate of what saturated pixels held is low, and far better than nothing."""
    scan = pf.simulate_scan(n_positions=150, N=32, photons=PHOTONS, seed=5)
    bad = np.random.default_rng(0).random(scan.diffraction.shape) < 0.2
    whole, found = (np.nansum(mean_pattern(s)) for s in (scan, spoilt(scan, bad)))
    assert whole == pytest.approx(PHOTONS, rel=1e-2)
    assert found == pytest.approx(whole, rel=5e-3)


def three_kinds(rubbish: float = 9) -> tuple[Any, NDArray[np.bool_]]:
    """A scan in memory with bad pixels, with a mask too, and which pixels those are."""
    made = pf.simulate_scan(n_positions=60, N=16, seed=1)
    rng = np.random.default_rng(2)
    bad = rng.random(made.diffraction.shape) < 0.05
    bad[::3] = False
    mask = rng.random((16, 16)) < 0.95
    return replace(spoilt(made, bad, rubbish), mask=mask), bad


def as_layout(stack: NDArray[Any], indices: NDArray[Any], layout: str) -> NDArray[Any]:
    gathered: NDArray[Any] = stack[indices]
    return gathered if layout == "channels_first" else gathered.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("normalize", [False, True])
def test_batches_tell_which_pixels_were_measured(layout: str, normalize: bool) -> None:
    scan, bad = three_kinds()
    good = ~bad & scan.mask
    groups = pf.group_positions(scan.positions, 50, seed=3)
    clean = np.where(good, scan.diffraction, 0)
    plain = pf.Scan(scan.positions, clean)
    expected = pf.GroupedDataset(plain, groups, normalize=normalize)
    stored = replace(scan, diffraction=Stored(scan.diffraction, bad), bad_pixels=None)
    for seen in (scan, stored, replace(stored, bad_pixels=scan.bad_pixels)):
        data = pf.GroupedDataset(seen, groups, normalize=normalize)
        for fields in ((), ("good",)):
            batches = data.batches(20, layout=layout, fields=fields)
            for batch, wanted in zip(batches, expected.batches(20, layout=layout), strict=True):
                assert ("good" in batch) == bool(fields)
                np.testing.assert_array_equal(batch["diffraction"], wanted["diffraction"])
                if fields:
                    assert batch["good"].dtype == np.bool_
                    assert batch["good"].flags.c_contiguous
                    held = as_layout(good, batch["nn_indices"], layout)
                    np.testing.assert_array_equal(batch["good"], held)
    # Where nothing is known to be bad, all of it counts.
    assert expected.materialize(fields=("good",), layout=layout)["good"].all()
    masked = pf.GroupedDataset(replace(plain, mask=scan.mask), groups)
    whole = masked.materialize(fields=("good",), layout=layout)
    held = np.broadcast_to(scan.mask, bad.shape)
    np.testing.assert_array_equal(whole["good"], as_layout(held, whole["nn_indices"], layout))


def test_a_batch_with_good_pixels_reads_its_file_once() -> None:
    scan, bad = three_kinds()
    frames = Stored(scan.diffraction, bad)
    data = pf.GroupedDataset(
        replace(scan, diffraction=frames, bad_pixels=None),
        pf.group_positions(scan.positions, 40, seed=3),
    )
    batches = list(data.batches(10, fields=("good",)))
    assert frames.reads == len(batches) == 4


def test_several_scans_keep_their_own_bad_pixels() -> None:
    scan, bad = three_kinds()
    other = pf.simulate_scan(n_positions=50, N=16, seed=4)
    stored = replace(other, diffraction=Stored(other.diffraction, bad[:50]))
    good = [~bad & scan.mask, np.ones(other.diffraction.shape, bool), ~bad[:50]]
    data = pf.GroupedDataset.concatenate(
        [
            pf.GroupedDataset(s, pf.group_positions(s.positions, 30, seed=0))
            for s in (scan, other, stored)
        ]
    )
    out = {"good": np.empty((25, 16, 16, 4), bool)}
    for batch in data.batches(25, shuffle=True, fields=("good", "scan_id"), out=out):
        for which, indices, kept, patterns in zip(
            batch["scan_id"], batch["nn_indices"], batch["good"], batch["diffraction"], strict=True
        ):
            held = as_layout(good[which], indices[None], "channels_last")[0]
            np.testing.assert_array_equal(kept, held)
            assert not patterns[~held].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("resident", [False, True])
def test_torch_feeds_tell_which_pixels_were_measured(layout: str, resident: bool) -> None:
    torch = pytest.importorskip("torch")
    scan, bad = three_kinds()
    stored = replace(scan, diffraction=Stored(scan.diffraction, bad), bad_pixels=None)
    groups = pf.group_positions(scan.positions, 30, seed=3)
    for seen in (scan, stored):
        data = pf.GroupedDataset(seen, groups, normalize=True)
        device = "cpu" if resident else None
        feed = data.to_torch(10, layout=layout, fields=("good",), resident=resident, device=device)
        for batch, wanted in zip(
            feed, data.batches(10, layout=layout, fields=("good",)), strict=True
        ):
            assert batch["good"].dtype == torch.bool
            for name in ("good", "diffraction"):
                np.testing.assert_array_equal(batch[name].numpy(), wanted[name])


def test_tensorflow_feeds_tell_which_pixels_were_measured() -> None:
    tf = pytest.importorskip("tensorflow")
    scan, _ = three_kinds()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 30, seed=3))
    feed = data.to_tensorflow(10, fields=("good",))
    assert feed.element_spec["good"].dtype == tf.bool
    for batch, wanted in zip(feed, data.batches(10, fields=("good",)), strict=True):
        np.testing.assert_array_equal(batch["good"].numpy(), wanted["good"])
