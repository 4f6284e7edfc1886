"""Positions that are refined: by definition, and from known errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.cpu import CpuModel
from ptycho_fast.reconstruction.minimise import dot
from ptycho_fast.reconstruction.moving import Moving, stiffness
from ptycho_fast.reconstruction.objective import Objective, Unknowns
from ptycho_fast.reconstruction.positions import refine_positions, search, separate

MARGIN = 6


def setting(scan: Any, positions: Any) -> tuple[CpuModel, Counts, Unknowns]:
    """Return the model, the counts, and unknowns of a flat object with a margin."""
    shape = tuple(length + 2 * MARGIN for length in scan.object.shape)
    model = CpuModel(positions + MARGIN, shape, scan.N, num_threads=1)
    counts = np.rint(np.square(scan.diffraction, dtype=np.float64)).astype(np.float32)
    probe = scan.probe[np.newaxis] * np.float32(np.sqrt(scan.metadata["photon_scale"]))
    start = Unknowns(np.ones(shape, np.complex64), probe, model.positions)
    return model, Counts(counts), start


def wrong_by(found: Any, right: Any) -> float:
    """Return the distance from right positions (rms), apart from a common shift."""
    difference = found - MARGIN - right
    difference = difference - difference.mean(axis=0)
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


@pytest.fixture
def noise() -> tuple[CpuModel, Any, Any]:
    rng = np.random.default_rng(0)
    model = CpuModel(
        rng.uniform(6, 22, (12, 2)), (28, 31), 8, exposure=rng.uniform(0.5, 2, 12), num_threads=1
    )
    image, probe = (
        (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
        for shape in ((28, 31), (2, 8, 8))
    )
    return model, image, probe


def test_stiffness_follows_its_definition(noise: Any) -> None:
    model, image, probe = noise
    expected = np.zeros((12, 2))
    light = (abs(probe) ** 2).sum(0)
    for j, (x, y) in enumerate(np.rint(model.positions).astype(int)):
        for r in range(8):
            for c in range(8):
                row, column = y - 4 + r, x - 4 + c
                if 0 < row < 27 and 0 < column < 30:
                    along_x = (image[row, column + 1] - image[row, column - 1]) / 2
                    along_y = (image[row + 1, column] - image[row - 1, column]) / 2
                    expected[j] += light[r, c] * abs(np.array([along_x, along_y])) ** 2
    expected *= 2 * model.exposure[:, np.newaxis]
    np.testing.assert_allclose(
        stiffness(model, image, probe), expected + 0.1 * expected.mean(), rtol=1e-4
    )


@pytest.mark.parametrize("affine", [30.0, 1.0, 0.0])
def test_steps_are_a_symmetric_and_positive_product(noise: Any, affine: float) -> None:
    model, image, probe = noise
    start = Unknowns(image, probe, model.positions)
    objective = Objective(model, None, start, free=("object", "positions"), mu=1.0, affine=affine)
    product = objective.precondition()
    rng = np.random.default_rng(1)

    def draw() -> Any:
        wave = rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape)
        return wave.astype(np.complex64), 30 * rng.normal(size=(12, 2))

    u, v = draw(), draw()
    assert dot(u, product(v)) == pytest.approx(dot(product(u), v), rel=1e-4)
    assert dot(u, product(u)) > 0
    moved = product(u)[1]
    whole = np.column_stack([np.ones(12), model.positions])
    held = float(abs(whole.T @ moved).max()) < 1e-9
    assert held == (affine == 0)


def test_an_object_is_carried_along(noise: Any) -> None:
    model, _, probe = noise
    row, column = np.indices((28, 31))
    ramp = (column + 2j * row).astype(np.complex64)
    moving = Moving(model, ramp, probe, affine=1)
    change = moving.carried(np.tile([0.5, 0.25], (12, 1)))
    lit = model.light(probe) > 0.2 * model.light(probe).max()
    lit[[0, -1]] = lit[:, [0, -1]] = False
    np.testing.assert_allclose(change[lit], -0.5 - 0.5j, rtol=0.3)


@pytest.mark.parametrize("error", [0.0, 0.5, 3.0])
def test_positions_come_back(error: float) -> None:
    scan = pf.simulate_scan(100, 32, photons=1e6, seed=0)
    wrong = scan.positions + np.random.default_rng(1).normal(0, error / 2**0.5, (100, 2))
    model, counts, start = setting(scan, wrong)
    found = refine_positions(model, counts, start, mu=20.0)
    assert wrong_by(found.positions, scan.positions) < 0.1
    assert found.probe is start.probe


def test_a_search_brings_a_pattern_back() -> None:
    scan = pf.simulate_scan(64, 32, photons=1e6, seed=1)
    model, counts, start = setting(scan, scan.positions)
    image = np.pad(np.asarray(scan.object), MARGIN, constant_values=1).astype(np.complex64)
    rng = np.random.default_rng(0)
    planned = start.positions + rng.normal(0, 1.5, (64, 2))
    positions = start.positions.copy()
    positions[27] += (4.0, -3.0)
    now = replace(start, object=image, positions=positions)
    found = search(model.moved(positions), counts, now, planned, 20.0)
    assert np.abs(found.positions[27] - start.positions[27]).max() < 0.15
    others = np.arange(64) != 27
    np.testing.assert_array_equal(found.positions[others], start.positions[others])
    right = replace(now, positions=start.positions)
    assert search(model, counts, right, planned, 20.0) is right


def test_a_search_finds_the_way_along_an_edge() -> None:
    """Across the edge, positions are held within 0.01 pixels: no point of a grid is that close."""
    scan = pf.simulate_scan(64, 32, photons=1e6, seed=1)
    model, _, start = setting(scan, scan.positions)
    (x0, y0), (y, x) = start.positions[27], np.indices(model.shape)
    assert scan.object is not None
    texture = np.pad(np.angle(scan.object), MARGIN)
    edge = np.tanh((x - x0 - 0.05 * (y - y0)) / 0.7)
    image = np.exp(1j * (edge + 0.1 * texture)).astype(np.complex64)
    rng = np.random.default_rng(0)
    counts = Counts(rng.poisson(model.intensity(image, start.probe)).astype(np.float32))
    positions = start.positions.copy()
    positions[27] += (0.05 * 4.0, 4.0)
    now = replace(start, object=image, positions=positions)
    planned = start.positions + rng.normal(0, 1.5, (64, 2))
    found = search(model.moved(positions), counts, now, planned, 20.0)
    assert np.abs(found.positions[27] - start.positions[27]).max() < 0.1


def test_separate_finds_what_was_applied() -> None:
    rng = np.random.default_rng(0)
    planned = rng.uniform(0, 200, (300, 2))
    turn = np.radians(1.5)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.array([[1.02, 0.01 * 0.97], [0, 0.97]])
    centre = planned.mean(axis=0)
    exact = (planned - centre) @ (rotation @ stretch).T + centre + (3, -4)
    found = separate(planned, exact)
    np.testing.assert_allclose(found.shift, (3, -4), atol=1e-9)
    np.testing.assert_allclose(found.scale, (1.02, 0.97), atol=1e-9)
    assert found.rotation == pytest.approx(1.5)
    assert found.shear == pytest.approx(0.01)
    assert found.rest < 1e-9
    np.testing.assert_allclose(found.applied(planned), exact, atol=1e-9)
    noisy = separate(planned, exact + rng.normal(0, 0.5, (300, 2)))
    assert noisy.rest == pytest.approx(0.5 * 2**0.5, rel=0.1)
    assert noisy.certain
    assert "scaled by 1.0" in noisy.text()
    assert "1.5" in noisy.text()


def test_chance_is_not_taken_for_a_scale() -> None:
    rng = np.random.default_rng(0)
    planned = rng.uniform(0, 200, (300, 2))
    found = separate(planned, planned + rng.normal(0, 2, (300, 2)))
    assert not found.certain
    assert found.text().startswith("Positions were corrected by 2.")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_scan_along_a_line_is_separated(n: int) -> None:
    planned = np.column_stack([np.arange(n), np.zeros(n)]).astype(float)
    shifted = planned + np.array([1, 2])
    found = separate(planned, shifted)
    np.testing.assert_allclose(found.applied(planned), shifted, atol=1e-9)
    assert found.rest < 1e-9
    assert not found.certain
