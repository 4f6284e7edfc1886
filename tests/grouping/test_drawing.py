"""Groups by the rule `nearest` against the reference, and what a draw depends on."""

from __future__ import annotations

import multiprocessing
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from ptycho_fast import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHAPES = sorted(reference.scan_shapes(8, 0))


def _read_from(near: NDArray[np.int64]) -> Callable[..., NDArray[np.int64]]:
    """Search by reading lists of neighbours of all positions: fewer of them come first in each."""
    return lambda _, centers, k: near[np.asarray(centers), :k]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 5, 40, 1500])
def test_groups_equal_the_reference_on_every_scan_shape(shape: str, n: int) -> None:
    positions = reference.scan_shapes(n, 0)[shape]
    near = reference.nearest_neighbors(positions, np.arange(len(positions)), 40)
    for C, K in [(1, 1), (1, 4), (3, 5), (4, 4), (4, 7), (9, 12), (16, 40)]:
        if len(positions) < C:
            continue
        for include_center in (False, True):
            centers, indices = reference.nearest_groups(
                positions,
                None,
                C,
                K,
                seed=7,
                epoch=3,
                include_center=include_center,
                neighbor_search=_read_from(near),
            )
            for threads in (1, 2, 8):
                groups = pf.group_positions(
                    positions,
                    group_size=C,
                    n_neighbors=K,
                    seed=7,
                    epoch=3,
                    include_center=include_center,
                    num_threads=threads,
                )
                np.testing.assert_array_equal(groups.centers, centers)
                np.testing.assert_array_equal(groups.indices, indices)


@pytest.mark.parametrize("shape", SHAPES)
def test_large_scans_equal_the_reference(shape: str) -> None:
    # Where squares underflow, the reference asks its tree for everybody.
    underflows = shape in ("all_decades", "no_squares", "squares_of_few_bits")
    positions = reference.scan_shapes(5_500 if underflows else 30_000, 0)[shape]
    tree = reference.nearest_neighbors if underflows else reference.nearest_neighbors_tree
    near = tree(positions, np.arange(len(positions)), 12)
    centers, indices = reference.nearest_groups(
        positions, 5000, 4, 7, seed=1, neighbor_search=_read_from(near)
    )
    groups = pf.group_positions(positions, 5000, gridsize=2, n_neighbors=7, seed=1)
    np.testing.assert_array_equal(groups.centers, centers)
    np.testing.assert_array_equal(groups.indices, indices)
    np.testing.assert_array_equal(pf.ScanIndex(positions).neighbors(12), near)


coordinates = st.one_of(
    st.integers(-4, 4).map(float),
    st.floats(-1e150, 1e150),
    st.sampled_from([-0.0, 1e8, 1e-170, -1e150, 0.1]),
)


@settings(deadline=None, max_examples=200)
@given(
    positions=st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=60),
    C=st.integers(1, 9),
    extra=st.integers(0, 30),
    seed=st.integers(0, 2**128 - 1),
    include_center=st.booleans(),
)
def test_any_scan_equals_the_reference(
    positions: list[tuple[float, float]], C: int, extra: int, seed: int, include_center: bool
) -> None:
    C = min(C, len(positions))
    centers, indices = reference.nearest_groups(
        np.array(positions), None, C, C + extra, seed=seed, include_center=include_center
    )
    groups = pf.group_positions(
        positions, group_size=C, n_neighbors=C + extra, seed=seed, include_center=include_center
    )
    np.testing.assert_array_equal(groups.centers, centers)
    np.testing.assert_array_equal(groups.indices, indices)


def test_the_default_is_four_of_seven_neighbors_around_every_position(
    raster: NDArray[np.float64],
) -> None:
    groups = pf.group_positions(raster, seed=0)
    assert groups.indices.shape == (400, 4)
    assert groups.indices.dtype == groups.centers.dtype == np.int32
    assert groups.indices.flags.c_contiguous
    assert groups.n_neighbors == 7
    assert sorted(groups.centers) == list(range(400))


def test_more_groups_only_append(raster: NDArray[np.float64]) -> None:
    some = pf.group_positions(raster, 50, seed=5)
    more = pf.group_positions(raster, 300, seed=5)
    np.testing.assert_array_equal(more.indices[:50], some.indices)
    np.testing.assert_array_equal(more.centers[:50], some.centers)


def test_centers_are_taken_as_given_and_do_not_disturb_one_another(
    raster: NDArray[np.float64],
) -> None:
    every = pf.group_positions(raster, centers="sequential", seed=5)
    np.testing.assert_array_equal(every.centers, np.arange(400))
    given = pf.group_positions(raster, centers=[17, 399, 17], seed=5)
    np.testing.assert_array_equal(given.centers, [17, 399, 17])
    np.testing.assert_array_equal(given.indices, every.indices[[17, 399, 17]])
    few = pf.group_positions(raster, 3, centers="sequential", seed=5)
    np.testing.assert_array_equal(few.indices, every.indices[:3])


