"""Correct the positions of a scan along with the object."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.reconstruction.minimise import minimise
from ptycho_fast.reconstruction.model import FLOOR
from ptycho_fast.reconstruction.moving import stiffness
from ptycho_fast.reconstruction.objective import Objective, Unknowns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.counts import Block
    from ptycho_fast.reconstruction.minimise import Step

BRIGHT = 0.995
"""At first, only the smallest circle on the detector is used that holds this fraction of the
counts. The dim rest holds the finest details, which are right only where positions are."""

BLURRED, SHARPER = 0.1, 1e-3
"""Least weights of the prior, as fractions of the light on the object: at first, and until
positions are right. A patch at half a pixel is the mean of its neighbours, so that parts of the
scan which are off by a whole pixel are explained better than on their way back: with fewer fine
details, they are not held there."""

STEPS = (10, 30, 30, 30)
"""Iterations of the object alone; of the positions, held as a whole; of all; with finer details."""

MOST = 100
"""Iterations with all pixels of the detector, at most."""

POOR = 3.0
"""Patterns whose deviance exceeds the median by this many times the median deviation from it may be
at wrong positions."""

ROUNDS = 3
"""Number of searches, at most, with the bright part of the detector and with all of it."""

SEARCHED = 8
"""A search moves one pattern in so many at most."""

REACH = 3.0
"""A search reaches this many times as far as the positions were moved (rms)."""

GRID = 1.0
"""Distance of the points that a search tries, in pixels."""

TRIED = 12
"""From so many of them, the best for each pattern, it goes downhill."""

SETTLING = 8
"""Number of steps downhill."""

GAIN = 5.0
"""A pattern is moved if half its deviance falls by more than this."""

TOLERANCE = 3e-4
"""Iterations end when the value falls by less than this for each pixel of the object."""

LONGEST = 1e3
"""Steps of the scan as a whole are lengthened by this factor at most, until it is about right."""

PASSES = 2
"""If the scan as a whole is found to be scaled, rotated or sheared, all begins once more from the
planned positions, corrected for that."""

SURE = 3.0
"""A scan is said to be scaled, rotated or sheared if that is this many times what chance explains.
"""

LEAST = 0.05
"""... and if it moves positions by at least so many pixels (rms)."""

BLOCK_PIXELS = 2**20
"""Pixels of patterns whose deviance is computed together."""


def refine_positions(
    model: Any,
    counts: Any,
    start: Unknowns,
    *,
    mu: float,
    free: tuple[str, ...] = ("object", "positions"),
    steps: int = MOST,
    watch: Callable[[Step, Unknowns], None] | None = None,
) -> Unknowns:
    """Fit object and positions to counts.

    Errors may be several pixels, each on its own and of the scan as a whole. The positions first
    move so that their mean stays and the scan is neither scaled, rotated nor sheared: while the
    object is still blurred, these would run away. Then they are free, and patterns that are
    explained much worse than the others are tried at other positions. Until then only the bright
    part of the detector is used; the last iterations use all of it.

    Parameters
    ----------
    model : CpuModel or TorchModel
        Its object should reach beyond all windows by as much as positions may move.
    counts : Counts or CountsOfScan
        The counts of the model's positions.
    start : Unknowns
        Best with a flat object, unless positions are almost right.
    mu : float
        Weight of the prior in the end.
    free : tuple of {"object", "probe", "positions"}
        What is varied in the last iterations. The probe is held before.
    steps : int
        The largest number of iterations with all of the detector.
    watch : callable, optional
        Called after each iteration with the step and all unknowns.

    Returns
    -------
    Unknowns

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.reconstruction.counts import Counts
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.objective import Unknowns
    >>> from ptycho_fast.reconstruction.positions import refine_positions
    >>> scan = pf.simulate_scan(n_positions=36, N=16, photons=1e5, seed=0)
    >>> wrong = scan.positions + np.random.default_rng(0).normal(0, 0.3, (36, 2))
    >>> model = CpuModel(wrong, scan.object.shape, 16)
    >>> probe = np.sqrt(scan.metadata["photon_scale"]) * scan.probe[np.newaxis]
    >>> start = Unknowns(np.ones_like(scan.object), probe.astype(np.complex64), wrong)
    >>> found = refine_positions(model, Counts(scan.diffraction**2), start, mu=1.0)
    >>> found.positions.shape
    (36, 2)
    """
    inner = _Within(counts, _bright(counts, model.N))
    typical = _typical(model, start.probe)
    blurred, sharper = (max(mu, fraction * typical) for fraction in (BLURRED, SHARPER))
    now = start

    def fit(some: Any, what: tuple[str, ...], weight: float, most: int, *, affine: float) -> None:
        nonlocal now
        before = model.moved(now.positions)
        objective = Objective(before, some, now, free=what, mu=weight, affine=affine)

        def tell(step: Step) -> bool:
            if watch is not None:
                watch(step, objective.unknowns(step.x))
            return False

        found = minimise(
            objective,
            objective.x,
            precondition=objective.precondition(),
            steps=most,
            tolerance=TOLERANCE * math.prod(model.shape),
            watch=tell,
        )
        now = objective.unknowns(found.x)

    both = ("object", "positions")
    planned = start.positions
    for _ in range(PASSES):
        now = replace(start, positions=planned)
        fit(inner, ("object",), blurred, STEPS[0], affine=0)
        fit(inner, both, blurred, STEPS[1], affine=0)
        fit(inner, both, blurred, STEPS[2], affine=LONGEST)
        fit(inner, both, sharper, STEPS[3], affine=LONGEST)
        for _ in range(ROUNDS):
            found = search(model.moved(now.positions), inner, now, planned, sharper)
            if found is now:
                break
            now = found
            fit(inner, both, sharper, STEPS[3], affine=1)
        whole = separate(planned, now.positions)
        if not whole.certain:
            break
        planned = whole.applied(planned)
    fit(counts, free, mu, steps, affine=1)
    for _ in range(ROUNDS):
        found = search(model.moved(now.positions), counts, now, planned, mu)
        if found is now:
            break
        now = found
        fit(counts, free, mu, STEPS[3], affine=1)
    return now


def search(
    model: Any, counts: Any, now: Unknowns, planned: NDArray[np.float64], mu: float
) -> Unknowns:
    """Try other positions for the patterns that are explained worst.

    They are compared with an object that the other patterns show.

    Parameters
    ----------
    model : CpuModel or TorchModel
        At the positions of `now`.
    counts : Counts or CountsOfScan
    now : Unknowns
    planned : ndarray, (n, 2), float64
        Where the positions were at first. Those of the other patterns say how the scan as a whole
        has moved since, and how far positions may be from there.
    mu : float
        Weight of the prior.

    Returns
    -------
    Unknowns
        `now` itself if there was nothing to move.
    """
    deviance = _deviances(model, counts, now)
    middle = float(np.median(deviance))
    usual = middle + POOR * float(np.median(np.abs(deviance - middle)))
    worst = np.argsort(-deviance, kind="stable")[: max(1, len(deviance) // SEARCHED)]
    worst = np.sort(worst[deviance[worst] > usual])
    rest = np.setdiff1d(np.arange(len(deviance)), worst)
    if len(worst) == 0 or len(rest) < 3:
        return now
    whole = separate(planned[rest], now.positions[rest])
    reach = REACH * whole.rest
    if reach < GRID:
        return now
    others = Objective(
        model.take(rest),
        counts.take(rest),
        replace(now, positions=now.positions[rest]),
        free=("object",),
        mu=mu,
    )
    shown = minimise(
        others, others.x, precondition=others.precondition(), steps=STEPS[0], tolerance=0.0
    )
    seen = replace(now, object=shown.x[0])
    part, some = model.take(worst), counts.take(worst)
    here, missed_here = _settled(part, some, seen, now.positions[worst])
    best, least = here, missed_here
    for tried in _promising(part, some, seen, whole.applied(planned[worst]), reach):
        settled, missed = _settled(part, some, seen, tried)
        best = np.where((missed < least)[:, np.newaxis], settled, best)
        least = np.minimum(missed, least)
    moved = missed_here - least > GAIN
    if not moved.any():
        return now
    positions = now.positions.copy()
    positions[worst[moved]] = best[moved]
    return replace(now, positions=positions)


def _promising(
    model: Any, counts: Any, seen: Unknowns, centre: NDArray[np.float64], reach: float
) -> NDArray[np.float64]:
    """Return the points of a grid that explain each pattern best, (TRIED, n, 2)."""
    steps = np.arange(-int(reach / GRID), int(reach / GRID) + 1) * GRID
    shifts = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    shifts = shifts[np.hypot(*shifts.T) <= reach]
    missed = np.stack([_deviances(model.moved(centre + shift), counts, seen) for shift in shifts])
    best = np.argsort(missed, axis=0, kind="stable")[:TRIED]
    promising: NDArray[np.float64] = centre + shifts[best]
    return promising


def _settled(
    model: Any, counts: Any, seen: Unknowns, positions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move each pattern downhill under a fixed object: an edge holds it within 0.01 pixels.

    Returns
    -------
    positions : ndarray, (n, 2), float64
    missed : ndarray, (n,), float64
        Half the Poisson deviance of each pattern there.
    """
    least = _deviances(model.moved(positions), counts, seen)
    stiff = stiffness(model.moved(positions), seen.object, seen.probe)
    size = np.ones((len(positions), 1))
    for _ in range(SETTLING):
        there = model.moved(positions)
        objective = Objective(
            there, counts, replace(seen, positions=positions), free=("positions",), mu=0.0
        )
        (slope,) = objective(objective.x)[1]
        step = slope / stiff
        tried = positions - size * np.clip(step, -GRID, GRID)
        missed = _deviances(model.moved(tried), counts, seen)
        better = (missed < least)[:, np.newaxis]
        positions = np.where(better, tried, positions)
        least = np.minimum(missed, least)
        size = np.where(better, 1.0, size / 4)
    return positions, least


