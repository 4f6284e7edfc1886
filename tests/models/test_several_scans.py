"""One network for several scans, each with its own probe, mask and exposure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")
pytest.importorskip("skimage")

from ptycho_fast.feeds.lightning import GroupedDataModule  # noqa: E402
from ptycho_fast.models import PtychoModel  # noqa: E402
from ptycho_fast.models.light import stack_probes  # noqa: E402
from ptycho_fast.models.network import PatchNetwork  # noqa: E402
from ptycho_fast.models.scans import as_scans  # noqa: E402
from ptycho_fast.models.training.module import TrainingModule  # noqa: E402
from ptycho_fast.models.training.options import TrainingOptions  # noqa: E402
from ptycho_fast.models.training.setup import plan_training  # noqa: E402
from small_models import (  # noqa: E402
    N,
    StoppedError,
    history_of,
    infer,
    make_model,
    make_scan,
    same_weights,
    stopping,
    told,
    train,
)
from two_probes import defocused, lit, two_scans  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPOCHS = 3


@pytest.fixture(scope="module")
def scans() -> list[Any]:
    return list(two_scans())


@pytest.fixture(scope="module")
def both(scans: list[Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model trained on both scans, and its run; not to be changed."""
    folder = tmp_path_factory.mktemp("several") / "RUN"
    model = make_model()
    train(model, scans, EPOCHS, batch_size=4, output=folder)
    return model, folder


def error(model: PtychoModel, scan: Any, **options: Any) -> float:
    return float(infer(model, scan, **options).metrics["complex_error"])


def test_a_network_of_two_scans_images_each_as_well_as_one_of_its_own(
    scans: list[Any], both: tuple[Any, Path]
) -> None:
    """With as many steps, of which each scan has half. A network of the other scan does worse."""
    model, _ = both
    for own, other in ((0, 1), (1, 0)):
        alone = make_model()
        train(alone, scans[own], 2 * EPOCHS, batch_size=4)
        assert error(model, scans[own]) < 1.2 * error(alone, scans[own])
        assert error(model, scans[other]) < error(alone, scans[other])


def batches_of(scans: list[Any], **options: Any) -> list[dict[str, Any]]:
    config = make_model(**options).model_config
    plan = plan_training(as_scans(scans, N), [], config, TrainingOptions(batch_size=8))
    feed = GroupedDataModule(
        plan.data, batch_size=8, seed=config.seed, redraw=True, fields=plan.fields
    )
    return [
        {name: np.asarray(value) for name, value in batch.items()}
        for batch in feed.train_dataloader()
    ]


@pytest.mark.parametrize("options", [{}, {"gridsize": 2}])
def test_batches_mix_scans_and_groups_do_not(scans: list[Any], options: dict[str, Any]) -> None:
    mask = np.random.default_rng(0).random((N, N)) < 0.9
    seen = [scans[0], replace(scans[1], mask=mask)]
    batches = batches_of(seen, **options)
    assert sum(len(batch["scan_id"]) for batch in batches) == 200
    mixed = [len(np.unique(batch["scan_id"])) == 2 for batch in batches]
    assert np.mean(mixed) > 0.8
    for batch in batches:
        coords = (batch["coords_offsets"] - batch["coords_relative"])[:, 0]
        for i, number in enumerate(batch["scan_id"]):
            scan, rows = seen[number], batch["nn_indices"][i]
            assert np.array_equal(coords[i].T, scan.positions[rows])
            good = np.ones((N, N), bool) if scan.mask is None else scan.mask
            assert np.array_equal(batch["diffraction"][i], scan.diffraction[rows] * good)
            assert (batch["good"][i] == good).all()