def test_groups_keep_the_centers_when_the_callers_array_changes(
    raster: NDArray[np.float64],
) -> None:
    asked = np.array([17, 399, 3], np.int32)
    groups = pf.group_positions(raster, centers=asked, seed=5)
    asked[:] = 0
    np.testing.assert_array_equal(groups.centers, [17, 399, 3])
    groups.centers[:] = 0
    np.testing.assert_array_equal(groups.request.given_centers, [17, 399, 3])


def test_epochs_differ_and_seeds_are_recorded(raster: NDArray[np.float64]) -> None:
    first = pf.group_positions(raster)
    again = pf.group_positions(raster, seed=first.seed)
    np.testing.assert_array_equal(again.indices, first.indices)
    assert pf.group_positions(raster).seed != first.seed
    later = pf.group_positions(raster, seed=first.seed, epoch=1)
    assert not np.array_equal(later.indices, first.indices)
    legacy = pf.group_positions(raster, rng="numpy")
    assert 0 <= legacy.seed < 2**32


def test_numpys_global_stream_is_left_alone(raster: NDArray[np.float64]) -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    pf.group_positions(raster, seed=1)
    pf.group_positions(raster, seed=1, rng="numpy")
    pf.group_positions(raster)
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    np.testing.assert_array_equal(after["key"], before["key"])
    assert after["pos"] == before["pos"]


def test_every_way_of_passing_positions_is_the_same(raster: NDArray[np.float64]) -> None:
    expected = pf.group_positions(raster, seed=1).indices
    wide = np.zeros((400, 6))
    wide[:, 1::3] = raster
    ways: list[Any] = [
        raster.astype(np.float32),
        raster.astype(np.int16),
        raster.astype(np.uint64),
        raster.astype(">f8"),
        wide[:, 1::3],
        np.asfortranarray(raster),
        raster[::-1][::-1],
        raster.tolist(),
        pf.ScanIndex(raster),
    ]
    for way in ways:
        np.testing.assert_array_equal(pf.group_positions(way, seed=1).indices, expected)
    x, y = raster.T
    np.testing.assert_array_equal(
        pf.group_positions(xcoords=x, ycoords=y, seed=1).indices, expected
    )


def _draw_in_child(index: pf.ScanIndex, queue: Any) -> None:
    queue.put(pf.group_positions(index, seed=9, num_threads=2).indices)


def test_a_forked_child_draws_the_same() -> None:
    positions = reference.scan_shapes(5000, 0)["uniform"]
    index = pf.ScanIndex(positions, num_threads=2)
    expected = pf.group_positions(index, seed=9, num_threads=2).indices  # threads now run
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        # Python warns of forking while threads run: that is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = context.Process(target=_draw_in_child, args=(index, queue))
        child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join(timeout=60)
    assert child.exitcode == 0


@given(seed=st.integers(0, 2**128 - 1), epoch=st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_the_key_of_a_seed_is_that_of_numpy(seed: int, epoch: int) -> None:
    sequence = np.random.SeedSequence(seed, spawn_key=(epoch,))
    assert _core.philox_key(seed, epoch) == tuple(sequence.generate_state(2, np.uint64))


def test_results_are_the_memory_of_the_core(raster: NDArray[np.float64]) -> None:
    """The array NumPy shows is the engine's own memory: it does not own, and nothing was copied."""
    groups = pf.group_positions(raster, seed=1)
    assert not groups.indices.flags.owndata
    owner = groups.indices.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert type(owner).__module__ != "numpy"  # a Rust vector, held by a capsule of the binding
    assert not pf.ScanIndex(raster).neighbors(3).flags.owndata


def test_the_number_of_threads_is_read_from_the_environment(
    raster: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pf.group_positions(raster, seed=1).indices
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "3")
    np.testing.assert_array_equal(pf.group_positions(raster, seed=1).indices, expected)
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "none")
    with pytest.raises(ValueError, match='PTYCHO_FAST_NUM_THREADS must be .* got "none"'):
        pf.group_positions(raster, seed=1)


def test_too_many_groups_take_every_position_once_and_warn(raster: NDArray[np.float64]) -> None:
    for rng in ("philox", "numpy"):
        with pytest.warns(UserWarning, match="n_groups=500 exceeds the 400 positions"):
            groups = pf.group_positions(raster, 500, seed=1, rng=rng)
        assert sorted(groups.centers) == list(range(400))
