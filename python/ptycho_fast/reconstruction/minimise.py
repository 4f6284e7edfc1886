"""Minimise a function of several arrays: the L-BFGS method, preconditioned.

The arrays may be NumPy's or PyTorch's, real or complex; the code uses only what both have in
common.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Arrays: TypeAlias = tuple[Any, ...]
"""The variables, or a gradient with respect to each: ``df/dRe + i df/dIm`` of complex ones."""

HISTORY = 5
"""Number of steps that the curvature is estimated from. Ten are not better (run1084 at 1e3 and 1e6
photons a pattern)."""

ENOUGH = 1e-4
"""A step is accepted if the function falls by this fraction of what its slope promises."""

SHORTEST, SHORTEST_FIRST = 1e-3, 1e-9
"""A step is not shortened below this fraction; the first one, whose length only the preconditioner
knows, below the other. Poisson likelihoods are steep where many counts fell on pixels that hardly
any were expected on."""

WINDOW = 5
"""The last steps that show whether the function still falls."""


@dataclass(frozen=True, eq=False)
class Step:
    """Where the minimisation is after a step.

    Parameters
    ----------
    number : int
        From 1 on.
    x : tuple of array
        The variables.
    value : float
        The function.
    """

    number: int
    x: Arrays
    value: float


def minimise(
    function: Callable[[Arrays], tuple[float, Arrays]],
    start: Arrays,
    *,
    precondition: Callable[[Arrays], Arrays],
    steps: int,
    tolerance: float,
    watch: Callable[[Step], bool] | None = None,
) -> Step:
    """Minimise a function of several arrays.

    Parameters
    ----------
    function : callable
        Returns the value and the gradient at a point. One call is made per step, and one more for
        each step that has to be shortened.
    start : tuple of array
        Where to begin. The arrays are not changed.
    precondition : callable
        Multiplies a gradient with an estimate of the inverse second derivative, a positive
        definite matrix.
    steps : int
        The largest number of steps.
    tolerance : float
        The minimisation ends when the function has fallen by less than this per step, averaged
        over the last five.
    watch : callable, optional
        Called after each step; it ends the minimisation by returning True.

    Returns
    -------
    Step
        The last step.

    References
    ----------
    J. Nocedal and S. J. Wright, Numerical Optimization (2nd edition, 2006), algorithms 7.4 and 7.5.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.minimise import minimise
    >>> def bowl(x):
    ...     return float((x[0] ** 2).sum()), (2 * x[0],)
    >>> found = minimise(
    ...     bowl, (np.array([3.0]),), precondition=lambda g: g, steps=9, tolerance=1e-9
    ... )
    >>> bool(abs(found.x[0][0]) < 1e-6)
    True
    """
    value, gradient = function(start)
    now = Step(0, start, value)
    pairs: deque[tuple[Arrays, Arrays, float]] = deque(maxlen=HISTORY)
    values = deque([value], maxlen=WINDOW + 1)
    while now.number < steps:
        direction = _direction(gradient, pairs, precondition)
        slope = dot(gradient, direction)
        if not slope < 0:
            if not pairs:
                break  # the gradient is 0, or not finite
            pairs.clear()  # rounding errors have spoilt the estimate of the curvature
            continue
        size, shortest = 1.0, SHORTEST if pairs else SHORTEST_FIRST
        while True:
            x = moved(now.x, size, direction)
            value, new = function(x)
            if value <= now.value + ENOUGH * size * slope or size <= shortest:
                break
            # The minimum of the parabola through what is known, not too far from either end.
            excess = value - now.value - size * slope
            best = -slope * size**2 / (2 * excess) if math.isfinite(excess) else 0.0
            size = min(max(best, size / 10), size / 2)
        if not value <= now.value:
            if not pairs:
                break
            pairs.clear()
            continue
        change, bend = moved(x, -1, now.x), moved(new, -1, gradient)
        curved = dot(change, bend)
        if curved > 0:
            pairs.append((change, bend, curved))
        now, gradient = Step(now.number + 1, x, value), new
        values.append(value)
        if watch is not None and watch(now):
            break
        if len(values) > WINDOW and values[0] - value < WINDOW * tolerance:
            break
    return now


def dot(a: Arrays, b: Arrays) -> float:
    """Return the sum of ``Re(conj(a) b)`` over all arrays.

    Parameters
    ----------
    a, b : tuple of array

    Returns
    -------
    float
    """
    return sum(float((x.conj() * y).real.sum()) for x, y in zip(a, b, strict=True))


def moved(x: Arrays, size: float, direction: Arrays) -> Arrays:
    """Return ``x + size * direction``, each array in the precision it has.

    Parameters
    ----------
    x, direction : tuple of array
    size : float

    Returns
    -------
    tuple of array
    """
    return tuple(a + size * b for a, b in zip(x, direction, strict=True))


def _direction(
    gradient: Arrays,
    pairs: deque[tuple[Arrays, Arrays, float]],
    precondition: Callable[[Arrays], Arrays],
) -> Arrays:
    """Return where the estimated minimum lies.

    The preconditioner is not scaled to the last step, as is common: it has the right scale.
    """
    q, parts = gradient, []
    for change, bend, curved in reversed(pairs):
        part = dot(change, q) / curved
        parts.append(part)
        q = moved(q, -part, bend)
    q = precondition(q)
    for (change, bend, curved), part in zip(pairs, reversed(parts), strict=True):
        q = moved(q, part - dot(bend, q) / curved, change)
    return moved(q, -2, q)
