"""Scores: against images whose shift, factor, ramp, noise and spectrum are known."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from places import SHARED
from ptycho_fast.metrics import (
    Scores,
    align,
    first_crossing,
    fourier_ring_correlation,
    scan_mask,
    score,
)

pytest.importorskip("scipy")
pytest.importorskip("skimage")

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.complex128]

DATA = SHARED / "data"
RUN1084 = DATA / "run1084_xpp_simdiff_n64.npz"

SHAPE = (112, 124)
"""More columns than rows, so that x and y can't be mixed up."""


def smooth(rng: np.random.Generator, cutoff: float = 0.12) -> Image:
    """Noise without frequencies above `cutoff` cycles per pixel: a spline can move it."""
    white = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)
    frequency = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    values: Image = np.fft.ifft2(np.fft.fft2(white) * (frequency < cutoff))
    values /= np.abs(values).max()
    return values


def sample(seed: int = 0) -> Image:
    """An object as they are: modulus around 0.8, phase of a radian or so."""
    parts = smooth(np.random.default_rng(seed))
    values: Image = (0.8 + 0.2 * parts.real) * np.exp(2j * parts.imag)
    return values


def displaced(image: Image, x: float, y: float) -> Image:
    """Move an image by its Fourier transform, around the edges of the array."""
    phase = np.fft.fftfreq(SHAPE[0])[:, None] * y + np.fft.fftfreq(SHAPE[1]) * x
    values: Image = np.fft.ifft2(np.fft.fft2(image) * np.exp(-2j * np.pi * phase))
    return values


def ramp(x: float, y: float) -> Image:
    """Return a phase ramp of so many cycles over the array."""
    along_x, along_y = np.arange(SHAPE[1]) / SHAPE[1], np.arange(SHAPE[0]) / SHAPE[0]
    values: Image = np.exp(2j * np.pi * (x * along_x + y * along_y[:, None]))
    return values


def field() -> NDArray[np.bool_]:
    """A mask off the middle, with a ragged rim."""
    y, x = np.indices(SHAPE)
    inside: NDArray[np.bool_] = (x - 58) ** 2 / 38**2 + (y - 60) ** 2 / 30**2 + 0.1 * np.sin(
        x + y
    ) < 1
    return inside


def raster(N: int = 32) -> NDArray[np.float64]:
    """Positions in columns 30..90 and rows 28..80."""
    x, y = np.meshgrid(np.arange(30, 91, N / 8), np.arange(28, 81, N / 8))
    return np.column_stack([x.ravel(), y.ravel()])


