"""The Fourier ring correlation of two halves against images whose spectrum is known."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ptycho_fast.reconstruction.resolution import (
    Resolution,
    coverage_window,
    half_bit,
    length_text,
    lit,
    phase_ramp,
    ring_correlation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def white(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """Complex noise of unit power a pixel."""
    noise: NDArray[np.complex128] = rng.normal(0, 0.5**0.5, (*shape, 2)).view(complex)[..., 0]
    return noise


def coloured(
    rng: np.random.Generator, n: int, power: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """An image with the given expected power at each frequency."""
    image: NDArray[np.complex128] = np.fft.ifft2(np.sqrt(power) * np.fft.fft2(white(rng, (n, n))))
    return image


def radii(n: int) -> NDArray[np.float64]:
    """Frequencies of the Fourier plane in cycles per pixel."""
    f = np.fft.fftfreq(n)
    radius: NDArray[np.float64] = np.hypot(f[:, None], f)
    return radius


def light(shape: tuple[int, int] = (200, 190)) -> NDArray[np.float64]:
    """Light of a scan: spots on an ellipse, dark outside."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = ((y - 90) / 80.0) ** 2 + ((x - 100) / 70.0) ** 2 < 1
    return np.where(inside, 3 + np.cos(x) * np.cos(y), 1e-3)


