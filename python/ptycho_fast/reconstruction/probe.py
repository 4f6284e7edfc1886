"""A probe to start from where a file has none."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.canvas import Canvas, place, span
from ptycho_fast.reconstruction.minimise import minimise
from ptycho_fast.reconstruction.objective import Objective, Unknowns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.counts import Counts, CountsOfScan

logger = logging.getLogger("ptycho_fast")

RATIO = 1.3
"""Between the defocus of one candidate and the next. A defocus that is wrong by a sixth still leads
to the solution soon (run1084, Siemens star)."""

TELLING = 0.12
"""A defocus that spreads the probe by less than this, as a fraction of N, is not tried."""

TRIAL = 10
"""Steps that show how well a candidate does."""

ROUNDS = ((4, 10), (2, 20))
"""How many of the best candidates go on, and the number of steps that each of them takes."""

STEPS, SPELLS, GAIN = 30, 4, 0.03
"""Steps from the best candidate, so many times at most: as long as the deviance falls by this
fraction."""

POOR = 2.0
"""If the deviance per pixel is larger than this, candidates with other aberrations are tried. It is
about 1 where a model is right, and less where counts are few."""

PIXELS = 2**19
"""Pixels of the patterns that are used, together."""

FEWEST = 36
"""Patterns that are used, even if they have more pixels together."""

MOST = 4096
"""Patterns that are used at most."""

APART = 0.25
"""Distance between the patterns that are used, as a fraction of the diameter of the probe. Denser
patterns cover less of the object, and many more steps are needed."""

TRIAL_PHOTONS, PHOTONS = 1e5, 2e6
"""Counts that are needed to compare candidates, and for the last steps. The probe and object of
run1084 have 1e5 unknowns together."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """A phase of the far field, where it has led so far, and the deviance per pixel there."""

    phase: NDArray[np.float64]
    state: Unknowns
    deviance: float = math.inf


def start_probe(
    model: Any,
    counts: Counts | CountsOfScan,
    *,
    diameter: float | None = None,
    mu: float = 30.0,
) -> tuple[Unknowns, tuple[str, ...]]:
    """Find a probe, and an object, from the counts alone.

    The mean of all patterns is about the intensity of the probe in the far field. Its phase there
    is unknown, but that of most probes is nearly a parabola: they are in focus, or out of it. So
    probes with several such phases are tried on some of the patterns: each, and an object that is 1
    at first, take some steps of the minimisation. The best go on.

    The probe is centred on its centre of mass, which fixes where the object lies: counts do not
    tell. Nor do they tell which phase ramp belongs to the probe and which to the object.

    Parameters
    ----------
    model : CpuModel or TorchModel
    counts : Counts or CountsOfScan
        The counts of the model's positions. Some hundred patterns are used, or as many as are
        needed for two million photons.
    diameter : float, optional
        Diameter of the probe in pixels of the object, if it is known: that of a disc of the same
        area. It saves half of the time, and need not be exact.
    mu : float
        Weight of the smooth prior.

    Returns
    -------
    Unknowns
        An object on the model's canvas, reconstructed where the patterns that were used lie, and a
        constant elsewhere; a probe of one mode, scaled to counts; the model's positions.
    tuple of str
        What was assumed, in sentences.

    Raises
    ------
    ValueError
        If the diameter is not within 0..N, if counts and positions differ in number, or if nothing
        was counted.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.reconstruction.counts import Counts
    >>> from ptycho_fast.reconstruction.cpu import CpuModel
    >>> from ptycho_fast.reconstruction.probe import probe_diameter, start_probe
    >>> scan = pf.simulate_scan(n_positions=60, N=16, trajectory="spiral", seed=0)
    >>> model = CpuModel(scan.positions, scan.object.shape, scan.N)
    >>> found, notes = start_probe(model, Counts(scan.diffraction**2))
    >>> found.probe.shape, abs(probe_diameter(found.probe) / probe_diameter(scan.probe) - 1) < 0.1
    ((1, 16, 16), True)
    """
    diameter = _as_diameter(diameter, model.N)
    if len(counts) != len(model.positions):
        msg = (
            f"Each position needs a pattern, but there are {len(model.positions)} positions and "
            f"counts of {len(counts)} patterns. Pass the counts of the model's positions."
        )
        raise ValueError(msg)
    mean = mean_pattern(model, counts)
    if not mean.sum() > 0:
        msg = (
            "A probe cannot be found from patterns in which nothing was counted above the "
            f"background of {model.background:g} counts per pixel. Are they the right ones?"
        )
        raise ValueError(msg)
    photons = float(mean.sum() * model.exposure.mean())
    focus = probe_diameter(_probe(mean, np.zeros_like(mean)))
    rows = _rows(model, 2 * APART * focus, TRIAL_PHOTONS / photons)
    phases = _parabolas(mean, focus, diameter)
    bench = _Bench(model, counts, rows, mean, mu)
    best = _race(bench, phases)
    last = _finished(model, counts, photons, best, mu)
    tried = len(phases)
    if last.deviance > POOR:
        more = _saddles(mean)
        other = _finished(model, counts, photons, _race(bench, more), mu)
        last, tried = min(last, other, key=lambda t: t.deviance), tried + len(more)
    wide = probe_diameter(model.to_numpy(last.state.probe))
    return last.state, (_note(wide, tried, last.deviance),)


def mean_pattern(model: Any, counts: Counts | CountsOfScan) -> NDArray[np.float64]:
    """Return the mean of all patterns at exposure 1, without the background.

    A pixel that no pattern measured gets the mean of its surroundings.

    Parameters
    ----------
    model : CpuModel or TorchModel
        Knows the exposures and the background.
    counts : Counts or CountsOfScan

    Returns
    -------
    ndarray, (N, N), float64
    """
    total, seen = np.zeros((model.N, model.N)), np.zeros((model.N, model.N))
    for some, values, good in counts.blocks():
        used = np.ones((1, 1, 1), np.bool_) if good is None else good
        exposure = model.exposure[some, np.newaxis, np.newaxis]
        total += np.where(used, values - np.float32(model.background), 0).sum(0, np.float64)
        seen += (exposure * used).sum(axis=0)
    measured = seen > 0
    mean = np.where(measured, total / np.where(measured, seen, 1), 0)
    mean = np.maximum(mean, 0)
    frequency = np.hypot(np.fft.fftfreq(model.N)[:, np.newaxis], np.fft.fftfreq(model.N))
    width = 1.0
    while not measured.all() and width < model.N:
        blur = np.exp(-2 * (math.pi * width * frequency) ** 2)
        near = np.fft.ifft2(blur * np.fft.fft2([mean * measured, measured])).real
        known = near[1] > 0.01
        mean = np.where(measured | ~known, mean, near[0] / np.where(known, near[1], 1))
        mean = np.maximum(mean, 0)
        measured, width = measured | known, 2 * width
    return mean


def probe_diameter(probe: NDArray[np.complexfloating[Any, Any]]) -> float:
    """Return the diameter of a probe: that of a disc of the same area.

    The area of an intensity I is ``(sum I)**2 / sum(I**2)``.

    Parameters
    ----------
    probe : ndarray, (modes, N, N) or (N, N), complex

    Returns
    -------
    float
        In pixels.
    """
    intensity = np.abs(np.asarray(probe, np.complex128)) ** 2
    intensity = intensity.reshape(-1, *intensity.shape[-2:]).sum(axis=0)
    return 2 * float(intensity.sum() / math.sqrt(math.pi * (intensity**2).sum()))


class _Bench:
    """Some patterns of a scan, on which candidates are tried."""

    def __init__(
        self,
        model: Any,
        counts: Counts | CountsOfScan,
        rows: NDArray[np.int64],
        mean: NDArray[np.float64],
        mu: float,
    ) -> None:
        self.model = model.take(rows)
        self.area: Canvas = span(self.model.positions, model.N)
        self.model.positions = self.area.local(self.model.positions)
        self.model.shape = self.area.shape
        self.counts = counts.take(rows).kept()
        self._mean, self._mu = mean, mu
        good = self.counts.good
        self._pixels = self.counts.values.size * (1.0 if good is None else float(good.mean()))

    def start(self, phase: NDArray[np.float64]) -> _Trial:
        """Return the probe with this phase in the far field, and an object that is 1."""
        return self.again(phase, self.model.asarray(_probe(self._mean, phase)[np.newaxis]))

    def again(self, phase: NDArray[np.float64], probe: Any) -> _Trial:
        """Return a probe, and an object that is 1."""
        image = self.model.asarray(np.ones(self.model.shape, np.complex64))
        return _Trial(phase, Unknowns(image, probe, self.model.positions))

    def go_on(self, trial: _Trial, steps: int) -> _Trial:
        """Take some steps of the minimisation."""
        objective = Objective(
            self.model, self.counts, trial.state, free=("object", "probe"), mu=self._mu
        )
        last = minimise(
            objective, objective.x, precondition=objective.precondition(), steps=steps, tolerance=0
        )
        deviance = 2 * objective.loss(last.x) / self._pixels
        return _Trial(trial.phase, objective.unknowns(last.x), deviance)


def _race(bench: _Bench, phases: list[NDArray[np.float64]]) -> _Trial:
    """Return the best of several candidates, and where it has led."""
    trials = [bench.go_on(bench.start(phase), TRIAL) for phase in phases]
    trials.sort(key=lambda t: t.deviance)
    # What is best often lies between two of them.
    middle = (trials[0].phase + trials[1].phase) / 2
    trials.append(bench.go_on(bench.start(middle), TRIAL))
    for kept, steps in ROUNDS:
        trials.sort(key=lambda t: t.deviance)
        logger.debug(
            "start_probe: %d patterns, deviance %s",
            len(bench.counts),
            ", ".join(f"{trial.deviance:.4g}" for trial in trials),
        )
        trials = [bench.go_on(trial, steps) for trial in trials[:kept]]
    return min(trials, key=lambda t: t.deviance)


def _finished(
    model: Any, counts: Counts | CountsOfScan, photons: float, best: _Trial, mu: float
) -> _Trial:
    """Go on with the best candidate, on patterns that suit its diameter; return it on the canvas.

    Object and probe are scaled so that the mean of ``|O|**2``, weighted by the light, is 1.
    """
    probe = best.state.probe
    rows = _rows(model, APART * probe_diameter(model.to_numpy(probe)), PHOTONS / photons)
    bench = _Bench(model, counts, rows, best.phase, mu)
    last = bench.again(best.phase, probe)
    for _ in range(SPELLS):
        before, last = last.deviance, bench.go_on(last, STEPS)
        if last.deviance > (1 - GAIN) * before:
            break
    image, probe = (model.to_numpy(each) for each in (last.state.object, last.state.probe))
    light = model.to_numpy(bench.model.light(last.state.probe)).astype(np.float64)
    scale = np.float32(math.sqrt((light * np.abs(image) ** 2).sum() / light.sum()))
    image, probe = image / scale, probe * scale
    elsewhere = (light * image).sum() / light.sum()
    area = bench.area
    whole = np.where(
        place(np.ones(area.shape, np.bool_), area.origin, model.shape),
        place(image, area.origin, model.shape),
        elsewhere.astype(np.complex64),
    )
    state = Unknowns(model.asarray(whole), model.asarray(probe), model.positions)
    return _Trial(best.phase, state, last.deviance)


def _rows(model: Any, apart: float, least: float) -> NDArray[np.int64]:
    """Return patterns that are this far apart, around the middle of the scan.

    At least `least` are returned, closer together if need be.
    """
    least = min(math.ceil(least), MOST, len(model.positions))
    most = min(max(least, FEWEST, PIXELS // model.N**2), MOST)
    while True:
        rows = _spread(model.positions, apart, most)
        if len(rows) >= least:
            return rows
        apart = apart / RATIO if apart > 0.01 else -1.0  # some are at the same place


def _spread(positions: NDArray[np.float64], apart: float, most: int) -> NDArray[np.int64]:
    away = ((positions - positions.mean(axis=0)) ** 2).sum(axis=1)
    order = np.argsort(away, kind="stable")
    points = positions[order]
    free = np.ones(len(points), np.bool_)
    taken: list[int] = []
    for i in range(len(points)):
        if free[i]:
            taken.append(int(order[i]))
            if len(taken) == most:
                break
            free &= ((points - points[i]) ** 2).sum(axis=1) > apart * abs(apart)
    return np.sort(np.array(taken, np.int64))


def _probe(mean: NDArray[np.float64], phase: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return the probe of this intensity and phase in the far field, about its centre of mass."""
    N = len(mean)
    far = np.sqrt(mean) * np.exp(1j * phase)
    intensity = np.abs(_to_sample(far)) ** 2
    axis = np.arange(N) - N // 2
    turn = np.exp(2j * math.pi * axis / N)
    # The mean on a circle, because a window has no ends.
    x, y = (np.angle((intensity.sum(axis=a) * turn).sum()) for a in (0, 1))
    centred: NDArray[np.complex64] = _to_sample(
        far * np.exp(1j * (x * axis + y * axis[:, np.newaxis]))
    ).astype(np.complex64)
    return centred


