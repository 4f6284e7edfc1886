"""Whether error bars and the weight of the prior are right, on scans whose true object is known.

``python benches/calibration.py`` prints three tables. The first has the share of pixels whose true
error lies within one standard deviation, as ``uncertainty=8`` states it; it should be 0.68. The
second compares the error of the image with the smallest one at any weight of the prior. Its rows
are those of ``reconstruct.py`` that have a true object. Their cells list the seeds (noise and
splits). The third asks whether the Fourier ring correlation of two halves tells the truth.

``--quick`` uses one small simulated scan. Rows whose file is missing are left out.
"""

from __future__ import annotations

import argparse
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from reconstruct import CASES, DATA, RIVALS, STAR, Case, generator, read, split
from rivals_reconstruct import RIVALS as ENGINES
from rivals_reconstruct import Job

import ptycho_fast as pf
from ptycho_fast.canvas import place
from ptycho_fast.metrics import (
    align,
    first_crossing,
    fourier_ring_correlation,
    scan_mask,
    score,
)
from ptycho_fast.reconstruction.counts import Counts
from ptycho_fast.reconstruction.cpu import CpuModel
from ptycho_fast.reconstruction.fit import fit
from ptycho_fast.reconstruction.objective import Unknowns
from ptycho_fast.reconstruction.resolution import SHOWN, lit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PHOTONS = (1e3, 1e4, 1e6)

ROWS = [case for case in CASES if case.file != STAR and not case.withheld and not case.moved]
"""Those of ``reconstruct.py`` with a true object, the probe, and the right positions."""

SIMULATED = 22
"""Second word of the key of the counts of the simulated star; the first is the seed."""

FACTOR = 2.0
"""Between weights of the prior."""

STEPS = 100
"""Iterations at each weight."""

Known = tuple[pf.Scan, pf.Scan]
"""What is reconstructed, and the true object with the positions that the mask follows from."""


def simulated(photons: float, seed: int, *, quick: bool) -> Known:
    """Return a simulated scan without and with its true object."""
    n, N = (150, 32) if quick else (400, 64)
    scan = pf.simulate_scan(n_positions=n, N=N, photons=photons, seed=seed)
    return pf.Scan(scan.positions, scan.diffraction, probe=scan.probe), scan


def shipped(case: Case, data: Path, seed: int) -> Known:
    """Return a scan of a file without and with its true object."""
    truth = read(case, data, seed, quick=False)
    amplitudes = np.sqrt(truth.counts.astype(np.float32))
    return pf.Scan(truth.positions, amplitudes, probe=truth.scan.probe), truth.scan


def brightness(photons: float) -> str:
    """Return a power of ten as words."""
    return f"1e{round(math.log10(photons))} photons"


def within(known: Known, seed: int) -> tuple[float, float]:
    """Return the share of pixels whose phase and modulus are right within a standard deviation."""
    told, scan = known
    assert scan.object is not None
    image: Any = pf.reconstruct(told, uncertainty=8, seed=seed)

    shape = (scan.object.shape[0], scan.object.shape[1])

    def placed(values: NDArray[Any]) -> NDArray[Any]:
        return place(values, image.origin, shape)

    mask = scan_mask(shape, scan.positions, scan.N)
    aligned = align(placed(image.object), scan.object, mask)
    phase = np.angle(aligned.image * scan.object.conj())
    modulus = (np.abs(aligned.image) - np.abs(scan.object)) / abs(aligned.factor)
    return (
        float(np.mean(np.abs(phase) < placed(image.phase_sigma), where=mask)),
        float(np.mean(np.abs(modulus) < placed(image.amplitude_sigma), where=mask)),
    )


def errors(known: Known, seed: int) -> tuple[float, float, float, float]:
    """Return the chosen weight and the error with it, and the best weight and the error with it."""
    told, scan = known
    assert scan.object is not None
    image: Any = pf.reconstruct(told, seed=seed)
    local = told.positions - np.array(image.origin)
    model = CpuModel(local, image.object.shape, told.N)
    counts = Counts(np.square(told.diffraction[:], dtype=np.float32))

    truth = scan.object
    shape = (truth.shape[0], truth.shape[1])

    def error(found: NDArray[np.complex64]) -> float:
        placed = place(found, image.origin, shape)
        return score(placed, truth, scan.positions, scan.N).phase_rmse

    first = Unknowns(image.object, image.probe.reshape(-1, told.N, told.N), local)
    chosen = error(image.object)
    best = (chosen, image.mu)
    for factor in (1 / FACTOR, FACTOR):
        now, mu, least = first, image.mu, chosen
        while True:
            mu *= factor
            now = fit(model, counts, now, free=("object",), mu=mu, steps=STEPS)
            found = error(now.object)
            best = min(best, (found, mu))
            if found >= least:
                break
            least = found
    return image.mu, chosen, best[1], best[0]


