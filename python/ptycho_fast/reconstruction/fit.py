"""Fit the unknowns to counts: first to a few patterns of the scan, in the end to all of them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.reconstruction.light import Light
from ptycho_fast.reconstruction.minimise import minimise
from ptycho_fast.reconstruction.objective import Objective, Unknowns

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

from ptycho_fast.reconstruction.minimise import Step

KEY = 9
"""Second word of the key of that choice (docs/contract.md, section 8b)."""

THINNING = (16, 4)
"""The fit begins with one pattern in so many."""

FEWEST = 8.0
"""Patterns that light a pixel on average, below which a scan is not thinned further."""

ENOUGH = 4.0
"""With so many patterns on a pixel, a fit finds its way from a flat object. With fewer, it begins
with a strong prior, which is weakened step by step."""

COARSEST = 20
"""At first, that prior is as strong as the light for features of this many pixels."""

WEAKER = 30
"""By how much the prior is weakened in a step."""

NOTHING = 1e-4
"""Beside the light, a weight of this fraction of it is nothing."""

APPROACH = 10
"""Iterations at each weight of the prior before the last, and at each thinning."""

MOST = 200
"""Iterations that the last fit takes at most, unless more are asked for."""

REFRESH = 25
"""Iterations after which the preconditioner is computed anew, for what object and probe have become
(Siemens star, 150 iterations: deviance 1.508 instead of 1.531)."""

TOLERANCE = 4e-3
"""Iterations end when the value is expected to fall by less than this for each number that the
counts determine (`freedom`). Noise contributes about 1/2 for each. Few patterns with little overlap
need so much patience (100 simulated patterns of 1e5 photons: error 0.018 rad, with five times the
tolerance 0.030)."""

ROUGH = 2e-1
"""A tolerance that suffices to begin, to choose the weight of the prior, which changes by less than
10 %, and to compare two halves of the counts (run1084 at 1e2 to 1e6 photons a pattern)."""

REFIT = 10
"""Iterations of a fit that begins with what the prior expects."""

WINDOW = 5
"""What is still to fall is estimated from twice this number of iterations."""

SLOWEST = 0.95
"""The largest ratio that is assumed between one window and the next."""


@dataclass(frozen=True)
class Fitted:
    """Where a fit is.

    Parameters
    ----------
    unknowns : Unknowns
    mu : float
        Weight of the prior.
    loss : float
        Half the Poisson deviance of the counts that are fitted.
    patterns : int
        Number of patterns that are fitted.
    """

    unknowns: Unknowns
    mu: float
    loss: float
    patterns: int


def fit(
    model: Any,
    counts: Any,
    start: Unknowns,
    *,
    free: tuple[str, ...],
    mu: float,
    steps: int = MOST,
    tolerance: float = TOLERANCE,
    watch: Callable[[Fitted], None] | None = None,
) -> Unknowns:
    """Fit the free ones of the unknowns to counts, at one weight of the prior.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
        The counts of the model's positions.
    start : Unknowns
    free : tuple of {"object", "probe", "positions"}
    mu : float
        Weight of the prior.
    steps : int
        The largest number of iterations.
    tolerance : float
        Iterations end when the value is expected to fall by less than this for each number that
        the counts determine.
    watch : callable, optional
        Called after each iteration.

    Returns
    -------
    Unknowns
    """
    now, left = start, steps
    values: deque[float] = deque(maxlen=2 * WINDOW + 1)
    while left > 0:
        objective = Objective(model, counts, now, free=free, mu=mu)
        enough = tolerance * freedom(objective)
        if "probe" in free:
            values.clear()  # another scale of the probe weighs the prior anew

        def tell(step: Step, objective: Objective = objective, enough: float = enough) -> bool:
            if watch is not None:
                # The last point that was computed is the one that was accepted.
                at = objective.unknowns(step.x)
                watch(Fitted(at, mu, objective.last_loss, len(counts)))
            values.append(step.value)
            return len(values) > 2 * WINDOW and still_to_fall(list(values)) < enough

        round_of = min(left, REFRESH)
        found = minimise(
            objective,
            objective.x,
            precondition=objective.precondition(),
            steps=round_of,
            tolerance=0.0,
            watch=tell,
        )
        now = objective.unknowns(found.x)
        left -= round_of
        if found.number < round_of:
            break
    return now


def refit(
    model: Any,
    counts: Any,
    expected: Unknowns,
    mu: float,
    *,
    free: tuple[str, ...] = ("object",),
    steps: int = REFIT,
) -> Unknowns:
    """Fit the object anew, with a prior that expects an image instead of 0.

    The smooth prior expects 0, and so it weakens whatever is not smooth. If it expects what it has
    found, most of that bias goes, and noise is added (a Bregman iteration).

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
    expected : Unknowns
        With the image that is expected.
    mu : float
        Weight of the prior.
    free : tuple of {"object", "probe"}
    steps : int
        The number of iterations.

    Returns
    -------
    Unknowns

    References
    ----------
    S. Osher et al., "An iterative regularization method for total variation-based image
    restoration", Multiscale Modeling and Simulation 4, 460 (2005).
    """
    objective = Objective(model, counts, expected, free=free, mu=mu, expected=expected.object)
    found = minimise(
        objective, objective.x, precondition=objective.precondition(), steps=steps, tolerance=0.0
    )
    return objective.unknowns(found.x)


def still_to_fall(values: list[float]) -> float:
    """Return by how much a falling value will fall yet, if it goes on like this.

    Parameters
    ----------
    values : list of float
        An odd number of them. What each half of them fell by is taken to shrink in proportion.

    Returns
    -------
    float

    Examples
    --------
    >>> from ptycho_fast.reconstruction.fit import still_to_fall
    >>> still_to_fall([8.0, 4.0, 2.0])  # then 1, 0.5 and so on
    2.0
    """
    middle = len(values) // 2
    before, last = values[0] - values[middle], values[middle] - values[-1]
    rate = min(last / before, SLOWEST) if before > 0 else SLOWEST
    return last * rate / (1 - rate)


def freedom(objective: Objective) -> float:
    """Return how many pixels of the object the counts determine; the prior determines the others.

    Parameters
    ----------
    objective : Objective

    Returns
    -------
    float
        The number of lit pixels, times the mean over all spatial frequencies w of
        ``light / (light + mu w**3)``.
    """
    prior, light = objective.prior, objective.light
    penalty = objective.mu / light.typical * prior.frequencies**prior.POWER
    return light.pixels * float((1 / (1 + penalty)).mean())


def approach(
    model: Any,
    counts: Any,
    start: Unknowns,
    *,
    free: tuple[str, ...],
    mu: float,
    seed: int,
    watch: Callable[[Fitted], None] | None = None,
) -> Unknowns:
    """Come close to a fit from a flat object, with little work.

    Fewer patterns cost less, and a stronger prior leads around wrong turns that a fit to few
    patterns may otherwise take.

    Parameters
    ----------
    model, counts, start, free, mu, watch
        As those of `fit`.
    seed : int
        Of the choice of patterns.

    Returns
    -------
    Unknowns
    """
    light = Light.of(model, start.probe)
    now = start
    levels = [every for every in THINNING if light.overlap / every >= FEWEST] or [1]
    for level, every in enumerate(levels):
        rows = _some(len(counts), every, seed)
        part, some = (model, counts) if every == 1 else (model.take(rows), counts.take(rows))
        # The prior keeps its strength beside fewer counts.
        share = len(rows) / len(counts)
        lost = level == 0 and light.overlap < ENOUGH
        weights = weaker(light.typical, mu) if lost else [mu]
        for weight in weights:
            held = replace(now, positions=part.positions)
            found = fit(
                part, some, held, free=free, mu=weight * share,
                steps=(4 if weight == mu and every > 1 else 1) * APPROACH, tolerance=ROUGH,
                watch=_told_as(weight, watch),
            )  # fmt: skip
            now = replace(found, positions=start.positions)
    return now


def weaker(light: float, mu: float) -> list[float]:
    """Return falling weights of the prior, down to `mu`.

    Parameters
    ----------
    light : float
        Counts on a pixel of the object.
    mu : float

    Returns
    -------
    list of float

    Examples
    --------
    >>> from ptycho_fast.reconstruction.fit import weaker
    >>> [round(weight) for weight in weaker(100.0, 20.0)]
    [3225, 20]
    """
    weights = []
    weight = light / (2 * math.pi / COARSEST) ** 3
    while weight > max(math.sqrt(WEAKER) * mu, NOTHING * light):
        weights.append(weight)
        weight /= WEAKER
    return [*weights, mu]


def _some(n: int, every: int, seed: int) -> NDArray[np.intp]:
    """Return one in `every` of n patterns, drawn at random, in order."""
    numbers = np.random.Generator(np.random.Philox(key=np.array([seed, KEY], np.uint64)))
    return np.sort(numbers.permutation(n)[: -(-n // every)])


def _told_as(mu: float, watch: Callable[[Fitted], None] | None) -> Callable[[Fitted], None] | None:
    """Return a function that is told the weight that fewer patterns stand for."""
    return None if watch is None else lambda now: watch(replace(now, mu=mu))
