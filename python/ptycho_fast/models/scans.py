"""What a model needs of scans: the patterns' size, their probes, and how bright they are."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io import read_scan
from ptycho_fast.models.physics import scale_probe
from ptycho_fast.models.refinement import refine
from ptycho_fast.patterns import mean_pattern
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

logger = logging.getLogger("ptycho_fast")

Path: TypeAlias = "str | os.PathLike[str]"
ScanOrPath: TypeAlias = "Scan | Path"


@dataclass(frozen=True, eq=False)
class NamedScan:
    """A scan of a training.

    Parameters
    ----------
    scan : Scan
    file : path-like, optional
        The file that it was read from.
    name : str
        What messages call it; empty if it is the only one.
    """

    scan: Scan
    file: Path | None
    name: str

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Put the name of the scan before the message of an error."""
        try:
            yield
        except ValueError as error:
            if not self.name:
                raise
            msg = f"{self.name}: {error}"
            raise ValueError(msg) from error

    def mean_light(self) -> NDArray[np.float64]:
        """Return the mean diffraction pattern (`mean_light`)."""
        with self.named():
            return mean_light(self.scan)


def scans_of(
    scan: ScanOrPath | Sequence[ScanOrPath],
    validation: float | ScanOrPath | Sequence[ScanOrPath] | None,
    N: int,
    source: Path | Sequence[Path | None] | None,
) -> tuple[list[NamedScan], list[NamedScan]]:
    """Return the scans to train on, and those that are held out, if these are whole scans.

    Parameters
    ----------
    scan, validation, source
        See `ptycho_fast.models.PtychoModel.train`.
    N : int
        Pixels per side of a pattern that the model was made for.

    Raises
    ------
    ValueError
        See `as_scans`.
    """
    files = [source] if isinstance(source, str | os.PathLike) else list(source or [])
    n = 1 if isinstance(scan, Scan | str | os.PathLike) else len(scan)
    scans = as_scans(scan, N, files[:n])
    if validation is None or isinstance(validation, float | int):
        return scans, []
    return scans, as_scans(validation, N, files[n:], called="held-out scan")


def as_scans(
    given: ScanOrPath | Sequence[ScanOrPath],
    N: int,
    files: Sequence[Path | None] = (),
    *,
    called: str = "",
) -> list[NamedScan]:
    """Return the scans of a training, read from their files if paths are given.

    Parameters
    ----------
    given : Scan, path-like, or sequence of them
    N : int
        Pixels per side of a pattern that the model was made for.
    files : sequence of path-like or None
        The file that each scan was read from; none if the scans are paths, or it is not known.
    called : str
        What messages call each of them; by default "scan", and a single scan has no name.

    Returns
    -------
    list of NamedScan
        Patterns in memory are converted to float32 if there are several scans.

    Raises
    ------
    ValueError
        If there are none, their patterns have another size, or there are not as many files.
    """
    if isinstance(given, Scan | str | os.PathLike):
        given = [given]
    if not given:
        msg = "There is no scan to train on: the list is empty."
        raise ValueError(msg)
    if files and len(files) != len(given):
        msg = f"source names {len(files)} files for {len(given)} scans. Name one for each."
        raise ValueError(msg)
    found = []
    for number, (one, file) in enumerate(zip(given, files or [None] * len(given), strict=True)):
        known = one if file is None and not isinstance(one, Scan) else file
        name = f"{called or 'scan'} {number}"
        if known is not None:
            name += f" ({os.fspath(known)})"
        read = one if isinstance(one, Scan) else read_scan(one)
        found.append(NamedScan(read, known, name if called or len(given) > 1 else ""))
    sizes = {one.scan.N: one.name for one in reversed(found)}
    if len(sizes) > 1:
        told = ", ".join(f"{name} has {size} x {size} pixels" for size, name in sizes.items())
        msg = (
            f"A network is trained on patterns of one size, but {told}. Crop or bin the patterns, "
            "or train a network for each size."
        )
        raise ValueError(msg)
    for named in found:
        with named.named():
            as_scan(named.scan, N)
    return found if len(found) == 1 else [replace(one, scan=_float32(one.scan)) for one in found]


def _float32(scan: Scan) -> Scan:
    """Return a scan with patterns that can be in one batch with those of others."""
    if isinstance(scan.diffraction, Frames) or scan.diffraction.dtype == np.float32:
        return scan
    return replace(scan, diffraction=scan.diffraction.astype(np.float32))


def check_patterns(
    scans: Sequence[NamedScan],
    patterns: Sequence[NDArray[np.float64]],
    *,
    counts_are_drawn: bool = False,
) -> None:
    """Raise an error if two scans are the same, or if patterns do not suit the training.

    Parameters
    ----------
    scans : sequence of NamedScan
    patterns : sequence of ndarray, (N, N), float64
        Their mean patterns.
    counts_are_drawn : bool
        Whether training draws some of the counts at random.

    Raises
    ------
    ValueError
        If positions and mean patterns of two scans are equal: one would count twice, or be held out
        in vain. If squared amplitudes should be counts and can't be.
    """
    seen: dict[bytes, NamedScan] = {}
    for one, pattern in zip(scans, patterns, strict=True):
        before = seen.setdefault(one.scan.positions.tobytes() + pattern.tobytes(), one)
        if before is not one:
            msg = (
                f"{before.name} and {one.name} are the same scan: positions and mean patterns are "
                "equal. Leave one of them out."
            )
            raise ValueError(msg)
        if counts_are_drawn and (counts := float(np.nansum(pattern))) < 1:
            msg = (
                f"The patterns have {counts:.3g} counts on average. This training draws some of "
                "the counts at random, so the squares of the amplitudes must be counts. Multiply "
                "the amplitudes such that they are."
            )
            with one.named():
                raise ValueError(msg)


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
        way = "Crop the patterns" if scan.N % 2 else f"Make a model with N={scan.N}"
        msg = (
            f"The scan's patterns have {scan.N} x {scan.N} pixels, the model was made for N={N}. "
            f"{way}; N must be even."
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
        msg = f"All {len(scan)} patterns are dark: they tell nothing of the object."
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
