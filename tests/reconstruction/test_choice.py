"""The weight of the prior is found where held-out counts are explained best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_fast.reconstruction.choice import FIRST, Trial, descend, lowest
from ptycho_fast.reconstruction.objective import Unknowns

NOTHING = Unknowns(None, None, np.empty((0, 2)))


@given(best=st.floats(-1.5, 4.5), first=st.sampled_from([FIRST, 1.0, 30.0]))
def test_the_minimum_of_a_parabola_is_found(best: float, first: float) -> None:
    def tried(mu: float, start: Unknowns) -> Trial:
        return Trial(mu, (math.log10(mu) - best) ** 2, start)

    trials = descend(tried, tried(first, NOTHING))
    assert lowest(trials) == pytest.approx(10**best, rel=1e-6)


def test_an_end_of_the_range_is_not_passed() -> None:
    def tried(mu: float, start: Unknowns) -> Trial:
        return Trial(mu, -mu, start)

    assert 1e5 < lowest(descend(tried, tried(FIRST, NOTHING))) < 1e6
