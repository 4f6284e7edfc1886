"""Training: it learns from diffraction patterns alone, and can be repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reference

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel, Reconstruction  # noqa: E402
from ptycho_fast.models.training.history import COLUMNS  # noqa: E402
from small_models import N, against_nothing, infer, make_model, same_weights, told, train  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_training_lowers_the_loss_and_finds_the_object(trained: Any, scan: Any) -> None:
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
def test_every_architecture_and_option_learns(
    scan: Any, architecture: str, options: dict[str, Any]
) -> None:
    model = make_model(architecture, **options)
    epochs = 5 if architecture == "cnn" else 3  # a large network learns as much in fewer
    history = train(model, scan, epochs, batch_size=4)
    assert history[-1]["loss"] < 0.75 * history[0]["loss"]
    error, nothing = against_nothing(infer(model, scan), scan)
    assert error < 0.9 * nothing


@pytest.mark.parametrize("architecture", ["cnn", "fno"])
def test_a_network_learns_in_bfloat16_as_on_a_gpu(scan: Any, architecture: str) -> None:
    def as_on_a_gpu(**options: Any) -> Any:
        return lightning.Trainer(**{**options, "precision": "bf16-mixed"})

    history = train(make_model(architecture), scan, 3, batch_size=4, trainer_cls=as_on_a_gpu)
    other = train(make_model(architecture), scan, 3, batch_size=4)
    assert history[-1]["loss"] < 0.75 * history[0]["loss"]
    assert 0 < abs(history[-1]["loss"] / other[-1]["loss"] - 1) < 0.1


def test_a_known_object_does_not_affect_training(scan: Any) -> None:
    """Without an object, or with a wrong one, history and weights are the same."""
    wrong = np.ones_like(scan.object) * 1j
    histories, models = [], []
    for other in (scan, replace(scan, object=None), replace(scan, object=wrong)):
        models.append(make_model())
        histories.append(told(train(models[-1], other, n_groups=48)))
    assert histories[0] == histories[1] == histories[2]
    assert same_weights(models[0], models[1])
    assert same_weights(models[0], models[2])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_the_same_seed_gives_the_same_bits(scan: Any, gridsize: int) -> None:
    runs: list[tuple[list[dict[str, str]], PtychoModel]] = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(runs))  # of no matter
        model = make_model(seed=seed, gridsize=gridsize)
        runs.append((told(train(model, scan, n_groups=48)), model))
    assert runs[0][0] == runs[1][0]
    assert same_weights(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    images = [infer(model, scan).object for _, model in runs]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_training_again_continues_from_the_weights(scan: Any) -> None:
    model = make_model()
    first = train(model, scan, 2)
    second = train(model, scan, 2)
    assert second[0]["loss"] < first[-1]["loss"]


def test_held_out_positions_do_not_affect_training(scan: Any) -> None:
    model = make_model()
    history = train(model, scan, 4, validation=0.25, batch_size=4)
    scored = [row["validation_loss"] for row in history]
    assert all(isinstance(value, float) and value > 0 for value in scored)
    assert scored[-1] < 0.8 * scored[0]
    # The patterns that are held out can be replaced without any effect on the weights.
    along = scan.positions[:, np.argmax(np.ptp(scan.positions, axis=0))]
    held_out = along >= np.quantile(along, 0.75)
    other = replace(scan, diffraction=scan.diffraction.copy(), energies=None)
    # Turned by 180 degrees they keep their energy, to which the probe is scaled.
    other.diffraction[held_out] = other.diffraction[held_out, ::-1, ::-1]
    again = make_model()
    rows = train(again, other, 4, validation=0.25, batch_size=4)
    assert [row["loss"] for row in rows] == [row["loss"] for row in history]
    assert same_weights(model, again)
    assert [row["validation_loss"] for row in rows] != scored


def test_the_probe_is_learned_only_if_asked_for(scan: Any) -> None:
    fixed, free = make_model(), make_model(trainable_probe=True)
    for one in (fixed, free):
        train(one, scan, n_groups=48)
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


def test_refining_a_wrong_probe_brings_it_closer_to_the_true_one(scan: Any) -> None:
    axis = np.arange(N) - N // 2
    wrong = scan.probe * np.exp(0.05j * (axis[:, None] ** 2 + axis**2))

    def off(probe: NDArray[Any]) -> float:
        match = abs(np.vdot(probe, scan.probe)) / np.linalg.norm(probe)
        return float(1 - match / np.linalg.norm(scan.probe))

    model = make_model()
    train(model, replace(scan, probe=wrong.astype(np.complex64)), 1, n_groups=8, refine_probe=20)
    assert model.probe is not None
    assert off(model.probe[0]) < 0.5 * off(wrong)
    # An object of modulus 1 still gives as many counts as were measured.
    light = np.square(scan.diffraction, dtype=float).sum(axis=(1, 2)).mean()
    assert np.sum(np.abs(model.probe) ** 2) == pytest.approx(light, rel=0.01)


def test_a_probe_of_two_modes_can_be_trained_and_imaged(scan: Any) -> None:
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
