"""How much longer jobs take beside other busy processes, one for each core.

``python benches/busy.py`` prints the table. Beside as many busy processes as there are cores, a
job gets half of the machine, and should take twice as long. What takes longer waits for threads
that have to wait for a core. The answers must be those of the job alone.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf
from ptycho_fast import _core
from ptycho_fast.patterns import gather_patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


SECONDS = 3.0
"""For which a job is repeated."""


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep all cores busy meanwhile."""
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(_core.count_threads(None))]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(job: Callable[[], NDArray[Any]], most: float) -> float:
    """Return the median time of a job, which is repeated for so many seconds."""
    job()
    times: list[float] = []
    while len(times) < 5 or sum(times) < most:
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def drawn(positions: NDArray[np.float64]) -> NDArray[np.int32]:
    """Draw groups around all positions."""
    return pf.group_positions(positions, seed=0).indices


def jobs(*, small: bool) -> dict[str, Callable[[], NDArray[Any]]]:
    """Return what is timed, by name."""
    rng = np.random.default_rng(0)
    found: dict[str, Callable[[], NDArray[Any]]] = {}
    for n in (1000, 100_000) if small else (1000, 100_000, 1_000_000):
        positions = rng.uniform(0, n**0.5, (n, 2))
        found[f"{n:.0e} groups"] = partial(drawn, positions)
    N, n = 64, 2000
    scan = pf.Scan(8.0 * rng.uniform(0, n**0.5, (n, 2)), rng.random((n, N, N), np.float32))
    groups = pf.group_positions(scan.positions, seed=0)
    image = np.ones((512, 512), np.complex64)
    out = np.empty((n, N, N, 4), np.float32)
    patches = np.empty((n, N, N, 4), np.complex64)
    data = pf.GroupedDataset(scan, groups)
    coords = groups.coords[:, 0]
    found["gather 2000 groups"] = lambda: gather_patterns(scan.diffraction, groups.indices, out=out)
    found["cut 8000 patches"] = lambda: pf.extract_patches(image, coords, N, out=patches)
    found["an epoch of 63 batches"] = lambda: np.array(
        [batch["diffraction"][0, 0, 0, 0] for batch in data.batches(32, shuffle=True)]
    )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small jobs only, in seconds")
    quick = parser.parse_args().quick
    most = 0.2 if quick else SECONDS
    print("| job | alone (ms) | beside busy processes (ms) | x |")
    print("|---|---|---|---|")
    for name, job in jobs(small=quick).items():
        expected = job().copy()
        alone = seconds(job, most)
        with busy():
            beside = seconds(job, most)
            np.testing.assert_array_equal(job(), expected)
        print(
            f"| {name} | {1e3 * alone:.3g} | {1e3 * beside:.3g} | {beside / alone:.2g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
