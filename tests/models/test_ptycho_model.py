"""The model as it is used: it learns, images, goes on, and refuses what cannot be."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from ptycho_fast.canvas import place
from ptycho_fast.metrics import score

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel, Reconstruction, register_architecture  # noqa: E402
from ptycho_fast.models.training import COLUMNS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

torch.set_num_threads(1)

N, POSITIONS = 16, 100
FILES = ("config.json", "probe.npy", "model.safetensors")
OF_A_RUN = ("history.csv", "last.ckpt", "run.json")


def make_scan(n: int = POSITIONS, **options: Any) -> Any:
    return pf.simulate_scan(n_positions=n, N=N, **{"seed": 0, **options})


def make_model(architecture: str = "cnn", **options: Any) -> PtychoModel:
    return PtychoModel(architecture, N=N, **{"width": 8, **options})


def train(model: PtychoModel, scan: Any, epochs: int = 2, **options: Any) -> list[dict[str, Any]]:
    options = {"batch_size": 8, "device": "cpu", "picture_every": 0, **options}
    return model.train(scan, max_epochs=epochs, **options)


def infer(model: PtychoModel, scan: Any, **options: Any) -> Any:
    return model.infer(scan, device="cpu", **options)


def told(rows: Any) -> list[dict[str, str]]:
    """A history but for the clock, as text, so that all bits count."""
    return [{k: str(v) for k, v in row.items() if k != "seconds"} for row in rows]


def history_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return told(csv.DictReader(file))


def same_weights(one: PtychoModel, other: PtychoModel) -> bool:
    assert one.network is not None
    assert other.network is not None
    mine, its = one.network.state_dict(), other.network.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[k], its[k]) for k in mine)


@pytest.fixture(scope="module")
def scan() -> Any:
    return make_scan()


@pytest.fixture(scope="module")
def trained(scan: Any) -> tuple[PtychoModel, list[dict[str, Any]]]:
    model = make_model()
    return model, train(model, scan, 10, batch_size=4)


@pytest.fixture(scope="module")
def model(trained: Any) -> Any:
    """Not to be trained any further."""
    return trained[0]


# --- it learns -----------------------------------------------------------------------------------


def against_nothing(made: Any, scan: Any) -> tuple[float, float]:
    """The complex error of an image, and of an object of 1."""
    image = place(made.object, made.origin, scan.object.shape)
    nothing = score(np.ones_like(scan.object), scan.object, scan.positions, N)
    return score(image, scan.object, scan.positions, N).complex_error, nothing.complex_error


def test_the_loss_falls_and_the_image_is_the_objects(trained: Any, scan: Any) -> None:
    model, history = trained
    assert [tuple(row) for row in history] == [COLUMNS] * 10
    assert [row["epoch"] for row in history] == list(range(10))
    losses = [row["loss"] for row in history]
    assert losses[-1] < 0.2 * losses[0]
    assert all(row["validation_loss"] == row["image_correlation"] == "" for row in history)
    assert all(row["seconds"] > 0 for row in history)
    assert all(row["variation"] > 0.01 for row in history[1:])  # it begins with an object of 1
    rates = [row["learning_rate"] for row in history]
    assert rates[-1] == pytest.approx(0, abs=1e-9)  # cosine
    assert max(rates) < 2.5e-3
    made = infer(model, scan)
    assert isinstance(made, Reconstruction)
    error, nothing = against_nothing(made, scan)
    assert nothing > 0.35
    assert error < 0.55 * nothing
    assert made.metrics["complex_error"] == error
    assert made.metrics["amplitude_correlation"] > 0.5
    assert made.metrics["phase_correlation"] > 0.9
    assert made.metrics["complex_error"] < made.metrics["twin"]["complex_error"]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("fno", {}),
        ("hybrid", {}),
        ("hybrid_resnet", {}),
        ("cnn", {"gridsize": 2}),
        ("cnn", {"overlap": 1, "loss": "amplitude", "schedule": "plateau", "stages": 1}),
    ],
)
def test_each_kind_learns(scan: Any, architecture: str, options: dict[str, Any]) -> None:
    model = make_model(architecture, **options)
    history = train(model, scan, 5, batch_size=4)
    assert history[-1]["loss"] < 0.75 * history[0]["loss"]
    error, nothing = against_nothing(infer(model, scan), scan)
    assert error < 0.9 * nothing


def test_the_object_is_not_looked_at(scan: Any) -> None:
    """The patterns alone teach: without an object, or with a wrong one, it comes out the same."""
    wrong = np.ones_like(scan.object) * 1j
    histories, models = [], []
    for other in (scan, replace(scan, object=None), replace(scan, object=wrong)):
        models.append(make_model())
        histories.append(told(train(models[-1], other)))
    assert histories[0] == histories[1] == histories[2]
    assert same_weights(models[0], models[1])
    assert same_weights(models[0], models[2])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_seed_repeats_a_run_bit_by_bit(scan: Any, gridsize: int) -> None:
    runs: list[tuple[list[dict[str, str]], PtychoModel]] = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # of no matter
        model = make_model(seed=seed, gridsize=gridsize)
        runs.append((told(train(model, scan)), model))
    assert runs[0][0] == runs[1][0]
    assert same_weights(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    images = [infer(model, scan).object for _, model in runs]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_a_model_that_was_trained_goes_on(scan: Any) -> None:
    model = make_model()
    first = train(model, scan, 2)
    second = train(model, scan, 2)
    assert second[0]["loss"] < first[-1]["loss"]


def test_validation_is_only_scored(scan: Any) -> None:
    model = make_model()
    history = train(model, scan, 4, validation=0.25, batch_size=4)
    scored = [row["validation_loss"] for row in history]
    assert all(isinstance(value, float) and value > 0 for value in scored)
    assert scored[-1] < 0.8 * scored[0]
    # What is held out could be anything: none of it is learned from.
    along = scan.positions[:, np.argmax(np.ptp(scan.positions, axis=0))]
    held_out = along >= np.quantile(along, 0.75)
    other = replace(scan, diffraction=scan.diffraction.copy(), energies=None)
    # Turned round: other patterns of the same energy, to which the probe is scaled.
    other.diffraction[held_out] = other.diffraction[held_out, ::-1, ::-1]
    again = make_model()
    rows = train(again, other, 4, validation=0.25, batch_size=4)
    assert [row["loss"] for row in rows] == [row["loss"] for row in history]
    assert same_weights(model, again)
    assert [row["validation_loss"] for row in rows] != scored


def test_a_probe_is_learned_if_asked_for(scan: Any) -> None:
    fixed, free = make_model(), make_model(trainable_probe=True)
    for one in (fixed, free):
        train(one, scan)
    assert fixed.network is not None
    assert free.network is not None
    energy = np.mean(np.sum(scan.diffraction.astype(float) ** 2, axis=(1, 2)))
    start = scan.probe * np.sqrt(energy / np.sum(np.abs(scan.probe) ** 2))
    parts = [
        torch.view_as_complex(network.probe_parts.detach())[0].numpy()
        for network in (fixed.network, free.network)
    ]
    np.testing.assert_allclose(parts[0], start, atol=1e-5 * np.abs(start).max())
    change = np.linalg.norm(parts[1] - start) / np.linalg.norm(start)
    assert 1e-4 < change < 0.5


def test_a_refined_probe_is_nearer_to_the_truth(scan: Any) -> None:
    axis = np.arange(N) - N // 2
    wrong = scan.probe * np.exp(0.05j * (axis[:, None] ** 2 + axis**2))

    def off(probe: NDArray[Any]) -> float:
        match = abs(np.vdot(probe, scan.probe)) / np.linalg.norm(probe)
        return float(1 - match / np.linalg.norm(scan.probe))

    model = make_model()
    train(model, replace(scan, probe=wrong.astype(np.complex64)), 1, refine_probe=20)
    assert model.probe is not None
    assert off(model.probe[0]) < 0.5 * off(wrong)


# --- no global state -----------------------------------------------------------------------------


def state_of_everything() -> dict[str, Any]:
    numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": (numpy["key"].tobytes(), numpy["pos"]),
        "python": random.getstate(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "terminate": signal.getsignal(signal.SIGTERM),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "level": logging.getLogger("lightning.pytorch").level,
        "precision": torch.get_float32_matmul_precision(),
        "folder": (Path.cwd(), sorted(os.listdir())),
    }


def test_no_global_state_is_touched(
    scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(make_model(), scan, 1)  # what is imported on the way draws random numbers
    before = state_of_everything()
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    model = make_model("hybrid", gridsize=2)
    train(model, scan, 1, refine_probe=1)
    infer(model, scan, refine=1)
    (tmp_path.parent / "state").mkdir()
    model.save(tmp_path.parent / "state")
    PtychoModel.load(tmp_path.parent / "state")
    assert model.n_parameters > 0
    assert state_of_everything() == before
    assert {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} == variables


def test_imaging_leaves_scan_and_model_as_they_were(model: PtychoModel, scan: Any) -> None:
    kept = {name: np.array(getattr(scan, name)) for name in ("diffraction", "positions", "probe")}
    assert model.network is not None
    weights = {k: v.clone() for k, v in model.network.state_dict().items()}
    one, other = infer(model, scan), infer(model, scan)
    assert np.array_equal(one.object, other.object)
    for name, value in kept.items():
        assert np.array_equal(getattr(scan, name), value)
    for k, v in model.network.state_dict().items():
        assert torch.equal(v, weights[k])


# --- imaging -------------------------------------------------------------------------------------


def laid(
    patches: NDArray[Any], positions: NDArray[Any], shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """The sum of patches, each pixel shared by the four it falls between."""
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


def test_patches_without_stitching(model: PtychoModel, scan: Any) -> None:
    made = infer(model, scan, stitching=False)
    assert made.object is None
    assert made.coverage is None
    assert made.patches.shape == (POSITIONS, N, N)
    assert made.patches.dtype == np.complex64
    assert np.array_equal(made.positions, scan.positions)
    whole = infer(model, scan)
    assert made.metrics.keys() == {"pattern_correlation"}
    assert made.metrics["pattern_correlation"] == whole.metrics["pattern_correlation"]
    # The stitched image is their mean by weights, and sharper; where it is bright, hardly other.
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


def test_the_pattern_correlation_is_pearsons(model: PtychoModel, scan: Any) -> None:
    made = infer(model, scan, stitching=False)
    exits = np.fft.ifftshift(made.patches.astype(complex) * model.probe, axes=(1, 2))
    modelled = np.abs(np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(1, 2)))
    expected = np.corrcoef(modelled.ravel(), scan.diffraction.ravel())[0, 1]
    assert made.metrics["pattern_correlation"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.9


def test_groups_of_four(scan: Any) -> None:
    model = make_model(gridsize=2)
    train(model, scan, 2)
    whole = infer(model, scan)
    apart = infer(model, scan, stitching=False)
    assert apart.patches.shape == (4 * POSITIONS, N, N)
    assert apart.positions.shape == (4 * POSITIONS, 2)
    # Every position is the first of a group, and the others are its nearest.
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
    train(model, scan, 1)
    made, again = (infer(model, scan, stitching=False, n_groups=20) for _ in range(2))
    assert made.patches.shape == (20 * gridsize**2, N, N)
    assert np.array_equal(made.patches, again.patches)
    centres = made.positions[:: gridsize**2]
    assert len(np.unique(centres, axis=0)) == 20
    assert {tuple(p) for p in centres} <= {tuple(p) for p in scan.positions}
    few, all_of_them = infer(model, scan, n_groups=20), infer(model, scan)
    assert few.coverage.sum() < 0.3 * all_of_them.coverage.sum()
    assert few.object.shape == all_of_them.object.shape


def test_an_object_changes_the_scores_alone(model: PtychoModel, scan: Any) -> None:
    made, known = infer(model, replace(scan, object=None)), infer(model, scan)
    assert made.metrics == {"pattern_correlation": known.metrics["pattern_correlation"]}
    assert np.array_equal(made.object, known.object)
    assert made.origin == known.origin
    # Every patch lies within, so that nothing is lost.
    height, width = made.object.shape
    weights = np.broadcast_to(weight_of(scan.probe[None]), (POSITIONS, N, N))
    total = laid(weights, scan.positions - made.origin, (height + 40, width + 40)).real
    assert not total[height:].any()
    assert not total[:, width:].any()
    assert total.sum() == pytest.approx(weights.sum())


def test_dead_pixels_are_not_looked_at(scan: Any) -> None:
    """Whatever stands there, in training and imaging; and what is around them counts."""
    mask = np.random.default_rng(1).random((N, N)) < 0.9
    mask[N // 2, N // 2] = False  # one that is bright
    found = []
    for rubbish in (0.0, 1e6, np.inf, np.nan):
        stack = scan.diffraction.copy()
        stack[:, ~mask] = rubbish
        masked = replace(scan, diffraction=stack, mask=mask)
        model = make_model()
        found.append((told(train(model, masked, 2)), infer(model, masked)))
        assert model.network is not None
    for history, made in found[1:]:
        assert history == found[0][0]
        assert np.array_equal(made.object, found[0][1].object)
        assert made.metrics["pattern_correlation"] == found[0][1].metrics["pattern_correlation"]
    assert np.isfinite(found[0][1].object).all()
    seen = make_model()
    train(seen, scan, 2)
    assert not np.array_equal(infer(seen, scan).object, found[0][1].object)


def test_another_exposure_gives_the_same_image(model: PtychoModel, scan: Any) -> None:
    bright = infer(model, scan)
    for factor in (0.1, 30.0):
        other = replace(scan, diffraction=(factor * scan.diffraction).astype(np.float32))
        np.testing.assert_allclose(infer(model, other).object, bright.object, atol=2e-3)
    # With as few photons as that there is noise: 2000 a pattern, on 16 x 16 pixels.
    rng = np.random.default_rng(2)
    dark = rng.poisson(np.square(scan.diffraction.astype(float)) * 2e-3)
    made = infer(model, replace(scan, diffraction=np.sqrt(dark).astype(np.float32)))
    inside = bright.coverage > 1
    one, other_image = made.object[inside], bright.object[inside]
    match = abs(np.vdot(one, other_image)) / np.linalg.norm(one) / np.linalg.norm(other_image)
    assert match > 0.97


def test_classical_passes_bring_the_image_nearer(model: PtychoModel, scan: Any) -> None:
    before, after = infer(model, scan), infer(model, scan, refine=5)
    assert after.metrics["complex_error"] < 0.6 * before.metrics["complex_error"]
    assert np.array_equal(after.coverage, before.coverage)
    assert after.object.dtype == np.complex64
    assert not after.object[after.coverage == 0].any()


def test_several_modes(scan: Any) -> None:
    axis = np.arange(N) - N // 2
    second = scan.probe * axis
    second *= 0.5 / np.linalg.norm(second)
    modes = np.stack([scan.probe, second]).astype(np.complex64)
    patches = reference.extract_patches(scan.object, scan.positions[:, :, None], N)[..., 0]
    exits = np.fft.ifftshift(patches[:, None] * modes, axes=(2, 3))
    field = np.fft.fftshift(np.fft.fft2(exits, norm="ortho"), axes=(2, 3))
    amplitude = 1000 * np.sqrt(np.sum(np.abs(field) ** 2, axis=1))
    lit = replace(scan, probe=modes, diffraction=amplitude.astype(np.float32))
    model = make_model()
    history = train(model, lit, 5, batch_size=4)
    assert model.probe is not None
    assert model.probe.shape == (2, N, N)
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    error, nothing = against_nothing(infer(model, lit), lit)
    assert error < 0.9 * nothing


def test_scans_in_files(scan: Any, tmp_path: Path, model: PtychoModel) -> None:
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
    assert told(train(here, scan, 1)) == told(train(there, str(tmp_path / "scan.npz"), 1))


# --- what is watched -----------------------------------------------------------------------------


def test_the_pictures_and_their_correlation(scan: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model = make_model()
    history = train(model, scan, 5, output=tmp_path / "run", picture_every=2)
    pictures = sorted(path.name for path in (tmp_path / "run").glob("*.png"))
    assert pictures == ["epoch_0002.png", "epoch_0004.png", "epoch_0005.png"]
    drawn = [row["image_correlation"] for row in history]
    assert [value != "" for value in drawn] == [False, True, False, True, True]
    assert drawn[-1] == infer(model, scan).metrics["amplitude_correlation"]
    # Without an object: with the picture before, of which there is none at first.
    history = train(make_model(), replace(scan, object=None), 3, picture_every=1)
    drawn = [row["image_correlation"] for row in history]
    assert math.isnan(drawn[0])
    assert all(0.5 < value <= 1 for value in drawn[1:])


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    package: Any = sys.modules["ptycho_fast.models.architectures"]
    monkeypatch.setattr(package, "_registered", dict(package._registered))


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("options", [{}, {"overlap": 1}, {"gridsize": 2}])
@pytest.mark.parametrize("learned", [False, True])
def test_one_image_for_every_pattern_is_warned_of(
    scan: Any, options: dict[str, Any], learned: bool
) -> None:
    class Blind(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *, features: int, channels: int, N: int) -> None:
            super().__init__()
            rows, columns = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
            bent = torch.sin(0.7 * rows) * torch.cos(0.5 * columns) if learned else 0 * rows
            # The same in all channels, so that nothing differs anywhere.
            self.phase = torch.nn.Parameter(bent[None].float())
            self.channels = channels

        def forward(self, features: Any) -> Any:
            phase = self.phase.expand(len(features), self.channels, -1, -1)
            return torch.polar(torch.ones_like(phase), phase)

    register_architecture("blind")(Blind)
    blind = PtychoModel("blind", N=N, stages=1, learning_rate=1e-6, **options)
    with pytest.warns(UserWarning, match="one image for every pattern") as warned:
        train(blind, scan, 12)
    assert len([w for w in warned if "one image" in str(w.message)]) == 1


def test_a_network_that_learns_is_not_warned_of(scan: Any) -> None:
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*one image for every pattern")
        train(make_model(), scan, 3)


# --- files ---------------------------------------------------------------------------------------


def test_a_model_that_was_saved_is_the_same(model: PtychoModel, scan: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "model"
    model.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    loaded = PtychoModel.load(folder)
    assert loaded.model_config == model.model_config
    assert loaded.n_parameters == model.n_parameters
    assert repr(loaded) == repr(model)
    assert same_weights(model, loaded)
    assert np.array_equal(np.asarray(loaded.probe), np.asarray(model.probe))
    one, other = infer(model, scan), infer(loaded, scan)
    assert np.array_equal(one.object, other.object)
    assert np.array_equal(one.coverage, other.coverage)
    assert one.metrics == other.metrics
    # Other programs read it.
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "cnn"
    assert config["N"] == N
    assert config["options"] == {"width": 8}
    energy = np.mean(np.sum(scan.diffraction.astype(float) ** 2, axis=(1, 2)))
    assert config["mean_energy"] == pytest.approx(energy, rel=1e-5)
    probe = np.load(folder / "probe.npy", allow_pickle=False)
    assert probe.shape == (1, N, N)
    assert probe.dtype == np.complex64
    # And it learns on.
    first = train(loaded, scan, 1)
    assert first[0]["loss"] < 400
    # Saving again replaces it.
    loaded.save(folder)
    assert same_weights(PtychoModel.load(folder), loaded)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_gridsize_options_and_a_learned_probe_are_kept(scan: Any, tmp_path: Path) -> None:
    model = make_model(
        "hybrid", gridsize=2, seed=5, stages=1, modes=3, trainable_probe=True, loss="amplitude"
    )
    train(model, scan, 1, output=tmp_path / "run")
    loaded = PtychoModel.load(tmp_path / "run")
    assert loaded.model_config == model.model_config
    assert same_weights(model, loaded)
    assert np.array_equal(infer(model, scan).object, infer(loaded, scan).object)


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.path,)


def pickled(payload: Payload, name: str, way: str) -> bytes:
    import io  # noqa: PLC0415

    file = io.BytesIO()
    if way == "torch":
        torch.save({"weights": payload}, file)
    elif name == "probe.npy":
        np.save(file, np.array([payload], object), allow_pickle=True)
    else:
        pickle.dump(payload, file)
    return file.getvalue()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_no_code_in_the_files_is_run(
    model: PtychoModel, tmp_path: Path, name: str, way: str
) -> None:
    model.save(tmp_path)
    bad = pickled(Payload(tmp_path / "was here"), name, way)
    if way == "pickle" and name != "probe.npy":
        pickle.loads(bad)  # it would
        (tmp_path / "was here").rmdir()
    (tmp_path / name).write_bytes(bad)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name)) + " is damaged"):
        PtychoModel.load(tmp_path)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_cut_off(model: PtychoModel, tmp_path: Path, name: str) -> None:
    model.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    named = re.escape(str(tmp_path / name))
    for length in (0, 1, 7, 8, 9, 60, len(whole) // 2, len(whole) - 3):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{named} is damaged"):
            PtychoModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{named} is missing"):
        PtychoModel.load(tmp_path)
    with pytest.raises(ValueError, match="missing"):
        PtychoModel.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"format": None}, "has format None"),
        ({"N": None}, "."),
        ({"N": "16"}, "N='16'"),
        ({"N": N + 2}, "."),
        ({"gridsize": 2}, "."),
        ({"stages": 3}, "."),
        ({"architecture": "fno"}, "."),
        ({"architecture": "gone"}, "architecture must be one of .* got 'gone'"),
        ({"architecture": None}, "architecture"),
        ({"loss": "none"}, "loss must be"),
        ({"learning_rate": "fast"}, "."),
        ({"options": {"width": 16}}, "."),
        ({"options": {"depth": 16}}, "depth"),
        ({"options": None}, "."),
        ({"options": []}, "."),
        ({"mean_energy": None}, "."),
        ({"mean_energy": "much"}, "."),
        ({"mean_energy": -1.0}, "."),
        ({"mean_energy": 0.0}, "."),
        ({"mean_energy": math.nan}, "."),
        ({"surprise": 1}, "."),
    ],
)
def test_a_configuration_of_something_else(
    model: PtychoModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Each refusal says which file it is about."""
    model.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as refused:
        PtychoModel.load(tmp_path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null", "{}", "{", "\xff"])
def test_a_configuration_that_is_none(model: PtychoModel, tmp_path: Path, text: str) -> None:
    model.save(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        PtychoModel.load(tmp_path)


@pytest.mark.parametrize(
    "probe",
    [
        np.ones((N, N), np.complex64),
        np.ones((1, N, N), np.complex128),
        np.ones((1, N + 2, N + 2), np.complex64),
        np.ones((0, N, N), np.complex64),
        np.full((1, N, N), np.nan, np.complex64),
        np.zeros((1, N, N), np.complex64),
    ],
    ids=["no modes", "complex128", "another N", "no mode", "nan", "dark"],
)
def test_a_probe_of_something_else(model: PtychoModel, tmp_path: Path, probe: NDArray[Any]) -> None:
    model.save(tmp_path)
    np.save(tmp_path / "probe.npy", probe)
    with pytest.raises(ValueError, match=r"probe\.npy is damaged"):
        PtychoModel.load(tmp_path)


# --- stopped runs --------------------------------------------------------------------------------

EPOCHS = 4
SCRIPT = """
import signal, sys, time
import torch
import ptycho_fast as pf
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from ptycho_fast.models import PtychoModel

torch.set_num_threads(1)
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
place, output = sys.argv[1:]

class Wait(Callback):
    def wait(self):
        print("READY", flush=True)
        time.sleep(120)

    def on_train_batch_start(self, trainer, module, batch, index):
        if place == "batch" and trainer.current_epoch == 2 and index == 3:
            self.wait()

    def on_train_epoch_end(self, trainer, module):
        # The history has this epoch, the checkpoint has not.
        if place == "epoch end" and trainer.current_epoch == 2:
            self.wait()

def waiting(callbacks, **options):
    return Trainer(callbacks=[*callbacks, Wait()], **options)

scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
model = PtychoModel("cnn", N=16, width=8)
model.train(scan, batch_size=8, max_epochs=4, device="cpu", picture_every=0, output=output,
            trainer_cls=waiting)
print("DONE", flush=True)
"""


@pytest.fixture(scope="module")
def uninterrupted(scan: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    model = make_model()
    train(model, scan, EPOCHS, output=folder)
    return model, folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_run_leaves(uninterrupted: tuple[Any, Path], scan: Any) -> None:
    model, folder = uninterrupted
    assert files_in(folder) == sorted([*FILES, *OF_A_RUN])
    assert [row["epoch"] for row in history_of(folder)] == [str(e) for e in range(EPOCHS)]
    loaded = PtychoModel.load(folder)
    assert same_weights(loaded, model)
    # Without an output nothing but the return value tells of it, which is the same.
    again = make_model()
    assert told(train(again, scan, EPOCHS)) == history_of(folder)
    assert same_weights(again, model)


@pytest.mark.parametrize(
    ("place", "stop"),
    [
        ("epoch end", signal.SIGKILL),
        ("batch", signal.SIGINT),
    ],
)
def test_a_run_that_was_stopped_goes_on_as_if_not(
    place: str, stop: signal.Signals, uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", SCRIPT, place, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "READY" in line:
                break
        process.send_signal(stop)
        out, errors = process.communicate(timeout=60)
    assert "DONE" not in out, errors
    if stop == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode in {-signal.SIGINT, 128 + signal.SIGINT}, errors
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert f"in {folder}, and the last whole epoch in {folder / 'last.ckpt'}" in errors
    # What was written is whole.
    assert files_in(folder) == sorted([*FILES, *OF_A_RUN])
    assert len(history_of(folder)) == (3 if place == "epoch end" else 2)
    left = PtychoModel.load(folder)
    assert np.isfinite(infer(left, scan).object).all()
    # A run in a process that knows nothing of the first.
    model = make_model()
    rows = train(model, scan, EPOCHS, output=folder, resume=True)
    whole, expected = uninterrupted
    assert history_of(folder) == history_of(expected)
    assert told(rows) == history_of(expected)
    assert same_weights(model, whole)
    assert same_weights(PtychoModel.load(folder), whole)
    assert files_in(folder) == files_in(expected)


class StoppedError(Exception):
    pass


def stopping(epoch: int) -> Any:
    class Stop(lightning.pytorch.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == epoch:
                raise StoppedError

    return lambda callbacks, **others: lightning.Trainer(callbacks=[*callbacks, Stop()], **others)


def test_a_falling_rate_goes_on_where_it_was(scan: Any, tmp_path: Path) -> None:
    """Of the schedule that follows the losses, stopped just before it lowers the rate."""

    few = replace(
        scan,
        positions=scan.positions[:24],
        positions_start=scan.positions_start[:24],
        diffraction=scan.diffraction[:24],
    )
    # So fast that the losses do not fall.
    options: dict[str, Any] = {"schedule": "plateau", "learning_rate": 0.5, "stages": 1}
    whole = told(train(make_model(**options), few, 12, batch_size=12))
    rates = [float(row["learning_rate"]) for row in whole]
    falls = [epoch for epoch in range(1, 12) if rates[epoch] < 0.75 * rates[epoch - 1]]
    assert falls, rates
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(
            make_model(**options),
            few,
            12,
            batch_size=12,
            output=folder,
            trainer_cls=stopping(falls[0] - 1),
        )
    rows = train(make_model(**options), few, 12, batch_size=12, output=folder, resume=True)
    assert told(rows) == whole


def copied(folder: Path, to: Path) -> Path:
    import shutil  # noqa: PLC0415

    shutil.copytree(folder, to)
    return to


def test_more_epochs_of_a_run_that_was_done(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = copied(uninterrupted[1], tmp_path / "run")
    model = make_model()
    rows = train(model, scan, EPOCHS + 2, output=folder, resume=True)
    assert len(rows) == EPOCHS + 2
    assert told(rows)[:EPOCHS] == history_of(uninterrupted[1])
    assert told(rows) == history_of(folder)
    assert same_weights(PtychoModel.load(folder), model)


def test_a_run_that_is_done_stays(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    """Nothing is left to do, and nothing is changed."""
    folder = copied(uninterrupted[1], tmp_path / "run")
    model = make_model()
    train(model, scan, EPOCHS, output=folder, resume=True)
    assert same_weights(model, uninterrupted[0])
    assert history_of(folder) == history_of(uninterrupted[1])


def test_runs_are_not_written_over(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    folder = copied(uninterrupted[1], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="holds a run already. Go on with it"):
        train(make_model(), scan, output=folder)
    message = "holds a run of another model: seed is 3 here, 0 there; loss is 'amplitude' here"
    with pytest.raises(ValueError, match=message):
        train(make_model(seed=3, loss="amplitude"), scan, output=folder, resume=True)
    (folder / "last.ckpt").unlink()
    with pytest.raises(ValueError, match="holds a run already"):
        train(make_model(), scan, output=folder)
    with pytest.raises(ValueError, match=r"nothing to go on from: .*last\.ckpt is missing"):
        train(make_model(), scan, output=folder, resume=True)
    with pytest.raises(ValueError, match="pass output="):
        train(make_model(), scan, resume=True)
    with pytest.raises(ValueError, match="nothing to go on from"):
        train(make_model(), scan, output=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()
    for name in files_in(folder):
        assert (folder / name).read_bytes() == before[name]


@pytest.mark.parametrize("damage", ["pickle", "torch", "empty", "cut", "text"])
def test_a_damaged_checkpoint(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path, damage: str
) -> None:
    folder = copied(uninterrupted[1], tmp_path / "run")
    path = folder / "last.ckpt"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "pickle": pickled(Payload(tmp_path / "was here"), "", "pickle"),
            "torch": pickled(Payload(tmp_path / "was here"), "", "torch"),
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "text": b"no checkpoint",
        }[damage]
    )
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        train(make_model(), scan, EPOCHS + 1, output=folder, resume=True)
    assert not (tmp_path / "was here").exists()
    # The model itself is still there.
    assert same_weights(PtychoModel.load(folder), uninterrupted[0])


def test_a_loss_that_is_no_number_stops_and_loses_nothing(
    uninterrupted: tuple[Any, Path], scan: Any, tmp_path: Path
) -> None:
    """One pattern so bright that its counts do not fit into float32."""
    folder = tmp_path / "run"
    train(make_model(), scan, 2, output=folder)
    before = {name: (folder / name).read_bytes() for name in (*FILES, "last.ckpt")}
    stack = scan.diffraction.copy()
    stack[17] *= 1e30
    bad = replace(scan, diffraction=stack)
    # It is not the scan of the run: without the record that is not known.
    record = (folder / "run.json").read_bytes()
    (folder / "run.json").unlink()
    with (
        pytest.raises(FloatingPointError, match="scan indices") as refused,
        pytest.warns(UserWarning, match="can't be checked"),
    ):
        train(make_model(), bad, EPOCHS, output=folder, resume=True, batch_size=1)
    (folder / "run.json").write_bytes(record)
    message = str(refused.value)
    found = re.search(r"in epoch (\d+), batch (\d+), of scan indices ([\d, ]+)\.", message)
    assert found is not None, message
    assert int(found[1]) == 2
    assert 17 in [int(i) for i in found[3].split(",")]
    assert len(found[3].split(",")) <= 4
    for name, kept in before.items():
        assert (folder / name).read_bytes() == kept
    assert len(history_of(folder)) == 2
    # `max_epochs` is part of the schedule, so it goes on but not as the whole run did.
    rows = train(make_model(), scan, EPOCHS, output=folder, resume=True)
    assert len(rows) == EPOCHS
    assert all(math.isfinite(float(row["loss"])) for row in rows)


# --- what is refused -----------------------------------------------------------------------------


def with_bad_pattern(scan: Any, value: float) -> Any:
    stack = scan.diffraction.copy()
    stack[41, 3, 2] = value
    stack[77, 1, 1] = value
    return replace(scan, diffraction=stack)


BAD_SCANS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda scan: replace(scan, probe=None), "The scan has no probe"),
    (lambda scan: replace(scan, probe=0 * scan.probe), "probe must be finite and not dark"),
    (lambda scan: replace(scan, probe=np.nan * scan.probe), "probe must be finite"),
    (
        lambda scan: pf.simulate_scan(n_positions=60, N=2 * N, seed=0),
        r"patterns have 32 x 32 pixels, the model was made for N=16\. .*PtychoModel\(N=32\)",
    ),
    (
        lambda scan: with_bad_pattern(scan, np.nan),
        "2 of 100 patterns are not finite, the first at scan index 41",
    ),
    (lambda scan: with_bad_pattern(scan, np.inf), "the first at scan index 41"),
    (lambda scan: replace(scan, diffraction=0 * scan.diffraction), "All 100 patterns are dark"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_SCANS)
def test_scans_that_teach_nothing(
    spoil: Callable[[Any], Any], message: str, scan: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(make_model(), spoil(scan), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("spoil", "message"), BAD_SCANS[3:])
def test_scans_that_show_nothing(
    spoil: Callable[[Any], Any], message: str, scan: Any, model: PtychoModel
) -> None:
    with pytest.raises(ValueError, match=message):
        infer(model, spoil(scan))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 101},
            "100 groups of a scan of 100 positions are fewer than a batch of 101",
        ),
        ({"n_groups": 5}, "5 groups of a scan of 100 positions are fewer than a batch of 8"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"n_groups": 0}, "n_groups"),
        ({"neighbor_count": 0}, "neighbor_count must be"),
        ({"epochs": 0}, "max_epochs must be"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu' or 'gpu', got 'tpu'"),
        ({"devices": 0}, "devices must be"),
        ({"validation": 0.0}, "validation must be a share"),
        ({"validation": 1.5}, "validation must be a share"),
        ({"refine_probe": -1}, "refine_probe must be"),
        ({"picture_every": -1}, "picture_every must be"),
    ],
)
def test_arguments_of_training(
    options: dict[str, Any], message: str, scan: Any, tmp_path: Path
) -> None:
    model = make_model()
    with pytest.raises(ValueError, match=message):
        train(model, scan, output=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    assert "untrained" in repr(model)


def test_groups_need_neighbours(scan: Any) -> None:
    with pytest.raises(ValueError, match=r"neighbor_count=3 must be at least gridsize² = 4"):
        train(make_model(gridsize=2), scan, neighbor_count=3)
    few = replace(
        scan,
        positions=scan.positions[:3],
        diffraction=scan.diffraction[:3],
        positions_start=scan.positions_start[:3],
    )
    with pytest.raises(ValueError, match="3"):
        train(make_model(gridsize=2), few, batch_size=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(scan: Any, model: PtychoModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device='gpu' was asked for, but PyTorch finds no GPU"):
        train(make_model(), scan, device="gpu", output=tmp_path / "run")
    with pytest.raises(ValueError, match="finds no GPU"):
        model.infer(scan, device="gpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"N": 15}, "N must be even, got 15"),
        ({"N": 2}, "N must be a whole number in 4"),
        ({"architecture": ["cnn"]}, "architecture must be one of"),
        ({"width": 100_000}, "width must be a whole number in 1..4096, got 100000"),
        ({"gridsize": 0}, "gridsize must be"),
        ({"gridsize": 9}, "gridsize must be"),
        ({"seed": -1}, "seed must be"),
        ({"stages": 0}, "stages must be"),
        ({"overlap": 0}, "overlap must be"),
        ({"loss": "squares"}, r"loss must be one of \('poisson', 'amplitude'\), got 'squares'"),
        ({"schedule": "step"}, r"schedule must be one of \('cosine', 'plateau'\), got 'step'"),
        ({"learning_rate": 0.0}, "learning_rate must be between 0 and 1, got 0.0"),
        ({"learning_rate": 1.0}, "learning_rate must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"architecture": "unet"}, "architecture must be one of cnn, fno, .* got 'unet'"),
        ({"depth": 3}, "does not take these options: .*depth"),
    ],
)
def test_models_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PtychoModel(**{"N": N, **options})


def test_nothing_comes_of_an_untrained_model(scan: Any, tmp_path: Path, model: Any) -> None:
    untrained = make_model()
    assert untrained.probe is None
    assert untrained.n_parameters == model.n_parameters
    with pytest.raises(ValueError, match="not trained. Call train first"):
        infer(untrained, scan)
    with pytest.raises(ValueError, match="not trained"):
        untrained.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    for bad in (-1, 2.5, "5"):
        with pytest.raises(ValueError, match="refine must be"):
            infer(model, scan, refine=bad)
    with pytest.raises(ValueError, match="refine=3 works on the stitched image"):
        infer(model, scan, stitching=False, refine=3)


# --- several processes ---------------------------------------------------------------------------

TWO = """
import sys
import numpy as np
import torch
import ptycho_fast as pf
from ptycho_fast.models import PtychoModel

if __name__ == "__main__":
    torch.set_num_threads(1)
    scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
    model = PtychoModel("cnn", N=16, width=8)
    model.train(scan, batch_size=4, max_epochs=3, device="cpu", devices=2, picture_every=3,
                output=sys.argv[1])
    import torch.distributed as dist
    weights = torch.cat([p.detach().reshape(-1) for p in model.network.stages.parameters()])
    path = f"{sys.argv[1]}.{dist.get_rank()}.{dist.get_world_size()}"
    np.savetxt(path, weights.double().numpy())
"""


def test_two_processes_train_one_model(scan: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO))
    folder = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    one, other = (np.loadtxt(tmp_path / f"run.{rank}.2") for rank in (0, 1))
    assert np.array_equal(one, other)  # both have learned the same
    rows = history_of(folder)
    assert len(rows) == 3
    assert float(rows[-1]["loss"]) < 0.8 * float(rows[0]["loss"])
    assert (folder / "epoch_0003.png").exists()
    loaded = PtychoModel.load(folder)
    assert loaded.network is not None
    kept = torch.cat([p.detach().reshape(-1) for p in loaded.network.stages.parameters()])
    assert np.array_equal(kept.double().numpy(), one)
    error, nothing = against_nothing(infer(loaded, scan), scan)
    assert error < 0.9 * nothing


# --- dark patterns -------------------------------------------------------------------------------


def test_thinned_patterns_are_what_a_shorter_exposure_counts() -> None:
    """Mean k and variance k (1 - p) / p after division by the share p: binomial."""
    from ptycho_fast.models.training import thin  # noqa: PLC0415

    counts = torch.tensor([0.0, 3.0, 400.0]).repeat(40_000).reshape(1, 1, 200, 600)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        share = 0.01 ** float(torch.rand((1, 1, 1, 1), generator=generator))
        generator.manual_seed(seed)
        made = thin(counts.sqrt(), 0.01, generator).square()
        for k in (0.0, 3.0, 400.0):
            found = made[counts == k].double()
            assert float(found.mean()) == pytest.approx(k, rel=0.05, abs=1e-9)
            expected = k * (1 - share) / share
            assert float(found.var()) == pytest.approx(expected, rel=0.05, abs=1e-9)
        kept = made * share
        assert (kept - kept.round()).abs().max() < 1e-2


def test_a_thinned_run_goes_on_bit_by_bit(scan: Any, tmp_path: Path) -> None:
    whole = told(train(make_model(least_exposure=1e-2), scan, 3))
    assert whole != told(train(make_model(), scan, 3))
    folder = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(make_model(least_exposure=1e-2), scan, 3, output=folder, trainer_cls=stopping(1))
    rows = train(make_model(least_exposure=1e-2), scan, 3, output=folder, resume=True)
    assert told(rows) == whole


@pytest.mark.parametrize("least", [0, -1, 1.5, float("nan")])
def test_an_exposure_that_is_no_share_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="least_exposure"):
        make_model(least_exposure=least)
