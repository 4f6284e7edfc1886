"""Pixels that were not measured in some patterns weigh nothing, wherever patterns are looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.canvas import canvas, place
from ptycho_fast.frames import Frames
from ptycho_fast.patterns import mean_pattern, measured_energies

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 32
PHOTONS = 1e5


class Stored(Frames):
    """Patterns out of core that know which of their pixels were measured."""

    may_be_bad = True

    def __init__(self, stack: NDArray[Any], bad: NDArray[np.bool_]) -> None:
        self.stack, self.bad = stack, bad
        self.shape, self.dtype = stack.shape, stack.dtype
        self.reads = 0

    def read(self, rows: NDArray[Any], out: NDArray[Any]) -> None:
        self.read_good(rows, out)

    def read_good(self, rows: NDArray[Any], out: NDArray[Any]) -> NDArray[np.bool_]:
        self.reads += 1
        out[...] = np.where(self.bad[rows], 0, self.stack[rows])
        good: NDArray[np.bool_] = ~self.bad[rows]
        return good


def saturated(scan: Any, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Most of the bad pixels are the brightest, as where a detector's counter is full."""
    counts = np.square(scan.diffraction)
    bad = counts > np.quantile(counts, 1 - 0.8 * share)
    found: NDArray[np.bool_] = bad | (
        np.random.default_rng(seed).random(counts.shape) < 0.2 * share
    )
    return found


def spoilt(scan: Any, bad: NDArray[np.bool_], rubbish: float = 0) -> Any:
    return replace(
        scan,
        diffraction=np.where(bad, rubbish, scan.diffraction).astype(scan.diffraction.dtype),
        bad_pixels=BadPixels.of(bad),
    )


@pytest.fixture(scope="module")
def scan() -> Any:
    return pf.simulate_scan(n_positions=150, N=SIDE, photons=PHOTONS, seed=5)


# --- energies ------------------------------------------------------------------------------------


def test_the_mean_pattern_is_taken_over_what_was_measured() -> None:
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


def test_a_pattern_with_holes_has_the_energy_of_a_whole_one(scan: Any) -> None:
    """The estimate of what saturated pixels held is low, and far better than nothing."""
    bad = np.random.default_rng(0).random(scan.diffraction.shape) < 0.2
    whole, found = (np.nansum(mean_pattern(s)) for s in (scan, spoilt(scan, bad)))
    assert whole == pytest.approx(PHOTONS, rel=1e-2)
    assert found == pytest.approx(whole, rel=5e-3)


# --- classical passes ----------------------------------------------------------------------------


def phase_error(image: Any, origin: Any, scan: Any) -> float:
    from ptycho_fast.metrics import score  # noqa: PLC0415

    placed = place(image, origin, scan.object.shape)
    return score(placed, scan.object, scan.positions, scan.N).phase_rmse


def refined(scan: Any, passes: int = 40) -> Any:
    from ptycho_fast.models.classical import refine  # noqa: PLC0415
    from ptycho_fast.models.physics import scale_probe  # noqa: PLC0415

    pattern = mean_pattern(scan)
    probe = scale_probe(scan.probe, float(np.nansum(pattern)), np.isfinite(pattern))
    area = canvas(scan.positions, scan.N)
    start = np.ones(area.shape, np.complex64)
    return refine(scan, start, probe, passes=passes, origin=area.origin)


@pytest.mark.parametrize("share", [0.002, 0.01])
def test_classical_passes_find_the_object_in_spite_of_holes(scan: Any, share: float) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("skimage")
    holes = spoilt(scan, saturated(scan, share))
    lost = replace(holes, bad_pixels=None)
    clean, known, unknown = (
        phase_error(found.object, found.origin, scan) for found in map(refined, (scan, holes, lost))
    )
    assert clean < 0.05
    assert known < 1.2 * clean
    assert unknown > 3 * clean


