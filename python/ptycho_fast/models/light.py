"""How scans were lit: their probes, as a network holds them, and what was counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray


class Probes(NamedTuple):
    """The probes of scans, all equally bright, and how bright they are.

    Parameters
    ----------
    bare : ndarray, (scans, modes, N, N), complex64
        As bright as that of the first scan of the training. Scans with fewer modes than others
        have dark ones at the end.
    exposure : ndarray, (scans,), float32, optional
        By what factor the amplitudes of each scan are larger than its probe gives. None if the
        training has a single scan.
    """

    bare: NDArray[np.complex64]
    exposure: NDArray[np.float32] | None


class SeenLight(NamedTuple):
    """What a model knows of the light of the scans that it was trained on, beside their probes.

    Parameters
    ----------
    given_probes : tuple of str or None
        Checksums of the probes that training began with; empty if an older version trained.
    mean_energy : float
        Mean number of counts in a pattern.
    mean_pattern : ndarray, (N, N) or (scans, N, N), float64, optional
        Mean pattern of the training, or of each of several scans, in counts; NaN at pixels that
        were not measured. Models of older versions have none.
    """

    given_probes: tuple[str | None, ...]
    mean_energy: float
    mean_pattern: NDArray[np.float64] | None = None


def stack_probes(probes: Sequence[NDArray[Any]], first: NDArray[Any] | None = None) -> Probes:
    """Bring the probes of scans together.

    Parameters
    ----------
    probes : sequence of ndarray, (modes, N, N), complex
        Scaled to the counts of each scan.
    first : ndarray, (..., N, N), complex, optional
        A probe of the training, whose brightness all get. By default the scans are those of the
        training, and all get the brightness of the first.

    Returns
    -------
    Probes

    Examples
    --------
    >>> import numpy as np
    >>> made = stack_probes([np.ones((1, 4, 4)), np.full((2, 4, 4), 2)])
    >>> made.bare.shape, made.exposure.round(4)
    ((2, 2, 4, 4), array([1.    , 2.8284], dtype=float32))
    """
    if first is None and len(probes) == 1:
        return Probes(np.asarray(probes[0], np.complex64)[np.newaxis], None)
    first = probes[0] if first is None else first
    modes = max(len(probe) for probe in probes)
    exposure = np.array([brightness(probe) for probe in probes]) / brightness(first)
    bare = np.zeros((len(probes), modes, *probes[0].shape[1:]), np.complex64)
    for row, probe, times in zip(bare, probes, exposure, strict=True):
        row[: len(probe)] = probe / times
    return Probes(bare, exposure.astype(np.float32))


def brightness(probe: NDArray[Any]) -> float:
    """Return the square root of the energy of a probe.

    Parameters
    ----------
    probe : ndarray, complex
    """
    return math.sqrt(float(np.square(np.abs(probe), dtype=np.float64).sum()))
