"""A series of simulated scans: one after another, and on processes of this machine.

``python benches/series.py`` prints the table (a minute on two free cores). All images are compared,
to the bit, with those of `reconstruct` alone. ``--quick`` runs two tiny scans.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import ptycho_fast as pf
from ptycho_fast.series import reconstruct_series

PROCESSES = (None, 1, 2)
"""Of None, the scans are reconstructed in the process that asks for them, with all threads."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="two tiny scans, in half a minute")
    parser.add_argument("--scans", type=int, default=8, help="(default: %(default)s)")
    asked = parser.parse_args()
    count, n, N = (2, 40, 16) if asked.quick else (asked.scans, 100, 32)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = [folder / f"scan_{seed}.npz" for seed in range(count)]
        for seed, path in enumerate(paths):
            pf.write_scan(pf.simulate_scan(n, N, seed=seed), path)
        alone = [pf.reconstruct(pf.read_scan(path)) for path in paths]
        print(f"{count} scans of {n} patterns of {N} x {N}, {sum(a.seconds for a in alone):.1f} s")
        print("| processes | seconds | a scan | CPU seconds a scan | again, all kept (ms a scan) |")
        print("|---|---|---|---|---|")
        for workers in PROCESSES:
            seconds, cpu, again = run(paths, folder / str(workers), workers)
            for path, expected in zip(paths, alone, strict=True):
                made = pf.Reconstruction.load(folder / str(workers) / path.stem)
                for name in ("object", "probe", "positions", "coverage"):
                    np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
            print(
                f"| {'here' if workers is None else workers} | {seconds:.1f} "
                f"| {seconds / count:.2f} | {cpu / count:.2f} | {1e3 * again / count:.1f} |",
                flush=True,
            )


def run(paths: list[Path], out: Path, workers: int | None) -> tuple[float, float, float]:
    """Return the seconds and CPU seconds of a series, and the seconds of the same call again."""
    began, used = time.perf_counter(), cpu_seconds()
    entries = reconstruct_series(paths, out, workers=workers)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - used
    assert all(entry.status == "done" and not entry.kept for entry in entries)
    began = time.perf_counter()
    again: Any = reconstruct_series(paths, out, workers=workers)
    assert all(entry.kept for entry in again)
    return seconds, cpu, time.perf_counter() - began


def cpu_seconds() -> float:
    """CPU seconds of this process, and of those it has started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
