"""What the tests of reconstructions share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffraction_models import WAYS, Way
from ptycho_fast.reconstruction.history import Step
from ptycho_fast.reconstruction.resolution import Resolution
from ptycho_fast.reconstruction.result import Reconstruction


@pytest.fixture
def fields() -> dict[str, Any]:
    """All fields of a reconstruction, with numbers that are not round."""
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> Any:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    coverage = rng.uniform(1, 2, (40, 50)).astype(np.float32)
    coverage[:4] = 0
    return {
        "object": noise(40, 50),
        "origin": (-7, 12),
        "probe": noise(2, 16, 16),
        "positions": rng.uniform((2, 16), (30, 44), (11, 2)),
        "coverage": coverage,
        "deviance": 1.0171,
        "mu": 31.5,
        "pixel_size": 23.6e-9,
        "phase_sigma": rng.uniform(0.1, 0.2, (40, 50)).astype(np.float32),
        "amplitude_sigma": rng.uniform(0.2, 0.3, (40, 50)).astype(np.float32),
        "resolution": Resolution(
            np.arange(1, 21) / 40, np.linspace(1, -0.1, 20), np.linspace(0.8, 0.2, 20), 23.6e-9
        ),
        "history": (Step(1, 3e5, 20.5), Step(2, 3e5, 4.25, 4.5), Step(3, 31.5, 1.0171, 1.0625)),
        "seconds": 1.83,
        "notes": ("Three µ-notes: <b>, “quoted” & plain.", "Another one."),
    }


@pytest.fixture
def made(fields: dict[str, Any]) -> Reconstruction:
    """A reconstruction with all that it can have."""
    return Reconstruction(**fields)


@pytest.fixture
def bare(fields: dict[str, Any]) -> Reconstruction:
    """A reconstruction with no more than it must have, of one mode."""
    needed = ("object", "origin", "positions", "coverage", "deviance", "mu")
    return Reconstruction(probe=fields["probe"][:1], **{name: fields[name] for name in needed})


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.name}-{way.device}".rstrip("-"))
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    if found.module == "torch":
        torch = pytest.importorskip("torch")
        if found.device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no GPU")
    return found