def test_what_stands_in_a_bad_pixel_does_not_matter(scan: Any) -> None:
    pytest.importorskip("torch")
    bad = saturated(scan, 0.01)
    found = [refined(spoilt(scan, bad, rubbish), passes=2) for rubbish in (0, 1e6, np.nan)]
    stored = replace(scan, diffraction=Stored(scan.diffraction, bad))
    for other in (*found[1:], refined(stored, passes=2)):
        assert np.array_equal(other.object, found[0].object)
        assert np.array_equal(other.residuals, found[0].residuals)


# --- batches -------------------------------------------------------------------------------------

LAYOUTS = ("channels_last", "channels_first")


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
def test_batches_say_what_was_measured(layout: str, normalize: bool) -> None:
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


def test_a_batch_reads_its_file_once() -> None:
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
def test_torch_feeds_say_so_too(layout: str, resident: bool) -> None:
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


def test_tensorflow_feeds_say_so_too() -> None:
    tf = pytest.importorskip("tensorflow")
    scan, _ = three_kinds()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 30, seed=3))
    feed = data.to_tensorflow(10, fields=("good",))
    assert feed.element_spec["good"].dtype == tf.bool
    for batch, wanted in zip(feed, data.batches(10, fields=("good",)), strict=True):
        np.testing.assert_array_equal(batch["good"].numpy(), wanted["good"])


# --- training and imaging ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["poisson", "amplitude"])
def test_a_loss_is_the_mean_over_what_counts(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from ptycho_fast.models.physics import diffraction_loss  # noqa: PLC0415

    rng = np.random.default_rng(0)
    intensity = torch.from_numpy(rng.exponential(5, (2, 3, 6, 6)).astype(np.float32))
    amplitude = torch.from_numpy(rng.exponential(2, (2, 3, 6, 6)).astype(np.float32))
    good = torch.from_numpy(rng.random((2, 3, 6, 6)) < 0.7)
    mask = torch.from_numpy(rng.random((6, 6)) < 0.7)
    apart = (intensity + 0.1).sqrt() - (amplitude.square() + 0.1).sqrt()
    each = 4 * apart.square() if kind == "poisson" else apart.abs()
    for only in (None, mask):
        counted = good if only is None else good & only
        found = []
        for rubbish in (0, 1e9, torch.nan, torch.inf):
            modelled = intensity.clone().requires_grad_()
            seen = torch.where(counted, amplitude, rubbish)
            loss = diffraction_loss(modelled, seen, kind, only, good)
            assert float(loss.detach()) == pytest.approx(float(each[counted].mean()), rel=1e-5)
            (slope,) = torch.autograd.grad(loss, modelled)
            assert not slope[~counted].any()
            found.append((float(loss.detach()), slope))
        assert all(f[0] == found[0][0] and torch.equal(f[1], found[0][1]) for f in found)
    # What is good everywhere is as if nobody had asked.
    everywhere = diffraction_loss(intensity, amplitude, kind, None, torch.ones_like(good))
    assert float(everywhere) == pytest.approx(
        float(diffraction_loss(intensity, amplitude, kind)), rel=1e-6
    )


@pytest.fixture(scope="module")
def small() -> Any:
    return pf.simulate_scan(n_positions=100, N=16, photons=PHOTONS, seed=6)


def make_model(**options: Any) -> Any:
    pytest.importorskip("lightning")
    pytest.importorskip("neuralop")
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    return PtychoModel(N=16, **{"width": 8, **options})


def train(model: Any, scan: Any, epochs: int = 1, **options: Any) -> list[float]:
    history = model.train(scan, max_epochs=epochs, picture_every=0, device="cpu", **options)
    return [row["loss"] for row in history]


@pytest.mark.parametrize("options", [{}, {"gridsize": 2}, {"overlap": 1}, {"least_exposure": 1e-2}])
def test_training_and_imaging_do_not_see_bad_pixels(small: Any, options: Any) -> None:
    """Loss, weights and image are those of any other number in their place, in memory or not."""
    bad = saturated(small, 0.01)
    stored = replace(small, diffraction=Stored(small.diffraction, bad))
    found = []
    for seen in (spoilt(small, bad), spoilt(small, bad, 1e4), spoilt(small, bad, np.nan), stored):
        model = make_model(**options)
        losses = train(model, seen, n_groups=24, refine_probe=2)
        found.append((losses, model.infer(seen, device="cpu", refine=2)))
    for losses, made in found[1:]:
        assert losses == found[0][0]
        assert np.array_equal(made.object, found[0][1].object)
        assert made.metrics == found[0][1].metrics


def test_a_network_learns_in_spite_of_holes(small: Any) -> None:
    """Trained and imaged with 1 % of all pixels bad, most of them the brightest."""
    pytest.importorskip("skimage")
    holes = spoilt(small, saturated(small, 0.01))
    errors = []
    for seen in (small, holes, replace(holes, bad_pixels=None)):
        model = make_model()
        train(model, seen, 10, batch_size=4)
        made = model.infer(seen, device="cpu")
        errors.append(made.metrics["complex_error"])
    clean, known, unknown = errors
    assert known < 1.2 * clean
    assert unknown > 1.5 * clean


def test_pattern_correlations_are_of_measured_pixels(small: Any) -> None:
    model = make_model()
    train(model, small, 2)
    bad = np.random.default_rng(0).random(small.diffraction.shape) < 0.02
    made = model.infer(spoilt(small, bad), stitching=False, device="cpu")
    exits = np.fft.ifftshift(made.patches.astype(complex) * model.probe, axes=(1, 2))
    modelled = np.abs(np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(1, 2)))
    expected = np.corrcoef(modelled[~bad], small.diffraction[~bad])[0, 1]
    assert made.metrics["pattern_correlation"] == pytest.approx(expected, abs=1e-4)