def test_the_correlation_is_what_signal_and_noise_say() -> None:
    n, rng = 256, np.random.default_rng(1)
    power = 30 * np.exp(-radii(n) / 0.07)
    noise = 0.2
    found = []
    for _ in range(6):
        signal = coloured(rng, n, power)
        first, second = (signal + np.sqrt(noise) * white(rng, (n, n)) for _ in range(2))
        found.append(ring_correlation(first, second, np.ones((n, n))))
    frequencies = found[0].frequencies
    ratio = 30 * np.exp(-frequencies / 0.07) / noise
    mean = np.mean([each.correlation for each in found], axis=0)
    # 6 images of rings with n pixels: the spread of the mean is less than this.
    spread = 1 / np.sqrt(6 * np.maximum(np.arange(1, n // 2 + 1), 1))
    assert np.abs(mean - ratio / (1 + ratio))[3:].max() < 0.05
    assert (np.abs(mean - ratio / (1 + ratio)) < 3 * spread).all()
    np.testing.assert_allclose(frequencies, np.arange(1, n // 2 + 1) / n)
    # 0.143 = S / (1 + S) at S = 1 / 6, where 30 exp(-f / 0.07) = 0.2 / 6.
    expected = 0.5 / (0.07 * math.log(30 * 6 / 0.2))
    assert np.mean([each.pixels(0.143) for each in found]) == pytest.approx(expected, rel=0.05)


def test_a_phase_and_a_ramp_between_the_two_make_no_difference() -> None:
    rng, coverage = np.random.default_rng(2), light()
    shape = (200, 190)
    image = 1 + 0.3 * white(rng, shape)
    first, second = (image + 0.3 * white(rng, shape) for _ in range(2))
    plain = ring_correlation(first, second, coverage)
    y, x = np.mgrid[:200, :190]
    for ramp in ((0.02, -0.013), (0.7, 0.4)):
        turned = second * 2.5 * np.exp(1j * (ramp[0] * x + ramp[1] * y + 2))
        found = ring_correlation(first, turned, coverage)
        np.testing.assert_allclose(found.correlation, plain.correlation, atol=1e-6)
    # And without light, anything may be there.
    second[coverage < 1] = np.nan
    again = ring_correlation(first, second, coverage)
    np.testing.assert_allclose(again.correlation, plain.correlation, atol=1e-12)


def test_noise_alone_is_under_the_threshold_and_has_no_resolution() -> None:
    rng, coverage = np.random.default_rng(3), light()
    curves = [
        ring_correlation(white(rng, coverage.shape), white(rng, coverage.shape), coverage)
        for _ in range(20)
    ]
    each = np.array([found.correlation for found in curves])
    threshold = curves[0].half_bit
    # For no signal the threshold is about sqrt(2) standard deviations above 0.1716, or more.
    assert each.std() < 1 / np.sqrt(2) * (threshold[10:].mean() + 0.1)
    assert (each > threshold).mean() < 0.01
    # By chance the lowest ring or two may agree: half a period of a third of the image.
    assert all(found.pixels() > 160 / 6 for found in curves)
    assert np.mean([math.isinf(found.pixels()) for found in curves]) > 0.5


def test_the_half_bit_curve_is_that_of_van_heel_and_schatz() -> None:
    # The numbers that the paper prints.
    for n in (4, 30, 1000, 10**9):
        root = math.sqrt(n)
        paper = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
        assert half_bit(np.array([float(n)]))[0] == pytest.approx(paper, abs=1e-4)


def test_the_window_lowers_the_number_of_independent_pixels() -> None:
    rng = np.random.default_rng(4)
    image = white(rng, (128, 128))
    coverage = np.ones((128, 128))
    found = ring_correlation(image, image, coverage)
    window = coverage_window(coverage)
    share = np.sum(window**2) ** 2 / (128**2 * np.sum(window**4))
    assert 0.3 < share < 0.9
    ring = np.rint(radii(128) * 128) == 40
    expected = half_bit(np.array([np.count_nonzero(ring) * share]))[0]
    assert found.half_bit[39] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(found.correlation, 1)
    assert found.pixels() == found.pixels(0.143) == 1


def test_the_window_is_1_inside_and_0_at_the_rim_and_beyond() -> None:
    coverage = light()
    window = coverage_window(coverage)
    assert not window[coverage < 1].any()
    assert window[90, 100] == 1
    assert window.min() == 0
    # Smooth: no step from pixel to pixel is larger than a few times 1 / rim.
    assert max(np.abs(np.diff(window, axis=axis)).max() for axis in (0, 1)) < 0.12
    # A hole is outside too, and the window falls towards it.
    coverage[85:95, 60:70] = 0
    holed = coverage_window(coverage)
    assert not holed[85:95, 60:70].any()
    assert max(np.abs(np.diff(holed, axis=axis)).max() for axis in (0, 1)) < 0.4


@pytest.mark.parametrize("shape", [(8, 8), (1, 64), (3, 200), (64, 9)])
def test_small_and_narrow_areas_have_a_window(shape: tuple[int, int]) -> None:
    window = coverage_window(np.ones(shape))
    assert 0 < window.max() <= 1
    assert np.count_nonzero(window > 0.2) >= window.size / 4
    sparse = np.zeros((32, 32))
    sparse[::2, ::2] = 1
    assert coverage_window(sparse).sum() > 0


def test_lit_pixels_have_a_share_of_the_typical_light() -> None:
    coverage = np.array([[-1.0, 0.0, 4.0, 1.0, 10.0, 10.0]])
    # (16 + 1 + 100 + 100) / 25 = 8.68
    assert lit(coverage, 0.25).tolist() == [[False, False, True, False, True, True]]
    assert not lit(np.zeros((3, 3)), 0.25).any()
    assert lit(np.full((2, 2), np.float32(1e-30)), 0.25).all()


def test_the_ramp_is_found_in_noise() -> None:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:70, :51]
    product = np.exp(1j * (0.211 * x + 0.043 * y + 1)) + white(rng, (70, 51))
    assert np.allclose(phase_ramp(product), (0.211, 0.043), atol=3e-3)
    assert phase_ramp(np.zeros((5, 5), complex)) == (0, 0)


def curve(correlation: list[float], **fields: float) -> Resolution:
    n = len(correlation)
    frequencies = np.arange(1, n + 1) * 0.5 / n
    return Resolution(frequencies, np.array(correlation), np.full(n, 0.5), **fields)


@pytest.mark.parametrize(
    ("correlation", "frequency"),
    [
        ([1, 1, 0.9, 0.1, 0, 0, 0, 0, 0, 0], 0.175),  # half-way between rings 3 and 4
        ([1, 0.4, 1, 0.3, 0.3, 0.7, 0.9, 0.1, 0, 0], 0.375),  # single dips are no end
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 0.4], 0.45 + 0.05 * 0.5 / 0.6),
        ([1, 1, 1, 1, 1, 1, 1, 0.9, 0.1, 0.4], 0.425),
        ([1, 1, 1, 1, 1, 1, 1, 1, 0.4, 0.6], 0.5),
        ([1] * 10, 0.5),
        ([0.4, 0.3, 0.2, 1, 1, 1, 1, 1, 1, 1], 0),
        ([0.1] * 10, 0),
        ([0.3, 0.4, 1, 1, 0.9, 0.1, 0.1, 0.1, 0, 0], 0.275),
    ],
)
def test_the_images_agree_up_to_the_first_rings_that_do_not(
    correlation: list[float], frequency: float
) -> None:
    found = curve(correlation)
    expected = 0.5 / frequency if frequency else math.inf
    assert found.pixels() == pytest.approx(expected)
    assert found.pixels(0.5) == found.pixels("half-bit")
    assert found.metres() is None
    sized = curve(correlation, pixel_size=20e-9)
    assert sized.metres() == pytest.approx(expected * 20e-9)


def test_few_rings_are_enough() -> None:
    assert curve([1]).pixels() == 1
    assert curve([1, 0]).pixels() == pytest.approx(0.5 / 0.375)
    assert math.isinf(curve([0]).pixels())


def test_resolutions_say_their_units() -> None:
    text = "Resolution(half-bit: 2.86 pixels = 57.1 nm, 0.143: 2.53 pixels = 50.7 nm)"
    assert repr(curve([1, 1, 0.9, 0.1, 0, 0, 0, 0, 0, 0], pixel_size=20e-9)) == text
    assert curve([1] * 4).text() == "1 pixel"
    odd = curve([1] * 4)  # 1.0004 pixels
    assert replace(odd, frequencies=odd.frequencies * 0.9996).text() == "1 pixel"
    assert curve([0] * 4).text(0.143) == "none, the halves do not agree"
    assert [length_text(m) for m in (1e-10, 9.996e-7, 1.2e-3, 2)] == [
        "0.1 nm", "1 µm", "1.2 mm", "2 m",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"second": np.ones((30, 29))}, r"The image is \(30, 30\) and the reference \(30, 29\)"),
        ({"coverage": np.ones((30, 31))}, r"coverage must be \(30, 30\) like the images"),
        ({"coverage": np.eye(30)}, "Only 30 of 900 pixels have a quarter of the typical light"),
        ({"coverage": np.zeros((30, 30))}, "Only 0 of 900"),
        ({"first": np.full((30, 30), np.nan)}, "not finite at"),
        ({"first": np.zeros((30, 30))}, "is 0 at all"),
    ],
)
def test_what_can_not_be_compared_is_refused(change: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {name: np.ones((30, 30)) for name in ("first", "second", "coverage")}
    with pytest.raises(ValueError, match=sentence):
        ring_correlation(**given | change)


def test_an_unknown_criterion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"criterion must be 'half-bit' or a number .* 'full'"):
        curve([1, 0]).pixels("full")


WITHOUT_SCIPY = """
import sys
sys.modules.update(dict.fromkeys(("scipy", "skimage", "matplotlib", "torch")))
import numpy as np
from ptycho_fast.reconstruction.resolution import ring_correlation
image = np.random.default_rng(0).normal(size=(40, 40))
print(ring_correlation(image, image, np.ones((40, 40))))
"""


def test_numpy_is_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True, check=False
    )
    assert done.stdout == "Resolution(half-bit: 1 pixel, 0.143: 1 pixel)\n", done.stderr
