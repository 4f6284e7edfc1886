"""Batches from `GroupedDataset` beside a plain copy, NumPy, and a materialised dictionary.

``python benches/dataset.py`` prints the tables; every answer is checked in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import peak, reference, run_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    import ptycho_fast as pf

BATCH, C = 32, 4


def make_data(n: int, N: int, n_groups: int) -> pf.GroupedDataset:
    """Return groups of a raster with random patterns, in memory."""
    import ptycho_fast as pf  # noqa: PLC0415

    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    positions = (np.stack([np.arange(n) % side, np.arange(n) // side], 1) * 8.0).astype("f8")
    patterns = np.empty((n, N, N), np.float32)
    for pattern in patterns:
        rng.random(out=pattern, dtype=np.float32)
    centers = rng.integers(0, n, n_groups)
    groups = pf.group_positions(positions, centers=centers, gridsize=2, seed=1)
    return pf.GroupedDataset(pf.Scan(positions, patterns), groups)


# --- one epoch, batch after batch: ours and the rivals ------------------------------------------


def ours(data: pf.GroupedDataset) -> Iterator[NDArray[Any]]:
    """Gather by the engine, ahead."""
    return (batch["diffraction"] for batch in data.batches(BATCH, shuffle=True, seed=0))


def numpy_fancy(data: pf.GroupedDataset) -> Iterator[NDArray[Any]]:
    """Gather by fancy indexing and a transpose."""
    patterns, indices = data.scans[0].diffraction, data.groups[0].indices
    order = epoch_order(data)
    for first in range(0, len(indices), BATCH):
        rows = indices[order[first : first + BATCH]]
        yield np.ascontiguousarray(patterns[rows].transpose(0, 2, 3, 1))


def materialised(data: pf.GroupedDataset) -> Iterator[NDArray[Any]]:
    """Slice a dictionary that holds everything (its making is not counted)."""
    whole = data.materialize()["diffraction"]
    order = epoch_order(data)
    yield whole[:0]
    for first in range(0, len(whole), BATCH):
        yield whole[order[first : first + BATCH]]


def plain_copy(data: pf.GroupedDataset) -> Iterator[NDArray[Any]]:
    """Copy as many bytes from one array to another in two threads, which wait for each other.

    The arrays are the same for each batch, and stay in the caches.
    """
    N = data.N
    source = np.ones((BATCH, N, N, C), np.float32)
    target = np.ones_like(source)
    half = BATCH // 2
    with ThreadPoolExecutor(2) as pool:
        for _ in range(0, len(data), BATCH):
            parts = [
                pool.submit(np.copyto, target[part], source[part])
                for part in (slice(None, half), slice(half, None))
            ]
            for part in parts:
                part.result()
            yield target


def epoch_order(data: pf.GroupedDataset) -> NDArray[Any]:
    """Return the order of the epoch by the reference."""
    n = len(data)
    words = reference.words(reference.key(0, 0), 1, -(-n // 4), 0, 6)[:n]
    return np.lexsort((np.arange(n), words))


RIVALS: dict[str, Callable[[pf.GroupedDataset], Iterator[NDArray[Any]]]] = {
    "a plain copy of as many bytes, two threads": plain_copy,
    "ptycho_fast": ours,
    "NumPy: fancy indexing, transpose": numpy_fancy,
    "a materialised dictionary, sliced": materialised,
}


def epoch(rival: str, N: int) -> dict[str, float]:
    """Time an epoch, and check a batch."""
    data = make_data(64_000_000 // N**2 // 4, N, 40_000_000 // N**2)
    times = []
    for repeat in range(4):
        batches = RIVALS[rival](data)
        if rival.startswith("a mat"):
            next(batches)  # makes the dictionary
        start = time.perf_counter()
        count = 0
        for batch in batches:
            count += 1
            if repeat == 0 and count == 7 and not rival.startswith("a plain"):
                rows = epoch_order(data)[6 * BATCH : 7 * BATCH]
                expected = reference.gather(data.scans[0].diffraction, data.groups[0].indices[rows])
                np.testing.assert_array_equal(batch, expected)
        times.append(time.perf_counter() - start)
    each = statistics.median(times[1:]) / count
    return {"ms": 1e3 * each, "rate": BATCH * C * N * N * 4 / each / 1e9}


# --- what stays in memory, what an epoch costs, how soon a batch is there ------------------------


def resident(n_groups: int) -> dict[str, float]:
    """Memory of an epoch over many groups, beyond the source and the indices."""
    data = make_data(20_000, 64, n_groups)
    for number, _ in enumerate(data.batches(BATCH)):
        if number == 50:
            break
    before = peak()
    seen = sum(len(batch["nn_indices"]) for batch in data.batches(BATCH, shuffle=True))
    assert seen == n_groups
    return {"bytes": peak() - before}


def redraw(n_groups: int) -> dict[str, float]:
    """Time of drawing another epoch's groups, beside that of gathering an epoch."""
    import ptycho_fast as pf  # noqa: PLC0415

    data = make_data(n_groups, 64, 10)
    scan = data.scans[0]
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, gridsize=2, seed=1))
    data.at_epoch(1)  # searches the neighbours
    times = []
    for number in range(2, 9):
        start = time.perf_counter()
        drawn = data.at_epoch(number)
        times.append(time.perf_counter() - start)
    expected = pf.group_positions(scan.positions, gridsize=2, seed=1, epoch=8)
    np.testing.assert_array_equal(drawn.groups[0].indices, expected.indices)
    start = time.perf_counter()
    for _ in data.batches(BATCH, shuffle=True):
        pass
    return {"redraw": statistics.median(times), "epoch": time.perf_counter() - start}