# --- exposures -----------------------------------------------------------------------------------


def test_exposures_are_compared_over_the_pixels_that_both_have(small: Any, tmp_path: Any) -> None:
    """A mask over the brightest pixels in imaging alone takes light away, not exposure."""
    pytest.importorskip("torch")
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    model = make_model()
    train(model, small, 2)
    bright = mean_pattern(small)
    hidden = bright > np.quantile(bright, 0.97)
    assert bright[hidden].sum() > 0.2 * bright.sum()
    masked = replace(small, mask=~hidden)
    twice = replace(masked, diffraction=np.float32(2) * small.diffraction)
    model.save(tmp_path / "run")
    for seen in (model, PtychoModel.load(tmp_path / "run")):
        assert seen._exposure(small) == pytest.approx(1, rel=1e-6)
        assert seen._exposure(masked) == pytest.approx(1, rel=1e-6)
        assert seen._exposure(twice) == pytest.approx(2, rel=1e-6)
        # Some patterns' pixels are unknown: not darker either.
        bad = np.random.default_rng(1).random(small.diffraction.shape) < 0.1
        assert seen._exposure(spoilt(small, bad)) == pytest.approx(1, rel=5e-3)
    nothing = np.zeros((16, 16), bool)
    with pytest.raises(ValueError, match="dark"):
        model._exposure(replace(small, mask=nothing))
    # Trained with the other half of the detector.
    left = np.arange(16)[None] < np.full((16, 1), 8)
    half = make_model()
    train(half, replace(small, mask=left))
    with pytest.raises(ValueError, match="0 good pixels in common"):
        half._exposure(replace(small, mask=~left))


def test_a_model_without_a_mean_pattern_compares_sums(small: Any) -> None:
    model = make_model()
    train(model, small)
    model.mean_pattern = None
    other = replace(small, diffraction=np.float32(3) * small.diffraction)
    assert model._exposure(other) == pytest.approx(3, rel=1e-6)
