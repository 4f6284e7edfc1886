"""Redraw docs/validation.md: the method that is replaced and this package, side by side.

``python benches/validation.py`` takes some minutes; ``--quick`` prints the page for small scans
and a part of the tests, and leaves the file alone. Each job runs in a process of its own, so that
its peak (VmHWM above what the imports took) is its own, and every answer is checked in the same
run.

"Before" is group-then-sample, written here from its description: around every position 50 random
groups, of all these the distinct ones, of these a sample. PtychoPINN itself is not run.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import json
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from groups import scan as positions_of
from measure import measure, reference, run_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "validation.md"
N, K, SEED, SPACING, SIDE = 16, 7, 42, 2.0, 700
SIZES = (1_000, 10_000, 100_000)

Arrays = dict[str, Any]


def source(n: int) -> Arrays:
    """Return a scan: a jittered raster, patterns, and an object that it lies on."""
    rng = np.random.default_rng(0)
    positions = positions_of("jittered raster", n) * SPACING + N
    # In place: what is freed here would be used again, and missing from the peak.
    image = np.empty((SIDE, SIDE), np.complex64)
    rng.random(out=image.view(np.float32), dtype=np.float32)
    return {
        "xcoords": positions[:, 0],
        "ycoords": positions[:, 1],
        "diff3d": rng.random((n, N, N), dtype=np.float32),
        "objectGuess": image,
    }


# --- one job, twice: the lines of both are counted --------------------------------------------


def before(scan: Arrays, n_groups: int) -> Arrays:
    """Make the arrays a network trains on, by NumPy and SciPy."""
    from scipy.ndimage import map_coordinates  # noqa: PLC0415
    from scipy.spatial import cKDTree  # noqa: PLC0415

    positions = np.stack([scan["xcoords"], scan["ycoords"]], axis=1)
    neighbors = cKDTree(positions).query(positions, K + 1)[1]
    rng = np.random.RandomState(SEED)
    drawn = [np.sort(rng.choice(row, 4, replace=False)) for row in neighbors for _ in range(50)]
    unique = np.unique(np.array(drawn), axis=0)
    groups = unique[rng.choice(len(unique), min(n_groups, len(unique)), replace=False)]
    diffraction = np.ascontiguousarray(scan["diff3d"][groups].transpose(0, 2, 3, 1))
    energy = np.einsum("bijc,bijc->bc", diffraction, diffraction, dtype=np.float64).mean()
    coords_nn = positions[groups].transpose(0, 2, 1)[:, np.newaxis]
    coords_offsets = coords_nn.mean(axis=-1, keepdims=True)
    rows, columns = np.mgrid[:N, :N] - N // 2
    Y = np.empty((len(groups), N, N, 4), np.complex64)
    for patch, (xs, ys) in zip(Y, coords_nn[:, 0], strict=True):
        for channel, (x, y) in enumerate(zip(xs, ys, strict=True)):
            at = [rows + y, columns + x]
            patch[..., channel] = map_coordinates(scan["objectGuess"], at, order=1)
    return {
        "diffraction": diffraction,
        "X_full": diffraction * np.float32(np.sqrt((N / 2) ** 2 / energy)),
        "Y": Y,
        "coords_nn": coords_nn,
        "coords_offsets": coords_offsets,
        "coords_relative": coords_offsets - coords_nn,
        "nn_indices": groups,
    }


def here(scan: Arrays, n_groups: int) -> Arrays:
    """Make the same arrays by the drop-in."""
    from ptycho_fast.ptychopinn import RawData  # noqa: PLC0415

    record = RawData.from_coords_without_pc(probeGuess=None, scan_index=None, **scan)
    return record.generate_grouped_data(N, K=K, nsamples=n_groups, seed=SEED, gridsize=2)


def lines_of(function: Callable[..., Any]) -> int:
    """Count the lines that do something: not the docstring, nor blank ones."""
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[1].lineno
    return sum(bool(line.strip()) for line in source.splitlines()[first - 1 :])


def check(name: str, scan: Arrays, made: Arrays) -> None:
    """Check arrays against the definitions."""
    groups, positions = made["nn_indices"], np.stack([scan["xcoords"], scan["ycoords"]], axis=1)
    some = np.random.default_rng(1).integers(0, len(groups), 50)
    at = positions[groups[some]].transpose(0, 2, 1)
    relative = -(at - at.mean(axis=2, keepdims=True))
    np.testing.assert_allclose(made["coords_relative"][some, 0], relative, atol=1e-9)
    patterns = reference.gather(scan["diff3d"], groups[some])
    np.testing.assert_array_equal(made["diffraction"][some], patterns)
    energy = np.square(made["X_full"], dtype=np.float64).sum(axis=(1, 2)).mean()
    np.testing.assert_allclose(energy, (N / 2) ** 2, rtol=1e-5)
    read_at = at
    if name == "here":  # the drop-in keeps the mirrored patches that its callers know
        read_at = (2 * at.mean(axis=2, keepdims=True) - at).astype(np.float32)
        tree = reference.nearest_neighbors_tree
        _, expected = reference.legacy_groups(
            positions, len(groups), 4, K, SEED, neighbor_search=tree
        )
        np.testing.assert_array_equal(groups, expected)
    else:
        assert len(np.unique(np.sort(groups, axis=1), axis=0)) == len(groups)
    patches = reference.extract_patches(scan["objectGuess"], read_at, N)
    np.testing.assert_allclose(made["Y"][some], patches, atol=1e-3)


# --- a pool, made and loaded ------------------------------------------------------------------


def compute_pool(positions: NDArray[np.float64]) -> Any:
    """List every group that group-then-sample may draw, as the package does without a file."""
    from ptycho_fast.grouping import DrawRequest  # noqa: PLC0415
    from ptycho_fast.grouping.rules import GROUP_THEN_SAMPLE  # noqa: PLC0415

    request = DrawRequest(positions, K, seed=0, strategy="group-then-sample")
    every = np.arange(len(positions), dtype=np.int32)
    pool, _ = GROUP_THEN_SAMPLE.list_pool(request, every)
    return pool


def expected_pool(positions: NDArray[np.float64]) -> NDArray[np.int32]:
    """List the same by its definition: all 35 sets of 4 of 7, distinct."""
    import ptycho_fast as pf  # noqa: PLC0415

    near = pf.ScanIndex(positions).neighbors(K)
    subsets = np.array(list(itertools.combinations(range(K), 4)))
    listed = np.sort(near[:, subsets].reshape(-1, 4), axis=1)
    listed = listed[np.lexsort(listed.T[::-1])]
    distinct = np.concatenate([[True], (listed[1:] != listed[:-1]).any(axis=1)])
    return np.ascontiguousarray(listed[distinct])


def run_pool(n: int, repeats: int) -> dict[str, float]:
    """Time a pool's computing, writing and loading."""
    from ptycho_fast import groups_cache  # noqa: PLC0415

    positions = positions_of("jittered raster", n)
    computed, pool = measure(lambda: compute_pool(positions), repeats)
    np.testing.assert_array_equal(pool.groups, expected_pool(positions))
    found = {"compute": computed["seconds"], "groups": float(len(pool.groups))}
    with tempfile.TemporaryDirectory() as folder:
        for name, compress in (("plain", False), ("compressed", True)):
            path = groups_cache.cache_path(Path(folder, f"{name}.npz"), 2, K)
            written, _ = measure(
                lambda path=path, compress=compress: groups_cache.write(  # type: ignore[misc]
                    path, pool, positions, 2, K, key=(0, 0), compress=compress
                ),
                1,
            )
            loaded, again = measure(
                lambda path=path: groups_cache.read(path, positions, 2, K, key=(0, 0)),  # type: ignore[misc]
                repeats,
            )
            assert again is not None
            for one, other in zip(again, pool, strict=True):
                np.testing.assert_array_equal(one, other)
            found[f"write {name}"] = written["seconds"]
            found[f"load {name}"] = loaded["seconds"]
            found[f"bytes {name}"] = path.stat().st_size
    return found


