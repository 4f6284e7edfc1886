"""The picture of a scan that grows: what is new is fitted, the rest stays as it was."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.canvas import Canvas, canvas, fast_length, place, span
from ptycho_fast.reconstruction.choice import FIRST
from ptycho_fast.reconstruction.counts import CountsOfScan, spread, unit_of
from ptycho_fast.reconstruction.deviance import expected_deviance
from ptycho_fast.reconstruction.fit import ROUGH, approach, fit, refit
from ptycho_fast.reconstruction.modes import as_modes, scaled
from ptycho_fast.reconstruction.objective import Objective, Unknowns
from ptycho_fast.reconstruction.on_device import model_on
from ptycho_fast.reconstruction.probe import start_probe
from ptycho_fast.reconstruction.result import Reconstruction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.counts import Counts
    from ptycho_fast.scan import Scan

BEGIN, BEGIN_BLIND = 36, 100
"""Patterns of which the first picture is made; the second if the probe must be found from them."""

AGAIN = 200
"""Patterns of which the first picture is made at most, and that are fitted again with new ones."""

STAGES = ((4, 10), (1, 5))
"""One in so many of these patterns is fitted, in so many iterations. That costs less than ten of
all of them, and leads farther where many are new."""

MOST_PIXELS = 2**22
"""Pixels of the new patterns of a picture. The rest is left for the next picture."""

SAMPLE = 64
"""Patterns from which the deviance of noise alone is computed."""


class LiveImage:
    """An image that is improved by the patterns that are new.

    Only the new patterns are fitted, and the 200 before them, in some iterations. The smooth prior
    expects the image so far instead of a flat one, so what these patterns do not light stays as it
    is. So a picture costs about the same however much has been measured.

    The probe of the scan is held. If there is none, it is estimated from the first hundred patterns
    and refined with each picture.

    Parameters
    ----------
    device : {"cpu", "auto", "gpu"}
    num_threads : int, optional
    probe_diameter : float, optional
        As of `ptycho_fast.reconstruct`.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        num_threads: int | None = None,
        probe_diameter: float | None = None,
    ) -> None:
        self._began = time.monotonic()
        self._device, self._threads, self._diameter = device, num_threads, probe_diameter
        self._seen = np.empty(0, np.int64)
        self._area = Canvas((0, 0), (0, 0))
        self._object = np.ones((0, 0), np.complex64)
        self._coverage = np.zeros((0, 0), np.float32)
        self._probe: NDArray[np.complex64] | None = None
        self._free: tuple[str, ...] = ("object",)
        self._unit = 1.0
        self._notes: tuple[str, ...] = ()
        self._anchor, self._first = np.zeros(2), 0
        """Where the first frame of the first picture was then, and its number."""

    def add(self, scan: Scan, numbers: NDArray[np.int64]) -> Reconstruction | None:
        """Improve the image by those patterns of a scan that it does not know yet.

        Parameters
        ----------
        scan : Scan
            All that has arrived.
        numbers : ndarray, (n,), int64
            The number of each of its frames, ascending.

        Returns
        -------
        Reconstruction or None
            None if there is nothing new, or not enough for a first picture. Its deviance is that of
            the patterns that were fitted last. Its positions may differ from those of the scan by a
            constant: where the smallest x and y define the zero, that moves as positions arrive,
            and the image stays.
        """
        fresh = numbers[~np.isin(numbers, self._seen)]
        blind = scan.probe is None
        if not len(fresh) or (
            self._probe is None and len(fresh) < (BEGIN_BLIND if blind else BEGIN)
        ):
            return None
        most = AGAIN if self._probe is None else max(AGAIN, MOST_PIXELS // scan.N**2)
        fresh = fresh[:most]
        used = np.concatenate([self._seen[-AGAIN:], fresh])
        rows = np.searchsorted(numbers, used)
        if self._probe is None:
            self._unit, self._notes = unit_of(scan)
        counts = CountsOfScan(scan, rows, self._unit).kept()
        if not counts.values.any():
            return None  # the shutter is closed
        if self._probe is None:
            self._anchor, self._first = scan.positions[rows[0]], int(used[0])
        positions = self._anchored(scan, numbers)
        self._grow(positions, scan.N)
        where = span(positions[rows], scan.N)
        where = Canvas(where.origin, (fast_length(where.shape[0]), fast_length(where.shape[1])))
        part = model_on(
            self._device, where.local(positions[rows]), where.shape, scan.N,
            num_threads=self._threads,
        )  # fmt: skip
        now = self._fitted(part, counts, where, scan)
        self._seen = np.concatenate([self._seen, fresh])
        new = part.take(np.arange(len(used) - len(fresh), len(used)))
        light = part.to_numpy(new.light(now.probe))
        self._coverage = self._coverage + place(light, self._offset(where), self._area.shape)
        size = scan.metadata.get("object_pixel_m")
        return Reconstruction(
            object=self._object,
            origin=self._area.origin,
            probe=part.to_numpy(now.probe),
            positions=positions[np.searchsorted(numbers, np.sort(self._seen))],
            coverage=self._coverage,
            deviance=self._deviance(part, counts, now),
            mu=FIRST,
            pixel_size=None if size is None else float(np.mean(size)),
            seconds=time.monotonic() - self._began,
            notes=self._notes,
        )

    def _anchored(self, scan: Scan, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the positions, moved such that those of the first picture are where they were."""
        moved = scan.positions[np.searchsorted(numbers, self._first)] - self._anchor
        anchored: NDArray[np.float64] = scan.positions - moved
        return anchored

    def _grow(self, positions: NDArray[np.float64], N: int) -> None:
        """Make the image as large as all positions need; it is 1 where nothing is known."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strays are told of at the end, once
            area = canvas(positions, N)
        if area == self._area:
            return
        before, self._area = self._area, area
        offset = self._offset(before)
        self._object = place(self._object - 1, offset, area.shape) + np.complex64(1)
        self._coverage = place(self._coverage, offset, area.shape)

    def _offset(self, where: Canvas) -> tuple[int, int]:
        return (
            where.origin[0] - self._area.origin[0],
            where.origin[1] - self._area.origin[1],
        )

    def _fitted(self, part: Any, counts: Counts, where: Canvas, scan: Scan) -> Unknowns:
        """Fit a part of the image to some counts, and put it back."""
        x, y = self._offset(where)
        image = place(self._object - 1, (-x, -y), where.shape) + np.complex64(1)
        if self._probe is not None:
            now = Unknowns(part.asarray(image), part.asarray(self._probe), part.positions)
            for every, steps in STAGES:
                rows = np.arange(0, len(counts), every)
                thin = part.take(rows)
                found = refit(
                    thin, counts.take(rows), replace(now, positions=thin.positions), FIRST / every,
                    free=self._free, steps=steps,
                )  # fmt: skip
                now = replace(found, positions=part.positions)
        else:
            if scan.probe is None:
                found, notes = start_probe(part, counts, diameter=self._diameter)
                probe = found.probe
                self._notes += notes
                self._free = ("object", "probe")
            else:
                probe = part.asarray(scaled(as_modes(scan.probe), counts))
            now = Unknowns(part.asarray(image), probe, part.positions)
            now = approach(part, counts, now, free=("object",), mu=FIRST, seed=0)
            now = fit(part, counts, now, free=self._free, mu=FIRST, tolerance=ROUGH)
        self._probe = part.to_numpy(now.probe)
        change = part.to_numpy(now.object) - image
        self._object = self._object + place(change, (x, y), self._area.shape)
        return now

    def _deviance(self, part: Any, counts: Counts, now: Unknowns) -> float:
        """Return the deviance of the patterns that were fitted, over that of noise alone."""
        rows = spread(len(counts), SAMPLE)
        some = counts.take(rows)
        expected = expected_deviance(part.intensity(now.object, now.probe, rows=rows))
        if some.good is not None:
            expected = expected * some.good
        missed = Objective(part, counts, now, free=(), mu=0.0).loss(()) / len(counts)
        return missed / max(float(expected.sum()) / len(rows), 1e-30)