@pytest.mark.parametrize("options", [{}, {"gridsize": 2}, {"loss": "amplitude", "overlap": 1}])
def test_the_loss_of_a_mixed_batch_is_that_of_each_group_with_its_own_probe(
    options: dict[str, Any],
) -> None:
    """Also if one probe has two modes, and one scan a mask and a tenth of the light."""
    first = make_scan(40)
    second = np.stack([first.probe, 0.5 * defocused(first.probe, 0.7)])
    other = lit(make_scan(40, seed=1), second, photons=1e5)
    mask = np.random.default_rng(0).random((N, N)) < 0.9
    seen = [first, replace(other, mask=mask)]
    model = make_model(stages=2, **options)
    train(model, seen, 1, batch_size=4)
    network = model.network
    assert network is not None
    assert model.probe is not None
    assert model.probe.shape == (2, 2, N, N)
    light = [np.square(scan.diffraction, dtype=float).sum(axis=(1, 2)).mean() for scan in seen]
    assert np.sum(np.abs(model.probe[0]) ** 2) == pytest.approx(light[0], rel=0.05)
    assert np.sum(np.abs(model.probe[1]) ** 2) == pytest.approx(light[1], rel=0.05)
    module = TrainingModule(network, model.model_config)
    batch = next(
        {name: torch.from_numpy(value) for name, value in batch.items()}
        for batch in batches_of(seen, **options)
        if len(np.unique(batch["scan_id"])) == 2
    )
    found, _ = module._losses(batch)  # noqa: SLF001
    total, pixels = np.zeros(len(found)), 0
    for group, number in enumerate(batch["scan_id"].tolist()):
        alone = PatchNetwork(
            "cnn",
            N=N,
            channels=model.model_config.channels,
            probe=np.asarray(stack_probes([network.probes.bare[number]]).bare[0]),
            stages=2,
            width=8,
        )
        weights = {
            name: value
            for name, value in network.state_dict().items()
            if name not in ("probe_parts", "exposure")
        }
        alone.load_state_dict({**weights, "probe_parts": alone.probe_parts.detach()})
        # In the units of this scan, with its probe alone.
        times = float(network.probes.exposure[number])  # type: ignore[index]
        alone.probe_parts.data *= times
        alone.set_mask(seen[number].mask)
        one = {name: value[group : group + 1] for name, value in batch.items()}
        del one["scan_id"], one["good"]
        losses, _ = TrainingModule(alone, model.model_config)._losses(one)  # noqa: SLF001
        counted = int(batch["good"][group].sum())
        total += counted * np.array([float(loss.detach()) for loss in losses])
        pixels += counted
    expected = total / pixels
    np.testing.assert_allclose([float(loss.detach()) for loss in found], expected, rtol=1e-3)


def test_values_of_masked_pixels_of_one_scan_do_not_matter(scans: list[Any]) -> None:
    mask = np.random.default_rng(1).random((N, N)) < 0.9
    found = []
    for rubbish in (0.0, np.nan):
        stack = scans[1].diffraction.copy()
        stack[:, ~mask] = rubbish
        seen = [scans[0], replace(scans[1], diffraction=stack, mask=mask)]
        model = make_model()
        found.append((told(train(model, seen, 1, n_groups=24)), infer(model, seen[1]).object))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])
    assert np.isfinite(found[0][1]).all()


def test_a_saved_model_of_two_scans_equals_the_loaded_one(
    scans: list[Any], both: tuple[Any, Path], tmp_path: Path
) -> None:
    model, folder = both
    loaded = PtychoModel.load(folder)
    assert same_weights(model, loaded)
    assert np.array_equal(np.asarray(model.probe), np.asarray(loaded.probe))
    for scan in scans:
        assert np.array_equal(infer(model, scan).object, infer(loaded, scan).object)
    # A folder with the probes of another number of scans is damaged.
    model.save(tmp_path)
    np.save(tmp_path / "probe.npy", np.load(tmp_path / "probe.npy")[:1])
    with pytest.raises(ValueError, match=r"probe\.npy is damaged: .*there are 2 scans"):
        PtychoModel.load(tmp_path)


# --- which probe a scan is imaged with -----------------------------------------------------------


def test_a_scan_is_imaged_with_its_own_probe(scans: list[Any], both: tuple[Any, Path]) -> None:
    """Through the probe of the other scan both patches and refined image are wrong."""
    model, _ = both
    for one, other in (scans, scans[::-1]):
        wrong = replace(one, probe=other.probe)
        right, through = infer(model, one), infer(model, wrong)
        assert right.metrics["pattern_correlation"] > through.metrics["pattern_correlation"] + 0.005
        assert right.metrics["complex_error"] < 0.8 * through.metrics["complex_error"]
        assert error(model, one, refine=5) < 0.5 * error(model, wrong, refine=5)


