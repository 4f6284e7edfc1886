"""Groups: time and peak memory beside SciPy, pykdtree, NumPy + SciPy, and group-then-sample.

Each job runs in a fresh process, so that its peak (VmHWM above what the imports took) is its own,
and every answer is checked in the same run. ``python benches/groups.py`` prints the tables.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import measure, reference, run_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

K, C, SEED = 7, 4, 42


def scan(shape: str, n: int) -> NDArray[np.float64]:
    """``(n, 2)`` positions of a scan."""
    rng = np.random.default_rng(0)
    side = math.isqrt(n - 1) + 1
    raster = np.stack([np.arange(n) % side, np.arange(n) // side], axis=1).astype(float)
    if shape == "raster":
        return raster
    if shape == "jittered raster":
        return raster + rng.uniform(-0.3, 0.3, (n, 2))
    return rng.uniform(0, side, (n, 2))


# --- the rivals -------------------------------------------------------------------------------


def ours(positions: NDArray[np.float64], n_groups: int, engine: str = "auto") -> NDArray[Any]:
    """Everything: index, random draws, choice, result."""
    import ptycho_fast as pf  # noqa: PLC0415

    return pf.group_positions(
        positions, n_groups, group_size=C, n_neighbors=K, seed=SEED, engine=engine
    ).indices


def scipy_neighbors(positions: NDArray[np.float64], n_groups: int) -> NDArray[Any]:
    """SciPy's build and query alone: no random draw, no choice."""
    from scipy.spatial import cKDTree  # noqa: PLC0415

    centers = np.random.default_rng(SEED).permutation(len(positions))[:n_groups]
    found = cKDTree(positions).query(positions[centers], K + 1, workers=-1)[1]
    return np.asarray(found)


def pykdtree_neighbors(positions: NDArray[np.float64], n_groups: int) -> NDArray[Any]:
    """Build and query of pykdtree alone."""
    from pykdtree.kdtree import KDTree  # noqa: PLC0415

    centers = np.random.default_rng(SEED).permutation(len(positions))[:n_groups]
    return np.asarray(KDTree(positions).query(positions[centers], k=K + 1)[1])


def numpy_scipy_groups(positions: NDArray[np.float64], n_groups: int) -> NDArray[Any]:
    """Do the same job, well written: C of the K neighbours by partly sorting random keys."""
    from scipy.spatial import cKDTree  # noqa: PLC0415

    rng = np.random.default_rng(SEED)
    centers = rng.permutation(len(positions))[:n_groups]
    neighbors = cKDTree(positions).query(positions[centers], K + 1, workers=-1)[1]
    # Tied positions may be returned before the centre itself: drop it by index.
    others = neighbors[neighbors != centers[:, np.newaxis]].reshape(n_groups, K)
    chosen = np.argpartition(rng.random((n_groups, K)), C, axis=1)[:, :C]
    return np.asarray(np.take_along_axis(others, chosen, axis=1).astype(np.int32))


def group_then_sample(positions: NDArray[np.float64], n_groups: int) -> NDArray[Any]:
    """Draw by the method that is replaced: 50 draws around every point, then a sample."""
    from scipy.spatial import cKDTree  # noqa: PLC0415

    rng = np.random.RandomState(SEED)
    neighbors = cKDTree(positions).query(positions, K + 1)[1]
    drawn = [np.sort(rng.choice(row, C, replace=False)) for row in neighbors for _ in range(50)]
    unique = np.unique(np.array(drawn), axis=0)
    sample: NDArray[Any] = unique[rng.choice(len(unique), min(n_groups, len(unique)), False)]
    return sample


OURS = "ptycho_fast"
TREE = "ptycho_fast, engine='kdtree'"
AVX2 = "ptycho_fast, AVX2"
SCIPY = "SciPy cKDTree(workers=-1), build + query only"
PYKDTREE = "pykdtree, build + query only"
NUMPY = "NumPy + SciPy, the same job"
OLD = "group-then-sample"
RIVALS: dict[str, Callable[[NDArray[np.float64], int], NDArray[Any]]] = {
    OURS: ours,
    TREE: lambda positions, n_groups: ours(positions, n_groups, engine="kdtree"),
    AVX2: ours,
    SCIPY: scipy_neighbors,
    PYKDTREE: pykdtree_neighbors,
    NUMPY: numpy_scipy_groups,
    OLD: group_then_sample,
}
VARIABLES = {AVX2: {"PTYCHO_FAST_SIMD": "avx2"}}


