"""The incoherent modes of a probe: added, and made orthogonal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ptycho_fast.reconstruction.modes import orthogonal_modes, with_modes

if TYPE_CHECKING:
    from numpy.typing import NDArray

N = 12


def noise(*shape: int, seed: int = 0) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def lit(probe: NDArray[np.complex64], seed: int = 1) -> NDArray[np.float64]:
    """Return the pattern of an object, by definition."""
    waves = np.fft.fft2(probe * noise(N, N, seed=seed).astype(np.complex128), norm="ortho")
    pattern: NDArray[np.float64] = (np.abs(waves) ** 2).sum(axis=0)
    return pattern


def overlaps(probe: NDArray[np.complex64]) -> NDArray[np.complex128]:
    flat = probe.reshape(len(probe), -1).astype(np.complex128)
    return flat.conj() @ flat.T


@pytest.mark.parametrize("modes", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_orthogonal_modes_cause_the_same_patterns(modes: int, seed: int) -> None:
    probe = noise(modes, N, N, seed=seed) * np.arange(1, modes + 1)[:, np.newaxis, np.newaxis]
    probe[0] += probe[-1]
    found = orthogonal_modes(probe)
    assert found.shape == probe.shape
    assert found.dtype == np.complex64
    np.testing.assert_allclose(lit(found), lit(probe), rtol=1e-5, atol=1e-5)
    matrix = overlaps(found)
    energies = np.diag(matrix).real
    assert np.abs(matrix - np.diag(energies)).max() < 1e-6 * energies[0]
    assert (np.diff(energies) <= 0).all()
    # They are those of a singular value decomposition.
    singular = np.linalg.svd(probe.reshape(modes, -1), compute_uv=False)
    np.testing.assert_allclose(energies, singular**2, rtol=1e-5)


def test_orthogonal_modes_in_order_are_left_alone() -> None:
    probe = orthogonal_modes(noise(3, N, N))
    np.testing.assert_allclose(orthogonal_modes(probe), probe, atol=1e-5)
    np.testing.assert_allclose(orthogonal_modes(probe[::-1]), probe, atol=1e-5)


def test_modes_that_are_nothing() -> None:
    probe = np.concatenate([np.zeros((1, N, N), np.complex64), noise(1, N, N)])
    np.testing.assert_allclose(orthogonal_modes(probe), probe[::-1], atol=1e-6)
    assert not orthogonal_modes(np.zeros((2, N, N), np.complex64)).any()


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (1, 7), (2, 2), (2, 4)])
def test_new_modes(before: int, after: int) -> None:
    envelope = np.hanning(N + 2)[1:-1, np.newaxis] * np.hanning(N + 2)[1:-1]
    probe = (noise(before, N, N) * envelope).astype(np.complex64)
    found = with_modes(probe, after, share=0.03)
    assert found.shape == (after, N, N)
    assert found.dtype == np.complex64
    energy = overlaps(probe).trace().real
    matrix = overlaps(found)
    assert matrix.trace().real == pytest.approx(energy)
    share = 0.03 * (after - before)
    np.testing.assert_allclose(found[:before], probe * np.sqrt(1 - share), rtol=1e-5)
    np.testing.assert_allclose(np.diag(matrix)[before:].real, 0.03 * energy, rtol=1e-5)
    off = matrix - np.diag(np.diag(matrix))
    off[:before, :before] = 0  # those that were there need not be orthogonal
    assert np.abs(off).max() < 1e-6 * energy


def test_first_new_modes_lie_beside_the_middle() -> None:
    axis = np.arange(N) - N // 2
    probe = np.exp(-(axis[:, np.newaxis] ** 2 + axis**2) / 8)
    first, second, third = with_modes(probe, 3)
    assert abs(second[N // 2, N // 2]) < 1e-4 < abs(first[N // 2, N // 2])
    np.testing.assert_allclose(second, third.T, atol=1e-4)
    assert np.abs(second[:, N // 2]).max() < 1e-4


def test_refusals() -> None:
    with pytest.raises(ValueError, match="modes"):
        with_modes(noise(2, N, N), 1)
    with pytest.raises(ValueError, match="3 new modes of share=0.4 each"):
        with_modes(noise(N, N), 4, share=0.4)
    with pytest.raises(ValueError, match="share must be more than 0"):
        with_modes(noise(N, N), 2, share=0.0)
    with pytest.raises(ValueError, match="Only 1 modes can be made"):
        with_modes(np.zeros((N, N), np.complex64), 2)
