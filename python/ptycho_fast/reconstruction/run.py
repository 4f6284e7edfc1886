"""The course of a reconstruction, from the scan to the result."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.canvas import Canvas, canvas, fast_length, place, span
from ptycho_fast.checks import as_object
from ptycho_fast.memory import available
from ptycho_fast.notices import warn
from ptycho_fast.reconstruction.choice import FIRST, choose, region
from ptycho_fast.reconstruction.counts import Counts, CountsOfScan, counts_of, spread
from ptycho_fast.reconstruction.deviance import expected_deviance
from ptycho_fast.reconstruction.fit import (
    COARSEST,
    MOST,
    REFRESH,
    ROUGH,
    Fitted,
    approach,
    fit,
)
from ptycho_fast.reconstruction.history import Step
from ptycho_fast.reconstruction.light import Light
from ptycho_fast.reconstruction.modes import as_modes, orthogonal_modes, scaled, with_modes
from ptycho_fast.reconstruction.objective import Objective, Unknowns
from ptycho_fast.reconstruction.on_device import model_on
from ptycho_fast.reconstruction.positions import refine_positions, separate
from ptycho_fast.reconstruction.prior import SmoothPrior
from ptycho_fast.reconstruction.probe import start_probe
from ptycho_fast.reconstruction.progress import Progress
from ptycho_fast.reconstruction.resolution import ring_correlation
from ptycho_fast.reconstruction.result import Reconstruction
from ptycho_fast.reconstruction.uncertainty import posterior_sigma

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.reconstruction.resolution import Resolution
    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

HALVES_KEY = 8
"""Second word of the key that splits the counts in halves (docs/contract.md, section 8b)."""

ARRAYS = 25
"""About so many complex arrays of the size of the object are held at a time."""

SAMPLE_PIXELS = 2**19
"""Pixels of patterns from which the deviance of noise alone is computed."""

CLEAR = 10.0
"""Corrected positions are clearly better if they gain this many times what chance would."""

FEW = 1.5
"""Patterns that light a pixel on average, below which users are warned."""

SHARES = (0.4, 0.4, 0.2)
"""About how long the choice, the fit to all counts, and the halves take, as fractions."""


class Run:
    """A reconstruction: its parts are called one after another.

    Parameters
    ----------
    scan : Scan
    seed : int
    device : str
    num_threads : int, optional
    progress : callable, optional
        Called after each iteration with a `Progress`.
    margin : int
        Pixels around the canvas of the scan, for positions that move.
    """

    def __init__(
        self,
        scan: Scan,
        *,
        seed: int,
        device: str,
        num_threads: int | None,
        progress: Callable[[Progress], None] | None,
        margin: int = 0,
    ) -> None:
        self._began = time.monotonic()
        self.scan, self.seed, self.progress = scan, seed, progress
        self.notes: list[str] = []
        self.history: list[Step] = []
        self.positions = scan.positions
        whole = canvas(scan.positions, scan.N)
        self.canvas = Canvas(
            (whole.origin[0] - margin, whole.origin[1] - margin),
            (whole.shape[0] + 2 * margin, whole.shape[1] + 2 * margin),
        )
        self._check_memory()
        self.model = model_on(
            device,
            self.canvas.local(scan.positions),
            self.canvas.shape,
            scan.N,
            num_threads=num_threads,
        )
        self._planned = self.model.positions
        self.counts, notes = counts_of(scan)
        self.notes += notes
        self.best: tuple[Unknowns, Canvas] | None = None
        """The image so far, and where it lies."""
        self.given_modes = 1 if scan.probe is None else len(as_modes(scan.probe))
        self.resolution: Resolution | None = None
        self.sigmas: tuple[Any, Any] = (None, None)
        self._coverage = np.zeros(self.canvas.shape, np.float32)
        self.mu = 0.0
        self.prior = "smooth"
        """Which prior the image has."""
        self._improve: Callable[[Any, Any, Unknowns, float], Unknowns] | None = None
        """What the learned prior does to a fit, if it is used."""
        self._moving: tuple[str, ...] = ()
        """Positions, if they are corrected until the end."""
        self._stage = 0
        self._missed = math.nan
        """Half the deviance of a pattern, on average, at the last iteration."""

    def _check_memory(self) -> None:
        height, width = self.canvas.shape
        needed = ARRAYS * 8 * height * width
        if needed > available():
            msg = (
                f"To reconstruct {width} x {height} pixels takes about {needed / 1e9:.3g} GB of "
                f"memory, but {available() / 1e9:.3g} GB are free. Reconstruct a part of the scan, "
                "or use a machine with more memory."
            )
            raise MemoryError(msg)

    # --- the parts --------------------------------------------------------------------------------

    def start(
        self, object: ArrayLike | None, *, modes: int, diameter: float | None, fixed: bool
    ) -> None:
        """Set the object and the probe to begin with."""
        rows = region(self.model.positions, self._mean_counts(), self.scan.N)
        self.region = rows
        self.part = self.counts.take(rows).kept()
        if not self.part.values.any():
            msg = (
                f"The {len(rows)} patterns in the middle of the scan are zero, so there is nothing "
                "to reconstruct."
            )
            raise ValueError(msg)
        flat = np.ones(self.canvas.shape, np.complex64)
        image = flat if object is None else self._as_image(object)
        if self.scan.probe is None:
            if fixed:
                msg = "The scan has no probe, so it can't be fixed. Pass probe='auto'."
                raise ValueError(msg)
            found, notes = start_probe(self.model, self.counts, diameter=diameter)
            self.notes += notes
            probe = self.model.to_numpy(found.probe)
        else:
            probe = scaled(as_modes(self.scan.probe), self.part)
        modes = max(modes, len(probe))
        self.unknowns = Unknowns(
            self.model.asarray(image),
            self.model.asarray(with_modes(probe, modes) if modes > len(probe) else probe),
            self.model.positions,
        )
        light = Light.of(self.model, self.unknowns.probe)
        self._coverage = self.model.to_numpy(light.map)
        if light.overlap < FEW:
            self._warn(
                f"The patterns hardly overlap: a pixel of the object is lit by {light.overlap:.2f} "
                f"patterns on average, and {FEW} or more are needed for a reliable image. The "
                "prior decides much of what it shows. Scan in smaller steps, or with a larger beam."
            )

    def move(self) -> None:
        """Correct the positions along with the object, if that explains the counts better."""
        self._expect(self.model, self.part, None)
        watch, n = self._watch(self.canvas), len(self.scan)

        def tell(step: Any, unknowns: Unknowns) -> None:
            watch(Fitted(unknowns, FIRST, step.value, n))

        def missed(now: Unknowns) -> float:
            model = self.model.moved(now.positions)
            return Objective(model, self.counts, now, free=(), mu=0.0).loss(())

        found = refine_positions(self.model, self.counts, self.unknowns, mu=FIRST, watch=tell)
        # From the same object: a few iterations if that is clear, or with as little left to gain.
        fixed = replace(found, positions=self.model.positions)
        explained = missed(found)
        for steps in (REFRESH, MOST):
            fixed = fit(
                self.model, self.counts, fixed,
                free=("object",), mu=FIRST, steps=steps, tolerance=1e-2, watch=watch,
            )  # fmt: skip
            gain = missed(fixed) - explained
            if gain > CLEAR * found.positions.size:
                break
        # Schwarz's criterion (Annals of Statistics 6, 461, 1978) for two numbers a pattern.
        chance = found.positions.size * max(1.0, 0.5 * math.log(max(self._mean_counts(), 1.0)))
        if gain <= chance:
            self.unknowns = fixed
            self.notes.append(
                "The positions were kept as given: corrected ones explain the counts no better "
                f"than chance would (half the deviance falls by {gain:.4g}; {chance:.4g} would "
                "count)."
            )
            return
        self.notes.append(separate(self.model.positions, found.positions).text())
        self._moving = ("positions",)
        self._move_to(found)

    def _move_to(self, found: Unknowns) -> None:
        if found.positions is self.model.positions:
            self.unknowns = found
            return
        self.model = self.model.moved(found.positions)
        self.unknowns = replace(found, positions=self.model.positions)
        self.positions = self._absolute(found.positions)

    def choose(self, probe: str, prior: str) -> None:
        """Choose the prior and its weight, and whether to refine the probe."""
        if prior in {"learned", "auto"}:
            try:
                from ptycho_fast.reconstruction.learned import improve  # noqa: PLC0415
            except ImportError as error:
                self._warn(f"{error}. The smooth prior is used instead.")
                prior = "smooth"
            else:
                self._improve = improve
        where = self._region_canvas()
        part = self._part(where)
        start = replace(
            self.unknowns,
            object=self._placed(self.unknowns.object, self.canvas, where),
            positions=part.positions,
        )
        if self.scan.probe is None:
            probe = "refine"
        self._expect(part, self.part, None)
        watch = self._watch(where)
        chosen = choose(
            part, self.part, start,
            probe=probe, mu=0.0 if prior == "none" else None, seed=self.seed,
            improve=self._improve if prior == "auto" else None, watch=watch,
        )  # fmt: skip
        self.mu, self.prior = chosen.mu, "none" if prior == "none" else "smooth"
        if chosen.gain is not None:
            better, other = "learned", "smooth"
            if chosen.gain <= 0:
                better, other, self._improve = other, better, None
            self.notes.append(
                f"The {better} prior was chosen: a fit that expects its image explains counts that "
                f"were held out better than one that expects the image of the {other} prior (half "
                f"the deviance is lower by {abs(chosen.gain):.4g})."
            )
        self._free = ("object", "probe") if chosen.refine_probe else ("object",)
        self._expect(part, self.part, chosen.unknowns)
        logger.info("mu = %.4g, refined: %s", self.mu, ", ".join(self._free))
        everything = len(self.region) == len(self.scan)
        self.unknowns = Unknowns(
            self._placed(chosen.unknowns.object, where, self.canvas)
            if everything
            else self.unknowns.object,
            chosen.unknowns.probe,
            self.unknowns.positions,
        )
        self._begun = everything
        self.best = (chosen.unknowns, where)

    def finish(self, steps: int) -> None:
        """Fit the unknowns to all counts."""
        self._stage = 1
        watch = self._watch(self.canvas)
        if not self._begun:
            self.unknowns = approach(
                self.model, self.counts, self.unknowns,
                free=self._free, mu=self.mu, seed=self.seed, watch=watch,
            )  # fmt: skip
        found = fit(
            self.model, self.counts, self.unknowns,
            free=self._free + self._moving, mu=self.mu, steps=steps, watch=watch,
        )  # fmt: skip
        self._move_to(found)
        before = self._missed
        if self._improve is not None:
            self.unknowns = self._improve(self.model, self.counts, self.unknowns, self.mu)
            loss = Objective(self.model, self.counts, self.unknowns, free=(), mu=0.0).loss(())
            self.prior = "learned"
            watch(Fitted(self.unknowns, self.mu, loss, len(self.counts)))
        self.best = (self.unknowns, self.canvas)
        self._expect(self.model, self.counts, self.unknowns)
        if self.prior == "learned":
            self.notes.append(
                f"The smooth prior alone has a deviance of {before / self._expected:.4g}, part of "
                "which is fitted noise. The learned prior leaves out what the counts do not tell."
            )

    def judge(self, samples: int) -> None:
        """Estimate the resolution and, if samples are asked for, the uncertainty."""
        self._stage = 2
        where = self._region_canvas()
        part = self._part(where)
        # Both halves start with coarse features alone: finer ones would agree from the start.
        image = self._placed(self.unknowns.object, self.canvas, where)
        blurred = SmoothPrior(where.shape, part).smoothed(image, (COARSEST / (2 * math.pi)) ** 3)
        images = []
        for half in self.part.split(0.5, (self.seed, HALVES_KEY)):
            start = Unknowns(blurred, self.unknowns.probe * math.sqrt(0.5), part.positions)
            found = fit(part, half, start, free=("object",), mu=self.mu, tolerance=ROUGH)
            if self._improve is not None:
                found = self._improve(part, half, found, self.mu)
            images.append(self.model.to_numpy(found.object))
        light = self.model.to_numpy(part.light(self.unknowns.probe))
        try:
            first, second = images
            self.resolution = ring_correlation(first, second, light, pixel_size=self._pixel_size())
        except ValueError as error:
            self.notes.append(f"The resolution is not known: {error}")
        if len(self.region) < len(self.scan):
            self.notes.append(
                f"The strength of the prior and the resolution were determined from the "
                f"{len(self.region)} patterns in the middle of the scan, of {len(self.scan)}."
            )
        if samples:
            self.sigmas = posterior_sigma(
                self.model, self.counts, self.unknowns, self.mu, samples=samples, seed=self.seed
            )

    def result(self) -> Reconstruction:
        """Return what there is."""
        assert self.best is not None
        unknowns, where = self.best
        image = self.model.to_numpy(self._placed(unknowns.object, where, self.canvas))
        probe = self.model.to_numpy(unknowns.probe)
        # An interrupted fit may have moved the positions, or hold those of a few patterns.
        moved = where == self.canvas and len(unknowns.positions) == len(self.scan)
        changed = moved and unknowns.positions is not self.model.positions
        model = self.model.moved(unknowns.positions) if changed else self.model
        light = model.to_numpy(model.light(unknowns.probe)).astype(np.float64)
        # The object's mean intensity is 1 where there is light, and its mean phase 0.
        weight = light / light.sum()
        size = math.sqrt(float((weight * np.abs(image) ** 2).sum()))
        turn = np.exp(-1j * np.angle((weight * image).sum())) / size
        image = (image * turn).astype(np.complex64)
        if len(probe) > 1:
            probe = orthogonal_modes(probe)
        phase_sigma, amplitude_sigma = self.sigmas
        return Reconstruction(
            object=image,
            origin=self.canvas.origin,
            probe=(probe * size).astype(np.complex64),
            positions=self._absolute(model.positions),
            coverage=light.astype(np.float32),
            # Beside the noise of all patterns, which is computed once they are fitted.
            deviance=self._missed / self._expected,
            mu=self.mu,
            prior=self.prior,
            pixel_size=self._pixel_size(),
            phase_sigma=phase_sigma,
            amplitude_sigma=None if amplitude_sigma is None else amplitude_sigma / np.float32(size),
            resolution=self.resolution,
            history=tuple(self.history),
            seconds=time.monotonic() - self._began,
            notes=tuple(self.notes),
        )

    # --- what the parts share ---------------------------------------------------------------------

    def _absolute(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions on the canvas as positions of the scan."""
        if positions is self._planned:
            return self.scan.positions  # to the bit
        return positions + np.array(self.canvas.origin, np.float64)

    def _mean_counts(self) -> float:
        """Return the mean number of counts in a pattern, from some of them."""
        n = len(self.scan)
        rows = spread(n, 64)
        values: NDArray[np.float32] = self.counts.take(rows).kept().values
        return float(values.sum(dtype=np.float64)) / len(rows)

    def _region_canvas(self) -> Canvas:
        """Return a canvas of the region whose Fourier transforms are fast."""
        where = span(self.positions[self.region], self.scan.N)
        return Canvas(where.origin, (fast_length(where.shape[0]), fast_length(where.shape[1])))

    def _part(self, where: Canvas) -> Any:
        """Return the model of the region, on its own canvas."""
        part = self.model.take(self.region)
        part.shape = where.shape
        return part.moved(where.local(self.positions[self.region]))

    def _placed(self, image: Any, origin: Canvas, target: Canvas) -> Any:
        """Return an image on another canvas; it is 1 where there is nothing to place."""
        offset = (origin.origin[0] - target.origin[0], origin.origin[1] - target.origin[1])
        values = self.model.to_numpy(image)
        there = place(np.ones(values.shape, np.bool_), offset, target.shape)
        return self.model.asarray(
            np.where(there, place(values, offset, target.shape), 1).astype(np.complex64)
        )

    def _as_image(self, object: ArrayLike) -> NDArray[np.complex64]:
        image = as_object(object)
        if image.shape != self.canvas.shape:
            msg = (
                f"object has shape {image.shape}, but the canvas of the scan is "
                f"{self.canvas.shape}. Use ptycho_fast.canvas.place to bring it there."
            )
            raise ValueError(msg)
        if not np.isfinite(image).all():
            bad = np.count_nonzero(~np.isfinite(image))
            msg = f"object must be finite: {bad} of its {image.size} pixels are NaN or infinite."
            raise ValueError(msg)
        if not image.any():
            msg = "object is 0 everywhere, which no iteration changes. Begin with ones instead."
            raise ValueError(msg)
        return image

    def _pixel_size(self) -> float | None:
        """Return the side of a pixel of the object in metres, if the file says."""
        size = self.scan.metadata.get("object_pixel_m")
        return None if size is None else float(np.mean(size))

    def _warn(self, sentence: str) -> None:
        self.notes.append(sentence)
        warn(sentence)

    # --- progress ---------------------------------------------------------------------------------

    def _expect(self, model: Any, counts: Counts | CountsOfScan, unknowns: Unknowns | None) -> None:
        """Compute the deviance of noise alone, from the model or, at first, from mean counts."""
        n = len(counts)
        rows = spread(n, SAMPLE_PIXELS // self.scan.N**2)
        some = counts.take(rows).kept()
        if unknowns is None:
            mean = some.values.mean(axis=0, dtype=np.float64)
            intensity = np.broadcast_to(mean, some.values.shape)
        else:
            intensity = model.intensity(unknowns.object, unknowns.probe, rows=rows)
        expected = expected_deviance(intensity)
        if some.good is not None:
            expected = expected * some.good
        self._expected = max(float(expected.sum()) / len(rows), 1e-30)

    def _watch(self, where: Canvas) -> Callable[[Fitted], None]:
        """Return what is called after each iteration of a fit on a canvas."""
        began, seen = sum(SHARES[: self._stage]), 0

        def watch(now: Fitted) -> None:
            nonlocal seen
            seen += 1
            self.best = (now.unknowns, where)
            self._missed = now.loss / now.patterns
            deviance = self._missed / self._expected
            self.history.append(Step(len(self.history) + 1, now.mu, deviance))
            if self.progress is None:
                return
            # Nobody knows how many iterations there will be.
            fraction = began + SHARES[self._stage] * (1 - math.exp(-seen / 50))
            elapsed = time.monotonic() - self._began

            def image() -> NDArray[np.complex64]:
                placed = self._placed(now.unknowns.object, where, self.canvas)
                made: NDArray[np.complex64] = self.model.to_numpy(placed)
                return made

            self.progress(
                Progress(
                    iteration=len(self.history),
                    fraction=fraction,
                    deviance=deviance,
                    remaining=elapsed * (1 / fraction - 1),
                    coverage=self._coverage,
                    origin=self.canvas.origin,
                    place=image,
                )
            )

        return watch
