"""Which probe belongs to a scan."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.models.light import SeenLight, brightness
from ptycho_fast.models.record import probe_checksum
from ptycho_fast.models.scans import exposure_ratio, mean_light, probe_for
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ptycho_fast.models.light import Probes
    from ptycho_fast.models.scans import NamedScan
    from ptycho_fast.scan import Scan

logger = logging.getLogger("ptycho_fast")

SAME = 1e-6
"""Two probes are the same if 1 minus the square of their normalised overlap is less than this."""


def probes_of(
    scans: Sequence[NamedScan],
    patterns: Sequence[NDArray[np.float64]],
    iterations: int,
    before: tuple[Probes, SeenLight] | None = None,
) -> list[NDArray[np.complex64]]:
    """Return the probe of each scan, scaled to its counts.

    Parameters
    ----------
    scans : sequence of NamedScan
    patterns : sequence of ndarray, (N, N), float64
        Their mean patterns.
    iterations : int
        Number of iterations that refine each probe.
    before : (Probes, SeenLight), optional
        What the model knows, if it was trained before.

    Returns
    -------
    list of ndarray, (modes, N, N), complex64
    """
    probes = []
    for one, pattern in zip(scans, patterns, strict=True):
        with one.named():
            if before is None:
                probes.append(probe_for(one.scan, pattern, iterations))
            else:
                bare, exposure = choose_probe(one.scan, *before, iterations)
                probes.append(bare * np.float32(exposure))
    return probes


def light_of(scans: Sequence[Scan], patterns: Sequence[NDArray[np.float64]]) -> SeenLight:
    """Return what a model knows of the light of the scans that it is trained on.

    Parameters
    ----------
    scans : sequence of Scan
    patterns : sequence of ndarray, (N, N), float64
        Their mean patterns.
    """
    return SeenLight(
        tuple(None if one.probe is None else probe_checksum(one.probe) for one in scans),
        float(np.mean([np.nansum(pattern) for pattern in patterns])),
        patterns[0] if len(patterns) == 1 else np.stack(patterns),
    )


def choose_probe(
    scan: Scan, trained: Probes, seen: SeenLight, iterations: int = 0
) -> tuple[NDArray[np.complex64], float]:
    """Return the probe that belongs to a scan, and how bright the scan is.

    It is the scan's own probe. If training began with the same probe and changed it, then it is
    what became of it; if several scans of the training did, that of the scan whose mean pattern is
    most similar. Only a scan without a probe gets one of the training although it may be another.

    Parameters
    ----------
    scan : Scan
    trained : Probes
        Those of the training.
    seen : SeenLight
    iterations : int
        Number of iterations that refine the scan's own probe, if training had another.

    Returns
    -------
    bare : ndarray, (modes, N, N), complex64
        As bright as those of `trained`.
    exposure : float
        By what factor the amplitudes of the scan are larger than this probe gives.

    Raises
    ------
    ValueError
        If the scan or its probe is dark, or patterns are not finite.

    Warns
    -----
    UserWarning
        If the scan has no probe.
    """
    probes = trained.bare
    given, mean_energy, mean_pattern = seen
    rows = list(range(len(probes)))
    if scan.probe is None:
        warn(
            "The scan has no probe, so that of the training is used. If the beam was another one, "
            "the image is wrong. Pass the right one with dataclasses.replace(scan, probe=...)."
        )
    else:
        own = probe_checksum(scan.probe)
        before = [*given, *[None] * (len(probes) - len(given))]
        rows = [i for i in rows if own == before[i] or _same(scan.probe, probes[i])]
    if not rows:
        if not given:
            warn(
                "The scan's probe is not the one that the model has, and the model, which an older "
                "version wrote, does not say whether training refined it. The scan's own probe is "
                "used. To use that of the model, pass dataclasses.replace(scan, probe=model.probe)."
            )
        logger.info("probe: the scan's own, which is none of those that the network has seen")
        probe = probe_for(scan, mean_light(scan), iterations)
        exposure = brightness(probe) / brightness(probes[0])
        return (probe / np.float32(exposure)).astype(np.complex64), exposure
    row = rows[0]
    if len(rows) > 1 and mean_pattern is not None:
        pattern = mean_light(scan)
        row = min(rows, key=lambda i: _apart(pattern, mean_pattern[i]))
    known = mean_pattern if mean_pattern is None or mean_pattern.ndim == 2 else mean_pattern[row]
    exposure = exposure_ratio(scan, known, mean_energy)
    if trained.exposure is not None:
        exposure *= float(trained.exposure[row])
    return probes[row], exposure


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Tell whether two probes differ by no more than a factor, a global phase and dark modes."""
    pair = []
    for probe in (one, other):
        modes = np.array(probe, np.complex128, ndmin=3)
        pair.append(modes[modes.any(axis=(1, 2))])
    if pair[0].shape != pair[1].shape:
        return False
    norms = np.vdot(pair[0], pair[0]).real * np.vdot(pair[1], pair[1]).real
    return bool(norms > 0 and abs(np.vdot(*pair)) ** 2 > (1 - SAME) * norms)


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how much two mean patterns differ, whatever their exposures."""
    both = np.isfinite(one) & np.isfinite(other)
    if not (one[both].sum() > 0 and other[both].sum() > 0):
        return math.inf
    return float(np.abs(one[both] / one[both].sum() - other[both] / other[both].sum()).sum())