# --- the page ---------------------------------------------------------------------------------


def run_here(job: str, n: int, repeats: int = 1) -> dict[str, float]:
    """Run one job and check its answer."""
    if job == "pool":
        return run_pool(n, repeats)
    make = {"before": before, "here": here}[job]
    make(source(50), 50)  # what importing and starting threads takes
    scan = source(n)
    # What making the scan took for a moment is no part of the job's peak (Linux: man 5 proc).
    Path("/proc/self/clear_refs").write_text("5")
    found, made = measure(lambda: make(scan, n), repeats)
    check(job, scan, made)
    return found


def time_of(seconds: float) -> str:
    """Write a time with two digits or three."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def jobs_table(sizes: tuple[int, ...]) -> str:
    """Measure time and peak of the whole job, the first of its process."""
    lines = [
        "| positions = groups | | time | peak memory |",
        "|---|---|---|---|",
    ]
    for n in sizes:
        processes = 1 if n == SIZES[-1] else 3
        old, new = (
            min(
                (run_apart(__file__, [job, n]) for _ in range(processes)),
                key=lambda found: found["seconds"],
            )
            for job in ("before", "here")
        )
        for name, found in (("before", old), ("here", new)):
            lines.append(
                f"| {n} | {name} | {time_of(found['seconds'])} | {found['bytes'] / 1e6:.1f} MB |"
            )
        lines.append(
            f"| | before / here | {old['seconds'] / new['seconds']:.0f} "
            f"| {old['bytes'] / new['bytes']:.1f} |"
        )
    return "\n".join(lines)


def cache_table(sizes: tuple[int, ...], repeats: int) -> str:
    """Time loading a pool beside computing it."""
    lines = [
        "| positions | groups in the pool | compute | load | load, `compress=True` | file "
        "| compressed | loading |",
        "|---|---|---|---|---|---|---|---|",
    ]
    losing = []
    for n in sizes:
        found = run_apart(__file__, ["pool", n, repeats])
        share = found["load plain"] / found["compute"]
        losing += [str(n)] if share > 1 else []
        lines.append(
            f"| {n} | {found['groups']:.0f} | {time_of(found['compute'])} "
            f"| {time_of(found['load plain'])} | {time_of(found['load compressed'])} "
            f"| {found['bytes plain'] / 1e6:.1f} MB | {found['bytes compressed'] / 1e6:.1f} MB "
            f"| {'loses' if share > 1 else 'wins'}: {share:.2f} of computing |"
        )
    verdict = (
        f"Loading is slower than computing at {', '.join(losing)} positions: leave it off there."
        if losing
        else "Loading is faster than computing at each of these sizes."
    )
    return "\n".join([*lines, "", verdict])


def count_tests(folder: Path) -> tuple[int, int]:
    """Return how many tests of a folder pytest runs, and how many cargo."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    collected = re.search(r"^(\d+) tests collected", done.stdout, re.MULTILINE)
    assert collected is not None, done.stdout[-2000:]
    rust = sum(path.read_text().count("#[test]") for path in (ROOT / "rust").rglob("*.rs"))
    return int(collected[1]), rust