def first_batch(n: int) -> dict[str, float]:
    """Time from opening a file of n patterns, whose groups are known, to the first batch."""
    import ptycho_fast as pf  # noqa: PLC0415

    data = make_data(n, 64, 10)
    groups = pf.group_positions(data.scans[0].positions, gridsize=2, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.npz"
        pf.write_scan(data.scans[0], path)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            opened = pf.GroupedDataset(pf.read_scan(path, load=False), groups)
            batch = next(opened.batches(BATCH, shuffle=True))
            times.append(time.perf_counter() - start)
        expected = reference.gather(data.scans[0].diffraction, batch["nn_indices"])
        np.testing.assert_array_equal(batch["diffraction"], expected)
    return {"seconds": statistics.median(times)}


def counts(n: int, filter_: str) -> dict[str, float]:
    """CPU time of reading and converting compressed counts, beside that of decoding them alone."""
    import h5py  # noqa: PLC0415
    import hdf5plugin  # noqa: PLC0415

    import ptycho_fast as pf  # noqa: PLC0415
    from ptycho_fast.io import convert  # noqa: PLC0415

    rng = np.random.default_rng(0)
    side, each = 128, 500
    told: dict[str, Any] = {"diffraction": "d", "x": "x", "y": "y", "unit": "m", "counts": True}
    told |= {"energy_eV": 8000, "distance_m": 2, "detector_pixel_m": 75e-6}
    compressed = {"compression": "gzip"} if filter_ == "gzip" else dict(hdf5plugin.Bitshuffle())
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "raw.h5", Path(folder) / "out.npz"
        with h5py.File(raw, "w") as file:
            data = file.create_dataset(
                "d", (n, side, side), "u2", chunks=(1, side, side), **compressed
            )
            for first in range(0, n, each):
                data[first : first + each] = rng.poisson(3, (each, side, side))
            file["x"], file["y"] = np.arange(n) * 1e-7, np.arange(n) % 77 * 1e-7

        def decode() -> NDArray[Any]:
            with h5py.File(raw) as file:
                return np.asarray(file["d"][:])

        jobs: dict[str, Callable[[], Any]] = {
            "decode": decode,
            "read": lambda: pf.read_scan(raw, load=True, **told).diffraction,
            "convert": lambda: convert(raw, out, **told),
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(3):
            for name, job in jobs.items():
                start = time.process_time()
                job()
                seconds[name].append(time.process_time() - start)
        expected = np.sqrt(decode(), dtype=np.float32)
        np.testing.assert_array_equal(jobs["read"](), expected)
        np.testing.assert_array_equal(pf.read_scan(out).diffraction, expected)
    best = {name: min(each) for name, each in seconds.items()}
    return {name: best["decode"] / best[name] for name in ("read", "convert")}


JOBS: dict[str, Callable[..., dict[str, float]]] = {
    "epoch": epoch,
    "resident": resident,
    "redraw": redraw,
    "first_batch": first_batch,
    "counts": counts,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small jobs only, in seconds")
    arguments = parser.parse_args()
    if arguments.here:
        job, *rest = json.loads(arguments.here)
        print(json.dumps(JOBS[job](*rest)))
        return
    small = arguments.quick
    print("| N | batches of 32 groups of 4, float32 | ms a batch | GB/s | of the copy |")
    print("|---|---|---|---|---|")
    for N in (64,) if small else (64, 128):
        copy = 0.0
        for rival in RIVALS:
            found = run_apart(__file__, ["epoch", rival, N])
            copy = copy or found["rate"]
            print(
                f"| {N} | {rival} | {found['ms']:.2f} | {found['rate']:.1f} "
                f"| {100 * found['rate'] / copy:.0f} % |",
                flush=True,
            )
    print()
    n = 10_000 if small else 1_000_000
    print(f"- memory of an epoch over {n:.0e} groups, beyond source and indices:", end=" ")
    print(f"{run_apart(__file__, ['resident', n])['bytes'] / 1e6:.1f} MB", flush=True)
    n = 5_000 if small else 100_000
    found = run_apart(__file__, ["redraw", n])
    print(
        f"- at_epoch for {n:.0e} groups: {1e3 * found['redraw']:.1f} ms, "
        f"{100 * found['redraw'] / found['epoch']:.2f} % of the {found['epoch']:.1f} s in which "
        "their patterns are gathered",
        flush=True,
    )
    found = run_apart(__file__, ["first_batch", n])
    print(f"- first batch of a file of {n:.0e} patterns: {1e3 * found['seconds']:.1f} ms")
    for filter_ in ("gzip", "bitshuffle and LZ4"):
        found = run_apart(__file__, ["counts", 1000 if small else 6000, filter_])
        print(
            f"- counts compressed by {filter_}: read_scan {100 * found['read']:.0f} %, convert "
            f"{100 * found['convert']:.0f} % of the rate at which h5py decodes them",
            flush=True,
        )


if __name__ == "__main__":
    main()
