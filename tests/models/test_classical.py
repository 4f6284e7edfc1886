"""Classical passes: the truth stays and is found again; dead pixels and modes count."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference

pytest.importorskip("torch")

from ptycho_fast.models.classical import refine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 32


def far_field(
    image: NDArray[Any], positions: NDArray[Any], probe: NDArray[Any]
) -> NDArray[np.float32]:
    """Amplitudes by the definition, in float64: several modes add up in intensity."""
    patches = reference.extract_patches(image, positions[:, :, None], probe.shape[-1])[..., 0]
    exits = np.fft.ifftshift(patches[:, None] * probe, axes=(2, 3))
    field = np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(2, 3))
    amplitudes: NDArray[Any] = np.sqrt(np.sum(np.abs(field) ** 2, axis=1))
    return amplitudes.astype(np.float32)


@pytest.fixture(scope="module")
def scan() -> Any:
    """A scan without noise, on whose patterns no code of ours has worked."""
    made: Any = pf.simulate_scan(n_positions=120, N=SIDE, photons=None, seed=3)
    probe = 100 * made.probe[None]
    return replace(made, probe=probe, diffraction=far_field(made.object, made.positions, probe))


@pytest.fixture(scope="module")
def two_modes(scan: Any) -> Any:
    """The same, lit by a second mode that is as bright as a third of the first."""
    ramp = np.arange(SIDE) - SIDE // 2
    second = scan.probe * ramp[:, None]
    second *= 0.6 * np.linalg.norm(scan.probe) / np.linalg.norm(second)
    probe = np.concatenate([scan.probe, second]).astype(np.complex64)
    return replace(scan, probe=probe, diffraction=far_field(scan.object, scan.positions, probe))


def inside(scan: Any) -> NDArray[np.bool_]:
    """Where the probe's middle has been: what the patterns determine."""
    rows, columns = np.indices(scan.object.shape)
    x0, y0 = scan.positions.min(axis=0)
    x1, y1 = scan.positions.max(axis=0)
    where: NDArray[np.bool_] = (rows >= y0) & (rows <= y1) & (columns >= x0) & (columns <= x1)
    return where


