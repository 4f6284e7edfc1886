"""The Rust patches against the float64 oracle, and their adjoint."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from places import SHARED
from ptycho_fast.patches.cpu import add_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLD_BALLS = "goldballs_als_simdiff_n104.npz"
needs_gold_balls = pytest.mark.skipif(
    not (SHARED / "goldens" / GOLD_BALLS).exists(), reason="../shared is not here"
)


def _object(shape: tuple[int, int], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def tolerance(image: NDArray[np.complexfloating]) -> float:
    """CONTRACT 5: of the largest modulus, and of adjacent pixels, zeros outside counted."""
    padded = np.pad(image, 1)
    steps = [np.abs(np.diff(padded, axis=axis)).max() for axis in (0, 1)]
    return float(1e-6 * np.abs(image).max() + 1e-4 * max(steps))


def _positions(
    B: int, C: int, shape: tuple[int, int], N: int, seed: int = 0
) -> NDArray[np.float64]:
    """Positions inside, across every border, and outside; x and y differ in every channel."""
    rng = np.random.default_rng(seed)
    H, W = shape
    x = rng.uniform(-N, W + N, (B, C))
    y = rng.uniform(-N, H + N, (B, C))
    flat_x, flat_y = x.ravel(), y.ravel()
    corners = [(0, 0), (W - 1, H - 1), (-N, 5), (W + N, 5), (3, -N), (3, H + N), (W / 2, 0.25)]
    for i, (cx, cy) in enumerate(corners[: flat_x.size]):
        flat_x[i], flat_y[i] = cx, cy
    return np.stack([x, y], axis=1)


@pytest.mark.parametrize("N", [1, 2, 31, 32, 65, 256])
@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("B", [1, 7])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_patches_equal_the_oracle(N: int, gridsize: int, B: int, dtype: Any) -> None:
    image = _object((150, 97)).astype(dtype)
    positions = _positions(B, gridsize**2, (150, 97), N)
    expected = reference.extract_patches(image, positions, N)
    found = pf.extract_patches(image, positions, N)
    assert found.dtype == np.complex64
    assert found.shape == (B, N, N, gridsize**2)
    assert np.abs(found - expected).max() <= tolerance(image)
    out = np.full(found.shape, np.nan + 0j, np.complex64)
    for threads in (1, 2, 8):
        again = pf.extract_patches(image, positions, N, out=out, num_threads=threads)
        assert again is out
        np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(pf.extract_patches(image, positions[:, None], N), found)


def test_a_hundred_groups_equal_the_oracle() -> None:
    image = _object((300, 411)).astype(np.complex64)
    positions = _positions(100, 4, image.shape, 64)
    expected = reference.extract_patches(image, positions, 64)
    assert np.abs(pf.extract_patches(image, positions, 64) - expected).max() <= tolerance(image)


IDENTICAL = """
import hashlib
import numpy as np
import ptycho_fast as pf
from ptycho_fast.patterns import gather_normalised
rng = np.random.default_rng(0)
image = (rng.normal(size=(150, 97)) + 1j * rng.normal(size=(150, 97))).astype("c8")
bits = hashlib.sha256()
for N, C in [(1, 1), (7, 1), (64, 1), (33, 4), (64, 4), (31, 5), (16, 9), (5, 16)]:
    bits.update(pf.extract_patches(image, rng.uniform(-20, 170, (9, 2, C)), N))
    stack = rng.uniform(0, 900, (20, N, N))
    for dtype in ("u2", "f4", "f8"):
        for part in gather_normalised(stack.astype(dtype), rng.integers(0, 20, (9, C))):
            bits.update(part)
