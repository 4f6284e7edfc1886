"""What is seen during training: pictures, correlations, the warning of a collapse."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")  # it draws from Python's random numbers on import

from ptycho_fast.models import PtychoModel, register_architecture  # noqa: E402
from small_models import N, infer, make_model, train  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def test_pictures_are_drawn_every_few_epochs_with_their_correlation(
    scan: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    model = make_model()
    history = train(model, scan, 5, output=tmp_path / "run", picture_every=2, n_groups=48)
    pictures = sorted(path.name for path in (tmp_path / "run").glob("*.png"))
    assert pictures == ["epoch_0002.png", "epoch_0004.png", "epoch_0005.png"]
    drawn = [row["image_correlation"] for row in history]
    assert [value != "" for value in drawn] == [False, True, False, True, True]
    assert drawn[-1] == infer(model, scan).metrics["amplitude_correlation"]
    # Without an object, the correlation is with the picture before, which the first one lacks.
    history = train(make_model(), replace(scan, object=None), 3, picture_every=1, n_groups=48)
    drawn = [row["image_correlation"] for row in history]
    assert math.isnan(drawn[0])
    assert all(0.5 < value <= 1 for value in drawn[1:])


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("options", [{}, {"overlap": 1}, {"gridsize": 2}])
@pytest.mark.parametrize("learned", [False, True])
def test_a_network_that_returns_one_image_is_warned_about(
    scan: Any, options: dict[str, Any], learned: bool
) -> None:
    class Blind(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *, features: int, channels: int, N: int) -> None:
            super().__init__()
            rows, columns = torch.meshgrid(torch.arange(N), torch.arange(N), indexing="ij")
            bent = torch.sin(0.7 * rows) * torch.cos(0.5 * columns) if learned else 0 * rows
            # All channels are the same, so that no two patches differ.
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


def test_a_network_that_learns_is_not_warned_about(scan: Any) -> None:

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*one image for every pattern")
        train(make_model(), scan, 3)
