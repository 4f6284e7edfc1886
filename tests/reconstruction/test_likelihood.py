"""Every model of the diffraction computes the oracle's likelihood and its derivatives."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffraction_models import ALL, CPU, TORCH, Way, assert_close, given_to, taken_from
from likelihood_cases import MASKS, Case, inner, make_case, noise
from reference.diffraction import FLOOR, Experiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = {"object": 1e-5, "probe": 1e-5, "positions": 1e-5, "exposure": 1e-5}
"""Largest error of each gradient, as a fraction of its norm."""


def oracle(case: Case) -> dict[str, Any]:
    """Return the loss and the gradients by definition."""
    arguments = case.counts, case.known, case.object, case.probe
    found = case.experiment.gradients(*arguments)
    loss = case.experiment.loss(*arguments)
    return {"loss": loss, **{name: getattr(found, name) for name in ALL}}


# --- the oracle's values --------------------------------------------------------------------------


@pytest.mark.parametrize("background", [0.0, 0.1])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("modes", [1, 3])
@pytest.mark.parametrize("N", [8, 15])
def test_the_loss_and_its_gradients_are_the_oracles(
    way: Way, N: int, modes: int, mask: str, background: float
) -> None:
    case = make_case(N, modes, mask=mask, background=background, n=10)
    expected, found = oracle(case), way.gradient(case)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for name in ALL:
        assert_close(found[name], expected[name], TOLERANCE[name])
    assert found["object"].dtype == found["probe"].dtype == np.complex64
    assert found["positions"].dtype == found["exposure"].dtype == np.float64


@given(
    N=st.integers(1, 13),
    modes=st.integers(1, 3),
    n=st.integers(2, 6),
    mask=st.sampled_from(MASKS),
    photons=st.sampled_from([1.0, 1e3, 1e6]),
    background=st.sampled_from([0.0, 0.01, 3.0]),
    beyond=st.sampled_from([-0.2, 0.3, 0.8]),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("way", [CPU, TORCH], ids=lambda way: way.name)
def test_any_scan_gives_the_oracles_values(way: Way, **options: Any) -> None:
    if way.module == "torch":
        pytest.importorskip("torch")
    case = make_case(**options)
    expected, found = oracle(case), way.gradient(case)
    # Where little light is expected its wave is a small difference of large numbers. So the error
    # of a wave is the rounding of the brightest one, and counts / expected counts magnify it.
    light = case.experiment.intensities(case.object, case.probe) + FLOOR
    wave = 2.0**-24 * np.sqrt(light.max())
    pull = np.where(case.known, 1 + 2 * case.counts / light, 0)
    at_wave = wave * np.linalg.norm(pull)
    brightest = np.abs(case.probe).max() * len(case.probe)
    assert_close(found["object"], expected["object"], 3e-6, 4 * at_wave * brightest)
    assert_close(found["probe"], expected["probe"], 3e-6, 4 * at_wave * 1.1 * len(case.probe))
    for name, lever in (("positions", 2.0), ("exposure", 1.0)):
        size = 4 * lever * at_wave * np.sqrt(light.sum(axis=(1, 2)).max())
        assert_close(found[name], expected[name], 3e-6, size)
    slack = 3e-6 * abs(expected["loss"]) + 4 * wave * np.sum(pull * np.sqrt(light))
    assert abs(found["loss"] - expected["loss"]) <= slack


@pytest.mark.parametrize(
    ("N", "modes", "mask"), [(8, 1, "none"), (9, 3, "shared"), (8, 2, "single")]
)
def test_the_curvature_is_the_oracles_and_symmetric(
    way: Way, N: int, modes: int, mask: str
) -> None:
    case = make_case(N, modes, mask=mask, n=9)
    rng = np.random.default_rng(1)
    u, v = (noise(rng, case.object.shape).astype(np.complex64) for _ in range(2))
    of_u, of_v = way.curvature(case, u), way.curvature(case, v)
    assert_close(of_v, case.experiment.curvature(case.known, case.object, case.probe, v), 1e-5)
    assert of_v.dtype == np.complex64
    size = np.sqrt(inner(u, of_u) * inner(v, of_v))
    assert inner(u, of_v) == pytest.approx(inner(v, of_u), abs=1e-5 * size)
    assert inner(v, of_v) > 0


def test_light_and_density_are_the_oracles(way: Way) -> None:
    case = make_case(9, 3, n=9)
    model = way.model(case)
    light = taken_from(model, model.light(given_to(model, case.probe)))
    density = taken_from(model, model.density(given_to(model, case.object)))
    assert light.dtype == density.dtype == np.float32
    assert_close(light, case.experiment.light(case.probe, case.object.shape), 1e-6)
    assert_close(density, case.experiment.density(case.object, 9), 1e-6)


# --- the loss and the gradients among themselves --------------------------------------------------


def changed(case: Case, name: str, change: NDArray[Any]) -> Case:
    """Return a case with a step in its object, probe, positions or exposure."""
    if name in {"object", "probe"}:
        return replace(case, **{name: (getattr(case, name) + change).astype(np.complex64)})
    experiment = case.experiment
    moved = replace(experiment, **{name: getattr(experiment, name) + change})
    return replace(case, experiment=moved)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_differences_of_the_loss(way: Way, name: str) -> None:
    case = make_case(12, 2, photons=1e4, beyond=0.2)
    # No position may pass a whole pixel, where the gradient jumps.
    where = np.floor(case.experiment.positions) + 0.5
    case = replace(case, experiment=replace(case.experiment, positions=where))
    found = way.gradient(case)[name]
    direction = found / np.linalg.norm(found) * (10 if name == "probe" else 1)
    step = 0.02

    def loss(count: int) -> float:
        return float(way.gradient(changed(case, name, count * step * direction), ())["loss"])

    slope = (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * step)
    assert slope == pytest.approx(inner(found, direction), rel=1e-3)


def test_a_gradient_alone_is_the_same_as_with_others(way: Way) -> None:
    case = make_case(8, 2)
    together = way.gradient(case)
    for wrt in [(), *((name,) for name in ALL)]:
        alone = way.gradient(case, wrt)
        assert alone["loss"] == together["loss"]
        for name in ALL:
            if name in wrt:
                assert np.array_equal(alone[name], together[name])
            else:
                assert alone[name] is None


@given(rows=st.lists(st.integers(0, 8), min_size=1, max_size=12))
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("way", [CPU, TORCH], ids=lambda way: way.name)
@pytest.mark.parametrize("mask", MASKS)
def test_some_rows_are_a_scan_of_these_patterns(way: Way, mask: str, rows: list[int]) -> None:
    if way.module == "torch":
        pytest.importorskip("torch")
    case = make_case(6, 2, n=9, mask=mask)
    experiment = replace(
        case.experiment,
        positions=case.experiment.positions[rows],
        exposure=case.experiment.exposure[rows],
    )
    some = replace(
        case,
        experiment=experiment,
        counts=case.counts[rows],
        good=case.good[rows] if mask == "single" and case.good is not None else case.good,
    )
    found, expected = way.gradient(case, rows=rows), way.gradient(some)
    assert all(np.array_equal(found[name], expected[name]) for name in ("loss", *ALL))
    change = np.ones_like(case.object)
    assert np.array_equal(way.curvature(case, change, rows), way.curvature(some, change))


def test_no_rows_have_no_loss(way: Way) -> None:
    case = make_case()
    found = way.gradient(case, rows=np.array([], np.int32))
    assert found["loss"] == 0
    assert not found["object"].any()
    assert not found["probe"].any()
    assert found["positions"].shape == (0, 2)
    assert found["exposure"].shape == (0,)
    assert not way.curvature(case, case.object, np.array([], np.int32)).any()


def test_many_patterns_give_the_same_by_every_model() -> None:
    """More than are computed together, so that parts must fit together."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    n, N = 300, 64
    case = make_case(N, 1, n=2, photons=1e4, mask="shared")
    spread = Experiment(rng.uniform(10, 120, (n, 2)), rng.uniform(0.5, 1.5, n), 0.5)
    counts = rng.poisson(2.0, (n, N, N)).astype(np.float32)
    case = replace(case, experiment=spread, counts=counts)
    found, expected = CPU.gradient(case), TORCH.gradient(case)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for name in ALL:
        assert_close(found[name], expected[name], 1e-5)
    change = noise(rng, case.object.shape).astype(np.complex64)
    assert_close(CPU.curvature(case, change), TORCH.curvature(case, change), 1e-5)


