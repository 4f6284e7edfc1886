"""The simulated scan, against a Fourier transform written out and the reference patches."""

from __future__ import annotations

import math
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TRAJECTORIES = ("raster", "spiral")


def intensities(scan: pf.Scan) -> NDArray[np.float64]:
    """Return |F(probe * patch)|**2 in float64, by the sum that defines F."""
    assert scan.object is not None
    assert scan.probe is not None
    from_center = np.arange(scan.N) - scan.N // 2
    fourier = np.exp(-2j * np.pi * np.outer(from_center, from_center) / scan.N) / math.sqrt(scan.N)
    patches = reference.extract_patches(scan.object, scan.positions[:, :, np.newaxis], scan.N)
    exit_waves = scan.probe.astype(np.complex128) * patches[..., 0]
    intensity: NDArray[np.float64] = np.abs(fourier @ exit_waves @ fourier.T) ** 2
    return intensity


def energies(scan: pf.Scan) -> NDArray[np.float64]:
    energy: NDArray[np.float64] = np.square(scan.diffraction, dtype=np.float64).sum(axis=(1, 2))
    return energy


@pytest.mark.parametrize("N", [16, 33, 64])
@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_patterns_without_noise_are_the_moduli_of_the_transform(N: int, trajectory: str) -> None:
    scan = pf.simulate_scan(20, N, trajectory=trajectory, photons=None, seed=1)
    expected = np.sqrt(intensities(scan))
    np.testing.assert_allclose(scan.diffraction, expected, atol=1e-5 * expected.max())
    assert scan.metadata["photon_scale"] == 1


@pytest.mark.parametrize("N", [32, 45])
@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_counts_are_poisson_at_one_photon_scale(N: int, trajectory: str) -> None:
    scan = pf.simulate_scan(150, N, trajectory=trajectory, photons=3e5, seed=2)
    counts = np.square(scan.diffraction, dtype=np.float64)
    # Roots of whole numbers, as exact as float32 can say.
    np.testing.assert_allclose(counts, np.round(counts), rtol=2.5e-7)
    mean = scan.metadata["photon_scale"] * intensities(scan)
    bright = mean > 20
    assert np.count_nonzero(bright) > 10_000
    deviation = (counts - mean)[bright] / np.sqrt(mean[bright])
    assert abs(deviation.mean()) < 5 / math.sqrt(deviation.size)
    assert abs(deviation.var() - 1) < 0.05
    # Neighbouring pixels are counted independently of one another.
    noise = (counts - mean) / np.sqrt(np.maximum(mean, 1))
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.01


@pytest.mark.parametrize("photons", [50.0, 1e4, 1e6])
def test_the_mean_number_of_photons_is_as_asked(photons: float) -> None:
    scan = pf.simulate_scan(100, 32, photons=photons, seed=3)
    # Five standard deviations of the mean of 100 Poisson counts.
    assert abs(energies(scan).mean() / photons - 1) < 5 / math.sqrt(100 * photons) + 1e-6


