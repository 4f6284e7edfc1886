"""What the sections of ``benches/device.py`` share: rows of the table, a clock, a scan."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable

C = 4
"""Patterns in a group."""

Row = dict[str, Any]


def row(
    what: str,
    figure: float | str,
    unit: str = "",
    beside: str = "",
    *,
    ratio: Any = None,
    **rest: Any,
) -> Row:
    """Return a row: a figure, and its ratio to what stands beside it."""
    value = figure if isinstance(figure, str) else f"{figure:.5g} {unit}"
    plain = {"what": what, "figure": figure, "unit": unit, "value": value.strip()}
    return {**plain, "beside": beside, "ratio": ratio, "goal": "", **rest}


def aim(words: str, met: bool, device: str) -> str:
    """Return a goal, and whether it is met; on the CPU nothing is to be met."""
    return words if device == "cpu" else f"{words}: {'met' if met else 'missed'}"


def wait(device: str) -> None:
    """Wait until the device has done everything."""
    import torch  # noqa: PLC0415

    if device == "cuda":
        torch.cuda.synchronize()


def timed(job: Callable[[], object], device: str, repeats: int = 9, warm_up: int = 2) -> float:
    """Return the median of the seconds that a job takes."""
    times = []
    for number in range(warm_up + repeats):
        wait(device)
        start = time.perf_counter()
        job()
        wait(device)
        if number >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(what: str, error: float, allowed: float) -> None:
    """Refuse an error that is too large, or not a number."""
    if not error <= allowed:
        msg = f"{what} by {error:.3g}; {allowed:.3g} is allowed."
        raise ValueError(msg)


def scan_of_random(n: int, N: int, dtype: str) -> pf.Scan:
    """Return a jittered raster, all of whose patterns are different."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    raster = np.stack([np.arange(n) % side, np.arange(n) // side], 1) * N / 8
    block = rng.integers(0, 2**15, (min(n, 1024), N, N)).astype(dtype)
    patterns = np.empty((n, N, N), dtype)
    for start in range(0, n, len(block)):
        rows = patterns[start : start + len(block)]
        rows[:] = block[: len(rows)]
        rows[:, 0, 0] = start // len(block)
    return pf.Scan(raster + rng.uniform(-1, 1, raster.shape), patterns)