@dataclass(frozen=True)
class Displacement:
    """How positions moved: the scan as a whole, and what is left.

    A position p becomes ``R S (p - c) + c + shift``, with the mean c of the positions, a rotation R
    and ``S = [[scale_x, shear * scale_y], [0, scale_y]]``.

    Parameters
    ----------
    shift : (float, float)
        Along x and y, in pixels.
    scale : (float, float)
        Along x and y.
    rotation : float
        In degrees, from x towards y.
    shear : float
        Displacement along x per pixel in y.
    rest : float
        Root mean square, in pixels, of the distances that are left.
    certain : bool
        Whether scale, rotation or shear are more than the rest explains by chance.
    centre : (float, float)
        Mean of the positions before.
    """

    shift: tuple[float, float]
    scale: tuple[float, float]
    rotation: float
    shear: float
    rest: float
    certain: bool
    centre: tuple[float, float]

    def applied(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move positions as the scan moved as a whole.

        Parameters
        ----------
        positions : ndarray, (n, 2), float64

        Returns
        -------
        ndarray, (n, 2), float64
        """
        turn = math.radians(self.rotation)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        stretch = np.array([[self.scale[0], self.shear * self.scale[1]], [0, self.scale[1]]])
        moved: NDArray[np.float64] = (positions - self.centre) @ (rotation @ stretch).T
        return moved + self.centre + self.shift

    def text(self) -> str:
        """Return a sentence or two for users."""
        told = f"Positions were corrected by {self.rest:.2g} pixels (rms)"
        if not self.certain:
            return f"{told}."
        x, y = self.scale
        return (
            f"{told}, after the scan as a whole was scaled by {x:.4f} in x and {y:.4f} in y, "
            f"rotated by {self.rotation:.2f} degrees and sheared by {self.shear:.4f}. If this "
            "comes back in other scans, correct the calibration of the stage or the pixel size."
        )


def separate(planned: NDArray[np.float64], refined: NDArray[np.float64]) -> Displacement:
    """Separate what happened to a scan as a whole from what happened to single positions.

    Parameters
    ----------
    planned, refined : ndarray, (n, 2), float64
        Positions before and after, x and y in pixels.

    Returns
    -------
    Displacement
        The affine map from the one to the other with the least squared distances.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.positions import separate
    >>> planned = np.random.default_rng(0).uniform(0, 100, (50, 2))
    >>> found = separate(planned, 1.02 * planned + 3)
    >>> [round(scale, 4) for scale in found.scale], round(found.rotation, 4), round(found.rest, 4)
    ([1.02, 1.02], 0.0, 0.0)
    """
    centre = planned.mean(axis=0)
    spread, moved = planned - centre, refined - planned
    shift = moved.mean(axis=0)
    # Of a scan along a line this finds the part that its positions determine.
    change, _, rank, _ = np.linalg.lstsq(spread, moved - shift, rcond=1e-9)
    left = moved - shift - spread @ change
    (a, b), (c, d) = np.eye(2) + change.T
    scale_x = math.hypot(a, c)
    turn = math.atan2(c, a)
    scale_y = float(d * math.cos(turn) - b * math.sin(turn))
    along = float(b * math.cos(turn) + d * math.sin(turn))
    # Chance alone moves the singular values of the fit, times its matrix, by the rest.
    by_chance = float(np.sqrt((left**2).sum() / max(2 * len(left) - 2 * rank - 2, 1)))
    effect = float(np.sqrt(((spread @ change) ** 2).sum()))
    certain = effect > SURE * by_chance * math.sqrt(2 * rank) and effect > LEAST * math.sqrt(
        len(left)
    )
    return Displacement(
        (float(shift[0]), float(shift[1])),
        (scale_x, scale_y),
        math.degrees(turn),
        along / scale_y if scale_y else 0.0,
        float(np.sqrt((left**2).sum(axis=1).mean())),
        bool(certain),
        (float(centre[0]), float(centre[1])),
    )


class _Within:
    """Counts, of which only a part of the detector is used."""

    def __init__(self, counts: Any, part: NDArray[np.bool_]) -> None:
        self._counts, self._part = counts, part

    def __len__(self) -> int:
        return len(self._counts)

    def blocks(self) -> Iterator[Block]:
        for some, counts, good in self._counts.blocks():
            yield some, counts, self._part if good is None else good & self._part

    def take(self, rows: NDArray[np.integer[Any]]) -> _Within:
        return _Within(self._counts.take(rows), self._part)


def _bright(counts: Any, N: int) -> NDArray[np.bool_]:
    """Return the smallest circle about frequency 0 that holds most of the counts, (1, N, N)."""
    total = np.zeros((N, N))
    for _, values, good in counts.blocks():
        total += (values if good is None else values * good).sum(axis=0, dtype=np.float64)
    axis = np.arange(N) - N // 2
    radius = np.hypot(axis[:, np.newaxis], axis)
    order = np.argsort(radius, axis=None, kind="stable")
    held = np.cumsum(total.ravel()[order])
    last = order[min(int(np.searchsorted(held, BRIGHT * held[-1])), N * N - 1)]
    inside: NDArray[np.bool_] = (radius <= radius.ravel()[last])[np.newaxis]
    return inside


def _typical(model: Any, probe: Any) -> float:
    """Return the median of the light on the pixels of the object that are lit."""
    light = model.to_numpy(model.light(probe))
    return float(np.median(light[light > 0.1 * light.max()]))


def _deviances(model: Any, counts: Any, now: Unknowns) -> NDArray[np.float64]:
    """Return half the Poisson deviance of each pattern."""
    found = np.empty(len(counts))
    size = max(1, BLOCK_PIXELS // model.N**2)
    for some, values, good in counts.blocks():
        for first in range(some.start, some.stop, size):
            rows = slice(first, min(first + size, some.stop))
            inside = slice(rows.start - some.start, rows.stop - some.start)
            part = model.take(rows)
            expected = model.to_numpy(part.intensity(now.object, now.probe)) + np.float32(FLOOR)
            k = values[inside]
            each = expected - k + k * np.log(np.maximum(k, np.float32(1e-30)) / expected)
            if good is not None:
                each *= good[inside] if len(good) > 1 else good
            found[rows] = each.sum(axis=(1, 2), dtype=np.float64)
    return found
