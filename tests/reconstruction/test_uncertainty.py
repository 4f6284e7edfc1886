"""Standard deviations against a posterior of dense matrices, and against errors that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from diffraction_models import CPU, Way, given_to
from likelihood_cases import Case, make_case
from ptycho_fast.metrics import align, scan_mask
from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.cpu import CpuModel
from ptycho_fast.reconstruction.fit import fit
from ptycho_fast.reconstruction.objective import Unknowns
from ptycho_fast.reconstruction.uncertainty import posterior_errors, posterior_sigma

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

pytest.importorskip("skimage", reason="scores need scikit-image")

MU = 20.0


def dense_case(mask: str = "single") -> Case:
    """A scan so small that the matrices of its posterior can be written down."""
    case = make_case(6, 2, n=8, mask=mask, photons=3e3, background=0.05)
    return replace(case, object=np.ascontiguousarray(case.object[:10, :10]))


def given(case: Case, way: Way = CPU) -> tuple[Any, Counts, Unknowns]:
    model = way.model(case)
    image, probe = given_to(model, case.object), given_to(model, case.probe)
    return model, Counts(case.counts, case.good), Unknowns(image, probe, case.experiment.positions)


def as_real(image: NDArray[Any]) -> Floats:
    return np.concatenate([image.real.ravel(), image.imag.ravel()])


def matrix(of: Any, shape: tuple[int, int]) -> Floats:
    """Return the matrix of a linear function of complex images, for real and imaginary parts."""
    size = shape[0] * shape[1]
    units = np.eye(2 * size)
    columns = [of((u[:size] + 1j * u[size:]).reshape(shape)) for u in units]
    return np.stack([as_real(column) for column in columns], axis=1)


def prior_times(change: NDArray[Any]) -> NDArray[np.complex128]:
    """Return 2 mu W times a change."""
    down, right = (np.fft.fftfreq(length) for length in change.shape)
    weight = (2 * np.pi * np.hypot(down[:, None], right)) ** 3
    product: NDArray[np.complex128] = 2 * MU * np.fft.ifft2(weight * np.fft.fft2(change))
    return product


@pytest.mark.parametrize("mask", ["shared", "single"])  # none goes the way of a shared one
def test_errors_have_the_covariance_of_a_dense_posterior(mask: str) -> None:
    case = dense_case(mask)
    shape = case.object.shape
    fisher = matrix(
        lambda change: case.experiment.curvature(case.known, case.object, case.probe, change),
        (shape[0], shape[1]),
    )
    prior = matrix(prior_times, (shape[0], shape[1]))
    inverse = np.linalg.inv(fisher + prior)
    drawn = list(posterior_errors(*given(case), MU, samples=400, steps=60))
    for part, expected in (("noise", fisher), ("bias", prior)):
        covariance = inverse @ expected @ inverse
        found: list[Any] = [getattr(errors, part) for errors in drawn]
        sample = np.stack([as_real(error) for error in found if error is not None])
        ratio = np.mean(sample**2, axis=0) / np.diag(covariance)
        assert ratio.mean() == pytest.approx(1, abs=0.05), part
        assert ratio.min() > 0.5, part
        assert ratio.max() < 1.7, part
        # Not only the variances: of any sum of pixels, too.
        sums = np.random.default_rng(0).normal(size=(len(covariance), 40))
        both = np.mean((sample @ sums) ** 2, axis=0) / np.sum(sums * (covariance @ sums), axis=0)
        assert both.mean() == pytest.approx(1, abs=0.12), part


def reconstructed(
    photons: float, mu: float, n: int = 150
) -> tuple[Any, CpuModel, Counts, Unknowns]:
    """Return a simulated scan and its image."""
    scan: Any = pf.simulate_scan(n_positions=n, N=32, photons=photons, seed=3)
    model = CpuModel(scan.positions, scan.object.shape, 32)
    probe = scan.probe[np.newaxis] * np.float32(scan.metadata["photon_scale"] ** 0.5)
    counts = Counts(np.rint(np.square(scan.diffraction[:], dtype=np.float64)).astype(np.float32))
    start = Unknowns(np.full(model.shape, 0.8, np.complex64), probe, model.positions)
    found = fit(model, counts, start, free=("object",), mu=mu, tolerance=1e-3)
    return scan, model, counts, found


@pytest.mark.parametrize(("photons", "mu"), [(3e3, 6.0), (1e6, 10.0)])
def test_about_two_thirds_of_the_pixels_are_within_one_standard_deviation(
    photons: float, mu: float
) -> None:
    scan, model, counts, known = reconstructed(photons, mu)
    phase, modulus = posterior_sigma(model, counts, known, mu)
    mask = scan_mask(scan.object.shape, scan.positions, 32)
    aligned = align(known.object, scan.object, mask)
    off = np.angle(aligned.image * scan.object.conj())
    apart = (np.abs(aligned.image) - np.abs(scan.object)) / abs(aligned.factor)
    assert 0.6 < np.mean(np.abs(off) < phase, where=mask) < 0.75
    assert 0.6 < np.mean(np.abs(apart) < modulus, where=mask) < 0.75
    # Where it is said to be less certain, the errors are larger.
    worse = phase > np.median(phase[mask])
    assert np.std(off[mask & worse]) > 1.2 * np.std(off[mask & ~worse])


def test_a_seed_decides_and_the_number_of_threads_does_not() -> None:
    case = dense_case()
    _, counts, known = given(case)

    def sigma(seed: int, threads: int) -> bytes:
        model = CPU.model(case, num_threads=threads)
        found = posterior_sigma(model, counts, known, MU, samples=2, seed=seed)
        return b"".join(map(bytes, found))

    first = sigma(5, 1)
    assert sigma(5, 2) == sigma(5, 3) == first
    assert sigma(6, 1) != first


class InBlocks(Counts):
    """Counts that come in blocks, as from a file."""

    def blocks(self) -> Any:
        for some in (slice(0, 5), slice(5, len(self))):
            part = self.take(np.arange(some.start, some.stop))
            yield some, part.values, part.good


@pytest.mark.parametrize("mask", ["none", "shared", "single"])
def test_counts_in_blocks(mask: str) -> None:
    case = dense_case(mask)
    model, counts, known = given(case)
    found = posterior_sigma(model, InBlocks(counts.values, counts.good), known, MU, samples=60)
    expected = posterior_sigma(model, counts, known, MU, samples=60)
    light = model.light(known.probe)
    for one, other in zip(found, expected, strict=True):
        ratio = (one / other)[light > 0.3 * light.max()]
        assert ratio.mean() == pytest.approx(1, abs=0.06)


def test_every_model_finds_the_same(way: Way) -> None:
    case = dense_case()
    model, counts, known = given(case, way)
    found = posterior_sigma(model, counts, known, MU, samples=2)
    expected = posterior_sigma(*given(case), MU, samples=2)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=2e-2)


def test_what_is_dark_or_zero_has_finite_uncertainty() -> None:
    case = dense_case()
    image = np.pad(case.object, ((0, 9), (0, 9)))
    image[3:5, 3:5] = 0
    model, counts, known = given(replace(case, object=image))
    phase, modulus = posterior_sigma(model, counts, known, MU, samples=1)
    assert np.isfinite(phase).all()
    assert np.isfinite(modulus).all()
    assert (phase > 0).all()
    assert (phase <= np.float32(np.pi / np.sqrt(3))).all()
    assert (modulus > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": 0.0}, "mu must be finite and above 0, got 0.0"),
        ({"mu": np.nan}, "mu must be finite and above 0, got nan"),
        ({"samples": 0}, "samples must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    model, counts, known = given(dense_case())
    with pytest.raises(ValueError, match=message):
        posterior_sigma(model, counts, known, **{"mu": MU} | change)


def test_without_light_nothing_is_known() -> None:
    model, counts, known = given(dense_case())
    with pytest.raises(ValueError, match="lights no pixel"):
        posterior_sigma(model, counts, replace(known, probe=0 * known.probe), MU)
