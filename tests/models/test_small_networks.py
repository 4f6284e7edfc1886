"""The smallest patterns, the fewest groups, and a network that looks at its weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

from ptycho_fast.models import PtychoModel, register_architecture  # noqa: E402
from small_runs import N, make_model, train  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("architecture", ["cnn", "fno", "hybrid", "hybrid_resnet"])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_patterns_of_four_pixels_can_be_trained_and_imaged(
    architecture: str, gridsize: int
) -> None:
    scan = pf.simulate_scan(n_positions=60, N=4, seed=0)
    model = PtychoModel(architecture, N=4, gridsize=gridsize, width=4)
    history = model.train(scan, n_groups=32, max_epochs=3, picture_every=0, device="cpu")
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    made = model.infer(scan, device="cpu", refine=1)
    assert made.object is not None
    assert np.isfinite(made.object).all()
    assert made.metrics["pattern_correlation"] > 0.8


@pytest.mark.parametrize("n_groups", [1, 3])
def test_the_default_batch_is_at_most_all_groups(
    filed_scan: Any, n_groups: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": None, "n_groups": n_groups}
    model = make_model(overlap=2)  # 4 groups a step, where there are as many
    rows = train(model, filed_scan, output=tmp_path / "run", **options)
    assert all(np.isfinite(row["loss"]) for row in rows)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["options"]["batch_size"] == n_groups
    with pytest.raises(ValueError, match="are fewer than a batch of 2"):
        train(make_model(), filed_scan, n_groups=1, batch_size=2)


def test_a_network_that_looks_at_its_weights_can_be_saved(
    filed_scan: Any, tmp_path: Path, registry: dict[str, Any]
) -> None:
    """Such a network cannot be created on the meta device, so it is created with memory."""

    class Looks(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *, features: int, channels: int, N: int) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(features, channels, 3, padding=1)
            with torch.no_grad():
                self.layer.weight /= float(self.layer.weight.abs().max())

        def forward(self, features: Any) -> Any:
            phase = 0.1 * self.layer(features)
            return torch.polar(torch.ones_like(phase), phase)

    register_architecture("looks")(Looks)
    assert "looks" in registry
    model = PtychoModel("looks", N=N)
    assert model.n_parameters > 0
    train(model, filed_scan, 1)
    model.save(tmp_path / "model")
    one, other = model.infer(filed_scan, device="cpu"), PtychoModel.load(tmp_path / "model")
    assert np.array_equal(one.object, other.infer(filed_scan, device="cpu").object)  # type: ignore[arg-type]