@pytest.mark.parametrize("refine", [0, 5])
def test_a_scan_with_a_probe_that_training_did_not_know_is_imaged_with_it(
    scans: list[Any], model: Any, refine: int
) -> None:
    """By a network of one scan; the brightness of the probe has no meaning."""
    own = lit(scans[1], defocused(scans[0].probe, 0.2))
    image = infer(model, own, refine=refine)
    brighter = infer(model, replace(own, probe=128 * own.probe), refine=refine)
    assert np.array_equal(brighter.object, image.object)
    if refine:
        with pytest.warns(UserWarning, match="The scan has no probe, so that of the training"):
            wrong = infer(model, replace(own, probe=None), refine=refine)
        assert image.metrics["complex_error"] < 0.3 * wrong.metrics["complex_error"]


def test_a_refined_probe_is_used_for_scans_that_begin_with_the_same(
    scans: list[Any], tmp_path: Path
) -> None:
    guess = defocused(scans[0].probe, 0.05)
    seen = [replace(scan, probe=guess) for scan in scans]
    model = make_model()
    train(model, seen, 1, n_groups=16, refine_probe=10, output=tmp_path / "RUN")
    assert model.probe is not None
    for found in (model, PtychoModel.load(tmp_path / "RUN")):
        for scan, refined in zip(seen, model.probe, strict=True):
            # Both began with the same probe, and their patterns tell which is which.
            given = infer(found, scan, stitching=False)
            same = infer(found, replace(scan, probe=refined), stitching=False)
            assert np.array_equal(given.patches, same.patches)
        apart = [infer(found, replace(seen[0], probe=p), stitching=False) for p in model.probe]
        assert not np.array_equal(apart[0].patches, apart[1].patches)


def test_training_on_another_scan_takes_its_probe(scans: list[Any], both: tuple[Any, Path]) -> None:
    model = PtychoModel.load(both[1])
    third = lit(make_scan(60, seed=2), defocused(scans[0].probe, 0.3))
    train(model, third, 1, n_groups=16)
    assert model.probe is not None
    match = np.vdot(model.probe[0], third.probe)
    assert abs(match) > 0.9999 * np.linalg.norm(model.probe[0]) * np.linalg.norm(third.probe)
    # And that of a scan it knew, as it was.
    again = PtychoModel.load(both[1])
    train(again, scans[1], 1, n_groups=16)
    assert again.probe is not None
    assert both[0].probe is not None
    before = both[0].probe[1] / np.linalg.norm(both[0].probe[1])
    np.testing.assert_allclose(again.probe / np.linalg.norm(again.probe), before, atol=1e-6)


# --- runs ----------------------------------------------------------------------------------------


def test_a_run_says_what_it_was_trained_on_and_resumes_to_the_same_bits(
    scans: list[Any], both: tuple[Any, Path], tmp_path: Path
) -> None:
    whole, expected = both
    folder = tmp_path / "RUN"
    options: dict[str, Any] = {"batch_size": 4, "output": folder}
    with pytest.raises(StoppedError):
        train(make_model(), scans, EPOCHS, trainer_cls=stopping(2), **options)
    for change, message in (
        (scans[::-1], "the checksum of the positions of scan 0 was"),
        (scans[:1], "the number of scans was 2 and is 1 now"),
        ([scans[0], replace(scans[1], probe=1j * scans[1].probe)], "the probe of scan 1 was"),
    ):
        with pytest.raises(ValueError, match=f"contains another run: .*{message}"):
            train(make_model(), change, EPOCHS, resume=True, **options)
    model = make_model()
    train(model, scans, EPOCHS, resume=True, source=["a.h5", "b.h5"], **options)
    assert same_weights(model, whole)
    assert history_of(folder) == history_of(expected)
    record = json.loads((folder / "run.json").read_text())
    assert [scan["n_positions"] for scan in record["scans"]] == [100, 100]
    assert [scan["file"][-5:] for scan in record["scans"]] == ["/a.h5", "/b.h5"]
    assert len({scan["probe_sha256"] for scan in record["scans"]}) == 2
    assert record["validation_scans"] == []


def test_learned_probes_are_those_of_each_scan(scans: list[Any]) -> None:
    model = make_model(trainable_probe=True)
    train(model, scans, 2)
    assert model.probe is not None
    for scan, learned in zip(scans, model.probe, strict=True):
        norm = np.linalg.norm(learned) * np.linalg.norm(scan.probe)
        assert 0.9 < abs(np.vdot(learned[0], scan.probe)) / norm < 1 - 1e-6