def machine() -> str:
    """Name the processor and the versions."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", info)
    cores = info.count("processor\t:")
    return (
        f"{model[1] if model else platform.processor()}, {cores} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}"
    )


def page(sizes: tuple[int, ...], repeats: int, tests: Path = ROOT / "tests") -> str:
    """Return the whole page; `tests` is the folder of those that are counted."""
    python, rust = count_tests(tests)
    old, new = lines_of(before), lines_of(here)
    return f"""\
# Validation

How much faster is the data path after switching from the older method, and is the result still right? This page
is written by `python benches/validation.py`, which runs every job in a process of its own and checks
every answer. Measured on {machine()}.
**Ratios carry over to other machines; absolute times do not.**

## Before and here

The job goes from a scan in memory to the arrays that a network trains on: groups, diffraction patterns, normalised
patterns, coordinates and object patches. K = {K}, gridsize 2, N = {N}.

- *Before* is group-then-sample, written in NumPy and SciPy from its description: draw 50 random groups around
  every position, keep the distinct ones, and take a sample.
- *Here* is `RawData.generate_grouped_data`.

Times are those of the first call in a process, including page faults on new memory; up to 10 000 positions, the fastest
of three processes. The peak is the growth of the process. Here that is the arrays themselves.

{jobs_table(sizes)}

PtychoPINN itself is not run. These figures of it were measured elsewhere, on two cores of a Zen 4, and are
quoted:

| job | time | where it goes |
|---|---|---|
| choosing 10 000 groups (K = 7, C = 4) of 10 000 positions | 75 ms | one `np.random.choice` per row |
| `generate_grouped_data`, 10 000 groups, N = 64, no object | 11 s, 5.8 GB peak for 1.3 GB of output | float64 copies, page faults on new memory |
| one object patch, N = 64, object 600 x 600 | 9-18 ms | translates the whole padded object per patch |

[Performance](performance.md#what-it-costs) has the same jobs here.

## A cached pool

Group-then-sample can keep its list of groups in a file (`cache=`, off by default). *Load* includes the checksums of
the positions and of the file. *Compute* is what `group_positions` does without a file: search the neighbours and
list the pool.

{cache_table(sizes, repeats)}

`compress=True` saves space on disk, not time.

## Tests

{python} tests in Python, {rust} in Rust. Parametrised tests are counted individually. `tests/ptychopinn/test_acceptance.py`
holds every public behaviour of the drop-in and `tests/io/test_scan_file_contract.py` those of scan
files. Each row of the [table of differences](migration.md#what-differs) names its test.

## Lines a caller no longer needs

By NumPy and SciPy, the job of the first table takes {old} lines; by the drop-in, {new}
(`before` and `here` in `benches/validation.py`, without docstrings and blank lines):
{old - new} fewer. A caller of PtychoPINN adds one line, `install()`, and can remove whatever looked
after cache files.
"""  # noqa: E501  # rows of tables


def main() -> None:
    """Write the page, or print a small one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small, printed, in seconds")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
    elif arguments.quick:
        print(page(SIZES[:1], 3, ROOT / "tests" / "grouping"))
    else:
        PAGE.write_text(page(SIZES, 5))
        print(f"{PAGE} is written.")


if __name__ == "__main__":
    main()