# --- nothing counted, nothing expected, nothing measured ------------------------------------------


def test_no_counts_cost_what_was_expected(way: Way) -> None:
    case = make_case(mask="none", background=0.0)
    case = replace(case, counts=np.zeros_like(case.counts))
    light = case.experiment.intensities(case.object, case.probe) + FLOOR
    assert way.gradient(case)["loss"] == pytest.approx(light.sum(), rel=1e-6)


def test_where_nothing_is_expected_all_is_finite(way: Way) -> None:
    case = make_case(background=0.0)
    case = replace(case, object=np.zeros_like(case.object))
    expected, found = oracle(case), way.gradient(case)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for name in ALL:  # the waves are 0, and so are their gradients
        assert not found[name].any()
    assert not way.curvature(case, np.ones_like(case.object)).any()
    nothing = replace(case, counts=np.zeros_like(case.counts))
    pixels = np.count_nonzero(case.known)
    assert way.gradient(nothing)["loss"] == pytest.approx(pixels * FLOOR, rel=1e-4)


def test_a_good_fit_is_measured_exactly(way: Way) -> None:
    case = make_case(16, photons=1e6, background=5.0)
    light = case.experiment.intensities(case.object, case.probe)
    noisy = np.random.default_rng(0).poisson(light).astype(np.float32)
    case = replace(case, counts=noisy)
    assert way.gradient(case)["loss"] == pytest.approx(oracle(case)["loss"], rel=1e-4)
    perfect = replace(case, counts=light.astype(np.float32))
    assert abs(way.gradient(perfect)["loss"]) < 1e-9 * light.sum()