@given(
    shift=st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
    cycles=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    modulus=st.sampled_from([1e-6, 0.3, 1.0, 5e4]),
    angle=st.floats(-np.pi, np.pi),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_known_shift_factor_and_ramp_are_found(
    shift: tuple[float, float], cycles: tuple[float, float], modulus: float, angle: float, seed: int
) -> None:
    reference, mask = sample(seed), field()
    image = modulus * np.exp(1j * angle) * ramp(*cycles) * displaced(reference, *shift)
    found = align(image, reference, mask)
    assert found.shift == pytest.approx(shift, abs=2e-3)
    slope = 2 * np.pi * np.divide(cycles, SHAPE[::-1])
    assert found.ramp == pytest.approx(-slope, abs=2e-5)
    assert abs(found.factor) * modulus == pytest.approx(1, rel=1e-3)
    assert np.abs(found.image - reference)[mask].max() < 5e-3


def test_the_aligned_image_follows_from_shift_factor_and_ramp() -> None:
    reference, mask = sample(), field()
    image = 2j * ramp(1.5, -2.2) * displaced(reference, 3, -2)
    found = align(image, reference, mask)
    y, x = np.indices(SHAPE)
    # The nearest whole shift, for which no interpolation is needed, is 1e-3 px away.
    moved = np.roll(image, (2, -3), (0, 1))
    expected = found.factor * np.exp(1j * (found.ramp[0] * x + found.ramp[1] * y)) * moved
    assert np.abs(found.image - expected)[mask].max() < 1e-2


@given(seed=st.integers(0, 100), noise=st.floats(0, 3))
@settings(max_examples=20, deadline=None)
def test_no_factor_or_ramp_near_leaves_less(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    reference, mask = sample(seed), field()
    image = reference + noise * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    aligned = align(ramp(2.3, 1.1) * image, reference, mask).image

    def left(values: Image) -> float:
        return float(np.linalg.norm((values - reference)[mask]))

    least = left(aligned) * (1 + 1e-9)
    for factor in (1 + 1e-3, 1 - 1e-3, np.exp(1e-3j), np.exp(-1e-3j)):
        assert left(aligned * factor) >= left(aligned)
    for cycles in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        # About the middle of the mask, so that the mean phase stays.
        tilt = ramp(*cycles)
        tilt /= tilt[60, 58]
        best = np.vdot((aligned * tilt)[mask], reference[mask])
        best /= np.linalg.norm(aligned[mask]) ** 2
        assert left(aligned * tilt * best) >= least * (1 - 2e-9)


def test_noise_does_not_bias_the_shift() -> None:
    """Moved by half a pixel, noise is smoothed: the least residual is not where the image is."""
    reference, mask = sample(), field()
    shifts = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)
        shifts.append(align(displaced(reference, 0.25, 0) + 0.5 * noise, reference, mask).shift)
    spread = np.std(shifts, axis=0) / np.sqrt(20)
    assert (np.abs(np.mean(shifts, axis=0) - (0.25, 0)) < 4 * spread + 0.005).all()
    assert spread.max() < 0.03


def test_pixels_outside_the_mask_do_not_affect_the_scores() -> None:
    reference, positions = sample(), raster()
    image = sample() * np.exp(0.2j * sample(1).real)
    expected = score(image, reference, positions, 32)
    seen = scan_mask(SHAPE, positions, 32)
    spoiled = np.where(seen, reference, np.nan)
    assert score(image, spoiled, positions, 32) == expected
    # The image is read where the shift, and the spline, reach.
    y, x = np.indices(SHAPE)
    near = (x > 6) & (x < 114) & (y > 4) & (y < 104)
    found = score(np.where(near, image, 1e3j), reference, positions, 32)
    assert found.phase_rmse == pytest.approx(expected.phase_rmse, rel=1e-3)


def test_scores_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    reference, positions = sample(), raster()
    image = sample() * (1 + 0.1 * rng.normal(size=SHAPE)) * np.exp(0.3j * rng.normal(size=SHAPE))
    found = score(ramp(1, 2) * image, reference, positions, 32)
    mask = scan_mask(SHAPE, positions, 32)
    aligned = align(ramp(1, 2) * image, reference, mask)
    ours, theirs = aligned.image[mask], reference[mask]
    expected = {
        "phase_rmse": np.sqrt(np.mean(np.angle(ours * theirs.conj()) ** 2)),
        "phase_correlation": np.corrcoef(ours / abs(ours), theirs / abs(theirs))[0, 1].real,
        "amplitude_rmse": np.sqrt(np.mean((abs(ours) - abs(theirs)) ** 2)),
        "amplitude_correlation": np.corrcoef(abs(ours), abs(theirs))[0, 1],
        "complex_error": np.sqrt(np.sum(abs(ours - theirs) ** 2) / np.sum(abs(theirs) ** 2)),
        "frc": first_crossing(*fourier_ring_correlation(aligned.image, reference, mask)),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name
    assert found.shift == aligned.shift

    weights = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    middle = np.exp(-1j * np.angle((theirs / abs(theirs)).sum()))
    for name, (a, b) in {
        "amplitude_ssim": (abs(aligned.image), abs(reference)),
        "phase_ssim": (np.angle(aligned.image * middle), np.angle(reference * middle)),
    }.items():
        span, similar = np.ptp(b[mask]), []
        for y, x in np.argwhere(mask):
            window = np.s_[y - 5 : y + 6, x - 5 : x + 6]
            if mask[window].all():
                of_a, of_b = (weights * a[window]).sum(), (weights * b[window]).sum()
                var_a = (weights * (a[window] - of_a) ** 2).sum()
                var_b = (weights * (b[window] - of_b) ** 2).sum()
                both = (weights * (a[window] - of_a) * (b[window] - of_b)).sum()
                c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
                similar.append(
                    ((2 * of_a * of_b + c1) * (2 * both + c2))
                    / ((of_a**2 + of_b**2 + c1) * (var_a + var_b + c2))
                )
        assert len(similar) > 100
        assert getattr(found, name) == pytest.approx(np.mean(similar), rel=1e-6), name


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
def test_known_noise_is_measured(sigma: float) -> None:
    rng = np.random.default_rng(0)
    reference, positions = sample(), raster()
    phase = score(reference * np.exp(1j * sigma * rng.normal(size=SHAPE)), reference, positions, 32)
    assert phase.phase_rmse == pytest.approx(sigma, rel=0.04)
    amplitude = score(reference * (1 + sigma * rng.normal(size=SHAPE)), reference, positions, 32)
    if sigma < 0.4:  # else some moduli change sign
        assert amplitude.phase_rmse < 0.1 * sigma
    mask = scan_mask(SHAPE, positions, 32)
    power = np.mean(np.abs(reference[mask]) ** 2)
    noise = sigma * np.sqrt(power / 2) * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    both = score(reference + noise, reference, positions, 32)
    # The factor of least residual shrinks a noisy image.
    assert both.complex_error == pytest.approx(sigma / np.sqrt(1 + sigma**2), rel=0.04)


def test_a_wrapped_phase_costs_no_correlation() -> None:
    reference = sample() ** 4  # phases beyond 2 pi
    noisy = reference * np.exp(0.05j * np.random.default_rng(0).normal(size=SHAPE))
    found = score(noisy, reference, raster(), 32)
    assert found.phase_rmse == pytest.approx(0.05, rel=0.05)
    assert found.phase_correlation > 0.99
    small = np.exp(0.02j * sample().real)
    expected = np.exp(0.02j * (sample().real + 0.1 * sample(1).imag))
    mask = scan_mask(SHAPE, raster(), 32)
    aligned = align(expected, small, mask).image[mask]
    pearson = np.corrcoef(np.angle(aligned), np.angle(small[mask]))[0, 1]
    assert score(expected, small, raster(), 32).phase_correlation == pytest.approx(
        pearson, abs=1e-3
    )


@given(
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    about_the_mask=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(max_examples=15, deadline=None)
def test_the_twin_of_an_object_has_the_object_for_its_twin(
    shift: tuple[float, float], about_the_mask: bool, seed: int
) -> None:
    reference, positions = sample(seed), raster()
    mask = scan_mask(SHAPE, positions, 32)
    image = reference[::-1, ::-1].conj()
    if about_the_mask:
        # The array's middle is (61.5, 55.5). Turned about another, all lies elsewhere by twice that
        rows, columns = np.nonzero(mask)
        image = np.roll(
            image,
            (rows.min() + rows.max() - SHAPE[0] + 1, columns.min() + columns.max() - SHAPE[1] + 1),
            (0, 1),
        )
    found = score(displaced(image, *shift), reference, positions, 32)
    assert found.twin is not None
    assert found.twin.twin is None
    assert found.twin.phase_rmse < 5e-3
    assert found.twin.amplitude_correlation > 0.999
    assert found.twin.frc > 0.2  # to where there is nothing in the object
    assert found.phase_rmse > 10 * found.twin.phase_rmse


def test_the_twins_scores_are_those_of_the_turned_image() -> None:
    """A raster whose middle is the array's: turning the image turns the scores about."""
    reference = sample()
    x, y = np.meshgrid(np.arange(31.5, 92, 4), np.arange(29.5, 82, 4))
    positions = np.column_stack([x.ravel(), y.ravel()])
    image = reference * np.exp(0.3j * sample(2).imag)
    upright = score(image, reference, positions, 32)
    turned = score(image[::-1, ::-1].conj(), reference, positions, 32)
    assert turned.twin is not None
    assert upright.twin is not None
    for name, value in upright.twin.as_dict().items():
        if name != "twin":
            assert getattr(turned, name) == pytest.approx(value, rel=1e-6, abs=1e-9), name
    for name, value in turned.twin.as_dict().items():
        if name != "twin":
            assert getattr(upright, name) == pytest.approx(value, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("snr", [0.3, 1.0, 4.0])
def test_ring_correlation_of_noise_is_what_its_power_says(snr: float) -> None:
    """White signal S in both, noise in one: sqrt(S/(S+N)); in both: S/(S+N)."""
    rng = np.random.default_rng(0)

    def white() -> Image:
        return rng.normal(size=(128, 128)) + 1j * rng.normal(size=(128, 128))

    mask = np.zeros((128, 128), bool)
    mask[4:124, 6:120] = True
    signal, noise, other = white(), white() / np.sqrt(snr), white() / np.sqrt(snr)
    frequencies, one = fourier_ring_correlation(signal + noise, signal, mask)
    _, two = fourier_ring_correlation(signal + noise, 5j * (signal + other) / 5j, mask)
    assert frequencies[-1] == pytest.approx(1)
    assert (np.diff(frequencies) > 0).all()
    outer = frequencies > 0.1  # there rings have hundreds of pixels
    assert one[outer].mean() == pytest.approx(np.sqrt(snr / (snr + 1)), abs=0.02)
    assert two[outer].mean() == pytest.approx(snr / (snr + 1), abs=0.02)
    assert np.abs(fourier_ring_correlation(white(), signal, mask)[1][outer]).mean() < 0.06


@pytest.mark.parametrize("cutoff", [0.1, 0.25, 0.4])
def test_the_crossing_is_where_the_image_ends(cutoff: float) -> None:
    """Above `cutoff` the image holds noise; a bright background must not leak up there."""
    rng = np.random.default_rng(1)

    def white() -> Image:
        return rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)

    frequency = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    truth, wrong = np.fft.fft2(white()), np.fft.fft2(white())
    background = 30 + 30 * smooth(rng, 0.04)
    reference = background + np.fft.ifft2(truth)
    image = background + np.fft.ifft2(np.where(frequency < cutoff, truth, wrong))
    crossing = first_crossing(*fourier_ring_correlation(image, reference, field()))
    assert crossing == pytest.approx(2 * cutoff, abs=0.06)


def test_identical_images_never_cross() -> None:
    frequencies, correlation = fourier_ring_correlation(sample(), sample(), field())
    assert correlation == pytest.approx(np.ones(len(frequencies)))
    assert first_crossing(frequencies, correlation) == 1.0


def test_a_crossing_is_interpolated() -> None:
    frequencies = np.array([0.25, 0.5, 0.75, 1.0])
    assert first_crossing(frequencies, np.array([1, 0.6, 0.2, 0.9])) == pytest.approx(0.5625)
    assert first_crossing(frequencies, np.array([0.4, 1, 1, 1])) == 0.0
    assert first_crossing(frequencies, np.array([1, 1, 1, 0.5])) == 1.0
    assert first_crossing(frequencies, np.array([1, 0.6, 0.2, 0.9]), 1 / 7) == 1.0


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_a_constant_has_no_structure(dtype: Any) -> None:
    flat = np.full(SHAPE, 0.7 - 0.2j, dtype)
    found = score(flat, sample(), raster(), 32)
    assert found.amplitude_correlation == 0.0
    assert found.frc < 0.1  # the ramp that was added is all it has
    assert found.shift == (0, 0)
    assert not fourier_ring_correlation(flat, sample(), field())[1].any()
    pure_phase = np.exp(1j * sample().imag).astype(dtype)
    found = score(pure_phase, pure_phase, raster(), 32)
    assert found.amplitude_correlation == found.amplitude_ssim == 0.0
    assert found.phase_correlation == pytest.approx(1)
    assert found.phase_ssim == pytest.approx(1)
    found = score(flat, flat, raster(), 32)
    assert found.phase_rmse < 1e-6
    assert found.phase_correlation == found.phase_ssim == found.frc == 0.0


def test_pixels_without_a_value_count_as_random() -> None:
    image, positions = ramp(2, 1) * displaced(sample(), 0.4, -0.3), raster()
    mask = scan_mask(SHAPE, positions, 32)
    image[50:60, 40:60] = 0
    found = score(image, sample(), positions, 32)
    share = 200 / np.count_nonzero(mask)
    assert found.phase_rmse == pytest.approx(np.sqrt(share / 3) * np.pi, rel=0.1)
    aligned = align(image, sample(), mask)
    assert np.count_nonzero(aligned.image[mask] == 0) == 200


def test_scores_are_written_as_json() -> None:
    rng = np.random.default_rng(0)
    found = score(rng.normal(size=SHAPE).astype(np.float32), sample(), raster(), 32)
    back = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    twin = Scores(**{**back["twin"], "shift": tuple(back["twin"]["shift"])})
    assert Scores(**{**back, "shift": tuple(back["shift"]), "twin": twin}) == found


def test_invalid_images_are_refused_with_a_sentence() -> None:
    image, mask, positions = sample(), field(), raster()
    with pytest.raises(ValueError, match=r"image is \(112, 123\) and the reference \(112, 124\)"):
        score(image[:, 1:], image, positions, 32)
    with pytest.raises(ValueError, match=r"reference must be \(H, W\) complex, got shape \(112,"):
        align(image, image[:, 0], mask)
    with pytest.raises(ValueError, match=r"mask must be \(112, 124\) bool"):
        align(image, image, mask[1:])
    with pytest.raises(ValueError, match=r"mask has 9 pixels, but 64"):
        align(image, image, np.arange(image.size).reshape(SHAPE) < 9)
    with pytest.raises(
        ValueError, match=r"only 0 can be scored.*3 of the 2 positions lie within 5 pixels"
    ):
        score(image, image, positions[:2], 32)
    with pytest.raises(ValueError, match=r"positions must be \(n, 2\)"):
        score(image, image, positions[:, 0], 32)
    with pytest.raises(ValueError, match=r"N must be a whole number"):
        scan_mask(SHAPE, positions, 0)
    spoiled = image.copy()
    spoiled[60, 58] = np.nan
    count = np.count_nonzero(mask)
    for function in (align, fourier_ring_correlation):
        with pytest.raises(ValueError, match=rf"image is not finite at 1 of the {count} pixels"):
            function(spoiled, image, mask)
        with pytest.raises(ValueError, match=rf"reference is 0 at all {count} pixels"):
            function(image, np.where(mask, 0, image), mask)


@pytest.mark.parametrize("missing", ["scipy", "skimage.metrics"])
def test_missing_packages_are_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'pip install "ptycho_fast\[metrics\]"'):
        score(sample(), sample(), raster(), 32)


def test_importing_metrics_imports_numpy_alone() -> None:
    script = (
        "import sys, ptycho_fast.metrics;"
        "print([name for name in ('scipy', 'skimage', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not RUN1084.exists(), reason="shared data is not here")
def test_a_real_object_is_found_again() -> None:
    with np.load(RUN1084) as scan:
        truth = scan["objectGuess"]
        positions = np.column_stack([scan["xcoords"], scan["ycoords"]])
    mask = scan_mask(truth.shape, positions, 64)
    assert np.count_nonzero(mask) == 8518  # by SciPy's cKDTree
    y, x = np.indices(truth.shape)
    tilt = np.exp(2j * np.pi * (6.3 * x / 226 - 4.8 * y / 227))
    off = (0.2 - 3j) * tilt * np.roll(truth, (-4, 5), (0, 1))
    found = score(off.astype(np.complex64), truth, positions, 64)
    assert found.shift == pytest.approx((5, -4), abs=1e-3)
    assert found.phase_rmse < 1e-3
    assert found.complex_error < 1e-3
    assert found.amplitude_correlation > 0.9999
    assert found.phase_ssim > 0.999
    assert found.frc == 1.0
    assert found.twin is not None
    assert found.twin.phase_rmse > 1
    rng = np.random.default_rng(0)
    noisy = score(truth * np.exp(0.2j * rng.normal(size=truth.shape)), truth, positions, 64)
    assert noisy.phase_rmse == pytest.approx(0.2, rel=0.03)
    assert noisy.shift == pytest.approx((0, 0), abs=0.05)


def test_an_image_on_one_side_of_its_array_is_scored() -> None:
    """Turned about the array's middle, nothing of it is left in the mask."""
    scan = pf.simulate_scan(n_positions=400, N=32, seed=0)
    right = scan.positions[scan.positions[:, 0] > np.median(scan.positions[:, 0]) + 6]
    assert scan.object is not None
    mask = scan_mask(scan.object.shape, right, scan.N)
    image = np.where(mask, scan.object, 0)
    assert not (mask & mask[::-1, ::-1]).any()
    scores = score(image, scan.object, right, scan.N)
    assert scores.phase_rmse < 1e-6
    assert scores.twin is not None
    assert scores.twin.phase_rmse > 0.1
