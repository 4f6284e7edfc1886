"""What held-out counts say: how strong the prior should be, and whether the probe is right."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.reconstruction.fit import ROUGH, approach, fit, refit
from ptycho_fast.reconstruction.objective import Objective, Unknowns

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.fit import Fitted

logger = logging.getLogger("ptycho_fast")

HELD_OUT = 0.1
"""Each count is held out with this probability."""

KEY = 7
"""Second word of the key of the random split (docs/contract.md, section 8b)."""

FIRST = 12.0
"""The first weight of the prior that is tried. It is the best one within a factor of 4 for run1084
at any number of photons, and within 6 for the gold balls and the Siemens star."""

FACTOR = math.sqrt(10)
"""Between weights that are tried."""

LIGHTEST, HEAVIEST = 1e-3, 1e6
"""Weights beyond these are not tried."""

STEPS = 15
"""Iterations at each weight but the first."""

PROBE_STEPS = 15
"""Iterations with a free probe, before it is compared with the given one."""

ENOUGH_COUNTS, ENOUGH_PIXELS = 1e8, 2**21
"""The choice is made from a region of the scan with so many counts, or pixels of patterns."""

FEWEST_COUNTS, MOST_PIXELS = 3e5, 2**23
"""The region has at least so many counts, as long as that is not more pixels than these."""

FEWEST = 100
"""The region has at least so many patterns."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen, and the fit to the counts that were not held out.

    Parameters
    ----------
    mu : float
        Weight of the prior.
    refine_probe : bool
        Whether a refined probe explains the held-out counts better.
    unknowns : Unknowns
        The fit at about that weight.
    gain : float, optional
        By how much half the deviance of the held-out counts falls if a fit expects the image of the
        learned prior instead of that of the smooth one, where that was asked for.
    """

    mu: float
    refine_probe: bool
    unknowns: Unknowns
    gain: float | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """A fit with a weight of the prior.

    Parameters
    ----------
    mu : float
        The weight.
    missed : float
        Half the Poisson deviance of the held-out counts.
    unknowns : Unknowns
        The fit.
    """

    mu: float
    missed: float
    unknowns: Unknowns


def region(positions: NDArray[np.float64], counts: float, N: int) -> NDArray[np.intp]:
    """Return the patterns from which the choice is made: those nearest to the middle of the scan.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
    counts : float
        Mean number of counts in a pattern.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    ndarray, (k,), int
        In ascending order.
    """
    counts = max(counts, 1e-30)
    dim = min(FEWEST_COUNTS / counts, MOST_PIXELS / N**2)
    most = math.ceil(max(FEWEST, dim, min(ENOUGH_COUNTS / counts, ENOUGH_PIXELS / N**2)))
    away = np.abs(positions - np.median(positions, axis=0)).max(axis=1)
    return np.sort(np.argsort(away, kind="stable")[:most])


def choose(
    model: Any,
    counts: Any,
    start: Unknowns,
    *,
    probe: str,
    mu: float | None,
    seed: int,
    improve: Callable[[Any, Any, Unknowns, float], Unknowns] | None = None,
    watch: Callable[[Fitted], None] | None = None,
) -> Choice:
    """Choose the weight of the prior, and whether to refine the probe.

    One count in ten is held out. What is fitted to the others predicts those, the better the closer
    it is to the truth: too little prior fits noise, too much misses structure.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts
        The counts of the model's positions.
    start : Unknowns
        With the scale of all counts.
    probe : {"auto", "fixed", "refine"}
    mu : float, optional
        A weight that is not to be chosen.
    seed : int
    improve : callable, optional
        The learned prior: it improves a fit, from the model, the counts, the fit and the weight of
        the smooth prior. The choice tells what is gained by it.
    watch : callable, optional
        Called after each iteration.

    Returns
    -------
    Choice
        Its unknowns have the scale of all counts again.
    """
    kept, held = counts.split(HELD_OUT, (seed, KEY))
    scale = math.sqrt(1 - HELD_OUT)

    def missed(now: Unknowns) -> float:
        """Half the deviance of the held-out counts, as the fit to the others predicts them."""
        probe = now.probe * math.sqrt(HELD_OUT / (1 - HELD_OUT))
        return Objective(model, held, replace(now, probe=probe), free=(), mu=0.0).loss(())

    def tell(now: Fitted) -> None:
        if watch is not None:
            watch(replace(now, unknowns=replace(now.unknowns, probe=now.unknowns.probe / scale)))

    now = replace(start, probe=start.probe * scale)
    free: tuple[str, ...] = ("object",) if probe != "refine" else ("object", "probe")
    first = FIRST if mu is None else mu
    now = approach(model, kept, now, free=("object",), mu=first, seed=seed, watch=tell)
    now = fit(model, kept, now, free=("object",), mu=first, tolerance=ROUGH, watch=tell)
    best = missed(now)
    if probe != "fixed":
        refined = fit(
            model, kept, now, free=("object", "probe"), mu=first, steps=PROBE_STEPS, watch=tell
        )
        other = missed(refined)
        logger.info("held-out half deviance: probe as given %.6g, refined %.6g", best, other)
        if probe == "refine" or other < best:
            free = ("object", "probe")
            # Weights can only be compared where the fit has found the probe.
            now = fit(model, kept, refined, free=free, mu=first, tolerance=ROUGH, watch=tell)
            best = missed(now)
    if mu is not None:
        return Choice(mu, "probe" in free, replace(now, probe=now.probe / scale))

    def tried(weight: float, origin: Unknowns) -> Trial:
        found = fit(model, kept, origin, free=free, mu=weight, steps=STEPS, watch=tell)
        value = missed(found)
        logger.info("held-out half deviance: %.8g at mu = %.4g", value, weight)
        return Trial(weight, value, found)

    trials = descend(tried, Trial(first, best, now))
    best_trial = min(trials, key=lambda trial: trial.missed)
    now, gain = best_trial.unknowns, None
    if improve is not None:
        # The image of the learned prior leaves out what can't be known, that of the smooth one
        # contains noise. So fits that expect either are compared, not the images.
        weight = best_trial.mu
        learned = improve(model, kept, now, weight)
        fits = (refit(model, kept, expected, weight) for expected in (now, learned))
        without, with_it = map(missed, fits)
        gain = without - with_it
        logger.info("held-out half deviance: lower by %.6g with the learned prior", gain)
    now = replace(now, probe=now.probe / scale)
    return Choice(lowest(trials), "probe" in free, now, gain)


def descend(tried: Callable[[float, Unknowns], Trial], first: Trial) -> list[Trial]:
    """Try lighter or heavier weights as long as they explain the held-out counts better.

    An unfinished fit improves with every iteration, whatever the weight. So two weights are
    compared after the same number of iterations from the same point.

    Parameters
    ----------
    tried : callable
        Fits with a weight, from a point.
    first : Trial

    Returns
    -------
    list of Trial
        The weights around the best one: at most one of each.
    """
    now = tried(first.mu, first.unknowns)
    trials = [now]
    for direction in (1 / FACTOR, FACTOR):
        origin = first.unknowns
        while LIGHTEST < now.mu * direction < HEAVIEST:
            other = tried(now.mu * direction, origin)
            trials.append(other)
            if other.missed >= now.missed:
                break
            origin = other.unknowns
            trials = [now, tried(other.mu, origin)]
            now = trials[-1]
        if now.mu != first.mu:
            break  # it falls on this side, so it rises on the other
    return sorted(trials, key=lambda trial: trial.mu)


def lowest(trials: list[Trial]) -> float:
    """Return where a parabola through the lowest value and its neighbours is lowest.

    The values are taken as a function of the logarithm of the weight.

    Parameters
    ----------
    trials : list of Trial
        In ascending order of their weights.

    Returns
    -------
    float
    """
    values = [trial.missed for trial in trials]
    i = values.index(min(values))
    if not 0 < i < len(trials) - 1:
        return trials[i].mu
    left, middle, right = values[i - 1 : i + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return trials[i].mu * math.exp(shift * math.log(FACTOR))
