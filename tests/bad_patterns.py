"""Scans with pixels that were not measured in some patterns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.frames import Frames

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stored(Frames):
    """Patterns that are read when needed, and tell which of their pixels were measured."""

    may_be_bad = True

    def __init__(self, stack: NDArray[Any], bad: NDArray[np.bool_]) -> None:
        self.stack, self.bad = stack, bad
        self.shape, self.dtype = stack.shape, stack.dtype
        self.reads = 0

    def read(self, rows: NDArray[Any], out: NDArray[Any]) -> None:
        self.read_good(rows, out)

    def read_good(self, rows: NDArray[Any], out: NDArray[Any]) -> NDArray[np.bool_]:
        self.reads += 1
        out[...] = np.where(self.bad[rows], 0, self.stack[rows])
        good: NDArray[np.bool_] = ~self.bad[rows]
        return good


def saturated(scan: Any, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Return bad pixels, most of them the brightest ones, as in a saturated detector."""
    counts = np.square(scan.diffraction)
    bad = counts > np.quantile(counts, 1 - 0.8 * share)
    found: NDArray[np.bool_] = bad | (
        np.random.default_rng(seed).random(counts.shape) < 0.2 * share
    )
    return found


def spoilt(scan: Any, bad: NDArray[np.bool_], rubbish: float = 0) -> Any:
    return replace(
        scan,
        diffraction=np.where(bad, rubbish, scan.diffraction).astype(scan.diffraction.dtype),
        bad_pixels=BadPixels.of(bad),
    )