def test_whole_scans_can_be_held_out(scans: list[Any], tmp_path: Path) -> None:
    """They are scored with their own probe, and do not affect the weights."""
    models: list[PtychoModel] = []
    histories = []
    turned = replace(scans[1], diffraction=scans[1].diffraction[:, ::-1].copy())
    for held_out in (scans[1], turned, None):
        model = make_model()
        output = tmp_path / str(len(models))
        histories.append(train(model, scans[0], 2, validation=held_out, output=output))
        models.append(model)
    assert same_weights(models[0], models[1])
    losses = [[row["loss"] for row in history] for history in histories]
    assert losses[0] == losses[1]
    scored = [history[-1]["validation_loss"] for history in histories]
    assert scored[0] < 0.8 * scored[1]
    assert scored[2] == ""
    record = json.loads((tmp_path / "0" / "run.json").read_text())
    assert [len(record[name]) for name in ("scans", "validation_scans")] == [1, 1]
    with pytest.raises(ValueError, match="the number of held-out scans was 1 and is 0 now"):
        train(make_model(), scans[0], 3, output=tmp_path / "0", resume=True)


def test_a_block_of_each_scan_can_be_held_out(scans: list[Any]) -> None:
    config = make_model().model_config
    options = TrainingOptions(validation=0.25)
    plan = plan_training(as_scans(scans, N), [], config, options)
    assert plan.held_out is not None
    for scan, inside, outside in zip(scans, plan.data.groups, plan.held_out.groups, strict=True):
        along = scan.positions[:, np.argmax(np.ptp(scan.positions, axis=0))]
        edge = np.quantile(along, 0.75)
        assert len(inside.indices)
        assert (along[inside.indices] < edge).all()
        assert (along[outside.indices] >= edge).all()
        assert len(outside) > 15
    few = scans[1].take(np.arange(9), scans[1].diffraction[:9])
    with pytest.raises(ValueError, match=r"scan 1: validation=0.25 leaves \d+ of its groups"):
        train(make_model(), [scans[0], few], validation=0.25)


def test_patterns_in_files_of_another_dtype_give_the_same_run(
    scans: list[Any], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.npz" for name in "ab"]
    for scan, path in zip(scans, paths, strict=True):
        pf.write_scan(scan, path)
    doubles = replace(scans[1], diffraction=scans[1].diffraction.astype(float))
    expected = told(train(make_model(), scans, 1, n_groups=24))
    for same in (
        paths,
        [pf.read_scan(path, load=False) for path in paths],
        (str(paths[0]), doubles),
    ):
        assert told(train(make_model(), same, 1, n_groups=24)) == expected


# --- what is refused -----------------------------------------------------------------------------

REFUSED: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda one, other: [], "There is no scan to train on: the list is empty"),
    (
        lambda one, other: [one, other, pf.simulate_scan(40, 32, seed=0)],
        r"but scan 2 has 32 x 32 pixels, scan 0 has 16 x 16 pixels\. Crop or bin",
    ),
    (
        lambda one, other: [pf.simulate_scan(40, 32, seed=s) for s in (0, 1)],
        "scan 0: The scan's patterns have 32 x 32 pixels",
    ),
    (lambda one, other: [one, other, one], "scan 0 and scan 2 are the same scan"),
    (lambda one, other: [one, replace(other, probe=None)], "scan 1: The scan has no probe"),
    (
        lambda one, other: [one, replace(other, diffraction=0 * other.diffraction)],
        "scan 1: All 100 patterns are dark",
    ),
    (
        lambda one, other: [one, replace(other, positions=1e9 * other.positions)],
        "scan 1: An image of these 100 positions would have",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_list_that_cannot_be_trained_on_is_refused_with_the_name_of_the_scan(
    scans: list[Any], tmp_path: Path, change: Callable[[Any, Any], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(make_model(), change(*scans), output=tmp_path / "RUN")
    assert not (tmp_path / "RUN").exists()


def test_a_scan_cannot_be_trained_on_and_held_out(scans: list[Any]) -> None:
    with pytest.raises(ValueError, match="scan 1 and held-out scan 0 are the same scan"):
        train(make_model(), scans, validation=[scans[1]])


def test_a_loss_that_is_not_finite_names_the_scan(scans: list[Any]) -> None:
    stack = scans[1].diffraction.copy()
    stack[17] *= 1e30
    with pytest.raises(FloatingPointError, match=r"of scan indices [\d, ]+ of scan 1\."):
        train(make_model(), [scans[0], replace(scans[1], diffraction=stack)], batch_size=1)
