"""Imaging a scan: patches, stitching, scores, exposure."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from small_models import POSITIONS, N, infer, make_model, told, train  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.models import PtychoModel


def laid(
    patches: NDArray[Any], positions: NDArray[Any], shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """The sum of patches; each patch pixel is shared bilinearly by four pixels of the sum."""
    total = np.zeros(np.add(shape, 4 * N), complex)
    for patch, (x, y) in zip(patches, positions, strict=True):
        left, top = math.floor(x), math.floor(y)
        for i, j in itertools.product((0, 1), (0, 1)):
            share = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            row, column = 2 * N + top + i - N // 2, 2 * N + left + j - N // 2
            total[row : row + N, column : column + N] += share * patch
    return total[2 * N : -2 * N, 2 * N : -2 * N]


def weight_of(probe: NDArray[Any]) -> NDArray[np.float64]:
    intensity: NDArray[Any] = (np.abs(probe.astype(complex)) ** 2).sum(axis=0)
    return intensity / float(intensity.max())


def test_coverage_is_the_probes_intensity_on_each_pixel(model: PtychoModel, scan: Any) -> None:
    made = infer(model, scan)
    assert made.object.shape == made.coverage.shape
    assert made.object.dtype == np.complex64
    assert made.coverage.dtype == np.float32
    weight = weight_of(scan.probe[None])
    weights = np.broadcast_to(weight, (POSITIONS, N, N))
    expected = laid(weights, scan.positions - made.origin, made.object.shape).real
    np.testing.assert_allclose(made.coverage, expected, atol=1e-4)
    assert not made.object[made.coverage == 0].any()
    assert made.patches is None
    assert made.positions is None


def test_patches_average_to_the_stitched_image(model: PtychoModel, scan: Any) -> None:
    made = infer(model, scan, stitching=False)
    assert made.object is None
    assert made.coverage is None
    assert made.patches.shape == (POSITIONS, N, N)
    assert made.patches.dtype == np.complex64
    assert np.array_equal(made.positions, scan.positions)
    whole = infer(model, scan)
    assert made.metrics.keys() == {"pattern_correlation"}
    assert made.metrics["pattern_correlation"] == whole.metrics["pattern_correlation"]
    # The stitched image is their weighted mean, sharpened; where it is bright, they hardly differ.
    weights = np.broadcast_to(weight_of(scan.probe[None]), made.patches.shape)
    where = made.positions - whole.origin
    mean = laid(made.patches * weights, where, whole.object.shape)
    total = laid(weights, where, whole.object.shape).real
    bright = total > 1
    found, mean = whole.object[bright], mean[bright] / total[bright]
    assert np.linalg.norm(found - mean) < 0.15 * np.linalg.norm(mean)
    # The positions are a copy.
    made.positions[:] = 0
    assert scan.positions.any()


def test_pattern_correlation_is_pearsons_of_the_amplitudes(model: PtychoModel, scan: Any) -> None:
    made = infer(model, scan, stitching=False)
    exits = np.fft.ifftshift(made.patches.astype(complex) * model.probe, axes=(1, 2))
    modelled = np.abs(np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(1, 2)))
    expected = np.corrcoef(modelled.ravel(), scan.diffraction.ravel())[0, 1]
    assert made.metrics["pattern_correlation"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.9


def test_groups_of_four_are_a_position_and_its_nearest_neighbours(scan: Any) -> None:
    model = make_model(gridsize=2)
    train(model, scan, 2, n_groups=48)
    whole = infer(model, scan)
    apart = infer(model, scan, stitching=False)
    assert apart.patches.shape == (4 * POSITIONS, N, N)
    assert apart.positions.shape == (4 * POSITIONS, 2)
    # Every position is the first of one group, and the others are its nearest neighbours.
    first = apart.positions.reshape(POSITIONS, 4, 2)
    assert np.array_equal(first[:, 0], scan.positions)
    nearest = reference.nearest_neighbors(scan.positions, np.arange(POSITIONS), 4)
    for group, expected in zip(first, scan.positions[nearest], strict=True):
        assert {tuple(p) for p in group[1:]} <= {tuple(p) for p in expected}
    weights = np.broadcast_to(weight_of(scan.probe[None]), apart.patches.shape)
    expected = laid(weights, apart.positions - whole.origin, whole.object.shape).real
    np.testing.assert_allclose(whole.coverage, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_fewer_groups_cover_less(scan: Any, gridsize: int) -> None:
    model = make_model(gridsize=gridsize)
    train(model, scan, 1, n_groups=24)
    made, again = (infer(model, scan, stitching=False, n_groups=20) for _ in range(2))
    assert made.patches.shape == (20 * gridsize**2, N, N)
    assert np.array_equal(made.patches, again.patches)
    centres = made.positions[:: gridsize**2]
    assert len(np.unique(centres, axis=0)) == 20
    assert {tuple(p) for p in centres} <= {tuple(p) for p in scan.positions}
    few, all_of_them = infer(model, scan, n_groups=20), infer(model, scan)
    assert few.coverage.sum() < 0.3 * all_of_them.coverage.sum()
    assert few.object.shape == all_of_them.object.shape


def test_a_known_object_affects_only_the_scores(model: PtychoModel, scan: Any) -> None:
    made, known = infer(model, replace(scan, object=None)), infer(model, scan)
    assert made.metrics == {"pattern_correlation": known.metrics["pattern_correlation"]}
    assert np.array_equal(made.object, known.object)
    assert made.origin == known.origin
    # Every patch lies within the image.
    height, width = made.object.shape
    weights = np.broadcast_to(weight_of(scan.probe[None]), (POSITIONS, N, N))
    total = laid(weights, scan.positions - made.origin, (height + 40, width + 40)).real
    assert not total[height:].any()
    assert not total[:, width:].any()
    assert total.sum() == pytest.approx(weights.sum())


def test_masked_pixels_do_not_affect_training_or_imaging(scan: Any) -> None:
    """Whatever value they have, also infinity and NaN."""
    mask = np.random.default_rng(1).random((N, N)) < 0.9
    mask[N // 2, N // 2] = False  # one that is bright
    found = []
    for rubbish in (0.0, 1e6, np.inf, np.nan):
        stack = scan.diffraction.copy()
        stack[:, ~mask] = rubbish
        masked = replace(scan, diffraction=stack, mask=mask)
        model = make_model()
        found.append((told(train(model, masked, 2, n_groups=48)), infer(model, masked)))
        assert model.network is not None
    for history, made in found[1:]:
        assert history == found[0][0]
        assert np.array_equal(made.object, found[0][1].object)
        assert made.metrics["pattern_correlation"] == found[0][1].metrics["pattern_correlation"]
    assert np.isfinite(found[0][1].object).all()
    seen = make_model()
    train(seen, scan, 2, n_groups=48)
    assert not np.array_equal(infer(seen, scan).object, found[0][1].object)


def test_exposure_does_not_affect_the_image(model: PtychoModel, scan: Any) -> None:
    bright = infer(model, scan)
    for factor in (0.1, 30.0):
        other = replace(scan, diffraction=(factor * scan.diffraction).astype(np.float32))
        np.testing.assert_allclose(infer(model, other).object, bright.object, atol=2e-3)
    # With only 2000 photons per pattern of 16 x 16 pixels there is noise.
    rng = np.random.default_rng(2)
    dark = rng.poisson(np.square(scan.diffraction.astype(float)) * 2e-3)
    made = infer(model, replace(scan, diffraction=np.sqrt(dark).astype(np.float32)))
    inside = bright.coverage > 1
    one, other_image = made.object[inside], bright.object[inside]
    match = abs(np.vdot(one, other_image)) / np.linalg.norm(one) / np.linalg.norm(other_image)
    assert match > 0.97


def test_refinement_improves_the_image(model: PtychoModel, scan: Any) -> None:
    before, after = infer(model, scan), infer(model, scan, refine=5)
    assert after.metrics["complex_error"] < 0.6 * before.metrics["complex_error"]
    assert np.array_equal(after.coverage, before.coverage)
    assert after.object.dtype == np.complex64
    assert not after.object[after.coverage == 0].any()


def test_only_a_scan_without_a_probe_is_imaged_with_that_of_the_training(
    model: PtychoModel, scan: Any
) -> None:
    made = infer(model, scan, refine=2)
    with pytest.warns(UserWarning, match="The scan has no probe, so that of the training is used"):
        again = infer(model, replace(scan, probe=None), refine=2)
    assert np.array_equal(again.object, made.object)
    other = np.random.default_rng(0).normal(size=(N, N)).astype(np.complex64)
    again = infer(model, replace(scan, probe=other), refine=2)
    assert not np.allclose(again.object, made.object, atol=0.1)


@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_exposure_does_not_affect_refinement(model: PtychoModel, scan: Any, factor: float) -> None:
    """With the probe of the training, exposed as the scan, the object explains the light on it."""
    bright = replace(scan, diffraction=(factor * scan.diffraction).astype(np.float32))
    before, made = infer(model, bright), infer(model, bright, refine=5)
    assert made.metrics["complex_error"] < 0.6 * before.metrics["complex_error"]
    where = (scan.positions - made.origin)[:, :, None]
    patches = reference.extract_patches(made.object, where, N)[..., 0]
    assert model.probe is not None
    light = np.sum(np.abs(factor * model.probe * patches[:, None]) ** 2)
    measured = np.sum(np.square(bright.diffraction, dtype=float))
    assert light == pytest.approx(measured, rel=0.05)


def test_an_interrupted_refinement_is_no_image(
    model: PtychoModel, scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ptycho_fast.reconstruction.run.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer(model, scan, refine=2)


def test_a_path_gives_the_same_result_as_its_scan(
    scan: Any, tmp_path: Path, model: PtychoModel
) -> None:
    np.savez(
        tmp_path / "scan.npz",
        xcoords=scan.positions[:, 0],
        ycoords=scan.positions[:, 1],
        diffraction=scan.diffraction,
        probeGuess=scan.probe,
        objectGuess=scan.object,
    )
    made = infer(model, tmp_path / "scan.npz")
    assert np.array_equal(made.object, infer(model, scan).object)
    here, there = make_model(), make_model()
    file = str(tmp_path / "scan.npz")
    rows = [told(train(one, seen, 1, n_groups=24)) for one, seen in ((here, scan), (there, file))]
    assert rows[0] == rows[1]


def test_imaging_changes_neither_scan_nor_model(model: PtychoModel, scan: Any) -> None:
    kept = {name: np.array(getattr(scan, name)) for name in ("diffraction", "positions", "probe")}
    assert model.network is not None
    weights = {k: v.clone() for k, v in model.network.state_dict().items()}
    one, other = infer(model, scan), infer(model, scan)
    assert np.array_equal(one.object, other.object)
    for name, value in kept.items():
        assert np.array_equal(getattr(scan, name), value)
    for k, v in model.network.state_dict().items():
        assert torch.equal(v, weights[k])


def test_more_neighbours_spread_the_groups_of_imaging(scan: Any) -> None:
    model = make_model(gridsize=2)
    train(model, scan, 1, n_groups=24)
    shown: list[Any] = [
        model.infer(scan, stitching=False, device="cpu", n_groups=20, neighbor_count=k).positions
        for k in (4, 4, 12, None)
    ]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[3])  # the nearest, by default
    assert not np.array_equal(shown[0], shown[2])
    spread = [np.ptp(one.reshape(20, 4, 2), axis=1).mean() for one in shown]
    assert spread[2] > spread[0]
    with pytest.raises(ValueError, match=r"neighbor_count=3 must be at least gridsize² = 4"):
        model.infer(scan, neighbor_count=3)
    with pytest.raises(ValueError, match="neighbor_count"):
        model.infer(scan, neighbor_count=0)


def test_neighbours_do_not_matter_at_gridsize_1(scan: Any) -> None:
    model = make_model()
    train(model, scan, 1, n_groups=24)
    few, more = (
        np.asarray(
            model.infer(
                scan, stitching=False, device="cpu", n_groups=20, neighbor_count=k
            ).positions
        )
        for k in (1, 4)
    )
    assert np.array_equal(few, more)
    assert len(np.unique(more, axis=0)) == 20
