"""`RawData.generate_grouped_data` at 10 000 groups: time and peak memory, answers checked.

``python benches/grouped_data.py`` prints a table, each rival in a process of its own. The peak is
VmHWM above what the imports took: it holds the source (the patterns of the scan), the dictionary,
and whatever else was needed at once. Beside it stand a plain copy of the large outputs by two
threads, into memory already touched; and the time in which two threads write as many bytes once
into new huge pages, which no first call can do without. The host of a virtual machine may take
seconds to find memory that was not used before: so that comes first, and is a row of its own.
"""

from __future__ import annotations

import argparse
import json
import mmap
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import measure, peak, reference, run_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

N, K, GRIDSIZE, SEED = 64, 7, 2, 42


def source(n: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return positions of a jittered raster, and patterns, without passing over more memory."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n)))
    positions = np.stack([np.arange(n) % side, np.arange(n) // side], 1) * 8.0
    patterns = np.empty((n, N, N), np.float32)
    for pattern in patterns:
        rng.random(out=pattern, dtype=np.float32)
    return positions + rng.uniform(-2, 2, (n, 2)), patterns


def ours(
    positions: NDArray[np.float64], patterns: NDArray[Any], image: NDArray[Any] | None
) -> dict[str, Any]:
    """Group by the drop-in."""
    from ptycho_fast.ptychopinn import RawData  # noqa: PLC0415

    data = RawData.from_coords_without_pc(
        positions[:, 0], positions[:, 1], patterns, None, None, image
    )
    return data.generate_grouped_data(N, K=K, nsamples=len(positions), seed=SEED, gridsize=GRIDSIZE)


def numpy_dictionary(
    positions: NDArray[np.float64], patterns: NDArray[Any], image: NDArray[Any] | None
) -> dict[str, Any]:
    """Build the same dictionary from the same groups by NumPy and SciPy, well written."""
    groups = legacy_groups(positions)
    gathered = patterns[groups].transpose(0, 2, 3, 1)
    energies = np.einsum("nij,nij->n", patterns, patterns, dtype=np.float64)
    scale = np.float32(np.sqrt((N / 2) ** 2 / energies[groups].mean()))
    coords = positions[groups].transpose(0, 2, 1)[:, np.newaxis]
    offsets = coords.mean(axis=-1, keepdims=True)
    return {
        "diffraction": np.ascontiguousarray(gathered),
        "X_full": scale * gathered,
        "nn_indices": groups,
        "coords_relative": offsets - coords,
    }


def legacy_groups(positions: NDArray[np.float64]) -> NDArray[Any]:
    """Draw the groups of the legacy stream, neighbours by SciPy."""
    tree = reference.nearest_neighbors_tree
    _, groups = reference.legacy_groups(
        positions, len(positions), GRIDSIZE**2, K, SEED, neighbor_search=tree
    )
    return groups


RIVALS = {"ptycho_fast": ours, "NumPy + SciPy": numpy_dictionary}


def run_here(rival: str, n: int, side: int, repeats: int) -> dict[str, float]:
    """Run one rival and check its answer."""
    RIVALS[rival](*source(16), None)  # imports
    imported = peak()
    positions, patterns = source(n)
    image = np.ones((side, side), np.complex64) if side else None
    loaded = patterns.nbytes + (image.nbytes if image is not None else 0)
    found, answer = measure(lambda: RIVALS[rival](positions, patterns, image), 1)
    found["bytes"] = peak() - imported
    found["output"] = loaded + sum(
        value.nbytes for value in answer.values() if isinstance(value, np.ndarray)
    )
    groups = legacy_groups(positions)
    np.testing.assert_array_equal(answer["nn_indices"], groups)
    np.testing.assert_array_equal(
        answer["diffraction"][-50:], reference.gather(patterns, groups[-50:])
    )
    scale = answer["X_full"][-1] / answer["diffraction"][-1]
    np.testing.assert_allclose(scale, scale[0, 0, 0], rtol=1e-6)
    del answer
    again, answer = measure(lambda: RIVALS[rival](positions, patterns, image), repeats)
    outputs = [answer[key] for key in ("diffraction", "X_full", "Y") if answer.get(key) is not None]
    return found | {"seconds": again["seconds"], "copy": threaded_copy(outputs, repeats)}


def threaded_copy(outputs: list[NDArray[Any]], repeats: int) -> float:
    """Return the least time in which two threads copy as much into memory already touched."""
    pieces = [piece for output in outputs for piece in np.array_split(output.reshape(-1), 64)]
    copies = [piece.copy() for piece in pieces]
    least = np.inf
    with ThreadPoolExecutor(2) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            list(pool.map(np.copyto, copies, pieces))
            least = min(least, time.perf_counter() - start)
    return float(least)


def touch_new_memory(size: int) -> float:
    """Return the time in which two threads write so many bytes into new huge pages."""
    start = time.perf_counter()
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    pieces = np.array_split(np.frombuffer(mapping, np.uint8), 64)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda piece: piece.fill(1), pieces))
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.here:
        job, *of = json.loads(arguments.here)
        print(json.dumps(touch_new_memory(*of) if job == "touch" else run_here(job, *of)))
        return
    print(
        "| groups | object | engine | first call (s) | later (s) | a copy (s) | new memory (s) "
        "| first / new memory | later / copy | peak (MB) | of source + output |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    pixels = arguments.groups * N * N * GRIDSIZE**2
    unready = run_apart(__file__, ["touch", 16 * pixels])
    print(f"| {arguments.groups} | | the host finds memory | | | | {unready:.3f} | | | | |")
    for rival, side in [("ptycho_fast", 0), ("NumPy + SciPy", 0), ("ptycho_fast", 600)]:
        # diffraction and X_full in float32, Y in complex64
        new = run_apart(__file__, ["touch", (16 if side else 8) * pixels])
        found = run_apart(__file__, [rival, arguments.groups, side, arguments.repeats])
        size = f"{side} x {side}" if side else "none"
        first, later, copy = found["first"], found["seconds"], found["copy"]
        print(
            f"| {arguments.groups} | {size} | {rival} | {first:.3f} | {later:.3f} | {copy:.3f} "
            f"| {new:.3f} | {first / new:.2f} | {later / copy:.1f} | {found['bytes'] / 1e6:.0f} "
            f"| {100 * found['bytes'] / found['output']:.1f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
