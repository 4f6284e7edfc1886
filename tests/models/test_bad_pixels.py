"""Bad pixels of single patterns have no weight in reconstruction, training and imaging."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ptycho_fast as pf
from bad_patterns import Stored, saturated, spoilt
from ptycho_fast.canvas import place
from ptycho_fast.patterns import mean_pattern

torch = pytest.importorskip("torch")

from ptycho_fast.models import PtychoModel  # noqa: E402
from ptycho_fast.models.physics import diffraction_loss  # noqa: E402
from ptycho_fast.models.refinement import refine  # noqa: E402
from ptycho_fast.models.scans import exposure_ratio  # noqa: E402

SIDE = 32
PHOTONS = 1e5


@pytest.fixture(scope="module")
def scan() -> Any:
    return pf.simulate_scan(n_positions=150, N=SIDE, photons=PHOTONS, seed=5)


def phase_error(image: Any, origin: Any, scan: Any) -> float:
    from ptycho_fast.metrics import score  # noqa: PLC0415

    placed = place(image, origin, scan.object.shape)
    return score(placed, scan.object, scan.positions, scan.N).phase_rmse


@pytest.mark.filterwarnings("ignore:The patterns hardly overlap")
@pytest.mark.parametrize("share", [0.002, 0.01])
def test_refinement_finds_the_object_despite_bad_pixels(scan: Any, share: float) -> None:
    pytest.importorskip("skimage")
    holes = spoilt(scan, saturated(scan, share))
    lost = replace(holes, bad_pixels=None)
    images = [refine(seen, scan.probe, iterations=20) for seen in (scan, holes, lost)]
    clean, known, unknown = (phase_error(image.object, image.origin, scan) for image in images)
    assert clean < 0.05
    assert known < 1.2 * clean
    assert unknown > 2 * clean


@pytest.mark.filterwarnings("ignore:The patterns hardly overlap")
def test_values_of_bad_pixels_do_not_affect_refinement(scan: Any) -> None:
    bad = saturated(scan, 0.01)
    seen = [spoilt(scan, bad, rubbish) for rubbish in (0, 1e6, np.nan)]
    seen.append(replace(scan, diffraction=Stored(scan.diffraction, bad)))
    found = [refine(some, scan.probe, iterations=2, refine_probe=True) for some in seen]
    for other in found[1:]:
        assert np.array_equal(other.object, found[0].object)
        assert np.array_equal(other.probe, found[0].probe)


@pytest.mark.parametrize("kind", ["poisson", "amplitude"])
def test_the_loss_is_the_mean_over_measured_pixels(kind: str) -> None:

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
    # If all pixels are good, the loss is the same as without `good`.
    everywhere = diffraction_loss(intensity, amplitude, kind, None, torch.ones_like(good))
    assert float(everywhere) == pytest.approx(
        float(diffraction_loss(intensity, amplitude, kind)), rel=1e-6
    )


@pytest.fixture(scope="module")
def small() -> Any:
    return pf.simulate_scan(n_positions=100, N=16, photons=PHOTONS, seed=6)


def make_model(**options: Any) -> Any:
    pytest.importorskip("lightning")
    return PtychoModel(N=16, **{"width": 8, **options})


def train(model: Any, scan: Any, epochs: int = 1, **options: Any) -> list[float]:
    history = model.train(scan, max_epochs=epochs, picture_every=0, device="cpu", **options)
    return [row["loss"] for row in history]


@pytest.mark.parametrize("options", [{}, {"gridsize": 2}, {"overlap": 1}, {"least_exposure": 1e-2}])
def test_values_of_bad_pixels_do_not_affect_training_or_imaging(options: Any) -> None:
    """Loss and image are the same for any value, in memory and out of core."""
    few = pf.simulate_scan(n_positions=40, N=16, photons=PHOTONS, seed=6)
    bad = saturated(few, 0.01)
    stored = replace(few, diffraction=Stored(few.diffraction, bad))
    found = []
    for seen in (spoilt(few, bad), spoilt(few, bad, 1e4), spoilt(few, bad, np.nan), stored):
        model = make_model(**options)
        losses = train(model, seen, n_groups=16, refine_probe=2)
        found.append((losses, model.infer(seen, device="cpu", refine=2)))
    for losses, made in found[1:]:
        assert losses == found[0][0]
        assert np.array_equal(made.object, found[0][1].object)
        assert made.metrics == found[0][1].metrics


def test_a_network_learns_despite_bad_pixels(small: Any) -> None:
    """1 % of all pixels are bad in training and imaging, most of them the brightest."""
    pytest.importorskip("skimage")
    holes = spoilt(small, saturated(small, 0.01))
    errors = []
    for seen in (small, holes, replace(holes, bad_pixels=None)):
        model = make_model()
        train(model, seen, 6, batch_size=4)
        made = model.infer(seen, device="cpu")
        errors.append(made.metrics["complex_error"])
    clean, known, unknown = errors
    assert known < 1.2 * clean
    assert unknown > 1.5 * clean


@pytest.fixture(scope="module")
def trained_on_small(small: Any) -> Any:
    """A model, not to be trained any further."""
    model = make_model()
    train(model, small, 2, n_groups=48)
    return model


def test_pattern_correlations_are_of_measured_pixels(small: Any, trained_on_small: Any) -> None:
    model = trained_on_small
    bad = np.random.default_rng(0).random(small.diffraction.shape) < 0.02
    made = model.infer(spoilt(small, bad), stitching=False, device="cpu")
    exits = np.fft.ifftshift(made.patches.astype(complex) * model.probe, axes=(1, 2))
    modelled = np.abs(np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(1, 2)))
    expected = np.corrcoef(modelled[~bad], small.diffraction[~bad])[0, 1]
    assert made.metrics["pattern_correlation"] == pytest.approx(expected, abs=1e-4)


def test_exposures_are_compared_over_pixels_that_both_scans_have(
    small: Any, trained_on_small: Any, tmp_path: Any
) -> None:
    """A mask that hides the brightest pixels, in imaging alone, is not a shorter exposure."""
    model = trained_on_small
    bright = mean_pattern(small)
    hidden = bright > np.quantile(bright, 0.97)
    assert bright[hidden].sum() > 0.2 * bright.sum()
    masked = replace(small, mask=~hidden)
    twice = replace(masked, diffraction=np.float32(2) * small.diffraction)
    model.save(tmp_path / "run")

    def ratio(seen: Any, scan: Any) -> float:
        return exposure_ratio(scan, seen.seen_light.mean_pattern, seen.seen_light.mean_energy)

    for seen in (model, PtychoModel.load(tmp_path / "run")):
        assert ratio(seen, small) == pytest.approx(1, rel=1e-6)
        assert ratio(seen, masked) == pytest.approx(1, rel=1e-6)
        assert ratio(seen, twice) == pytest.approx(2, rel=1e-6)
        # Neither are bad pixels of single patterns.
        bad = np.random.default_rng(1).random(small.diffraction.shape) < 0.1
        assert ratio(seen, spoilt(small, bad)) == pytest.approx(1, rel=5e-3)
    nothing = np.zeros((16, 16), bool)
    with pytest.raises(ValueError, match="dark"):
        ratio(model, replace(small, mask=nothing))
    # No pixel in common: trained with one half of the detector, imaged with the other.
    left = np.arange(16)[None] < np.full((16, 1), 8)
    half = make_model()
    train(half, replace(small, mask=left), n_groups=8)
    with pytest.raises(ValueError, match="0 good pixels in common"):
        ratio(half, replace(small, mask=~left))


def test_a_model_without_a_mean_pattern_compares_sums_of_counts(
    small: Any, trained_on_small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions did not save the mean pattern."""
    model = trained_on_small
    other = replace(small, diffraction=np.float32(3) * small.diffraction)
    assert exposure_ratio(other, None, model.seen_light.mean_energy) == pytest.approx(3, rel=1e-6)
    expected = model.infer(small, device="cpu")
    monkeypatch.setattr(model, "seen_light", model.seen_light._replace(mean_pattern=None))
    made = model.infer(other, device="cpu")
    np.testing.assert_allclose(made.object, expected.object, atol=2e-3)
