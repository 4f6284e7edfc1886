"""What a model needs of a scan: its patterns' size, its probe, and how bright it is."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ptycho_fast.io import read_scan
from ptycho_fast.models.physics import scale_probe
from ptycho_fast.models.refinement import refine
from ptycho_fast.patterns import mean_pattern
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")

ScanOrPath: TypeAlias = "Scan | str | os.PathLike[str]"


def as_scan(scan: ScanOrPath, N: int) -> Scan:
    """Return a scan, read from its file if a path is given.

    Parameters
    ----------
    scan : Scan or path-like
    N : int
        Pixels per side of a pattern that the model was made for.

    Raises
    ------
    ValueError
        If the patterns have another size.
    """
    scan = scan if isinstance(scan, Scan) else read_scan(scan)
    if scan.N != N:
        msg = (
            f"The scan's patterns have {scan.N} x {scan.N} pixels, the model was made for "
            f"N={N}. Make one with PtychoModel(N={scan.N})."
        )
        raise ValueError(msg)
    return scan


def mean_light(scan: Scan) -> NDArray[np.float64]:
    """Return the mean diffraction pattern of a scan in counts; every pattern is read.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    ndarray, (N, N), float64
        NaN at pixels that were never measured.

    Raises
    ------
    ValueError
        If all patterns are dark, or some are not finite.
    """
    pattern = mean_pattern(scan)
    if not np.nansum(pattern) > 0:
        msg = f"All {len(scan)} patterns are dark: there is nothing to learn from."
        raise ValueError(msg)
    return pattern


def exposure_ratio(
    scan: Scan, trained_pattern: NDArray[np.float64] | None, trained_energy: float
) -> float:
    """Return by what factor a scan's amplitudes are larger than those of the training.

    The difference in brightness between the two scans is attributed to the exposure, and compared
    over the pixels that both have measured. So a mask that hides bright pixels in one of the scans
    does not count as a shorter exposure.

    Parameters
    ----------
    scan : Scan
        The scan to image.
    trained_pattern : ndarray, (N, N), float64, optional
        Mean pattern of the training, in counts. Models of older versions have none; then the sums
        of counts are compared.
    trained_energy : float
        Mean number of counts in a pattern of the training.

    Raises
    ------
    ValueError
        If the scan is dark, or no light fell on the pixels that both have measured.
    """
    pattern = mean_light(scan)
    if trained_pattern is None:
        return math.sqrt(float(np.nansum(pattern)) / trained_energy)
    both = np.isfinite(pattern) & np.isfinite(trained_pattern)
    light = float(pattern[both].sum()), float(trained_pattern[both].sum())
    if min(light) <= 0:
        msg = (
            f"The scan and the one that the model was trained on have {np.count_nonzero(both)} "
            f"good pixels in common, and no light on them ({light[0]:.3g} and {light[1]:.3g} "
            "counts per pattern), so their exposures cannot be compared. Is the mask right?"
        )
        raise ValueError(msg)
    return math.sqrt(light[0] / light[1])


def probe_for(scan: Scan, pattern: NDArray[np.float64], iterations: int) -> NDArray[np.complex64]:
    """Return the probe of a scan, scaled to its counts, and refined if that is asked for.

    Parameters
    ----------
    scan : Scan
    pattern : ndarray, (N, N), float64
        Its mean pattern (`mean_light`).
    iterations : int
        Number of iterations that refine the probe (`ptycho_fast.models.refinement`); 0 for none.

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Raises
    ------
    ValueError
        If the scan has no probe, or a dark one.
    """
    if scan.probe is None:
        msg = (
            "The scan has no probe. It is needed to calculate the object from the patterns. Pass "
            "one with dataclasses.replace(scan, probe=...), or store it in the file under the key "
            "probeGuess."
        )
        raise ValueError(msg)
    probe = np.asarray(scan.probe)
    if iterations:
        found = refine(scan, probe, iterations=iterations, refine_probe=True)
        logger.info("probe: %d iterations, deviance %.3f", iterations, found.deviance)
        probe = found.probe
    return scale_probe(probe, float(np.nansum(pattern)), np.isfinite(pattern))
