"""What a reconstruction minimises: how badly the counts are explained, plus the prior's penalty."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.reconstruction.light import Light
from ptycho_fast.reconstruction.moving import Moving
from ptycho_fast.reconstruction.precondition import ObjectPreconditioner
from ptycho_fast.reconstruction.prior import SmoothPrior

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.minimise import Arrays

DIMMEST = 0.2
"""Added to the object's intensity under the probe, as a fraction of its maximum, where steps of the
probe are divided by it."""


@dataclass(frozen=True, eq=False)
class Unknowns:
    """What is reconstructed, or held.

    Parameters
    ----------
    object : array, (H, W), complex64
        On the canvas of the scan.
    probe : array, (modes, N, N), complex64
        Scaled to counts.
    positions : ndarray, (n, 2), float64
        x and y in pixels of the canvas.
    """

    object: Any
    probe: Any
    positions: NDArray[np.float64]


class Objective:
    """Half the Poisson deviance of the counts, plus mu times the penalty of the prior.

    A brighter probe with a darker object explains counts as well, and would have a smaller
    penalty. So the penalty is multiplied by the probe's energy, as a fraction of what it was at
    first: then nothing is gained by that.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
        The counts of the model's positions.
    start : Unknowns
    free : tuple of {"object", "probe", "positions"}
        What is varied; the rest is held.
    mu : float
        Weight of the prior.
    expected : array, (H, W), complex64, optional
        The object that the prior expects: its penalty is that of the difference. 0 by default.
    affine : float
        0 holds shift, scale, rotation and shear of the positions as a whole, if the steps are those
        of `precondition`; more than 1 lengthens such steps (`Moving`).
    """

    def __init__(
        self,
        model: Any,
        counts: Any,
        start: Unknowns,
        *,
        free: tuple[str, ...],
        mu: float,
        expected: Any = None,
        affine: float = 1.0,
    ) -> None:
        self.expected, self.affine = expected, affine
        self.model, self.counts, self.start, self.free, self.mu = model, counts, start, free, mu
        self.prior = SmoothPrior(model.shape, model)
        self.last_loss = math.nan
        """Half the Poisson deviance where it was computed last."""
        self._energy = _energy(start.probe)

    @property
    def x(self) -> Arrays:
        """The free variables at the start."""
        return tuple(getattr(self.start, name) for name in self.free)

    @functools.cached_property
    def light(self) -> Light:
        """The light on the object at the start."""
        return Light.of(self.model, self.start.probe)

    def unknowns(self, x: Arrays) -> Unknowns:
        """Return all unknowns for values of the free ones."""
        return replace(self.start, **dict(zip(self.free, x, strict=True)))

    def loss(self, x: Arrays) -> float:
        """Return half the Poisson deviance of the counts, without the penalty."""
        return self._likelihood(self.unknowns(x), ())[0]

    def __call__(self, x: Arrays) -> tuple[float, Arrays]:
        """Return the value and its gradient."""
        now = self.unknowns(x)
        value, found = self._likelihood(now, self.free)
        self.last_loss = value
        growth = _energy(now.probe) / self._energy
        expected = 0 if self.expected is None else self.expected
        penalty, slope = self.prior(now.object - expected)
        value += self.mu * growth * penalty
        if "object" in found:
            found["object"] = found["object"] + self.mu * growth * slope
        if "probe" in found:
            found["probe"] = found["probe"] + (2 * self.mu * penalty / self._energy) * now.probe
        return value, tuple(found[name] for name in self.free)

    def _likelihood(self, now: Unknowns, wrt: tuple[str, ...]) -> tuple[float, dict[str, Any]]:
        model = self.model
        if now.positions is not self.start.positions:
            model = model.moved(now.positions)
        loss, found = 0.0, {}
        for some, counts, good in self.counts.blocks():
            whole = some == slice(0, len(self.counts))
            part = model if whole else model.take(some)
            made = part.gradient(counts, good, now.object, now.probe, wrt=wrt)
            loss += made.loss
            for name in wrt:
                value = getattr(made, name)
                if name not in found:
                    found[name] = [value] if name == "positions" else value
                elif name == "positions":
                    found[name].append(value)
                else:
                    found[name] = found[name] + value
        if "positions" in found:
            found["positions"] = np.concatenate(found["positions"])
        return loss, found

    def precondition(self) -> Callable[[Arrays], Arrays]:
        """Return a multiplication by an estimate of the inverse second derivative.

        For the probe, the second derivative is about twice the object's intensity under each of
        its pixels. For the object see `ObjectPreconditioner`, for the positions `Moving`.
        """
        made: dict[str, Callable[[Any], Any]] = {}
        model, object, probe = self.model, self.start.object, self.start.probe
        if "object" in self.free:
            made["object"] = ObjectPreconditioner(model, self.prior, self.mu, self.light, object)
        if "probe" in self.free:
            density = model.density(object)
            per_pixel = 2 * (density + DIMMEST * float(density.max()))
            made["probe"] = lambda gradient: gradient / per_pixel
        moving = None
        if "positions" in self.free:
            moving = Moving(model.moved(self.start.positions), object, probe, affine=self.affine)

        def precondition(gradients: Arrays) -> Arrays:
            given = dict(zip(self.free, gradients, strict=True))
            steps = {name: made[name](given[name]) for name in given if name in made}
            if moving is not None:
                steps["positions"] = moving.step(given.get("object"), given["positions"])
                if "object" in steps:
                    steps["object"] = steps["object"] + moving.carried(steps["positions"])
            return tuple(steps[name] for name in self.free)

        return precondition


def _energy(probe: Any) -> float:
    return float((probe.real * probe.real + probe.imag * probe.imag).sum())
