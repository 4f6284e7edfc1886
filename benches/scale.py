"""Groups of very many positions, all as centres: time and peak memory, over threads.

``python benches/scale.py`` prints the table; the largest scan takes 8 GB. One row of each of the
others is of a process that is refused huge pages, as on a system that has none.
"""

from __future__ import annotations

import argparse
import ctypes
import json

import numpy as np
from measure import measure, reference, run_apart

K, C, SEED = 7, 4, 42


PR_SET_THP_DISABLE = 41
"""Of Linux: whether a process is refused huge pages."""


def run_here(n: int, threads: int, repeats: int, huge: bool) -> dict[str, float]:
    """Draw the groups, and check some of them."""
    if not huge:
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
    import ptycho_fast as pf  # noqa: PLC0415

    rng = np.random.default_rng(0)
    positions = rng.random((n, 2))
    positions *= n**0.5
    found, groups = measure(
        lambda: pf.group_positions(
            positions, group_size=C, n_neighbors=K, seed=SEED, num_threads=threads
        ),
        repeats,
    )
    # Of the first centres, by the definition: the reference would take hours for all.
    centers = groups.centers[:3]
    _, expected = reference.nearest_groups(positions, None, C, K, seed=SEED, centers=centers)
    np.testing.assert_array_equal(groups.indices[:3], expected)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
        return
    print("| positions | threads | pages | first (s) | median (s) | ns a position | peak (GB) |")
    print("|---|---|---|---|---|---|---|")
    for n, repeats in ((10**6, 9), (10**7, 5), (10**8, 2)):
        for threads, huge in ((1, True), (2, True), (2, False))[: 3 if n < 10**8 else 2]:
            found = run_apart(__file__, [n, threads, repeats, huge])
            print(
                f"| {n:.0e} | {threads} | {'2 MiB' if huge else '4 KiB'} "
                f"| {found['first']:.2f} | {found['seconds']:.2f} "
                f"| {1e9 * found['seconds'] / n:.0f} | {found['bytes'] / 1e9:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
