"""The mask of a scan: the pixels whose scores count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho_fast.metrics import scan_mask

pytest.importorskip("scipy")
pytest.importorskip("skimage")

if TYPE_CHECKING:
    from numpy.typing import NDArray


def brute_force_mask(
    shape: tuple[int, int], positions: NDArray[np.float64], N: int
) -> NDArray[np.bool_]:
    height, width = shape
    near = np.zeros(shape, bool)
    for y in range(height):
        for x in range(width):
            distances = (x - positions[:, 0]) ** 2 + (y - positions[:, 1]) ** 2
            near[y, x] = np.count_nonzero(distances <= (10 * N / 64) ** 2) >= 3
    # What can't be reached from beyond the array, four ways, is a hole.
    outside = np.pad(np.zeros(shape, bool), 1, constant_values=True)
    free = np.pad(~near, 1, constant_values=True)
    while True:
        grown = outside.copy()
        for axis in (0, 1):
            for by in (-1, 1):
                grown |= np.roll(outside, by, axis)
        grown &= free
        if (grown == outside).all():
            break
        outside = grown
    seen = ~outside[1:-1, 1:-1]
    mask = np.zeros(shape, bool)
    wide = np.pad(seen, 4)
    steps = [(r, c) for r in range(-4, 5) for c in range(-4, 5) if abs(r) + abs(c) <= 4]
    for y in range(height):
        for x in range(width):
            mask[y, x] = all(wide[y + 4 + r, x + 4 + c] for r, c in steps)
    return mask


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    n=st.integers(1, 60),
    N=st.sampled_from([16, 33, 64, 90]),
    whole=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_the_mask_is_its_definition(
    shape: tuple[int, int], n: int, N: int, whole: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-8, [shape[1] + 8, shape[0] + 8], (n, 2))
    positions = np.rint(positions) if whole else positions
    expected = brute_force_mask(shape, positions, N)
    assert (scan_mask(shape, positions, N) == expected).all()


def test_holes_in_the_scan_are_filled_in_the_mask() -> None:
    angle = np.linspace(0, 2 * np.pi, 400)
    positions = np.column_stack([50 + 30 * np.cos(angle), 50 + 30 * np.sin(angle)])
    mask = scan_mask((100, 100), positions, 64)
    assert mask[50, 50]
    assert not mask[50, 88]


def test_positions_far_beyond_the_array_are_ignored() -> None:
    near = np.stack(np.meshgrid(np.arange(30, 91, 4.0), np.arange(28, 81, 4.0)), -1).reshape(-1, 2)
    far = np.concatenate([near, [[1e140, -1e140]]])
    assert (scan_mask((112, 124), far, 32) == scan_mask((112, 124), near, 32)).all()
