"""Coverage of a selection: time beside the definitions, one position and one group at a time.

``python benches/coverage.py`` prints a table and checks every number of it.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

import ptycho_fast as pf

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference import coverage as reference_coverage

N, SPACING = 64, 8


def scan(n: int) -> pf.Scan:
    """Make a jittered raster whose patterns take no memory."""
    rng = np.random.default_rng(0)
    side = math.isqrt(n - 1) + 1
    raster = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1)
    away = np.arange(N) - N // 2
    spot = np.exp(-(away**2 + away[:, np.newaxis] ** 2) / 200).astype(np.complex64)
    patterns = np.broadcast_to(np.float32(0), (n, N, N))
    return pf.Scan(SPACING * (raster + rng.uniform(-0.3, 0.3, (n, 2))), patterns, probe=spot)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest size, once")
    quick = parser.parse_args().quick
    print(f"{'n':>9} {'B':>9} {'C':>3} {'coverage':>10} {'definition':>11}   ratio")
    sizes = [(10_000, 10_000, 4)]
    if not quick:
        sizes += [(100_000, 100_000, 4), (100_000, 100_000, 9), (1_000_000, 100_000, 4)]
    for n, B, C in sizes:
        of = scan(n)
        groups = pf.group_positions(of.positions, B, group_size=C, seed=0)
        times = []
        for _ in range(1 if quick else 5):
            start = time.perf_counter()
            found = pf.coverage(of, groups)
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = reference_coverage.coverage(
            of.positions, groups.indices, groups.centers, N, of.probe
        )
        slow = time.perf_counter() - start
        for name in ("positions_used", "discrepancy", "duplicates"):
            assert math.isclose(getattr(found, name), expected[name], abs_tol=1e-9), name
        assert found.overlap_min == expected["overlaps"].min()
        assert found.overlap_median == np.median(expected["overlaps"])
        # In cells of some pixels where the object is large.
        assert abs(found.area_covered - expected["area_covered"]) < 0.01
        fast = sorted(times)[len(times) // 2]
        print(f"{n:9} {B:9} {C:3} {fast:8.3f} s {slow:9.2f} s {slow / fast:7.0f}", flush=True)


if __name__ == "__main__":
    main()