# --- one job in one process -------------------------------------------------------------------


def run_here(rival: str, shape: str, n: int, n_groups: int, repeats: int) -> dict[str, float]:
    """Run one job and check its answer."""
    job = RIVALS[rival]
    job(scan("uniform", 16), 16)  # what importing and starting threads takes
    positions = scan(shape, n)
    found, answer = measure(lambda: job(positions, n_groups), repeats)
    check(rival, positions, n_groups, answer)
    return found


def check(rival: str, positions: NDArray[np.float64], n_groups: int, answer: Any) -> None:
    """Check groups against the definition: ours to the bit, the rivals' for what they claim."""
    some = np.random.default_rng(1).integers(0, len(answer), 200)
    if rival in (OURS, TREE, AVX2):
        tree = reference.nearest_neighbors_tree
        centers, _ = reference.nearest_groups(
            positions, n_groups, 1, K, seed=SEED, neighbor_search=tree
        )
        _, expected = reference.nearest_groups(
            positions, None, C, K, seed=SEED, centers=centers[some], neighbor_search=tree
        )
        np.testing.assert_array_equal(answer[some], expected)
        return
    if rival == OLD:
        assert len(np.unique(np.sort(answer, axis=1), axis=0)) == len(answer)
        return
    drawn = np.random.default_rng(SEED).permutation(len(positions))[:n_groups][some]
    near = reference.nearest_neighbors_tree(positions, drawn, K)
    farthest = np.linalg.norm(positions[near[:, -1]] - positions[drawn], axis=1)
    distance = np.linalg.norm(positions[answer[some]] - positions[drawn, np.newaxis], axis=2)
    assert (distance <= farthest[:, np.newaxis] * (1 + 1e-12)).all()


def table(title: str, jobs: list[tuple[str, int, int]], rivals: list[str], repeats: int) -> None:
    """Print a table: a row a job, and for each rival time, peak, and ours against it."""
    print(f"\n### {title}\n")
    print("| scan | groups | | time (ms) | x ours | promised | peak (MB) | x ours |")
    print("|---|---|---|---|---|---|---|---|")
    for job in jobs:
        shape, n, n_groups = job
        mine: dict[str, float] = {}
        for rival in rivals:
            runs = 1 if rival == OLD else repeats
            found = run_apart(__file__, [rival, shape, n, n_groups, runs], VARIABLES.get(rival))
            mine = mine or found
            promised = PROMISED.get(job, {}).get(rival, "")
            print(
                f"| {n:.0e} {shape} | {n_groups:.0e} | {rival} | {1e3 * found['seconds']:.2f} "
                f"| {found['seconds'] / mine['seconds']:.1f} | {promised} "
                f"| {found['bytes'] / 1e6:.1f} | {found['bytes'] / max(mine['bytes'], 1e5):.1f} |",
                flush=True,
            )


MILLION = 1_000_000
PROMISED = {
    ("uniform", MILLION, MILLION): {SCIPY: 25, PYKDTREE: 25},
    ("jittered raster", MILLION, MILLION): {SCIPY: 18, PYKDTREE: 12},
    ("raster", MILLION, MILLION): {SCIPY: 15, PYKDTREE: 8},
    ("uniform", 100_000, 100_000): {SCIPY: 10, PYKDTREE: 6},
    ("uniform", MILLION, 10_000): {SCIPY: 30, PYKDTREE: 10},
    ("uniform", 1000, 1000): {SCIPY: 5, PYKDTREE: 2},
}
"""How many times faster than a rival's part of the job all of ours is to be, on two cores with
AVX-512."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small scans only, in seconds")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
        return
    sizes = [1000] if arguments.quick else [MILLION, 100_000, 1000]
    shapes = ("raster",) if arguments.quick else ("uniform", "jittered raster", "raster")
    jobs = [(shape, n, n) for n in sizes for shape in shapes]
    jobs += [("uniform", 10 * n, n // 10) for n in ([1000] if arguments.quick else [100_000])]
    rivals = [OURS, TREE, AVX2, SCIPY, PYKDTREE, NUMPY]
    table(f"K = {K}, C = {C}", jobs, rivals, arguments.repeats)
    jobs = [
        ("jittered raster", n, n) for n in ([1000] if arguments.quick else [1000, 10_000, 100_000])
    ]
    table("The method that this replaces", jobs, [OURS, OLD], arguments.repeats)


if __name__ == "__main__":
    main()
