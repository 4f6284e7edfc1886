"""Arguments and scans that are refused, each with a sentence."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel  # noqa: E402
from small_models import N, infer, make_model, train  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
        r"patterns have 32 x 32 pixels, the model was made for N=16\. Make a model with N=32",
    ),
    (
        lambda scan: with_bad_pattern(scan, np.nan),
        "2 of 100 patterns are not finite, the first at scan index 41",
    ),
    (lambda scan: with_bad_pattern(scan, np.inf), "the first at scan index 41"),
    (lambda scan: replace(scan, diffraction=0 * scan.diffraction), "All 100 patterns are dark"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_SCANS)
def test_training_refuses_scans_it_cannot_learn_from(
    spoil: Callable[[Any], Any], message: str, scan: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(make_model(), spoil(scan), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("spoil", "message"), BAD_SCANS[3:])
def test_imaging_refuses_scans_it_cannot_image(
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
def test_training_refuses_arguments_out_of_range(
    options: dict[str, Any], message: str, scan: Any, tmp_path: Path
) -> None:
    model = make_model()
    with pytest.raises(ValueError, match=message):
        train(model, scan, output=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    assert "untrained" in repr(model)


def test_training_refuses_fewer_neighbours_than_a_group_has_patterns(scan: Any) -> None:
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
def test_a_missing_gpu_is_refused(scan: Any, model: PtychoModel, tmp_path: Path) -> None:
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
def test_model_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PtychoModel(**{"N": N, **options})


def test_an_untrained_model_neither_images_nor_saves(scan: Any, tmp_path: Path, model: Any) -> None:
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
    with pytest.raises(ValueError, match="refine=3 needs the stitched image"):
        infer(model, scan, stitching=False, refine=3)


@pytest.mark.parametrize("least", [0, -1, 1.5, float("nan")])
def test_exposures_outside_0_to_1_are_refused(least: float) -> None:
    with pytest.raises(ValueError, match="least_exposure"):
        make_model(least_exposure=least)