@pytest.mark.parametrize("N", [31, 40, 64, 129])
def test_probe_is_centred_and_a_third_of_the_window_wide(N: int) -> None:
    scan = pf.simulate_scan(1, N, seed=0)
    assert scan.probe is not None
    assert scan.probe.dtype == np.complex64
    density = np.abs(scan.probe.astype(np.complex128)) ** 2
    assert density.sum() == pytest.approx(1, abs=1e-5)
    # Symmetric about pixel N//2; at even N row and column 0 have no mirror image.
    inner = scan.probe[1 - N % 2 :, 1 - N % 2 :]
    np.testing.assert_allclose(inner, inner[::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(inner, inner.T, atol=1e-6)
    axis = np.arange(N) - N // 2
    radius = np.hypot(axis[:, np.newaxis], axis)
    order = np.argsort(radius, axis=None)
    holds_half = radius.ravel()[order][np.searchsorted(np.cumsum(density.ravel()[order]), 0.5)]
    assert N / 12 < holds_half < N / 5
    assert density[radius < N / 4].sum() > 0.8
    # Out of focus: the phase is curved over the bright part, not flat.
    assert np.ptp(np.unwrap(np.angle(scan.probe[N // 2, N // 2 : N // 2 + N // 6]))) > 0.5


def test_object_has_structure_at_every_scale() -> None:
    scan = pf.simulate_scan(400, 64, seed=5)
    assert scan.object is not None
    assert scan.object.dtype == np.complex64
    assert 0.6 <= np.abs(scan.object).min() < 0.7
    assert 0.9 < np.abs(scan.object).max() <= 1
    assert -1.2 <= np.angle(scan.object).min() < -1
    assert 1 < np.angle(scan.object).max() <= 1.2
    image = scan.object - scan.object.mean()
    spectrum = np.abs(np.fft.fft2(image)) ** 2
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape[::-1])))
    for wavelength in (4, 8, 16, 32):
        octave = (frequency > 0.5 / wavelength) & (frequency <= 1 / wavelength)
        assert spectrum[octave].sum() > 0.01 * spectrum.sum()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 70),
    N=st.integers(1, 24),
    trajectory=st.sampled_from(TRAJECTORIES),
    spacing=st.none() | st.floats(0.01, 1),
    jitter=st.floats(0, 1),
    photons=st.none() | st.floats(1e-3, 1e15),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_scan_is_complete_and_valid(
    n: int,
    N: int,
    trajectory: str,
    spacing: float | None,
    jitter: float,
    photons: float | None,
    seed: int,
) -> None:
    pitch = N / 8 if spacing is None else spacing * N
    shares: list[float] = []
    scan = pf.simulate_scan(
        n, N, trajectory=trajectory, spacing=None if spacing is None else pitch, jitter=jitter,
        photons=photons, seed=seed, progress=shares.append,
    )  # fmt: skip
    assert len(scan) == n
    assert scan.diffraction.shape == (n, N, N)
    assert scan.diffraction.dtype == np.float32
    assert np.isfinite(scan.diffraction).all()
    assert scan.positions.shape == (n, 2)
    assert np.abs(scan.positions - scan.positions_start).max() <= jitter * pitch + 1e-9
    assert scan.object is not None
    first = scan.positions - N // 2
    beyond = np.floor(first) + N  # the last pixel that interpolation reads
    assert first.min() >= -1e-9
    assert (beyond <= np.array(scan.object.shape[::-1]) - 1).all()
    assert sum(shares) == pytest.approx(1)


def test_raster_runs_row_by_row_at_the_spacing() -> None:
    scan = pf.simulate_scan(10, 16, spacing=3, jitter=0, seed=0)
    column, row = ((scan.positions - scan.positions.min(axis=0)) / 3).round(9).T
    np.testing.assert_array_equal(column, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(row, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(scan.positions, scan.positions_start)


def test_fermat_spiral_gives_every_position_the_same_area() -> None:
    scan = pf.simulate_scan(2000, 16, trajectory="spiral", spacing=2, jitter=0, seed=0)
    # Position k lies on radius c * sqrt(k + 1/2), and successive ones a golden angle apart.
    k = np.arange(2000)
    radius = 2 * np.sqrt((k + 0.5) / np.pi)
    golden = np.pi * (3 - np.sqrt(5))
    ideal = np.stack([radius * np.cos(k * golden), radius * np.sin(k * golden)], axis=1)
    np.testing.assert_allclose(np.diff(scan.positions, axis=0), np.diff(ideal, axis=0), atol=1e-9)
    within = np.linalg.norm(ideal, axis=1) < 30
    assert np.count_nonzero(within) * 2**2 == pytest.approx(np.pi * 30**2, rel=0.01)


def test_jitter_makes_positions_fall_between_pixels() -> None:
    scan = pf.simulate_scan(400, 16, spacing=4, seed=0)
    moved = scan.positions - scan.positions_start
    assert 0.9 < np.abs(moved).max() <= 1
    assert abs(np.mean(moved[:, 0] * moved[:, 1])) < 0.1
    assert len(np.unique(scan.positions % 1)) > 790


def same(one: pf.Scan, other: pf.Scan) -> bool:
    names = ("positions", "positions_start", "diffraction", "probe", "object")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return equal and one.metadata == other.metadata


@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_seed_determines_the_scan_and_leaves_the_global_stream_alone(trajectory: str) -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    first = pf.simulate_scan(30, 16, trajectory=trajectory, seed=7)
    np.random.seed(0)  # noqa: NPY002
    during = np.random.get_state(legacy=False)  # noqa: NPY002
    assert same(first, pf.simulate_scan(30, 16, trajectory=trajectory, seed=7))
    assert not same(first, pf.simulate_scan(30, 16, trajectory=trajectory, seed=8))
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    np.random.set_state(before)  # noqa: NPY002
    np.testing.assert_equal(after, during)


def test_fresh_seed_is_recorded_and_survives_the_file(tmp_path: Path) -> None:
    scan = pf.simulate_scan(5, 8)
    assert scan.metadata["seed"] != pf.simulate_scan(5, 8).metadata["seed"]
    pf.write_scan(scan, tmp_path / "scan.npz")
    read = pf.read_scan(tmp_path / "scan.npz")
    assert same(read, scan)
    assert same(pf.simulate_scan(5, 8, seed=int(read.metadata["seed"])), scan)


def test_results_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pf.simulate_scan(50, 16, seed=4)
    monkeypatch.setattr("ptycho_fast.simulate.BLOCK_BYTES", 7 * 16 * 16 * 16)
    blocks = pf.simulate_scan(50, 16, seed=4)
    np.testing.assert_array_equal(blocks.object, whole.object)
    # The scale is a sum over blocks, so its last bit, and with it a rare count, may differ.
    assert blocks.metadata["photon_scale"] == pytest.approx(whole.metadata["photon_scale"])
    np.testing.assert_allclose(energies(blocks), energies(whole), rtol=0.01)


def test_memory_beyond_the_result_is_bounded() -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        scan = pf.simulate_scan(n, 64, spacing=0.5, seed=0)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return int(highest - scan.diffraction.nbytes)

    # 1500 patterns more are 25 MB; what is needed beside them is the same (the object grows by
    # a few pixels).
    assert peak(2000) - peak(500) < 3e6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_positions": 0}, "n_positions must be a whole number in 1"),
        ({"n_positions": 2.5}, "n_positions must be a whole number in 1"),
        ({"N": 0}, "N must be a whole number in 1"),
        ({"trajectory": "snail"}, "'raster' or 'spiral', got 'snail'"),
        ({"spacing": 0}, "more than 0 and at most N=8 pixels, got 0"),
        ({"spacing": 8.5}, "more than 0 and at most N=8 pixels, got 8.5"),
        ({"spacing": math.nan}, "got nan"),
        ({"jitter": -0.1}, "jitter must be 0..1 in units of the spacing, got -0.1"),
        ({"jitter": math.inf}, "got inf"),
        ({"photons": 0}, "photons must be more than 0 and at most 1e15, or None, got 0"),
        ({"photons": 1e30}, "got 1e[+]30"),
        ({"photons": math.nan}, "got nan"),
        ({"seed": -1}, "seed must be a whole number in 0"),
        ({"seed": 2**63}, "seed must be a whole number in 0"),
    ],
)
def test_bad_arguments_are_refused_with_a_message(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        pf.simulate_scan(**{"n_positions": 4, "N": 8, **arguments})


def test_a_scan_too_large_for_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        pf.simulate_scan(2**31 - 1, 4096)
