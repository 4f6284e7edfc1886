"""What the models of the diffraction refuse, with the sentence that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from diffraction_models import ALL
from likelihood_cases import make_case

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffraction_models import Way
    from likelihood_cases import Case


def refusals(case: Case) -> dict[str, tuple[Callable[[Way], Any], str]]:
    """Return what must be refused, and the sentence that says why."""
    n, N = 5, 8

    def given(**change: Any) -> Callable[[Way], Any]:
        rows, wrt = change.pop("rows", None), change.pop("wrt", ALL)
        return lambda way: way.gradient(
            replace(case, **change), wrt=wrt, rows=rows, model=way.model(case)
        )

    def made(**change: Any) -> Callable[[Way], Any]:
        return lambda way: way.model(case, **change)

    nan = np.full((n, 2), 9.0)
    nan[3, 1] = np.nan
    small = np.ones((1, 4, 4), np.complex64)
    return {
        "positions of NaN": (made(positions=nan), "Positions must be finite: row 3"),
        "positions transposed": (made(positions=nan.T), r"positions must be \(n, 2\)"),
        "few exposures": (made(exposure=[1, 2]), r"exposure must be \(5,\), .* got shape \(2,\)"),
        "an exposure of NaN": (
            made(exposure=[1, np.nan, 1, 1, 1]),
            "Exposures must be finite and at least 0: 1 of 5 .* first is exposure 1",
        ),
        "a negative exposure": (made(exposure=[1, 1, 1, 1, -2]), "first is exposure 4, .* -2"),
        "a negative background": (made(background=-1), "background must be .* least 0, got -1"),
        "a background of NaN": (made(background=np.nan), "background must be a number .* nan"),
        "no background": (made(background=None), "background must be a number .* None"),
        "no pixels": (made(N=0), "N must be .*, got 0"),
        "negative pixels": (made(N=-4), "N must be .*, got -4"),
        "another object": (
            given(object=case.object[1:]),
            r"object must be \(19, 17\), as the model was made for, got shape \(18, 17\)",
        ),
        "a flat object": (given(object=case.object[0]), "object must be"),
        "a probe of another N": (
            given(probe=small),
            r"probe must be \(modes, 8, 8\) for patterns of 8 x 8 pixels, got shape \(1, 4, 4\)",
        ),
        "as many pixels in another shape": (
            given(probe=np.ones((4, 4, 4), np.complex64)),
            r"probe must be \(modes, 8, 8\) .* \(4, 4, 4\)",
        ),
        "a probe without modes": (given(probe=case.probe[0]), r"probe must be \(modes, 8, 8\)"),
        "no modes": (given(probe=case.probe[:0]), r"probe must be .* got shape \(0, 8, 8\)"),
        "few patterns": (
            given(counts=case.counts[:3]),
            r"counts must be \(5, 8, 8\), one pattern for each position, got shape \(3, 8, 8\)",
        ),
        "patterns of another N": (
            given(counts=case.counts.reshape(20, 4, 4)),
            r"counts must be \(5, 8, 8\)",
        ),
        "few masks": (
            given(good=np.ones((2, N, N), bool)),
            r"good must be \(5, 8, 8\), one mask for each position, or \(1, 8, 8\), got .*2, 8, 8",
        ),
        "a flat mask": (given(good=np.ones((N, N), bool)), "good must be"),
        "a row that does not exist": (given(rows=[0, n]), "rows must be integers in 0..4: 5"),
        "a negative row": (given(rows=[-1]), "rows must be integers in 0..4: -1"),
        "half a row": (given(rows=[0.5]), "rows must be integers in 0..4"),
        "an unknown gradient": (given(wrt=("objekt",)), "wrt may name .*, but it names 'objekt'"),
        "another change": (
            lambda way: way.curvature(case, case.object[1:]),
            r"change must be \(19, 17\), .* got shape \(18, 17\)",
        ),
    }


REFUSED = refusals(make_case())


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(way: Way, what: str) -> None:
    call, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=sentence):
        call(way)
