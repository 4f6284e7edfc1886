"""The rules: time a centre beside pure Python on SciPy's neighbours, answers checked.

Each job runs in a fresh process. Ours is checked against the reference on a sample of centres, to
the bit; the rival does the same job for a sample, one centre after another as scripts do, and is
checked for what the rule promises. ``python benches/rules.py`` prints the table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import measure, reference, run_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SEED, PITCH = 42, 8.0
SAMPLE = 200


def scan(n: int) -> NDArray[np.float64]:
    """``(n, 2)`` positions of a jittered raster."""
    side = math.isqrt(n - 1) + 1
    raster = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1) * PITCH
    return raster + np.random.default_rng(0).uniform(-2, 2, (n, 2))


# What is drawn, what a row of the table counts, and what was promised for it.
JOBS: dict[str, dict[str, Any]] = {
    "nearest, no limits (for comparison)": {"draw": {}, "most": None},
    "nearest, max_distance": {"draw": {"max_distance": 20.0}, "most": 2.0},
    "nearest, both distances": {"draw": {"min_distance": 6.0, "max_distance": 20.0}, "most": 2.0},
    "quadrant": {"draw": {"rule": "quadrant", "max_distance": 20.0}, "most": 2.0},
    "oversample, a group beyond the search": {"draw": {"rule": "oversample"}, "most": 0.3},
    "overlap, C = 8, K = 30, search and draw": {
        "draw": {"rule": "overlap", "N": 64, "group_size": 8}, "most": None
    },
    "overlap, C = 8, K = 30, a redraw": {
        "draw": {"rule": "overlap", "N": 64, "group_size": 8}, "n": 70_000, "most": 0.05 / 0.07
    },
    "group-then-sample": {"draw": {"strategy": "group-then-sample"}, "most": None},
}  # fmt: skip


def ours(name: str, positions: NDArray[np.float64]) -> tuple[Callable[[], Any], float]:
    """Return what is timed, and what to take off for the search."""
    import ptycho_fast as pf  # noqa: PLC0415
    from ptycho_fast.grouping import redraw  # noqa: PLC0415

    n, draw = len(positions), JOBS[name]["draw"]
    index = pf.ScanIndex(positions)
    if name.endswith("redraw"):
        groups = pf.group_positions(index, seed=SEED, **draw)
        neighbors = index.neighbors(groups.n_neighbors)
        return lambda: redraw(groups, neighbors, 1), 0.0
    if "beyond the search" in name:
        once = measure(lambda: pf.group_positions(index, n, seed=SEED, **draw), 5)[0]["seconds"]
        return lambda: pf.group_positions(index, 11 * n, seed=SEED, **draw), once
    return lambda: pf.group_positions(index, seed=SEED, **draw), 0.0


def check(name: str, positions: NDArray[np.float64], groups: Any) -> None:
    """Compare the groups of some centres with the reference."""
    draw = dict(JOBS[name]["draw"])
    epoch = int(name.endswith("redraw"))
    if "strategy" in draw:
        # The pool of the whole is out of the reference's reach: a small scan stands for it.
        import ptycho_fast as pf  # noqa: PLC0415

        few = positions[:500]
        _, expected, _ = reference.rule_groups(few, seed=SEED, **draw)
        found = pf.group_positions(few, seed=SEED, **draw).indices
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(groups.indices, axis=0)) == len(groups)
        return
    some = np.random.default_rng(1).choice(groups.centers, SAMPLE // 4, replace=False)
    if draw.get("rule") == "oversample":
        draw["n_groups"] = len(some)
    _, expected, left_out = reference.rule_groups(
        positions, seed=SEED, epoch=epoch, centers=some, **draw
    )
    assert not left_out
    row_of = np.full(len(positions), -1)
    row_of[groups.centers[::-1]] = np.arange(len(groups))[::-1]  # the first of each centre
    np.testing.assert_array_equal(groups.indices[row_of[some]], expected)


# --- the rival: the same job centre by centre ---------------------------------------------------


def rival(name: str, positions: NDArray[np.float64]) -> float:
    """Seconds a centre of pure Python; the neighbours' search is SciPy's, for all at once."""
    from scipy.spatial import cKDTree  # noqa: PLC0415

    rng = np.random.default_rng(SEED)
    draw = JOBS[name]["draw"]
    C, N = draw.get("group_size", 4), draw.get("N", 0)
    tree = cKDTree(positions)
    centers = rng.permutation(len(positions))[:SAMPLE]
    near = tree.query(positions[centers], 31)[1][:, 1:]
    done = 0
    start = time.perf_counter()
    for center, row in zip(centers, near, strict=True):
        if draw.get("rule") == "overlap":
            group = grow(positions, np.array([center, *row]), C, N, rng)
            pairs = itertools.combinations(positions[group], 2)
            assert min(overlap(a, b, N) for a, b in pairs) >= 0.25 / 1.5**3
        elif draw.get("rule") == "quadrant":
            apart = positions[row] - positions[center]
            inside = np.hypot(*apart.T) <= draw["max_distance"]
            group = []
            for right, up in ((-1, 1), (1, 1), (-1, -1), (1, -1)):
                own = row[inside & (apart[:, 0] * right > 0) & (apart[:, 1] * up > 0)][:7]
                if len(own):
                    group.append(int(rng.choice(own)))
        elif draw.get("rule") == "oversample":
            sets = list(itertools.combinations(row[:7], C))
            groups = [rng.permutation(sets[i]) for i in rng.permutation(len(sets))[:10]]
            done += len(groups) - 1
        elif "strategy" in draw:
            drawn = [np.sort(rng.choice(row[:7], C, replace=False)) for _ in range(50)]
            assert len(np.unique(drawn, axis=0)) <= math.comb(7, C)
        else:
            distance = np.hypot(*(positions[row] - positions[center]).T)
            inside = distance <= draw.get("max_distance", np.inf)
            inside &= distance >= draw.get("min_distance", 0)
            own = row[inside][:7]
            if len(own) >= C:
                rng.choice(own, C, replace=False)
        done += 1
    return (time.perf_counter() - start) / done


def overlap(a: NDArray[np.float64], b: NDArray[np.float64], N: int) -> float:
    """Return the overlap of the windows at two positions."""
    dx, dy = a - b
    return float(max(0, N - abs(dx)) * max(0, N - abs(dy)) / N**2)


def grow(positions: NDArray[np.float64], row: NDArray[Any], C: int, N: int, rng: Any) -> list[int]:
    """Grow one group from the first of `row` as a script does."""
    group, least = [int(row[0])], 0.25
    while len(group) < C:
        left = [int(i) for i in row if i not in group]
        scores = np.array(
            [min(overlap(positions[i], positions[j], N) for j in group) for i in left]
        )
        fit = scores >= least
        if not fit.any():
            least /= 1.5
            continue
        weights = np.where(fit, np.exp(2 * scores), 0)
        group.append(int(rng.choice(left, p=weights / weights.sum())))
    return group


# --- one job in one process, and the table ----------------------------------------------------


def run_here(name: str, n: int, repeats: int) -> dict[str, float]:
    """Run one job and check its answer."""
    positions = scan(n)
    job, search = ours(name, positions)
    job()
    found, groups = measure(job, repeats)
    check(name, positions, groups)
    count = 10 * n if search else n
    found["seconds"] -= search
    return {**found, "count": count, "rival": rival(name, positions)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small scans only, in seconds")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
        return
    print(f"Jittered raster, {os.cpu_count()} threads; C = 4, K = 7 where not said.\n")
    print("| rule | centres | time (ms) | us a centre | promised | Python, us a centre | x |")
    print("|---|---|---|---|---|---|---|")
    for name, job in JOBS.items():
        n = 2000 if arguments.quick else job.get("n", 100_000)
        found = run_apart(__file__, [name, n, arguments.repeats])
        each = found["seconds"] / found["count"]
        most = f"{job['most']:.2g}" if job["most"] else ""
        print(
            f"| {name} | {n} | {1e3 * found['seconds']:.1f} | {1e6 * each:.3f} | {most} "
            f"| {1e6 * found['rival']:.1f} | {found['rival'] / each:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
