"""The models of the diffraction that can be computed here."""

from __future__ import annotations

import pytest

from diffraction_models import WAYS, Way


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.name}-{way.device}".rstrip("-"))
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    if found.module == "torch":
        torch = pytest.importorskip("torch")
        if found.device == "cuda" and not torch.cuda.is_available():
            pytest.skip("no GPU")
    return found
