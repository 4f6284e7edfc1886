"""Every real dtype that a detector gives, in both byte orders: copied bit by bit, or scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from ptycho_fast.patterns import gather_normalised, gather_patterns, pattern_energies
from ptycho_fast.ptychopinn import RawData, normalize_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

KINDS = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
DTYPES = [np.dtype(order + kind) for kind in KINDS for order in "<>"]
n, N = 60, 8


def make_stack(dtype: np.dtype[Any], seed: int = 0) -> NDArray[Any]:
    """Draw numbers all over the range of a dtype, whose squares are finite."""
    rng = np.random.default_rng(seed)
    if dtype.kind == "f":
        return rng.uniform(0, 200, (n, N, N)).astype(dtype)
    if dtype.kind == "b":
        return rng.random((n, N, N)) < 0.5
    range_ = np.iinfo(dtype)
    native = dtype.newbyteorder("=")
    return rng.integers(range_.min, range_.max, (n, N, N), native, endpoint=True).astype(dtype)


def scan_of(stack: NDArray[Any]) -> pf.Scan:
    return pf.Scan(np.random.default_rng(1).uniform(20, 80, (n, 2)), stack)


def exactly(stack: NDArray[Any]) -> NDArray[np.float64]:
    """Sum the squares of each pattern one after another."""
    return np.array([sum(float(v) ** 2 for v in pattern.ravel()) for pattern in stack])


def same_bits(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return found.tobytes() == np.ascontiguousarray(expected, found.dtype).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("C", [1, 4, 5])
def test_patterns_are_copied_scaled_and_summed(dtype: np.dtype[Any], C: int) -> None:
    stack = make_stack(dtype)
    indices = np.random.default_rng(2).integers(0, n, (20, C))
    mask = np.random.default_rng(3).random((N, N)) < 0.8
    expected = reference.gather(stack, indices)
    single = expected.astype(np.float32)

    found = gather_patterns(stack, indices)
    assert found.dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)
    scaled = gather_patterns(stack, indices, scale=0.37)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.float32(0.37) * single)
    masked = gather_patterns(stack, indices, mask=mask)
    np.testing.assert_array_equal(masked, np.where(mask[:, :, np.newaxis], expected, 0))

    energies = pattern_energies(stack)
    np.testing.assert_allclose(energies, exactly(stack), rtol=1e-13)
    good = np.where(mask, stack, stack.dtype.type(0))
    np.testing.assert_allclose(pattern_energies(stack, mask=mask), exactly(good), rtol=1e-13)

    gathered, normalised = gather_normalised(stack, indices)
    assert gathered.dtype == found.dtype
    assert normalised.dtype == np.float32
    np.testing.assert_array_equal(gathered, expected)
    scale = reference.normalisation_scale(expected, N)
    np.testing.assert_allclose(normalised, scale * single, rtol=2e-7)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_a_copy_keeps_every_bit(kind: str) -> None:
    """NaN of both sorts with what they carry, both zeros, subnormals: nothing is computed."""
    size = int(kind[1])
    rng = np.random.default_rng(4)
    words = rng.integers(0, 2 ** (8 * size), (n, N, N), f"u{size}")
    exponent = {2: 0x7C00, 4: 0x7F80_0000, 8: 0x7FF0_0000_0000_0000}[size]
    words[0] = exponent | rng.integers(1, 100, (N, N), f"u{size}")  # signalling
    words[1, 0] = 1 << (8 * size - 1)  # -0.0
    stack = words.view(kind)
    indices = rng.permutation(n).reshape(-1, 4)
    expected = reference.gather(words, indices).view(kind)
    mask = np.ones((N, N), bool)
    assert same_bits(gather_patterns(stack, indices), expected)
    assert same_bits(gather_patterns(stack, indices, mask=mask), expected)
    (batch,) = pf.GroupedDataset(
        scan_of(stack), pf.group_positions(scan_of(stack).positions, 15, gridsize=2, seed=0)
    ).batches(15)
    assert same_bits(batch["diffraction"], reference.gather(words, batch["nn_indices"]).view(kind))


def test_every_float16_is_read_exactly() -> None:
    words = np.arange(2**16, dtype=np.uint16)
    halves = words[np.isfinite(words.view(np.float16))].view(np.float16)
    stack = np.resize(halves, (1, 256, 256))
    scaled = gather_patterns(stack, [[0]], scale=1.0)[0, :, :, 0]
    np.testing.assert_array_equal(scaled.view(np.uint32), stack[0].astype(np.float32).view("u4"))
    others = np.resize(words[~np.isfinite(words.view(np.float16))].view(np.float16), (1, 46, 46))
    scaled = gather_patterns(others, [[0]], scale=1.0)[0, :, :, 0]
    np.testing.assert_array_equal(scaled, others[0].astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_drop_in_keeps_the_dtype(dtype: np.dtype[Any]) -> None:
    stack = make_stack(dtype)
    x, y = scan_of(stack).positions.T
    record = RawData(x, y, None, None, stack, None, None)
    data = record.generate_grouped_data(N, K=7, nsamples=12, seed=0, gridsize=2)
    expected = reference.gather(stack, data["nn_indices"])
    assert data["diffraction"].dtype == dtype.newbyteorder("=")
    np.testing.assert_array_equal(data["diffraction"], expected)
    single = expected.astype(np.float32)
    scale = reference.normalisation_scale(expected, N)
    assert data["X_full"].dtype == np.float32
    np.testing.assert_allclose(data["X_full"], scale * single, rtol=2e-7)

    for patterns in (expected.astype(dtype), stack):
        normalised = normalize_data({"diffraction": patterns}, N)
        assert normalised.dtype == np.float32
        assert normalised.shape == patterns.shape
        scale = reference.normalisation_scale(patterns.reshape(*patterns.shape[:3], -1), N)
        np.testing.assert_allclose(normalised, scale * patterns.astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches_and_feeds_keep_the_dtype(dtype: np.dtype[Any]) -> None:
    stack = make_stack(dtype)
    scan = scan_of(stack)
    groups = pf.group_positions(scan.positions, 20, gridsize=2, seed=0)
    expected = reference.gather(stack, groups.indices)
    native = dtype.newbyteorder("=")
    data = pf.GroupedDataset(scan, groups)
    assert data.dtype == native
    two = pf.GroupedDataset.concatenate([data, data])
    (batch,) = data.batches(20)
    (both,) = two.batches(40)
    assert batch["diffraction"].dtype == both["diffraction"].dtype == native
    np.testing.assert_array_equal(batch["diffraction"], expected)
    np.testing.assert_array_equal(both["diffraction"][20:], expected)

    normalised = pf.GroupedDataset(scan, groups, normalize=True)
    (batch,) = normalised.batches(20)
    scale = reference.normalisation_scale(expected, N)
    np.testing.assert_allclose(batch["diffraction"], scale * expected.astype(np.float32), rtol=2e-7)
    # The stack of the caller is neither written to nor exchanged.
    assert scan.diffraction is stack


@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_batches_keep_every_dtype(kind: str) -> None:
    pytest.importorskip("torch")
    stack = make_stack(np.dtype(kind))
    scan = scan_of(stack)
    groups = pf.group_positions(scan.positions, 20, gridsize=2, seed=0)
    expected = reference.gather(stack, groups.indices)
    for resident in (False, True):
        data = pf.GroupedDataset(scan, groups)
        (batch,) = data.to_torch(20, layout="channels_last", resident=resident)
        np.testing.assert_array_equal(batch["diffraction"].numpy(), expected)
        assert batch["diffraction"].numpy().dtype == np.dtype(kind)
        normal = pf.GroupedDataset(scan, groups, normalize=True)
        (batch,) = normal.to_torch(20, layout="channels_last", resident=resident)
        scale = reference.normalisation_scale(expected, N)
        np.testing.assert_allclose(
            batch["diffraction"].numpy(), scale * expected.astype(np.float32), rtol=2e-7
        )


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_batches_keep_every_dtype(kind: str) -> None:
    pytest.importorskip("tensorflow")
    stack = make_stack(np.dtype(kind))
    scan = scan_of(stack)
    groups = pf.group_positions(scan.positions, 20, gridsize=2, seed=0)
    (batch,) = pf.GroupedDataset(scan, groups).to_tensorflow(20)
    assert batch["diffraction"].dtype.as_numpy_dtype == np.dtype(kind).type
    np.testing.assert_array_equal(
        batch["diffraction"].numpy(), reference.gather(stack, groups.indices)
    )


@pytest.mark.parametrize("dtype", ["c8", "O", "U1", "M8[s]", np.longdouble])
def test_dtypes_of_no_detector_are_refused(dtype: Any) -> None:
    if np.dtype(dtype) == np.float64:
        pytest.skip("a long double is a double here")
    stack = np.zeros((n, N, N), dtype)
    calls: list[Callable[[], Any]] = [
        lambda: gather_patterns(stack, [[0]]),
        lambda: pattern_energies(stack),
        lambda: normalize_data({"diffraction": stack}, N),
        lambda: pf.GroupedDataset(scan_of(stack), pf.group_positions(scan_of(stack).positions, 5)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="must be real numbers of up to 64 bits, got"):
            call()