@pytest.mark.parametrize("count", [1, 30_000, 10_000_000])
def test_counts_far_from_what_was_expected_cost_as_defined(way: Way, count: int) -> None:
    case = make_case(photons=1e6, background=50.0)
    case = replace(case, counts=np.full_like(case.counts, count))
    assert way.gradient(case)["loss"] == pytest.approx(oracle(case)["loss"], rel=1e-6)


@pytest.mark.parametrize("rubbish", [np.nan, -1.0, 1e30])
@pytest.mark.parametrize("mask", MASKS[1:])
def test_bad_pixels_do_not_count(way: Way, mask: str, rubbish: float) -> None:
    case = make_case(mask=mask)
    spoilt = np.where(case.known, case.counts, np.float32(rubbish))
    clean, found = way.gradient(case), way.gradient(replace(case, counts=spoilt))
    assert all(np.array_equal(clean[name], found[name]) for name in ("loss", *ALL))


@pytest.mark.parametrize("rubbish", [np.nan, -1.0])
def test_what_cannot_be_a_count_was_not_measured(way: Way, rubbish: float) -> None:
    case = make_case(mask="single")
    spoilt = np.where(case.known, case.counts, np.float32(rubbish))
    clean, found = way.gradient(case), way.gradient(replace(case, counts=spoilt, good=None))
    assert all(np.array_equal(clean[name], found[name]) for name in ("loss", *ALL))