def _to_sample(far: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(far), norm="ortho"))


def _unit(mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the far field, so that the phase ``x**2 + y**2`` spreads the probe by 1.

    The phase moves a ray at frequency q by ``N / (2 pi) * d(phase)/dq`` pixels. Spread by 1 is a
    disc of diameter 1, if the far field is a disc: twice the root of 2 times the rms distance.
    """
    N = len(mean)
    axis = np.arange(N) - N // 2
    x = axis - (mean.sum(axis=0) @ axis) / mean.sum()
    y = axis - (mean.sum(axis=1) @ axis) / mean.sum()
    rms = math.sqrt((mean * (x**2 + y[:, np.newaxis] ** 2)).sum() / mean.sum())
    size = math.sqrt(math.pi / (2 * math.sqrt(2) * N * max(rms, 0.5)))
    return size * x, size * y[:, np.newaxis]


def _parabolas(
    mean: NDArray[np.float64], focus: float, diameter: float | None
) -> list[NDArray[np.float64]]:
    """Return the phases of a probe in focus, and out of focus to either side."""
    x, y = _unit(mean)
    if diameter is None:
        least = max(focus, TELLING * len(mean))
        rungs = max(1, math.ceil(math.log(len(mean) / least, RATIO)))
        spreads = [len(mean) / RATIO**rung for rung in range(rungs)]
    else:
        spread = math.sqrt(max(diameter**2 - focus**2, (focus / 2) ** 2))
        spreads = [spread * RATIO**0.5, spread / RATIO**0.5]
    return [0 * x * y] + [sign * s * (x**2 + y**2) for s in spreads for sign in (-1, 1)]


def _saddles(mean: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return phases of astigmatism, along the axes and along the diagonals."""
    x, y = _unit(mean)
    spreads = [len(mean) / 2, len(mean) / 4]
    kinds = (x**2 - y**2, 2 * x * y)
    return [sign * s * kind for s in spreads for kind in kinds for sign in (-1, 1)]


def _as_diameter(diameter: float | None, N: int) -> float | None:
    if diameter is None:
        return None
    if not 0 < diameter <= N:
        msg = (
            f"The diameter of the probe must be more than 0 and at most N={N} pixels of the "
            f"object, got {diameter!r}. In metres, divide it by the size of a pixel."
        )
        raise ValueError(msg)
    return float(diameter)


def _note(diameter: float, tried: int, deviance: float) -> str:
    note = (
        f"The probe was not known. It was started from the mean pattern, with the best of {tried} "
        f"phases in the far field, and is about {diameter:.3g} pixels wide. Where the object lies "
        "was assumed, and so was its phase ramp."
    )
    if deviance > POOR:
        note += (
            f" It explains the counts badly (deviance per pixel {deviance:.3g}, where noise alone "
            "gives about 1): pass a probe, or its diameter."
        )
    return note
