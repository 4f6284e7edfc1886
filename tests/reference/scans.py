"""Scans of every shape that has trouble in it: what the tests compare on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def _raster(n: int) -> Floats:
    """Make the first n points of a square raster of pitch 1, row by row."""
    side = math.ceil(math.sqrt(n))
    row, column = np.divmod(np.arange(n), side)
    return np.stack([column, row], axis=1).astype(np.float64)


def _circles(n: int, rng: np.random.Generator) -> Floats:
    """Make a centre at the origin and points at exactly the same distance from it.

    The integer points of a circle, out of the Gaussian integers z of norm p: each prime p
    brings one of z*z, z*conj(z), conj(z)**2. More than 2916 points take further circles, halved
    each time. All squares stay below 2**53 times a power of four, so every tie is exact.
    """
    circle = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    for a, b in ((2, 1), (3, 2), (4, 1), (5, 2), (6, 1), (5, 4)):
        real, imag = a * a - b * b, 2 * a * b
        factors = ((real, imag), (a * a + b * b, 0), (real, -imag))
        circle = [(x * u - y * v, x * v + y * u) for x, y in circle for u, v in factors]
        if len(circle) >= n - 1:
            break
    full = rng.permutation(np.array(circle, dtype=np.float64))
    rings = [full * 0.5**i for i in range(math.ceil((n - 1) / len(full)))]
    return np.concatenate([np.zeros((1, 2)), *rings])[:n]


def scan_shapes(n: int, seed: int) -> dict[str, Floats]:
    """Make scans of n positions in every shape that has trouble in it.

    Parameters
    ----------
    n : int
        Number of positions, 1 or more.
    seed : int
        Seed of whatever is random about them.

    Returns
    -------
    dict of str to ndarray of float64, shape (n, 2)
        Positions (x, y) by the name of the shape.
    """
    rng = np.random.default_rng(seed)
    raster = _raster(n)
    side = math.ceil(math.sqrt(n))
    steps = np.arange(n, dtype=np.float64)
    constant = np.full(n, 12.5)

    angle = steps * math.pi * (3 - math.sqrt(5))
    spiral = np.sqrt(steps)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    n_places = max(n // 1000, min(3, n))
    places = rng.uniform(0, 1000, (n_places, 2))

    decades = 10.0 ** np.linspace(-4, 4, 9)
    which = rng.integers(0, len(decades), n)
    middle = rng.uniform(-1e5, 1e5, (len(decades), 2))

    signed = 8 * (raster - side // 2)
    signed[(signed == 0) & (rng.random((n, 2)) < 0.5)] = -0.0

    lines = np.stack([0.5 * (steps // 3), 200.0 * (steps % 3)], axis=1)

    # Differences that lose their bits, and squares that underflow or keep few of them.
    fresh = np.random.default_rng([seed, 1])
    square = fresh.uniform(0, 1, (n, 2))
    outlier = 3e-6 * square
    outlier[n // 2] = 1e9
    sizes = 10.0 ** fresh.uniform(-300, 149, n)
    return {
        "raster": 8 * raster,
        "jittered_raster": 8 * raster + rng.uniform(-2, 2, (n, 2)),
        "uniform": rng.uniform(0, 8 * side, (n, 2)),
        "spiral": 5 * spiral,
        "equal_x": np.stack([constant, rng.uniform(0, n, n)], axis=1),
        "equal_y": np.stack([rng.permutation(steps), constant], axis=1),
        "three_lines": lines,
        "copies": places[rng.permutation(n) % n_places],
        "all_the_same": np.tile([[3.7, -1.2]], (n, 1)),
        "clusters": middle[which] + decades[which, None] * rng.normal(size=(n, 2)),
        "large_offset": 1e8 + 0.1 * raster,
        "circles": _circles(n, rng),
        "signed_zeros": signed,
        "integers": rng.integers(-side, side + 1, (n, 2)).astype(np.float64),
        "metres_and_an_outlier": outlier,
        "far_clusters": square + 1e12 * (steps % 2)[:, None],
        "all_decades": sizes[:, None] * np.stack([np.cos(steps), np.sin(steps)], axis=1),
        "no_squares": 1e-170 * square,
        "squares_of_few_bits": 1e-161 * square,
        "jittered_line": np.stack([steps, 1e-9 * square[:, 1]], axis=1),
    }
