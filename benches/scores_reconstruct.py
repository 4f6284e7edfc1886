"""How the images of ``benches/reconstruct.py`` are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf
from ptycho_fast.canvas import place
from ptycho_fast.metrics import score

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rivals_reconstruct import Found, Job

FLOOR = 1e-6
"""Counts added to every expected count, as in the contract."""


def score_found(
    images: dict[str, tuple[Found, tuple[int, int], Job]],
    scan: pf.Scan,
    positions: NDArray[np.float64],
    held_out: tuple[NDArray[np.int64], float] | None,
) -> dict[str, float]:
    """Return the scores of what a rival found.

    Parameters
    ----------
    images : dict
        What was found from each part of the counts, the origin of its canvas, and the job.
    scan : Scan
        The true object (or a reference), and the positions that the mask follows from.
    positions : ndarray, (n, 2), float64
        The true positions of the patterns.
    held_out : (ndarray, float), optional
        Counts that were not used, and their share of all counts.
    """
    assert scan.object is not None
    shape = (scan.object.shape[0], scan.object.shape[1])
    placed = {
        part: place(np.asarray(found.object, np.complex64), origin, shape)
        for part, (found, origin, _) in images.items()
    }
    first = next(iter(images))
    found, origin, job = images[first]
    scores = score(placed[first], scan.object, scan.positions, scan.N)
    if held_out is None:
        result = {
            "phase_rmse": scores.phase_rmse,
            "amplitude_correlation": scores.amplitude_correlation,
            "twin": scores.twin.phase_rmse if scores.twin else np.nan,
        }
    else:
        a, b = placed["a"], placed["b"]
        counts, share = held_out
        result = {
            "phase_correlation": scores.phase_correlation,
            "amplitude_correlation": scores.amplitude_correlation,
            "frc": score(a, b, scan.positions, scan.N).frc,
            "deviance": deviance(counts, found, job, share / (1 - share)),
        }
    if found.positions is not None and job.refine_positions:
        errors = found.positions + np.array(origin) - positions
        result["positions"] = float(np.sqrt(np.mean(np.sum((errors - errors.mean(0)) ** 2, 1))))
    return result


def deviance(counts: NDArray[np.int64], found: Found, job: Job, factor: float) -> float:
    """Return the Poisson deviance of held-out counts, divided by their number.

    Engines differ in how they move by fractions of a pixel: the object is interpolated, or the
    probe is moved by a phase ramp. The patterns are predicted in both ways, and the better one
    counts.
    """
    where = job.positions if found.positions is None else found.positions
    ways: list[float] = []
    for how in (moved_object, moved_probe):
        total = 0.0
        for row, measured in enumerate(counts):
            wave = how(found, where[row], job.N)
            far = np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))
            expected = factor * (far.real**2 + far.imag**2).astype(np.float64) + FLOOR
            excess = expected - measured
            ratio = np.where(measured > 0, measured / expected, 1)
            total += 2 * float(np.sum(excess + measured * np.log(ratio)))
        ways.append(total / float(counts.sum()))
    return min(ways)


def expected_total(found: Found, job: Job) -> float:
    """Return the sum of all expected counts."""
    return sum(
        float(np.sum(np.abs(moved_object(found, where, job.N)) ** 2)) for where in job.positions
    )


def moved_object(found: Found, where: NDArray[np.float64], N: int) -> Any:
    """Return the wave behind the object, which is interpolated."""
    return found.probe * pf.extract_patches(found.object, where[None, :, None], N)[0, :, :, 0]


def moved_probe(found: Found, where: NDArray[np.float64], N: int) -> Any:
    """Return the wave behind the object, under a probe that is moved to its position."""
    whole = np.rint(where)
    part = where - whole
    frequency = np.fft.fftfreq(N)
    ramp = np.exp(-2j * np.pi * (frequency * part[0] + frequency[:, None] * part[1]))
    probe = np.fft.ifft2(np.fft.fft2(found.probe) * ramp)
    return probe * pf.extract_patches(found.object, whole[None, :, None], N)[0, :, :, 0]