@pytest.mark.parametrize("way", [CPU, TORCH], ids=lambda way: way.name)
def test_arrays_of_any_order_and_dtype_are_read_right(way: Way) -> None:
    if way.module == "torch":
        pytest.importorskip("torch")
    case = make_case(mask="single")
    assert case.good is not None
    columns = replace(
        case,
        object=np.asfortranarray(case.object.astype(np.complex128)),
        probe=np.asfortranarray(case.probe.astype(np.complex128)),
        counts=np.asfortranarray(case.counts.astype(np.uint16)),
        good=np.asfortranarray(case.good),
    )
    expected, found = way.gradient(case), way.gradient(columns)
    assert all(np.array_equal(found[name], expected[name]) for name in ("loss", *ALL))
    product = way.curvature(case, case.object)
    assert np.array_equal(way.curvature(columns, columns.object), product)


def test_arguments_are_not_changed(way: Way) -> None:
    case = make_case()
    before = [np.array(part) for part in (case.object, case.probe, case.counts, case.good)]
    model = way.model(case)
    image, probe = given_to(model, case.object), given_to(model, case.probe)
    model.gradient(case.counts, case.good, image, probe, wrt=ALL)
    model.curvature(image, probe, image, good=case.good)
    after = [taken_from(model, image), taken_from(model, probe), case.counts, case.good]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


# --- how it is computed ---------------------------------------------------------------------------


def test_threads_change_no_bit() -> None:
    case = make_case(16, 2, n=70, photons=1e4)
    change = np.ones_like(case.object)
    results: list[list[Any]] = []
    for threads in (1, 2, 3):
        model = CPU.model(case, num_threads=threads)
        found = CPU.gradient(case, model=model)
        results.append([found["loss"], *(found[name] for name in ALL)])
        results[-1].append(model.curvature(case.object, case.probe, change))
        results[-1].append(model.light(case.probe))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("N", [7, 16])
def test_instructions_of_any_processor_agree(N: int, tmp_path: Path) -> None:
    script = f"""
import sys
import numpy as np
sys.path[:0] = {[str(Path(__file__).parents[1]), *sys.path]!r}
from diffraction_models import ALL, CPU, TORCH, Way, assert_close, given_to, taken_from
from likelihood_cases import make_case
from ptycho_fast.reconstruction.cpu import CpuModel
case = make_case({N}, 2, n=20)
model = CpuModel(case.experiment.positions, case.object.shape, {N},
                 exposure=case.experiment.exposure, background=case.experiment.background)
found = model.gradient(case.counts, case.good, case.object, case.probe, wrt={ALL!r})
np.savez({str(tmp_path / "found.npz")!r}, loss=found.loss,
         curvature=model.curvature(case.object, case.probe, case.object, good=case.good),
         **{{name: getattr(found, name) for name in {ALL!r}}})
"""
    environment = {**os.environ, "PTYCHO_FAST_SIMD": "portable"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    case = make_case(N, 2, n=20)
    expected = CPU.gradient(case)
    expected["curvature"] = CPU.curvature(case, case.object)
    with np.load(tmp_path / "found.npz") as found:
        assert float(found["loss"]) == pytest.approx(expected["loss"], rel=1e-6)
        for name in (*ALL, "curvature"):
            assert_close(found[name], expected[name], 1e-5)


def test_chunks_of_a_scan_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    module = importlib.import_module("ptycho_fast.reconstruction.torch")
    case = make_case(8, 2, n=11)
    whole = TORCH.gradient(case)
    monkeypatch.setattr(module, "CHUNK_PIXELS", {"cpu": 4 * 2 * 64})  # 4 patterns
    chunked = TORCH.gradient(case)
    for name in ("loss", *ALL):
        np.testing.assert_allclose(chunked[name], whole[name], rtol=1e-4, atol=1e-4)


def test_counts_may_be_tensors_or_stay_in_their_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    case = make_case(mask="single", n=6)
    np.save(tmp_path / "counts.npy", case.counts.astype(np.uint16))
    expected = TORCH.gradient(case)
    for counts, good in (
        (torch.tensor(case.counts), torch.tensor(case.good)),
        (np.load(tmp_path / "counts.npy", mmap_mode="r"), case.good),
    ):
        found = TORCH.gradient(replace(case, counts=counts, good=good))
        assert all(np.array_equal(found[name], expected[name]) for name in ("loss", *ALL))
