"""The physics of the networks against NumPy in float64, written from the definition."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import reference

torch = pytest.importorskip("torch")

from ptycho_fast.models.config import LOSSES  # noqa: E402
from ptycho_fast.models.inputs import count_features, make_features  # noqa: E402
from ptycho_fast.models.physics import (  # noqa: E402
    SHARPENING,
    GroupCanvas,
    diffract,
    diffraction_loss,
    far_field,
    near_field,
    scale_probe,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES = (1, 2, 7, 16, 33, 50, 64)
AXES = (-2, -1)


def noise(*shape: int, seed: int = 0) -> NDArray[np.complex128]:
    real, imaginary = np.random.default_rng([seed, *shape]).normal(size=(2, *shape))
    made: NDArray[np.complex128] = real + 1j * imaginary
    return made


def as_tensor(array: NDArray[Any]) -> Any:
    narrow = np.complex64 if np.iscomplexobj(array) else np.float32
    return torch.from_numpy(array.astype(narrow))


def centred(wave: NDArray[Any], transform: Any = np.fft.fft2) -> NDArray[np.complex128]:
    field: NDArray[Any] = np.fft.fftshift(
        transform(np.fft.ifftshift(wave, axes=AXES), norm="ortho"), axes=AXES
    )
    return field


def intensity_of(patches: NDArray[Any], probe: NDArray[Any]) -> NDArray[np.float64]:
    total: NDArray[Any] = sum(np.abs(centred(patches * mode)) ** 2 for mode in probe)  # type: ignore[assignment]
    return total


def assert_near(found: Any, expected: NDArray[Any], of: float = 1e-5) -> None:
    """Within a share of the greatest: the rounding of a Fourier transform is as large."""
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= of * np.abs(expected).max()


# --- waves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("N", SIDES)
def test_near_field_inverts_far_field(N: int) -> None:
    wave = noise(2, 3, N, N)
    assert_near(far_field(as_tensor(wave)), centred(wave))
    assert_near(near_field(as_tensor(wave)), centred(wave, np.fft.ifft2))
    assert_near(near_field(far_field(as_tensor(wave))), wave)


@pytest.mark.parametrize("N", [8, 9])
def test_frequency_0_and_the_middle_of_a_wave_are_at_half_the_side(N: int) -> None:
    """By the sum itself, with no shift that could be wrong in both."""
    wave = noise(N, N)
    k = np.arange(N) - N // 2
    kernel = np.exp(-2j * math.pi * np.outer(k, k) / N) / math.sqrt(N)
    assert_near(far_field(as_tensor(wave)), kernel @ wave @ kernel.T)


@pytest.mark.parametrize(("N", "modes"), list(itertools.product(SIDES, (1, 3))))
def test_intensities_of_all_modes_add_up(N: int, modes: int) -> None:
    patches, probe = noise(2, 4, N, N), noise(modes, N, N, seed=1)
    found = diffract(as_tensor(patches), as_tensor(probe))
    assert found.dtype == torch.float32
    expected = intensity_of(patches, probe)
    assert_near(found, expected)
    # Parseval: what is measured is what left the object.
    energy = (np.abs(patches[:, :, None] * probe) ** 2).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(found.double().sum(dim=AXES).numpy(), energy, rtol=1e-5)


def test_diffract_gives_the_patterns_of_a_simulated_scan() -> None:
    import ptycho_fast as pf  # noqa: PLC0415

    scan = pf.simulate_scan(n_positions=9, N=20, photons=None, seed=4)
    assert scan.object is not None
    assert scan.probe is not None
    patches = reference.extract_patches(scan.object, scan.positions[:, :, None], 20)
    found = diffract(as_tensor(patches.transpose(0, 3, 1, 2)), as_tensor(scan.probe[None]))
    assert_near(found[:, 0], np.square(scan.diffraction), of=2e-5)


# --- losses --------------------------------------------------------------------------------------


def cost(intensity: NDArray[Any], amplitude: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """A tenth of a count is added to both."""
    apart = np.sqrt(intensity + 0.1) - np.sqrt(amplitude**2 + 0.1)
    each: NDArray[Any] = 4 * apart**2 if kind == "poisson" else np.abs(apart)
    return each


def measured(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    intensity = rng.exponential(5, (2, 3, 6, 6))
    return intensity, np.sqrt(rng.poisson(intensity).astype(float))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_the_mean_of_the_closed_form(kind: str) -> None:
    intensity, amplitude = measured()
    assert (amplitude == 0).any()
    expected = cost(intensity, amplitude, kind)
    mask = np.random.default_rng(1).random((6, 6)) < 0.6
    pair = as_tensor(intensity), as_tensor(amplitude)
    assert float(diffraction_loss(*pair, kind)) == pytest.approx(expected.mean(), rel=1e-5)
    masked = diffraction_loss(*pair, kind, torch.from_numpy(mask))
    assert float(masked) == pytest.approx(expected[..., mask].mean(), rel=1e-5)


def test_the_default_loss_is_poisson_and_1_for_pure_noise() -> None:
    """As the counts grow; the deviance of few counts is less than 1."""
    rng = np.random.default_rng(2)
    intensity = np.full((1, 1, 400, 400), 100.0)
    amplitude = np.sqrt(rng.poisson(intensity))
    loss = float(diffraction_loss(as_tensor(intensity), as_tensor(amplitude)))
    # 160000 squares of variance 2 and mean 1 + O(1/k): four standard errors and one part in 100.
    assert loss == pytest.approx(1, abs=4 * math.sqrt(2 / 160_000) + 0.01)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_least_loss_is_that_of_the_counts_themselves(kind: str) -> None:
    _, amplitude = measured()
    least = diffraction_loss(as_tensor(amplitude**2), as_tensor(amplitude), kind)
    assert abs(float(least)) < 1e-5
    rng = np.random.default_rng(3)
    for size in (0.01, 1.0, 10.0):
        other = np.abs(amplitude**2 + size * rng.normal(size=amplitude.shape))
        assert float(diffraction_loss(as_tensor(other), as_tensor(amplitude), kind)) > float(least)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_the_closed_form_also_without_counts(kind: str) -> None:
    intensity, amplitude = measured()
    intensity[0, 0], amplitude[0, 0] = 0, np.arange(36).reshape(6, 6) % 3
    x = as_tensor(intensity).requires_grad_()
    torch.autograd.backward(diffraction_loss(x, as_tensor(amplitude), kind))
    assert x.grad.isfinite().all()
    step = 1e-6
    up, down = (cost(intensity + sign * step, amplitude, kind) for sign in (1, -1))
    expected = (up - down) / (2 * step) / intensity.size
    # At the measured amplitude itself the modulus has no slope.
    smooth = np.abs(intensity - amplitude**2) > 1e-3
    assert smooth[0, 0].sum() >= 20
    np.testing.assert_allclose(x.grad.numpy()[smooth], expected[smooth], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 1e30, 7.0])
def test_masked_pixels_do_not_affect_the_loss(kind: str, rubbish: float) -> None:
    intensity, amplitude = measured()
    mask = np.random.default_rng(4).random((6, 6)) < 0.7

    def run(amplitude: NDArray[Any]) -> tuple[float, Any]:
        x = as_tensor(intensity).requires_grad_()
        loss = diffraction_loss(x, as_tensor(amplitude), kind, torch.from_numpy(mask))
        torch.autograd.backward(loss)
        return float(loss.detach()), x.grad

    plain, slope = run(amplitude)
    hot = amplitude.copy()
    hot[..., ~mask] = rubbish
    found, hot_slope = run(hot)
    assert found == plain
    assert torch.equal(hot_slope, slope)
    assert not slope[..., torch.from_numpy(~mask)].any()


# --- the probe's scale ---------------------------------------------------------------------------


@pytest.mark.parametrize("N", [16, 17])
@pytest.mark.parametrize("modes", [None, 1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_an_object_of_modulus_1_gives_the_mean_energy(
    N: int, modes: int | None, masked: bool
) -> None:
    probe = noise(*(() if modes is None else (modes,)), N, N)
    before = probe.copy()
    mask = np.random.default_rng(5).random((N, N)) < 0.5 if masked else None
    found = scale_probe(probe, 1234.5, mask)
    assert found.shape == (modes or 1, N, N)
    assert found.dtype == np.complex64
    assert np.array_equal(probe, before)
    seen = intensity_of(np.ones((N, N)), found.astype(np.complex128))
    energy = seen.sum() if mask is None else seen[mask].sum()
    assert energy == pytest.approx(1234.5, rel=1e-5)
    # It is the same probe: one positive factor for all its modes.
    factor = found / probe
    np.testing.assert_allclose(factor, factor.flat[0].real, rtol=1e-5)
    assert factor.flat[0].real > 0


@pytest.mark.parametrize(
    ("probe", "energy", "what"),
    [
        (np.zeros((4, 4), complex), 1.0, "probe must be finite and not dark; the energy is 0.0"),
        (np.full((4, 4), np.nan + 0j), 1.0, "probe must be .* the energy is nan"),
        (np.full((4, 4), np.inf + 0j), 1.0, "probe must be"),
        (np.ones((4, 4), complex), 0.0, "patterns must be finite and not dark; the energy is 0.0"),
        (np.ones((4, 4), complex), np.nan, "patterns must be"),
        (np.ones((4, 4), complex), np.inf, "patterns must be"),
        (np.ones((4, 4), complex), -3.0, "patterns must be .* the energy is -3.0"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_dark_probes_and_patterns_are_refused(probe: Any, energy: float, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        scale_probe(probe, energy, None)


def test_a_probe_that_the_mask_hides_is_dark() -> None:
    flat = np.ones((8, 8), complex)  # its far field is one pixel
    mask = np.ones((8, 8), bool)
    mask[4, 4] = False
    with pytest.raises(ValueError, match="probe must be finite and not dark"):
        scale_probe(flat, 1.0, mask)


# --- the canvas ----------------------------------------------------------------------------------


def laying(shape: tuple[int, int], where: NDArray[Any], N: int) -> NDArray[np.float64]:
    """The matrix that cuts one patch, (N*N, H*W), entry by entry."""
    height, width = shape
    x, y = where
    made = np.zeros((N * N, height * width))
    for r, k in np.ndindex(N, N):
        row, column = r + y - N // 2, k + x - N // 2
        for i, j in itertools.product((0, 1), (0, 1)):
            a, b = math.floor(row) + i, math.floor(column) + j
            share = (1 - abs(row - a)) * (1 - abs(column - b))
            if 0 <= a < height and 0 <= b < width:
                made[r * N + k, a * width + b] += share
    return made


def merged(
    patches: NDArray[Any], positions: NDArray[Any], weight: NDArray[Any]
) -> NDArray[np.complex128]:
    """Group by group, on a canvas with room on all sides."""
    N, out = weight.shape[0], np.empty(patches.shape, complex)
    for b, group in enumerate(patches):
        where = positions[b] - positions[b].min(axis=1, keepdims=True) + N + 0.0
        # The grid of pixels is the object's: a shift by a part of a pixel would blur otherwise.
        where += positions[b].min(axis=1, keepdims=True) % 1
        side = int(np.ceil(where.max())) + 2 * N
        cuts = [laying((side, side), where[:, c], N) for c in range(len(group))]
        laid = sum(cut.T @ (weight * patch).ravel() for cut, patch in zip(cuts, group, strict=True))
        total = sum(cut.T @ weight.ravel() for cut in cuts)
        step = 1 / np.maximum(total, 1e-3 * weight.max())
        # Towards what solves (sum of E^T W E) canvas = laid, by steps of Landweber's iteration.
        normal = sum(cut.T @ (weight.ravel()[:, None] * cut) for cut in cuts)
        canvas = step * laid
        for _ in range(SHARPENING):
            canvas = canvas + step * (laid - normal @ canvas)
        out[b] = np.stack([cut @ canvas for cut in cuts]).reshape(group.shape)
    return out


def bell(N: int) -> NDArray[np.float64]:
    axis = np.arange(N) - N // 2
    made: NDArray[Any] = np.exp(-(axis[:, None] ** 2 + axis**2) / (N / 3) ** 2)
    return made


@pytest.mark.parametrize(("N", "B", "C"), [(4, 1, 1), (5, 3, 2), (6, 2, 4)])
def test_group_canvases_equal_their_matrices(N: int, B: int, C: int) -> None:
    rng = np.random.default_rng([N, B, C])
    positions = rng.uniform(-1000, 1000, (B, 2, 1)) + rng.uniform(-N / 2, N / 2, (B, 2, C))
    positions[0] = np.round(positions[0])
    patches, weight = noise(B, C, N, N), bell(N)
    found = GroupCanvas(positions, as_tensor(weight)).merge(as_tensor(patches))
    assert found.dtype == torch.complex64
    assert_near(found, merged(patches, positions, weight))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_group_canvases_of_any_size_equal_their_matrices(N: int, B: int, C: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 50, (B, 2, 1)) + rng.uniform(-N, N, (B, 2, C))
    patches, weight = noise(B, C, N, N, seed=seed), rng.uniform(0.1, 1, (N, N))
    found = GroupCanvas(positions, as_tensor(weight)).merge(as_tensor(patches))
    assert_near(found, merged(patches, positions, weight))


def smooth_object(side: int) -> NDArray[np.complex128]:
    rows, columns = np.indices((side, side)) / side
    image: NDArray[Any] = (0.8 + 0.2 * np.cos(4 * rows)) * np.exp(1j * np.sin(3 * columns + rows))
    return image


def test_merging_keeps_patches_of_one_smooth_object() -> None:
    """Up to the blur of the interpolations: a tenth of what neighbouring pixels differ by."""
    N, image = 16, smooth_object(80)
    rng = np.random.default_rng(7)
    positions = rng.uniform(30, 50, (3, 2, 1)) + rng.uniform(-3, 3, (3, 2, 4))
    patches = reference.extract_patches(image, positions, N).transpose(0, 3, 1, 2)
    canvas = GroupCanvas(positions, as_tensor(bell(N)))
    slope = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
    inner = np.s_[..., 3:-3, 3:-3]  # at the rim, weights are few and fall steeply
    made = canvas.merge(as_tensor(patches)).numpy()
    assert np.abs(made - patches)[inner].max() <= 0.1 * slope
    # What is not of one object does not stay.
    turned = patches * np.array([1, 1j, -1, -1j])[:, None, None]
    made = canvas.merge(as_tensor(turned)).numpy()
    assert np.abs(made - turned)[inner].max() > 5 * slope


def test_merging_keeps_patches_at_whole_pixels() -> None:
    N, image = 12, noise(60, 60)
    positions = np.random.default_rng(8).integers(20, 30, (4, 2, 4)).astype(float)
    patches = reference.extract_patches(image, positions, N).transpose(0, 3, 1, 2)
    assert_near(
        GroupCanvas(positions, as_tensor(np.full((N, N), 0.5))).merge(as_tensor(patches)), patches
    )


def test_the_brighter_side_of_two_patches_counts_more() -> None:
    weight = np.ones((4, 4))
    weight[:, 2:] = 3
    positions = np.array([[[5.0, 7.0], [5.0, 5.0]]])  # the second lies 2 pixels to the right
    patches = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 5.0)])[None] + 0j
    found = GroupCanvas(positions, as_tensor(weight)).merge(as_tensor(patches)).numpy()[0]
    both = (3 * 1 + 1 * 5) / 4  # bright part of the first over the dim part of the second
    np.testing.assert_allclose(found[0], np.tile([1, 1, both, both], (4, 1)), rtol=1e-6)
    np.testing.assert_allclose(found[1], np.tile([both, both, 5, 5], (4, 1)), rtol=1e-6)


def test_groups_do_not_affect_each_other() -> None:
    """Each on a canvas of its own, whatever lies beside it in the batch."""
    positions = np.random.default_rng(9).uniform(0, 20, (3, 2, 4))
    patches, weight = as_tensor(noise(3, 4, 8, 8)), as_tensor(bell(8))
    together = GroupCanvas(positions, weight).merge(patches)
    for b in range(3):
        alone = GroupCanvas(positions[b : b + 1], weight).merge(patches[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_merging_is_right() -> None:
    """The canvas is linear: ``Re <M x, u>`` has the slope that it has along any direction."""
    positions = np.random.default_rng(10).uniform(0, 8, (2, 2, 3))
    canvas = GroupCanvas(positions, as_tensor(bell(8)))
    x, along, u = (as_tensor(noise(2, 3, 8, 8, seed=s)) for s in range(3))
    x.requires_grad_()
    torch.autograd.backward((canvas.merge(x) * u.conj()).real.sum())
    # PyTorch's gradient g of a real function: its change along d is Re <g, d>.
    expected = float((canvas.merge(along) * u.conj()).real.double().sum())
    found = float((x.grad.conj() * along).real.double().sum())
    assert abs(expected) > 1
    assert found == pytest.approx(expected, rel=1e-4)
    # The oracle's matrix says the same.
    oracle = (merged(along.numpy(), positions, bell(8)) * u.numpy().conj()).real.sum()
    assert found == pytest.approx(oracle, rel=1e-4)


def test_the_gradient_of_the_loss_through_the_network_is_right() -> None:
    """Against finite differences of the whole chain, computed by the oracles in float64."""
    N, positions = 6, np.random.default_rng(11).uniform(0, 4, (1, 2, 3))
    weight, probe = bell(N), 4 * noise(2, N, N, seed=1)
    patches, along = noise(1, 3, N, N), noise(1, 3, N, N, seed=2)
    amplitude = np.sqrt(intensity_of(noise(1, 3, N, N, seed=3), probe))

    def loss(patches: NDArray[Any]) -> float:
        intensity = intensity_of(merged(patches, positions, weight), probe)
        return float(cost(intensity, amplitude, "poisson").mean())

    x = as_tensor(patches).requires_grad_()
    made = diffract(GroupCanvas(positions, as_tensor(weight)).merge(x), as_tensor(probe))
    found = diffraction_loss(made, as_tensor(amplitude))
    assert float(found.detach()) == pytest.approx(loss(patches), rel=1e-4)
    torch.autograd.backward(found)
    step = 1e-5
    expected = (loss(patches + step * along) - loss(patches - step * along)) / (2 * step)
    slope = float((x.grad.numpy().conj() * along).real.sum())
    assert abs(expected) > 0.01
    assert slope == pytest.approx(expected, rel=1e-3)


# --- what a network sees -------------------------------------------------------------------------


def make_probe(N: int, modes: int) -> NDArray[np.complex128]:
    """Rough, so that it reaches every pixel of the detector: where it does not, phases are none."""
    weights = np.arange(1.0, modes + 1)[:, None, None]  # the last mode is the strongest
    return 30 * weights * bell(N) * noise(modes, N, N, seed=12)


@pytest.mark.parametrize("N", [16, 25])
@pytest.mark.parametrize("C", [1, 4])
@pytest.mark.parametrize("modes", [1, 2])
def test_features_by_the_definition(N: int, C: int, modes: int) -> None:
    probe = make_probe(N, modes)
    amplitude = np.abs(centred(noise(3, C, N, N) * probe[-1]))
    found = make_features(as_tensor(amplitude), as_tensor(probe))
    assert found.shape == (3, count_features(C), N, N) == (3, 3 * C + 1, N, N)
    assert found.dtype == torch.float32
    main = probe[np.argmax((np.abs(probe) ** 2).sum(axis=(1, 2)))]
    total = (np.abs(probe) ** 2).sum(axis=0)
    below = total + 0.05 * total.max()
    carried = centred(amplitude * np.exp(1j * np.angle(centred(main))), np.fft.ifft2)
    seen = main.conj() * carried / below
    correlation = centred(amplitude**2, np.fft.ifft2).real
    correlation /= correlation.max(axis=AXES, keepdims=True)
    parts = found.numpy()
    np.testing.assert_allclose(parts[:, :C], seen.real - total / below, atol=2e-4)
    np.testing.assert_allclose(parts[:, C : 2 * C], seen.imag, atol=2e-4)
    signed = parts[:, 2 * C : 3 * C]
    np.testing.assert_allclose(np.sign(signed) * signed**2, correlation, atol=2e-6)
    np.testing.assert_allclose(
        parts[:, 3 * C], np.broadcast_to(np.sqrt(total / total.max()), (3, N, N)), atol=1e-6
    )


@pytest.mark.parametrize("N", [16, 25])
def test_features_of_an_empty_object_are_zero(N: int) -> None:
    """What differs from 0 in the first two parts is the object's."""
    probe = make_probe(N, 1)
    flat = np.abs(centred(np.ones((2, 4, N, N)) * probe[0]))
    nothing = make_features(as_tensor(flat), as_tensor(probe))[:, :8]
    assert nothing.abs().max() < 1e-5
    seen = np.abs(centred(smooth_object(N) * probe[0]))[None, None]
    something = make_features(as_tensor(seen), as_tensor(probe))[:, :2]
    assert something.abs().max() > 0.05


def test_the_autocorrelation_is_that_of_the_exit_wave() -> None:
    N = 12
    probe = make_probe(N, 1)
    wave = noise(N, N) * probe[0]
    found = make_features(as_tensor(np.abs(centred(wave))[None, None]), as_tensor(probe))[0, 2]
    expected = np.zeros((N, N))
    for dy, dx in np.ndindex(N, N):
        moved = np.roll(wave, (dy - N // 2, dx - N // 2), axis=(0, 1))
        expected[dy, dx] = (moved * wave.conj()).sum().real
    expected /= expected[N // 2, N // 2]
    signed = found.numpy()
    np.testing.assert_allclose(np.sign(signed) * signed**2, expected, atol=1e-5)


def test_a_dark_pattern_has_finite_features() -> None:
    found = make_features(torch.zeros(1, 1, 8, 8), as_tensor(make_probe(8, 1)))
    assert found.isfinite().all()
    assert not found[:, 1:3].any()
