"""What is particular to patches by the Rust kernel: threads, buffers, instructions, its adjoint."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from patch_cases import make_object, make_positions
from places import SHARED
from ptycho_fast.patches.cpu import add_patches

GOLD_BALLS = "goldballs_als_simdiff_n104.npz"
needs_gold_balls = pytest.mark.skipif(
    not (SHARED / "goldens" / GOLD_BALLS).exists(), reason="../shared is not here"
)


@pytest.mark.parametrize("N", [1, 2, 31, 32, 65, 256])
@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("B", [1, 7])
def test_threads_and_out_do_not_affect_patches(N: int, gridsize: int, B: int) -> None:
    image, positions = make_object(dtype=np.complex64), make_positions(B, gridsize**2, N)
    found = pf.extract_patches(image, positions, N)
    out = np.full(found.shape, np.nan + 0j, np.complex64)
    for threads in (1, 2, 8):
        again = pf.extract_patches(image, positions, N, out=out, num_threads=threads)
        assert again is out
        np.testing.assert_array_equal(again, found)


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


def test_vector_instructions_do_not_affect_a_bit() -> None:
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
def test_patches_equal_those_of_ptychopinn(gridsize: int) -> None:
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


def test_whole_positions_give_slices_and_half_ones_means() -> None:
    image = make_object(20, 30, np.complex64)
    patch = pf.extract_patches(image, [[[12], [9]]], 6)[0, :, :, 0]
    np.testing.assert_array_equal(patch, image[6:12, 9:15])
    half = pf.extract_patches(image, [[[12.5], [9.0]]], 6)[0, :, :, 0]
    np.testing.assert_allclose(half, (image[6:12, 9:15] + image[6:12, 10:16]) / 2, rtol=1e-6)


def test_patches_far_away_are_zero() -> None:
    image = make_object(8, 8)
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
    image = make_object(H, W)
    positions = rng.uniform(-N, [[W + N], [H + N]], (B, 2, C))
    patches = rng.normal(size=(B, N, N, C)) + 1j * rng.normal(size=(B, N, N, C))
    cut = reference.extract_patches(image, positions, N)  # the oracle's, in float64
    added = add_patches(patches, positions, np.zeros((H, W), np.complex64))
    left, right = np.vdot(patches, cut), np.vdot(added, image)
    assert abs(left - right) <= 1e-5 * max(1.0, np.abs(cut).sum())
    for threads in (2, 8):
        again = add_patches(patches, positions, np.zeros((H, W), np.complex64), num_threads=threads)
        np.testing.assert_array_equal(again, added)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"positions": [[[1.0], [np.nan]], [[1.0], [1.0]]]}, "row 0 is the first of 1 rows"),
    ({"out": np.zeros((1, 2, 2, 1))}, "out must be .* complex64, got .* of float64"),
    ({"out": np.zeros((1, 2, 3, 1), np.complex64)}, r"got \(1, 2, 3, 1\)"),
    ({"out": np.zeros((1, 2, 4, 1), np.complex64)[:, :, ::2]}, "C-contiguous"),
    ({"out": [1]}, "got list"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_buffers_that_do_not_fit_are_refused(arguments: dict[str, Any], words: str) -> None:
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


def test_adding_patches_that_do_not_fit_is_refused() -> None:
    positions = np.ones((1, 2, 1))
    target = np.zeros((4, 4), np.complex64)
    with pytest.raises(ValueError, match="patches must be"):
        add_patches(np.ones((2, 3, 3, 1)), positions, target)
    with pytest.raises(ValueError, match="out must be"):
        add_patches(np.ones((1, 3, 3, 1)), positions, np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out must be"):
        add_patches(np.ones((1, 3, 3, 1)), positions, np.zeros(4, np.complex64))