def bars(cases: list[tuple[str, Callable[[int], Known]]], seeds: int) -> None:
    """Print the table of the error bars."""
    print("| scan | phase within its error bar | modulus |\n|---|---|---|")
    for name, make in cases:
        found = np.array([within(make(seed), seed) for seed in range(seeds)])
        phase, modulus = (" ".join(f"{share:.3f}" for share in column) for column in found.T)
        print(f"| {name} | {phase} | {modulus} |", flush=True)


def weights(cases: list[tuple[str, Callable[[int], Known]]], seeds: int) -> None:
    """Print the table of the weights of the prior."""
    print("| scan | mu | best mu | phase RMSE, rad | best | ratio |\n|---|---|---|---|---|---|")
    for name, make in cases:
        found = np.array([errors(make(seed), seed) for seed in range(seeds)])
        mu, chosen, best_mu, best = found.T
        columns = [
            (mu, ".3g"),
            (best_mu, ".3g"),
            (chosen, ".4f"),
            (best, ".4f"),
            (chosen / best, ".2f"),
        ]
        cells = (" ".join(format(value, how) for value in values) for values, how in columns)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def halves(data: Path) -> None:
    """Print what the correlation of two halves says of a simulated star, and what is true.

    Our image of the measured star is the true object of the simulation. Half the counts have the
    same noise in each half. So if the halves correlate by C, each correlates with the truth by the
    root of C, unless both are wrong alike.
    """
    case = next(case for case in CASES if case.file == STAR and not case.withheld)
    measured = read(case, data, 0, quick=False)
    amplitudes = np.sqrt(measured.counts.astype(np.float32))
    scan = pf.Scan(measured.positions, amplitudes, probe=measured.scan.probe)
    image: Any = pf.reconstruct(scan, probe="refine")
    seen = lit(image.coverage, SHOWN)
    truth = np.where(seen, image.object, image.object[seen].mean())
    local = scan.positions - np.array(image.origin)
    model = CpuModel(local, truth.shape, scan.N)
    mean = model.intensity(truth, image.probe.reshape(-1, scan.N, scan.N)).astype(np.float64)
    counts = generator(0, SIMULATED).poisson(mean * (measured.counts.sum() / mean.sum()))
    mask = scan_mask(truth.shape, local, scan.N)
    print("| Siemens star, simulated | FRC of halves 1/2 | true | at 0.3 | true |")
    print("|---|---|---|---|---|")
    for rival in ("reconstruct", "30 passes with momentum", "ePIE, 30 passes"):
        engine, options = RIVALS[rival]
        images = []
        for part in ("a", "b"):
            half = split(counts, part, 0)[0].astype(np.float32)
            scale = measured.scale * np.sqrt(half.sum() / measured.counts.sum())
            job = Job(half, local, truth.shape, measured.scan.probe, scale, True, False, 0)
            images.append(ENGINES[engine](job, **options).object)
        pairs = [(images[0], images[1]), (images[0], truth), (images[1], truth)]
        rings = [
            fourier_ring_correlation(align(*pair, mask).image, pair[1], mask) for pair in pairs
        ]
        frequencies, told = rings[0]
        true = rings[1][1] * rings[2][1]
        place_of = int(np.abs(frequencies / 2 - 0.3).argmin())
        cells = [
            f"{first_crossing(frequencies, told) / 2:.3f} cycles a pixel",
            f"{first_crossing(frequencies, true) / 2:.3f}",
            f"{told[place_of]:.3f}",
            f"{true[place_of]:.3f}",
        ]
        print(f"| {rival} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--table", choices=("bars", "mu", "frc"), help="by default all")
    parser.add_argument("--case", default="", help="rows whose name contains this")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["PTYCHO_FAST_NUM_THREADS"] = str(arguments.threads)
    quick, data = arguments.quick, arguments.data
    seeds = 1 if quick else arguments.seeds
    if not quick and (
        missing := sorted({case.file for case in ROWS if not (data / case.file).exists()})
    ):
        print(f"Left out, since {data} does not hold them: {', '.join(missing)}.")

    def rows(cases: list[Case]) -> list[tuple[str, Callable[[int], Known]]]:
        there = [case for case in cases if not quick and (data / case.file).exists()]
        return [(case.name, partial(shipped, case, data)) for case in there]

    made = [
        (f"simulated, {brightness(photons)}", partial(simulated, photons, quick=quick))
        for photons in ((1e4,) if quick else PHOTONS)
    ]
    bright = [Case(f"run1084, {brightness(photons)}", photons=photons) for photons in PHOTONS]
    tables = {"bars": (bars, rows(bright) + made), "mu": (weights, rows(ROWS) + made[:1] * quick)}
    for name, (show, cases) in tables.items():
        if arguments.table in (None, name):
            show([row for row in cases if arguments.case in row[0]], seeds)
            print()
    if arguments.table in (None, "frc") and not quick and (data / STAR).exists():
        halves(data)


if __name__ == "__main__":
    main()
