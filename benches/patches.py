"""Patches of an object: the Rust kernel beside SciPy, NumPy and a plain copy, answers checked.

``python benches/patches.py`` prints microseconds per patch, each rival in a process of its own.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import measure, reference, run_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

B, C, SIDE = 64, 4, 1024


def job(N: int) -> tuple[NDArray[np.complex64], NDArray[np.float64]]:
    """Return an object and the positions of B groups inside it."""
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))).astype("c8")
    return image, rng.uniform(N / 2, SIDE - N / 2, (B, 2, C))


def scipy_patches(image: NDArray[Any], positions: NDArray[Any], N: int) -> NDArray[Any]:
    """Cut patches by scipy.ndimage.map_coordinates(order=1), real and imaginary part."""
    from scipy.ndimage import map_coordinates  # noqa: PLC0415

    pixels = np.arange(N) - N // 2
    rows = (pixels[None, :, None, None] + positions[:, 1, None, None, :]) + np.zeros((1, 1, N, 1))
    columns = (pixels[None, None, :, None] + positions[:, 0, None, None, :]) + 0 * rows
    where = np.stack([rows.ravel(), columns.ravel()])
    parts = [
        map_coordinates(part, where, order=1, mode="grid-constant", prefilter=False)
        for part in (image.real, image.imag)
    ]
    return np.reshape(parts[0] + 1j * parts[1], (len(positions), N, N, -1))


def numpy_patches(image: NDArray[Any], positions: NDArray[Any], N: int) -> NDArray[Any]:
    """Cut patches one by one from slices: what a careful loop does. Inside the object only."""
    out = np.empty((len(positions), N, N, positions.shape[2]), np.complex64)
    for b, group in enumerate(positions):
        for c, (x, y) in enumerate(group.T):
            left, top = int(np.floor(x)) - N // 2, int(np.floor(y)) - N // 2
            fx, fy = np.float32(x % 1), np.float32(y % 1)
            window = image[top : top + N + 1, left : left + N + 1]
            rows = window[:-1] * (1 - fy) + window[1:] * fy
            out[b, :, :, c] = rows[:, :-1] * (1 - fx) + rows[:, 1:] * fx
    return out


def run_here(rival: str, N: int, threads: int, repeats: int) -> dict[str, float]:
    """Run one rival and check its answer."""
    import ptycho_fast as pf  # noqa: PLC0415

    image, positions = job(N)
    out = np.zeros((B, N, N, C), np.complex64)  # touched: page faults are not the kernel
    patches = pf.extract_patches(image, positions, N)

    def copy() -> NDArray[np.complex64]:
        if threads == 1:
            np.copyto(out, patches)
        else:
            list(
                pool.map(np.copyto, np.array_split(out, threads), np.array_split(patches, threads))
            )
        return out

    pool = ThreadPoolExecutor(threads)
    jobs = {
        "a plain copy": copy,
        "ptycho_fast, into a buffer": lambda: pf.extract_patches(
            image, positions, N, out=out, num_threads=threads
        ),
        "ptycho_fast, a new array": lambda: pf.extract_patches(
            image, positions, N, num_threads=threads
        ),
        "SciPy map_coordinates": lambda: scipy_patches(image, positions, N),
        "NumPy slices": lambda: numpy_patches(image, positions, N),
    }
    found, answer = measure(jobs[rival], repeats)
    expected = reference.extract_patches(image, positions[:4], N)
    np.testing.assert_allclose(answer[:4], expected, atol=1e-5)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
        return
    print("| N | threads | engine | \N{MICRO SIGN}s a patch | x the first |")
    print("|---|---|---|---|---|")
    for N in (64, 128):
        first = 0.0
        for rival, threads in [
            ("ptycho_fast, into a buffer", 1),
            ("ptycho_fast, into a buffer", 2),
            ("ptycho_fast, a new array", 1),
            ("a plain copy", 1),
            ("a plain copy", 2),
            ("NumPy slices", 1),
            ("SciPy map_coordinates", 1),
        ]:
            found = run_apart(__file__, [rival, N, threads, arguments.repeats])
            each = 1e6 * found["seconds"] / (B * C)
            first = first or each
            print(f"| {N} | {threads} | {rival} | {each:.1f} | {each / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
