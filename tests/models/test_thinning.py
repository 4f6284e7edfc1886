"""Patterns thinned to shorter exposures."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")


def test_thinned_patterns_have_the_statistics_of_shorter_exposures() -> None:
    """Binomial counts, divided by the fraction p, have mean k and variance k (1 - p) / p."""
    from ptycho_fast.models.training.thinning import thin  # noqa: PLC0415

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
