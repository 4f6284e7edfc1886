"""How a reconstruction went, iteration by iteration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A line of the history of a reconstruction.

    Parameters
    ----------
    iteration : int
        Number of the iteration, from 1.
    mu : float
        Weight of the penalty.
    deviance : float
        Poisson deviance of the counts that were fitted, divided by what noise alone would give.
    held_out : float, optional
        The same of the counts that were held out, where some were.
    """

    iteration: int
    mu: float
    deviance: float
    held_out: float | None = None


STEP = ("iteration", "mu", "deviance", "held_out")
"""The fields of a step."""
