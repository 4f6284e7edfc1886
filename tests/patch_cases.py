"""Objects and positions to cut patches at, and how exact the patches must be."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH = 150, 210

CASES = [
    (N, gridsize, B)
    for N, gridsize, B in itertools.product((1, 2, 32, 33, 64, 127, 256), (1, 2, 3), (1, 7, 100))
    if B * N**2 * gridsize**2 <= 100 * 127**2  # 100 patches of 256 x 256 are one case, below
] + [(256, 1, 100)]
"""N, gridsize and B of every shape that is tried."""


def make_object(
    height: int = HEIGHT, width: int = WIDTH, dtype: type = np.complex128
) -> NDArray[Any]:
    """An object of random numbers."""
    rng = np.random.default_rng(height)
    real, imaginary = rng.normal(size=(2, height, width))
    image: NDArray[Any] = (real + 1j * imaginary).astype(dtype)
    return image


def make_positions(B: int, C: int, N: int, seed: int = 0) -> NDArray[np.float64]:
    """Positions of which many lie across a border and some beyond it, all different."""
    rng = np.random.default_rng([seed, B, C, N])
    x = rng.uniform(-0.7 * N, WIDTH + 0.7 * N, (B, C))
    y = rng.uniform(-0.7 * N, HEIGHT + 0.7 * N, (B, C))
    return np.stack([x, y], axis=1)


@functools.cache
def case(N: int, gridsize: int, B: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The object and positions of a case, and the patches by definition."""
    C = gridsize**2
    image = make_object(dtype=np.complex64 if (N + C + B) % 2 else np.complex128)
    positions = make_positions(B, C, N)
    return image, positions, reference.extract_patches(image, positions, N)


def tolerance(image: NDArray[Any]) -> float:
    """The error that docs/contract.md, section 5, allows.

    It is relative to the largest modulus, and to the largest step between adjacent pixels, zeros
    outside the object included.
    """
    bordered = np.pad(image, 1)
    steps = max(float(np.abs(np.diff(bordered, axis=axis)).max()) for axis in (0, 1))
    return 1e-6 * float(np.abs(image).max()) + 1e-4 * steps


def assert_close(found: Any, expected: NDArray[Any], image: NDArray[Any]) -> None:
    """Patches of any framework are complex64 and as exact as they must be."""
    patches = np.asarray(found)
    assert patches.dtype == np.complex64
    assert patches.shape == expected.shape
    assert patches.flags.c_contiguous
    assert np.abs(patches - expected).max(initial=0) <= tolerance(image)
