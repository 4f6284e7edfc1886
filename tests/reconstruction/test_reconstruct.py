"""`reconstruct` from scan to image: against the true object, and where the scan is odd."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.canvas import canvas, place
from ptycho_fast.reconstruction import Progress, Reconstruction, reconstruct
from ptycho_fast.reconstruction import counts as counts_module
from ptycho_fast.reconstruction.deviance import expected_deviance
from small_scans import in_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def scan() -> pf.Scan:
    scan = pf.simulate_scan(100, 32, photons=2e5, seed=0)
    # Such numbers have the same fractions wherever the origin is.
    positions = np.round(scan.positions * 1024) / 1024
    return dataclasses.replace(scan, positions=positions, positions_start=positions)


@pytest.fixture(scope="module")
def made(scan: pf.Scan) -> Reconstruction:
    return reconstruct(scan)


def error_of(made: Reconstruction, truth: Any) -> float:
    """Relative error of the image where there is much light, apart from a factor and a ramp."""
    image = place(made.object, made.origin, truth.shape).astype(complex)
    light = place(made.coverage, made.origin, truth.shape)
    lit = light > 0.5 * light.max()
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    for _ in range(30):
        turn = np.angle((image * truth.conj())[lit])
        fit = np.stack([x[lit], y[lit], np.ones(lit.sum())], axis=1)
        slope = np.linalg.lstsq(fit, turn, rcond=None)[0]
        image = image * np.exp(-1j * (slope[0] * x + slope[1] * y + slope[2]))
    factor = np.vdot(image[lit], truth[lit]) / np.vdot(image[lit], image[lit])
    return float(np.linalg.norm(factor * image[lit] - truth[lit]) / np.linalg.norm(truth[lit]))


def test_the_image_is_the_object(scan: pf.Scan, made: Reconstruction) -> None:
    assert error_of(made, scan.object) < 0.03
    # The object has 5 % as many numbers as there are counts, and takes up as much of the noise.
    assert 0.85 < made.deviance < 1.0
    assert made.resolution is not None
    assert made.resolution.pixels() < 2
    assert made.notes == ()
    assert made.origin == canvas(scan.positions, 32).origin
    np.testing.assert_array_equal(made.positions, scan.positions)


def test_scale_and_phase_are_those_of_the_contract(scan: pf.Scan, made: Reconstruction) -> None:
    light = made.coverage.astype(float)
    assert (light * abs(made.object) ** 2).sum() / light.sum() == pytest.approx(1, rel=1e-4)
    # The probe has the counts of a pattern.
    mean = np.square(scan.diffraction, dtype=float).sum() / len(scan)
    assert (abs(made.probe) ** 2).sum() == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("photons", [4e8, 1e10])
def test_the_brightest_scans_are_imaged(photons: float) -> None:
    """From a flat object, many counts lie where nothing is expected, and the first step is huge."""
    scan = pf.simulate_scan(40, 32, photons=photons, seed=0)
    made = reconstruct(scan)
    assert error_of(made, scan.object) < 2e-3
    assert 0.7 < made.deviance < 1.1


def test_an_object_that_cannot_change_is_refused(scan: pf.Scan) -> None:
    shape = canvas(scan.positions, scan.N).shape
    with pytest.raises(ValueError, match="object is 0 everywhere, which no iteration changes"):
        reconstruct(scan, object=np.zeros(shape))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_bit(
    scan: pf.Scan, made: Reconstruction, threads: int
) -> None:
    again = reconstruct(scan, num_threads=threads)
    np.testing.assert_array_equal(again.object, made.object)
    np.testing.assert_array_equal(again.probe, made.probe)
    assert again.history == made.history
    assert again.mu == made.mu


def test_patterns_may_stay_in_their_file(
    scan: pf.Scan, made: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "IN_MEMORY", 2**16)
    monkeypatch.setattr(counts_module, "BLOCK_PIXELS", 16 * 32 * 32)
    streamed = reconstruct(in_file(tmp_path / "patterns.bin", scan))
    # Sums are rounded in another order, so iterations may end elsewhere.
    lit = made.coverage > 0.5 * made.coverage.max()
    difference = np.linalg.norm((streamed.object - made.object)[lit])
    assert difference < 0.02 * np.linalg.norm(made.object[lit])
    assert streamed.deviance == pytest.approx(made.deviance, rel=0.05)


def test_what_bad_pixels_hold_does_not_matter(scan: pf.Scan) -> None:
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=(32, 32)) > 0.05
    images = []
    for junk in (0.0, 7e4):
        patterns = scan.diffraction.copy()
        patterns[:, ~mask] = junk
        masked = dataclasses.replace(scan, diffraction=patterns, mask=mask, energies=None)
        images.append(reconstruct(masked))
    np.testing.assert_array_equal(images[0].object, images[1].object)
    assert error_of(images[0], scan.object) < 0.05


def test_the_place_of_the_scan_does_not_matter(scan: pf.Scan, made: Reconstruction) -> None:
    shift = np.array([-(2.0**20), 2.0**19])
    positions = scan.positions + shift
    far = dataclasses.replace(scan, positions=positions, positions_start=positions, object=None)
    moved = reconstruct(far)
    np.testing.assert_array_equal(moved.object, made.object)
    assert moved.origin == (made.origin[0] - 2**20, made.origin[1] + 2**19)


def test_a_wrong_probe_is_refined_and_a_right_one_is_kept(scan: pf.Scan) -> None:
    y, x = np.mgrid[:32, :32] - 16
    wrong = np.asarray(scan.probe) * np.exp(2e-3j * (x**2 + y**2))
    defocused = dataclasses.replace(scan, probe=wrong.astype(np.complex64))
    given = reconstruct(defocused, probe="fixed")
    refined = reconstruct(defocused)
    assert refined.deviance < 1.0
    assert given.deviance > 1.5
    assert error_of(refined, scan.object) < 0.5 * error_of(given, scan.object)
    kept = reconstruct(scan)
    change = kept.probe[0] / np.asarray(scan.probe)
    assert abs(change / change[16, 16] - 1).max() < 1e-4


def test_the_prior_makes_an_image_of_few_photons_better() -> None:
    dim = pf.simulate_scan(100, 32, photons=100, seed=1)
    smooth, rough = reconstruct(dim), reconstruct(dim, prior="none")
    assert (smooth.mu > 0, rough.mu) == (True, 0)
    assert error_of(smooth, dim.object) < 0.9 * error_of(rough, dim.object)


def test_an_image_to_start_from_is_used(scan: pf.Scan) -> None:
    where = canvas(scan.positions, 32)
    truth = np.asarray(scan.object)
    start = place(truth, (-where.origin[0], -where.origin[1]), where.shape)
    start = np.where(start == 0, 1, start)
    quick = reconstruct(scan, object=start, iterations=1)
    assert error_of(quick, truth) < 0.05
    with pytest.raises(ValueError, match=r"object has shape \(3, 4\), but the canvas of the scan"):
        reconstruct(scan, object=np.ones((3, 4)))
    start[5, 5] = np.nan
    with pytest.raises(ValueError, match="object must be finite: 1 of its"):
        reconstruct(scan, object=start)


def test_an_interrupt_keeps_the_image_so_far(scan: pf.Scan) -> None:
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.iteration == 12:
            raise KeyboardInterrupt

    made = reconstruct(scan, progress=stop)
    np.testing.assert_array_equal([p.iteration for p in seen], np.arange(1, 13))
    assert made.notes[-1].startswith("Interrupted")
    assert made.resolution is None
    assert np.isfinite(made.object).all()
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] < 1
    assert seen[-1].object.shape == seen[-1].coverage.shape == made.object.shape
    # The held-out counts belong to the image too.
    patches = pf.extract_patches(made.object, (made.positions - made.origin)[:, :, None], 32)
    expected = (abs(patches[..., 0] * made.probe[0]) ** 2).sum()
    assert expected == pytest.approx(np.square(scan.diffraction, dtype=float).sum(), rel=0.05)


def test_positions_are_corrected_if_they_are_wrong(scan: pf.Scan) -> None:
    rng = np.random.default_rng(2)
    wrong = scan.positions + rng.normal(0, 1, scan.positions.shape)
    made = reconstruct(
        dataclasses.replace(scan, positions=wrong, positions_start=wrong), positions="refine"
    )
    left = made.positions - scan.positions
    left -= left.mean(axis=0)
    assert np.sqrt((left**2).sum(axis=1).mean()) < 0.15
    assert "Positions were corrected by 1." in made.notes[0]
    kept = reconstruct(scan, positions="refine")
    np.testing.assert_array_equal(kept.positions, scan.positions)
    assert "kept as given" in kept.notes[0]


def test_a_probe_that_is_not_known_is_found(scan: pf.Scan) -> None:
    made = reconstruct(dataclasses.replace(scan, probe=None))
    assert "The probe was not known" in made.notes[0]
    assert made.deviance < 1.3
    assert error_of(made, scan.object) < 0.15


def test_modes_are_added_where_the_light_is_partly_coherent() -> None:
    scan = pf.simulate_scan(100, 32, photons=None, seed=3)
    probe = np.asarray(scan.probe, complex)
    x = (np.arange(32) - 16) / 8
    second = probe * x
    second *= 0.5 * np.linalg.norm(probe) / np.linalg.norm(second)
    intensity = np.zeros((100, 32, 32))
    for mode in (probe, second):
        waves = (
            pf.extract_patches(np.asarray(scan.object), scan.positions[:, :, None], 32)[..., 0]
            * mode
        )
        far = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(1, 2))
        intensity = intensity + abs(far) ** 2
    counts = np.random.default_rng(0).poisson(2e5 * intensity)
    blurred = dataclasses.replace(
        scan, diffraction=np.sqrt(counts).astype(np.float32), energies=None
    )
    one, two = reconstruct(blurred), reconstruct(blurred, modes=2)
    assert two.probe.shape == (2, 32, 32)
    assert (
        abs(np.vdot(two.probe[0], two.probe[1])) < 1e-3 * np.vdot(two.probe[0], two.probe[0]).real
    )
    assert two.deviance < 0.5 * one.deviance
    assert error_of(two, scan.object) < error_of(one, scan.object)


def test_the_uncertainty_is_that_of_the_image(scan: pf.Scan) -> None:
    made = reconstruct(scan, uncertainty=4)
    assert made.phase_sigma is not None
    assert made.amplitude_sigma is not None
    light = made.coverage > 0.5 * made.coverage.max()
    # Photons alone: 1 / sqrt(2 n) for n on a pixel (Schulz, Opt. Express 29, 16736 (2021)).
    ideal = 1 / np.sqrt(2 * np.median(made.coverage[light]))
    assert ideal < np.median(made.phase_sigma[light]) < 10 * ideal
    with pytest.raises(ValueError, match="The uncertainty is only known with the smooth prior"):
        reconstruct(scan, prior="none", uncertainty=4)


def test_an_interrupt_returns_the_positions_that_the_image_has(scan: pf.Scan) -> None:
    wrong = scan.positions + np.random.default_rng(2).normal(0, 1, scan.positions.shape)
    moved = dataclasses.replace(scan, positions=wrong, positions_start=wrong)

    def stop(progress: Progress) -> None:
        if progress.iteration == 40:
            raise KeyboardInterrupt

    made = reconstruct(moved, positions="refine", progress=stop)
    left = made.positions - scan.positions
    before = wrong - scan.positions
    assert np.std(left) < 0.9 * np.std(before)


def test_the_deviance_is_that_of_all_patterns() -> None:
    bright = pf.simulate_scan(150, 32, photons=1e6, seed=4)
    made = reconstruct(bright)
    assert any("in the middle of the scan" in note for note in made.notes)
    patches = pf.extract_patches(made.object, (made.positions - made.origin)[:, :, None], 32)
    waves = np.fft.fftshift(np.fft.fft2(patches[..., 0] * made.probe[0], norm="ortho"), axes=(1, 2))
    mean = abs(waves.astype(complex)) ** 2
    k = np.rint(np.square(bright.diffraction, dtype=float))
    half = mean - k + k * np.log(np.maximum(k, 1) / mean)
    assert made.deviance == pytest.approx(half.sum() / expected_deviance(mean).sum(), rel=0.01)


def test_scattered_positions_are_said() -> None:
    sparse = pf.simulate_scan(16, 32, spacing=30, photons=1e4, seed=0)
    with pytest.warns(UserWarning, match=r"hardly overlap: .* lit by 1\.\d+ patterns|by 0\.\d+"):
        made = reconstruct(sparse)
    assert "hardly overlap" in made.notes[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"probe": "known"}, "probe must be 'auto', 'fixed' or 'refine', got 'known'"),
        ({"prior": "tv"}, "prior must be 'smooth', 'learned', 'auto' or 'none', got 'tv'"),
        ({"positions": True}, "positions must be 'fixed' or 'refine', got True"),
        ({"modes": 0}, "modes must be"),
        ({"iterations": -1}, "iterations must be"),
        ({"uncertainty": 1.5}, "uncertainty must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_arguments_are_refused(scan: pf.Scan, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        reconstruct(scan, **options)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"probe": np.zeros((32, 32), np.complex64)}, "it is 0 everywhere"),
        ({"probe": np.full((32, 32), np.nan, np.complex64)}, "1024 of its 1024 pixels are NaN"),
        ({"diffraction": np.zeros((100, 32, 32), np.float32)}, "All 100 patterns are zero"),
        ({"positions": np.full((100, 2), np.nan)}, "Positions must be finite"),
    ],
)
def test_scans_are_refused(scan: pf.Scan, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        reconstruct(dataclasses.replace(scan, energies=None, **change))


def test_no_probe_to_fix_is_refused(scan: pf.Scan) -> None:
    with pytest.raises(ValueError, match="The scan has no probe, so it can't be fixed"):
        reconstruct(dataclasses.replace(scan, probe=None), probe="fixed")