print(bits.hexdigest())
"""


def test_instructions_do_not_change_a_bit() -> None:
    found = {}
    for name in ("portable", "avx2", "avx512", None):
        environment = {k: v for k, v in os.environ.items() if k != "PTYCHO_FAST_SIMD"}
        if name:
            environment["PTYCHO_FAST_SIMD"] = name
        command = [sys.executable, "-c", IDENTICAL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[name] = done.stdout
        else:
            assert "PTYCHO_FAST_SIMD" in done.stderr  # this processor has not got them
    assert {None, "portable"} <= found.keys()
    assert len(set(found.values())) == 1


@needs_gold_balls
@pytest.mark.parametrize("gridsize", [1, 2])
def test_patches_equal_the_frozen_ones(gridsize: int) -> None:
    golden, scan = np.load(SHARED / "goldens" / GOLD_BALLS), SHARED / "data" / GOLD_BALLS
    image = pf.read_scan(scan).object
    assert image is not None
    if gridsize == 1:
        frozen = golden["patches_N64_gridsize1_first6"]
        positions = np.stack([golden["xcoords"][:6], golden["ycoords"][:6]], 1)[:, :, np.newaxis]
    else:
        frozen = golden["patches_N64_gridsize2_first4"]
        positions = (golden["dict_coords_offsets"] + golden["dict_coords_relative"])[:4]
    found = pf.extract_patches(image, positions, 64)
    # The frozen patches were cut in float32 arithmetic on the coordinates too.
    assert np.abs(found - frozen).max() < 1e-5


def test_whole_positions_are_slices_and_half_ones_are_means() -> None:
    image = _object((20, 30)).astype(np.complex64)
    patch = pf.extract_patches(image, [[[12], [9]]], 6)[0, :, :, 0]
    np.testing.assert_array_equal(patch, image[6:12, 9:15])
    half = pf.extract_patches(image, [[[12.5], [9.0]]], 6)[0, :, :, 0]
    np.testing.assert_allclose(half, (image[6:12, 9:15] + image[6:12, 10:16]) / 2, rtol=1e-6)


def test_far_positions_are_zero_and_nothing_overflows() -> None:
    image = _object((8, 8))
    far = np.array([[[1e18], [3.0]], [[3.0], [-1e300]], [[2.0**62], [2.0**63]]])
    assert not pf.extract_patches(image, far, 16).any()
    target = np.zeros((8, 8), np.complex64)
    assert not add_patches(np.ones((3, 16, 16, 1)), far, target).any()


@settings(deadline=None, max_examples=60)
@given(
    H=st.integers(1, 70), W=st.integers(1, 40), N=st.integers(1, 20), C=st.integers(1, 5),
    B=st.integers(1, 4), seed=st.integers(0, 1000),
)  # fmt: skip
def test_adding_is_the_adjoint_of_extracting(
    H: int, W: int, N: int, C: int, B: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = _object((H, W), seed)
    positions = _positions(B, C, (H, W), N, seed)
    patches = rng.normal(size=(B, N, N, C)) + 1j * rng.normal(size=(B, N, N, C))
    cut = reference.extract_patches(image, positions, N)  # the oracle's, in float64
    added = add_patches(patches, positions, np.zeros((H, W), np.complex64))
    left, right = np.vdot(patches, cut), np.vdot(added, image)
    assert abs(left - right) <= 1e-5 * max(1.0, np.abs(cut).sum())
    for threads in (2, 8):
        again = add_patches(patches, positions, np.zeros((H, W), np.complex64), num_threads=threads)
        np.testing.assert_array_equal(again, added)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"object": np.zeros(5)}, r"object must be \(H, W\) complex, got shape \(5,\)"),
    ({"object": np.zeros((5, 5), "U1")}, "object must be"),
    ({"positions": np.zeros((1, 3, 1))}, r"\(B, 2, C\) or \(B, 1, 2, C\).*\(1, 3, 1\)"),
    ({"positions": np.zeros((1, 2, 0))}, r"\(B, 2, C\)"),
    ({"positions": np.zeros((1, 2, 1), complex)}, "real numbers"),
    ({"positions": [[[1.0], [np.nan]], [[1.0], [1.0]]]}, "row 0 is the first of 1 rows"),
    ({"N": 0}, "N must be a whole number in 1"),
    ({"N": 2.5}, "N must be a whole number"),
    ({"out": np.zeros((1, 2, 2, 1))}, "out must be .* complex64, got .* of float64"),
    ({"out": np.zeros((1, 2, 3, 1), np.complex64)}, r"got \(1, 2, 3, 1\)"),
    ({"out": np.zeros((1, 2, 4, 1), np.complex64)[:, :, ::2]}, "C-contiguous"),
    ({"out": [1]}, "got list"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_bad_input_is_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"object": np.zeros((5, 5)), "positions": np.ones((1, 2, 1)), "N": 2}
    with pytest.raises(ValueError, match=words):
        pf.extract_patches(**(good | arguments))


def test_output_that_is_also_the_input_is_refused() -> None:
    shared = np.zeros((4, 4), np.complex64)
    with pytest.raises(ValueError, match="shares memory with an input"):
        pf.extract_patches(shared, np.ones((1, 2, 1)), 4, out=shared.reshape(1, 4, 4, 1))


def test_patches_larger_than_memory_are_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        pf.extract_patches(np.zeros((5, 5)), np.ones((100, 2, 4)), 2**22)


def test_adding_refuses_what_does_not_fit() -> None:
    positions = np.ones((1, 2, 1))
    target = np.zeros((4, 4), np.complex64)
    with pytest.raises(ValueError, match="patches must be"):
        add_patches(np.ones((2, 3, 3, 1)), positions, target)
    with pytest.raises(ValueError, match="out must be"):
        add_patches(np.ones((1, 3, 3, 1)), positions, np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out must be"):
        add_patches(np.ones((1, 3, 3, 1)), positions, np.zeros(4, np.complex64))
