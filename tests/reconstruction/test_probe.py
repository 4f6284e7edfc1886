"""A probe from the counts alone."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.metrics import score
from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.cpu import CpuModel
from ptycho_fast.reconstruction.probe import mean_pattern, probe_diameter, start_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffraction_models import Way

pytest.importorskip("skimage", reason="scores need scikit-image")

N = 24
PHOTONS = 1e6


@dataclass(frozen=True, eq=False)
class Simulated:
    """Counts, and what caused them."""

    counts: NDArray[np.float32]
    positions: NDArray[np.float64]
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]


def aperture(defocus: float = 0.0, saddle: float = 0.0) -> NDArray[np.complex64]:
    """Return the probe of a circular aperture with phases of x**2 + y**2 and x**2 - y**2."""
    axis = np.fft.fftfreq(N) * 6
    x, y = axis, axis[:, np.newaxis]
    pupil = np.clip((1 - np.hypot(x, y)) * N / 6 + 0.5, 0, 1)
    far = pupil * np.exp(1j * (defocus * (x**2 + y**2) + saddle * (x**2 - y**2)))
    return np.fft.fftshift(np.fft.ifft2(far))[np.newaxis].astype(np.complex64)


def simulated(probe: NDArray[np.complex64], n: int = 80, photons: float = PHOTONS) -> Simulated:
    scan = pf.simulate_scan(n_positions=n, N=N, trajectory="spiral", photons=None, seed=1)
    assert scan.object is not None
    model = CpuModel(scan.positions, scan.object.shape, N)
    scale = np.sqrt(photons * n / model.intensity(scan.object, probe).sum(dtype=np.float64))
    probe = (probe * scale).astype(np.complex64)
    counts = np.random.default_rng(2).poisson(model.intensity(scan.object, probe))
    return Simulated(counts.astype(np.float32), scan.positions, scan.object, probe)


def model_of(case: Simulated, **change: Any) -> CpuModel:
    return CpuModel(case.positions, case.object.shape, N, **change)


@pytest.mark.parametrize(
    ("defocus", "saddle"), [(0, 0), (3, 0), (-3, 0), (7, 0), (-7, 0), (3, 2), (0, 4)]
)
def test_probe_and_object_are_found(defocus: float, saddle: float) -> None:
    case = simulated(aperture(defocus, saddle))
    found, notes = start_probe(model_of(case), Counts(case.counts))
    assert found.probe.shape == (1, N, N)
    assert found.object.shape == case.object.shape
    wide = probe_diameter(case.probe)
    assert probe_diameter(found.probe) == pytest.approx(wide, rel=0.1)
    assert f"about {probe_diameter(found.probe):.3g} pixels wide" in notes[0]
    assert "badly" not in notes[0]
    # Scaled to counts: the energies of probe and object are known but for a factor.
    energy = np.linalg.norm(found.probe) ** 2
    assert energy == pytest.approx(PHOTONS, rel=0.1)
    scores = score(found.object, case.object, case.positions, N)
    assert scores.phase_correlation > 0.97
    assert scores.twin is not None
    assert scores.twin.phase_correlation < 0.9


def test_diameter_saves_candidates() -> None:
    case = simulated(aperture(-5))
    wide = probe_diameter(case.probe)
    _, without = start_probe(model_of(case), Counts(case.counts))
    for factor in (0.85, 1.15):
        found, notes = start_probe(model_of(case), Counts(case.counts), diameter=factor * wide)
        assert "the best of 5 phases" in notes[0]
        assert "the best of 5 phases" not in without[0]
        assert probe_diameter(found.probe) == pytest.approx(wide, rel=0.1)
        assert score(found.object, case.object, case.positions, N).phase_correlation > 0.97


def test_few_photons_take_more_patterns() -> None:
    case = simulated(aperture(4), photons=3000)
    found, _ = start_probe(model_of(case), Counts(case.counts))
    assert score(found.object, case.object, case.positions, N).phase_correlation > 0.9


def test_pixels_that_were_not_measured() -> None:
    case = simulated(aperture(4))
    good = np.ones((1, N, N), np.bool_)
    good[0, N // 2 - 1 : N // 2 + 1, N // 2 - 1 : N // 2 + 1] = False  # a beam stop
    good[0, :, 15] = False
    counts = np.where(good, case.counts, 0)
    found, _ = start_probe(model_of(case), Counts(counts, good))
    assert probe_diameter(found.probe) == pytest.approx(probe_diameter(case.probe), rel=0.1)
    assert score(found.object, case.object, case.positions, N).phase_correlation > 0.95


def test_all_models_find_the_same(way: Way) -> None:
    case = simulated(aperture(-4), n=60)
    module = importlib.import_module(f"ptycho_fast.reconstruction.{way.module}")
    arguments: dict[str, Any] = {"device": way.device} if way.device else {}
    model = getattr(module, way.name)(case.positions, case.object.shape, N, **arguments)
    found, _ = start_probe(model, Counts(case.counts))
    probe = model.to_numpy(found.probe)
    assert probe_diameter(probe) == pytest.approx(probe_diameter(case.probe), rel=0.1)
    image = model.to_numpy(found.object)
    assert score(image, case.object, case.positions, N).phase_correlation > 0.95


def test_same_call_same_bits() -> None:
    case = simulated(aperture(4), n=40)
    first, second = (
        start_probe(model_of(case, num_threads=threads), Counts(case.counts), diameter=14.0)[0]
        for threads in (1, 3)
    )
    assert (first.probe == second.probe).all()
    assert (first.object == second.object).all()


def test_only_what_the_patterns_reach_is_reconstructed() -> None:
    case = simulated(aperture(4), n=40)
    height, width = case.object.shape
    model = CpuModel(case.positions + 30, (height + 60, width + 60), N)
    found, _ = start_probe(model, Counts(case.counts))
    assert found.positions is model.positions
    outside = np.ones(found.object.shape, np.bool_)
    outside[30 : 30 + height, 30 : 30 + width] = False
    assert len(np.unique(found.object[outside])) == 1
    # It goes on with the mean of the object, whose mean intensity is 1 where there is light.
    assert 0.5 < abs(found.object[0, 0]) < 1.01
    light = model.light(found.probe)
    assert (light * abs(found.object) ** 2).sum() / light.sum() == pytest.approx(1, abs=0.1)


def test_positions_that_repeat() -> None:
    case = simulated(aperture(4), n=30, photons=1000)
    positions = np.tile(case.positions[:10], (3, 1))
    model = CpuModel(positions, case.object.shape, N)
    found, _ = start_probe(model, Counts(np.tile(case.counts[:10], (3, 1, 1))))
    assert np.isfinite(found.probe).all()


def test_mean_pattern_by_definition() -> None:
    rng = np.random.default_rng(0)
    n = 50
    exposure = rng.uniform(0.5, 2, n)
    model = CpuModel(np.full((n, 2), 12.0), (30, 30), N, exposure=exposure, background=0.5)
    truth = rng.uniform(5, 10, (N, N))
    counts = (exposure[:, np.newaxis, np.newaxis] * truth + 0.5).astype(np.float32)
    np.testing.assert_allclose(mean_pattern(model, Counts(counts)), truth, rtol=1e-5)
    good = rng.random((n, N, N)) < 0.5
    counts[~good] = 0
    np.testing.assert_allclose(mean_pattern(model, Counts(counts, good)), truth, rtol=1e-5)


def test_pixels_that_no_pattern_measured_are_filled() -> None:
    model = CpuModel(np.full((2, 2), 12.0), (30, 30), N)
    x = np.arange(N)
    truth = 20 + np.hypot(x[:, np.newaxis] - 12.0, x - 12.0)
    good = np.ones((1, N, N), np.bool_)
    good[0, 8:13, 10:15] = False
    counts = np.where(good, truth, 0).astype(np.float32)[[0, 0]]
    mean = mean_pattern(model, Counts(counts, good))
    np.testing.assert_allclose(mean[good[0]], truth[good[0]], rtol=1e-6)
    np.testing.assert_allclose(mean, truth, rtol=0.2)


def test_diameter_of_a_disc() -> None:
    axis = np.arange(64) - 32
    disc = (np.hypot(axis[:, np.newaxis], axis) < 10).astype(np.complex64)
    assert probe_diameter(disc * np.exp(1j * axis)) == pytest.approx(20, rel=0.02)
    halves = np.stack([disc * (axis < 0), disc * (axis >= 0)])
    assert probe_diameter(halves) == pytest.approx(probe_diameter(disc[np.newaxis]))


@pytest.mark.parametrize("diameter", [0, -3.0, N + 1, float("nan"), float("inf")])
def test_diameters_that_cannot_be(diameter: float) -> None:
    model = CpuModel([[12.0, 12.0]], (30, 30), N)
    with pytest.raises(ValueError, match=f"more than 0 and at most N={N}"):
        start_probe(model, Counts(np.ones((1, N, N), np.float32)), diameter=diameter)


def test_nothing_was_counted() -> None:
    model = CpuModel([[12.0, 12.0]], (30, 30), N, background=2.0)
    with pytest.raises(ValueError, match="above the background of 2 counts"):
        start_probe(model, Counts(np.ones((1, N, N), np.float32)))


def test_counts_of_other_positions() -> None:
    model = CpuModel([[12.0, 12.0]], (30, 30), N)
    with pytest.raises(ValueError, match="1 positions and counts of 2 patterns"):
        start_probe(model, Counts(np.ones((2, N, N), np.float32)))