def correlation(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """1 if they differ by one complex factor."""
    return float(abs(np.vdot(image, truth)) / np.linalg.norm(image) / np.linalg.norm(truth))


def blank(scan: Any) -> NDArray[np.complex64]:
    return np.ones(scan.object.shape, np.complex64)


def test_the_object_is_found_from_an_empty_start(scan: Any) -> None:
    found = refine(scan, blank(scan), scan.probe, passes=30)
    where = inside(scan)
    assert correlation(blank(scan)[where], scan.object[where]) < 0.9
    assert correlation(found.object[where], scan.object[where]) > 0.998
    assert found.residuals[0] > 0.2
    assert found.residuals[-1] < 0.02
    assert np.array_equal(found.probe, scan.probe)


@pytest.mark.parametrize("name", ["scan", "two_modes"])
@pytest.mark.parametrize("refine_probe", [False, True])
def test_the_true_object_is_a_fixed_point(
    name: str, refine_probe: bool, request: pytest.FixtureRequest
) -> None:
    scan = request.getfixturevalue(name)
    found = refine(scan, scan.object, scan.probe, passes=2, refine_probe=refine_probe)
    np.testing.assert_allclose(found.object, scan.object, atol=1e-4)
    np.testing.assert_allclose(found.probe, scan.probe, atol=1e-4 * np.abs(scan.probe).max())
    assert found.residuals.max() < 1e-5


def test_two_modes_explain_what_one_cannot(two_modes: Any) -> None:
    both = refine(two_modes, blank(two_modes), two_modes.probe, passes=10)
    one = refine(two_modes, blank(two_modes), two_modes.probe[0], passes=10)
    assert both.residuals[-1] < 0.3 * one.residuals[-1]


def test_odd_sides_and_patches_beyond_the_object() -> None:
    rng = np.random.default_rng(0)
    probe = 5 * np.exp(-((np.indices((15, 15)) - 7) ** 2).sum(0) / 20)[None]
    probe = (probe * np.exp(0.05j * np.arange(15))).astype(np.complex64)
    image = np.exp(1j * rng.uniform(-0.5, 0.5, (24, 30))).astype(np.complex64)
    positions = rng.uniform((1, 1), (28, 22), (150, 2))  # windows stand out by up to 6 pixels
    scan = pf.Scan(positions, far_field(image, positions, probe))
    with pytest.warns(UserWarning, match="reach beyond the object of 24 x 30 pixels"):
        kept = refine(scan, image, probe, passes=2)
    with pytest.warns(UserWarning, match="reach beyond the object of 24 x 30 pixels"):
        found = refine(scan, np.ones_like(image), probe, passes=30)
    np.testing.assert_allclose(kept.object, image, atol=1e-4)
    assert found.residuals[-1] < 0.3 * found.residuals[0]


@pytest.mark.parametrize("rubbish", [1e3, np.nan])
def test_masked_pixels_do_not_affect_the_result(scan: Any, rubbish: float) -> None:
    mask = np.random.default_rng(0).random((SIDE, SIDE)) > 0.1
    spoilt = scan.diffraction.copy()
    spoilt[:, ~mask] = rubbish
    clean = refine(replace(scan, mask=mask), blank(scan), scan.probe, passes=3)
    found = refine(replace(scan, mask=mask, diffraction=spoilt), blank(scan), scan.probe, passes=3)
    assert np.array_equal(found.object, clean.object)
    assert np.array_equal(found.residuals, clean.residuals)
    # A dead pixel is not a dark one: the truth, which is bright there, still stays.
    kept = refine(replace(scan, mask=mask, diffraction=spoilt), scan.object, scan.probe, passes=2)
    np.testing.assert_allclose(kept.object, scan.object, atol=1e-4)


def test_a_wrong_probe_is_improved(scan: Any) -> None:
    rows, columns = np.indices((SIDE, SIDE)) - SIDE // 2
    wrong = scan.probe * np.exp(1j * (0.03 * rows**2 + 0.015 * columns**2))
    wrong = wrong.astype(np.complex64)
    where = inside(scan)
    fixed = refine(scan, blank(scan), wrong, passes=20)
    found = refine(scan, blank(scan), wrong, passes=20, refine_probe=True)
    assert correlation(wrong, scan.probe) < 0.9
    assert correlation(found.probe, scan.probe) > 0.98
    assert found.residuals[-1] < 0.3 * fixed.residuals[-1]
    assert correlation(found.object[where], scan.object[where]) > correlation(
        fixed.object[where], scan.object[where]
    )
    energies = [np.sum(np.abs(probe) ** 2) for probe in (wrong, found.probe)]
    assert energies[1] == pytest.approx(energies[0], rel=0.01)


def test_the_unit_of_amplitudes_does_not_matter(scan: Any) -> None:
    unit = np.float32(2**-10)  # exact in floating point
    scaled = replace(scan, diffraction=scan.diffraction * unit)
    found = refine(scan, blank(scan), scan.probe, passes=2)
    same = refine(scaled, blank(scan), scan.probe * unit, passes=2)
    assert np.array_equal(same.object, found.object)


def test_a_seed_gives_the_same_bits(scan: Any) -> None:
    first, again, other = (
        refine(scan, blank(scan), scan.probe, passes=2, refine_probe=True, seed=seed).object
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_patterns_read_from_their_file_give_the_same_result(scan: Any, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "scan.npz",
        xcoords=scan.positions[:, 0],
        ycoords=scan.positions[:, 1],
        diff3d=scan.diffraction,
    )
    on_disk = pf.read_scan(tmp_path / "scan.npz")
    found = refine(on_disk, blank(scan), scan.probe, passes=2)
    expected = refine(scan, blank(scan), scan.probe, passes=2)
    assert np.array_equal(found.object, expected.object)


def test_0_iterations_return_the_input(scan: Any) -> None:
    found = refine(scan, scan.object, scan.probe[0], passes=0)
    assert np.array_equal(found.object, scan.object)
    assert np.array_equal(found.probe, scan.probe)
    assert found.residuals.shape == (0,)
    found.object[:] = 0  # a copy: what was given is not touched
    assert scan.object.any()


def test_the_input_is_not_changed(scan: Any) -> None:
    image, probe = blank(scan), scan.probe.copy()
    refine(scan, image, probe, passes=1, refine_probe=True)
    assert np.array_equal(image, blank(scan))
    assert np.array_equal(probe, scan.probe)


def test_invalid_input_is_refused_with_a_sentence(scan: Any) -> None:
    image, probe = blank(scan), scan.probe

    def refused(
        match: str, scan: Any = scan, image: Any = image, probe: Any = probe, **options: Any
    ) -> None:
        with pytest.raises(ValueError, match=match):
            refine(scan, image, probe, **{"passes": 1, **options})

    refused("probe is needed", probe=None)
    refused(r"probe has shape \(1, 8, 8\), but \(32, 32\)", probe=probe[:, :8, :8])
    refused("probe is zero everywhere", probe=0 * probe)
    refused("probe must be finite: 1024 of its 1024", probe=probe * np.nan)
    refused(r"object must be \(H, W\)", image=image[0])
    refused("object must be finite", image=np.full_like(image, np.inf))
    refused("passes must be a whole number in 0", passes=-1)
    refused("seed must be a whole number", seed=-1)
    bad = scan.diffraction.copy()
    bad[7, 3, 4] = np.nan
    refused("pattern 7 contains NaN", scan=replace(scan, diffraction=bad))
    refused("All 120 patterns are zero", scan=replace(scan, diffraction=np.zeros_like(bad)))
