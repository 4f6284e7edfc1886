"""Groups against the reference, bit for bit; what a draw depends on; what is refused."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from places import SHARED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = sorted(reference.scan_shapes(8, 0))
GOLDENS = sorted((SHARED / "goldens").glob("*.npz"))
needs_goldens = pytest.mark.skipif(not GOLDENS, reason="../shared/goldens is not here")


def _scan(shape: str, n: int, seed: int = 0) -> NDArray[np.float64]:
    return reference.scan_shapes(n, seed)[shape]


def _raster(side: int = 20) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 2, 5, 40, 1500])
def test_groups_equal_the_reference_on_every_scan_shape(shape: str, n: int) -> None:
    positions = _scan(shape, n)
    for C, K in [(1, 1), (1, 4), (3, 5), (4, 4), (4, 7), (9, 12), (16, 40)]:
        if len(positions) < C:
            continue
        for include_center in (False, True):
            centers, indices = reference.nearest_groups(
                positions, None, C, K, seed=7, epoch=3, include_center=include_center
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
    positions = _scan(shape, 5_500 if underflows else 30_000)
    tree = reference.nearest_neighbors if underflows else reference.nearest_neighbors_tree
    centers, indices = reference.nearest_groups(positions, 5000, 4, 7, seed=1, neighbor_search=tree)
    groups = pf.group_positions(positions, 5000, gridsize=2, n_neighbors=7, seed=1)
    np.testing.assert_array_equal(groups.centers, centers)
    np.testing.assert_array_equal(groups.indices, indices)
    every = np.arange(len(positions))
    np.testing.assert_array_equal(pf.ScanIndex(positions).neighbors(12), tree(positions, every, 12))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("C", "K"), [(1, 1), (4, 7), (9, 12), (4, 500)])
def test_the_legacy_stream_equals_the_reference(shape: str, C: int, K: int) -> None:
    positions = _scan(shape, 300)
    for n_groups in (1, 100, len(positions)):
        centers, indices = reference.legacy_groups(positions, n_groups, C, K, 11)
        groups = pf.group_positions(
            positions, n_groups, group_size=C, n_neighbors=K, seed=11, rng="numpy"
        )
        np.testing.assert_array_equal(groups.centers, centers)
        np.testing.assert_array_equal(groups.indices, indices)


@needs_goldens
@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_the_legacy_stream_repeats_the_frozen_groups(golden: Path) -> None:
    frozen = np.load(golden)
    names = [name for name in frozen.files if name.startswith("groups_gridsize")]
    assert len(names) == 16
    for name in names:
        gridsize, K, n_groups, seed = (
            int("".join(filter(str.isdigit, part))) for part in name.split("_")[1:]
        )
        groups = pf.group_positions(
            xcoords=frozen["xcoords"],
            ycoords=frozen["ycoords"],
            n_groups=n_groups,
            gridsize=gridsize,
            n_neighbors=K,
            seed=seed,
            rng="numpy",
        )
        np.testing.assert_array_equal(groups.indices, frozen[name], err_msg=name)


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


def test_the_default_is_four_of_seven_neighbors_around_every_position() -> None:
    groups = pf.group_positions(_raster(), seed=0)
    assert groups.indices.shape == (400, 4)
    assert groups.indices.dtype == groups.centers.dtype == np.int32
    assert groups.indices.flags.c_contiguous
    assert groups.n_neighbors == 7
    assert sorted(groups.centers) == list(range(400))


def test_more_groups_only_append() -> None:
    some = pf.group_positions(_raster(), 50, seed=5)
    more = pf.group_positions(_raster(), 300, seed=5)
    np.testing.assert_array_equal(more.indices[:50], some.indices)
    np.testing.assert_array_equal(more.centers[:50], some.centers)


def test_centers_are_taken_as_given_and_do_not_disturb_one_another() -> None:
    every = pf.group_positions(_raster(), centers="sequential", seed=5)
    np.testing.assert_array_equal(every.centers, np.arange(400))
    given = pf.group_positions(_raster(), centers=[17, 399, 17], seed=5)
    np.testing.assert_array_equal(given.centers, [17, 399, 17])
    np.testing.assert_array_equal(given.indices, every.indices[[17, 399, 17]])
    few = pf.group_positions(_raster(), 3, centers="sequential", seed=5)
    np.testing.assert_array_equal(few.indices, every.indices[:3])


def test_epochs_differ_and_seeds_are_recorded() -> None:
    first = pf.group_positions(_raster())
    again = pf.group_positions(_raster(), seed=first.seed)
    np.testing.assert_array_equal(again.indices, first.indices)
    assert pf.group_positions(_raster()).seed != first.seed
    later = pf.group_positions(_raster(), seed=first.seed, epoch=1)
    assert not np.array_equal(later.indices, first.indices)
    legacy = pf.group_positions(_raster(), rng="numpy")
    assert 0 <= legacy.seed < 2**32


def test_numpys_global_stream_is_left_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    pf.group_positions(_raster(), seed=1)
    pf.group_positions(_raster(), seed=1, rng="numpy")
    pf.group_positions(_raster())
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    np.testing.assert_array_equal(after["key"], before["key"])
    assert after["pos"] == before["pos"]


def test_every_way_of_passing_positions_is_the_same() -> None:
    raster = _raster()
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


def test_one_index_serves_many_draws_and_threads() -> None:
    positions = _scan("uniform", 3000)
    index = pf.ScanIndex(positions)
    expected = [pf.group_positions(positions, seed=seed).indices for seed in range(8)]
    found: dict[int, NDArray[np.int32]] = {}

    def draw(seed: int) -> None:
        found[seed] = pf.group_positions(index, seed=seed).indices

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        np.testing.assert_array_equal(found[seed], expected[seed])


def test_an_index_keeps_its_positions_and_pickles() -> None:
    positions = _raster()
    index = pf.ScanIndex(positions)
    neighbors = index.neighbors(5)
    positions[:] = 0
    np.testing.assert_array_equal(index.neighbors(5), neighbors)
    again = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(again.neighbors(5), neighbors)
    assert len(again) == 400


@pytest.mark.parametrize("engine", ["auto", "grid", "kdtree"])
def test_a_pickled_index_is_of_the_same_engine(engine: str) -> None:
    index = pf.ScanIndex(_raster(), engine=engine)
    assert index.engine == ("kdtree" if engine == "kdtree" else "grid")
    assert pickle.loads(pickle.dumps(index)).engine == index.engine


def test_crowds_are_never_searched_in_cells() -> None:
    """Where cells would take quadratic time, no choice of engine does."""
    for shape in ("metres_and_an_outlier", "all_the_same", "no_squares", "all_decades"):
        for engine in ("auto", "grid", "kdtree"):
            assert pf.ScanIndex(_scan(shape, 500), engine=engine).engine == "kdtree"


def test_groups_are_printed_on_one_line() -> None:
    groups = pf.group_positions(_raster(), gridsize=2, n_groups=100, seed=3)
    assert repr(groups) == (
        "Groups(100 of 4 positions, scan of 400, K=7, rule='nearest', seed=3, epoch=0)"
    )


def _draw_in_child(index: pf.ScanIndex, queue: Any) -> None:
    queue.put(pf.group_positions(index, seed=9, num_threads=2).indices)


def test_a_forked_child_draws_the_same() -> None:
    positions = _scan("uniform", 5000)
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


def test_results_are_handed_over_not_copied() -> None:
    """The array NumPy shows is the engine's own memory: it does not own, and nothing was copied."""
    groups = pf.group_positions(_raster(), seed=1)
    assert not groups.indices.flags.owndata
    owner = groups.indices.base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert type(owner).__module__ != "numpy"  # a Rust vector, held by a capsule of the binding
    assert not pf.ScanIndex(_raster()).neighbors(3).flags.owndata


def test_threads_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pf.group_positions(_raster(), seed=1).indices
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "3")
    np.testing.assert_array_equal(pf.group_positions(_raster(), seed=1).indices, expected)
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "none")
    with pytest.raises(ValueError, match='PTYCHO_FAST_NUM_THREADS must be .* got "none"'):
        pf.group_positions(_raster(), seed=1)


# --- coordinates -----------------------------------------------------------------------------


@given(C=st.integers(1, 12), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_coordinates_equal_the_reference_to_the_bit(C: int, seed: int) -> None:
    positions = _scan("uniform", 50, seed) * 1234.5
    groups = pf.group_positions(positions, group_size=C, seed=seed)
    expected = reference.coordinates(positions, groups.indices)
    for found, name in [
        (groups.coords, "coords_nn"),
        (groups.offsets, "coords_offsets"),
        (groups.relative, "coords_relative"),
    ]:
        assert found.dtype == np.float64
        assert found.flags.c_contiguous
        assert found.tobytes() == np.ascontiguousarray(expected[name]).tobytes()
    np.testing.assert_allclose(groups.relative.sum(axis=-1), 0, atol=1e-9)


# --- files -----------------------------------------------------------------------------------


def test_saved_groups_load_as_they_were(tmp_path: Path) -> None:
    groups = pf.group_positions(
        _raster(), 30, gridsize=3, seed=2**100, epoch=4, include_center=True
    )
    path = tmp_path / "groups.npz"
    groups.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["groups.npz"]
    for again in (pf.Groups.load(path), pf.Groups.load(path, _raster())):
        np.testing.assert_array_equal(again.indices, groups.indices)
        np.testing.assert_array_equal(again.centers, groups.centers)
        np.testing.assert_array_equal(again.offsets, groups.offsets)
        for name in ("n_neighbors", "seed", "epoch", "rule", "rng", "engine", "include_center"):
            assert getattr(again, name) == getattr(groups, name)
    assert json.loads(str(np.load(path)["parameters"]))["seed"] == 2**100


def test_groups_of_another_scan_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.npz"
    pf.group_positions(_raster(), seed=1).save(path)
    with pytest.raises(ValueError, match="drawn from other positions"):
        pf.Groups.load(path, _raster() + 1e-9)


@pytest.mark.parametrize("key", ["indices", "centers", "positions", "parameters"])
def test_files_that_hold_no_groups_are_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "groups.npz"
    pf.group_positions(_raster(), seed=1).save(path)
    arrays = dict(np.load(path))
    missing = {name: array for name, array in arrays.items() if name != key}
    np.savez(path, **missing)
    with pytest.raises(KeyError, match=key):
        pf.Groups.load(path)
    arrays[key] = arrays[key][:-1] if arrays[key].ndim else np.array("{}")
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"centres|checksum|parameters"):
        pf.Groups.load(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(OSError, match="no NPZ file"):
        pf.Groups.load(path)


def test_groups_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pf.group_positions(_raster(), seed=1).save(tmp_path / "nowhere" / "groups.npz")


# --- refusals --------------------------------------------------------------------------------


def _bad(row: int, value: float, n: int = 10) -> NDArray[np.float64]:
    positions = np.arange(2.0 * n).reshape(n, 2)
    positions[row:, 1] = value
    return positions


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"positions": _bad(3, np.nan)}, "row 3 is the first of 7 rows .of 10. that hold NaN"),
    ({"positions": _bad(8, -np.inf)}, "row 8 is the first of 2 rows"),
    ({"positions": _bad(5, 2e150)}, "within 1e150: row 5 is the first of 5"),
    ({"positions": np.empty((0, 2))}, "scan is empty"),
    ({"positions": []}, "scan is empty"),
    ({"positions": np.zeros((2, 10))}, r"\(n, 2\).*got shape \(2, 10\). Transpose"),
    ({"positions": np.zeros(10)}, r"got shape \(10,\)"),
    ({"positions": np.zeros((10, 2), complex)}, "real numbers, got dtype complex128"),
    ({"positions": np.full((10, 2), "1")}, "real numbers"),
    ({"positions": np.full((10, 2), None)}, "real numbers, got dtype object"),
    ({"positions": [[1, 2], [3]]}, "positions must be an array"),
    ({"positions": np.zeros((10, 2)), "xcoords": np.zeros(3)}, "Give positions, or"),
    ({"positions": None}, "Give positions, or"),
    ({"positions": None, "xcoords": np.zeros(3)}, "ycoords is missing"),
    (
        {"positions": None, "xcoords": np.zeros(3), "ycoords": np.zeros(4)},
        "Coordinate arrays must have matching shapes",
    ),
    ({"n_groups": 0}, r"n_groups must be a whole number in 1\.\..*, got 0"),
    ({"n_groups": -3}, "got -3"),
    ({"n_groups": 2.5}, "got 2.5"),
    ({"n_groups": 10**30}, "got 1000000"),
    ({"gridsize": 0}, "gridsize must be"),
    ({"group_size": 0}, "group_size must be"),
    ({"gridsize": 2, "group_size": 4}, "not both"),
    ({"n_neighbors": 3}, r"K=3 must be >= C=4 \(need at least C neighbors to form a group\)"),
    ({"n_neighbors": 2**31}, "n_neighbors must be"),
    ({"gridsize": 4}, "Dataset has only 10 points but 16 coordinates per group requested."),
    ({"num_threads": 0}, "num_threads must be"),
    ({"seed": -1}, "seed must be"),
    ({"seed": "a"}, "seed must be"),
    ({"seed": 2**32, "rng": "numpy"}, r"seed must be a whole number in 0\.\.4294967295"),
    ({"epoch": -1}, "epoch must be"),
    ({"rule": "farthest"}, "rule must be one of 'nearest'"),
    ({"rng": "pcg"}, "rng must be one of"),
    ({"engine": "octree"}, "engine must be one of"),
    ({"centers": "middle"}, "centers must be one of"),
    ({"centers": [0, 10]}, r"centers must be integers in 0\.\.9: 10 is the first of 1"),
    ({"centers": [-1]}, "-1 is the first of 1"),
    ({"centers": [0.5]}, "centers must be integers"),
    ({"centers": [[1]]}, "centers must be integers"),
    ({"centers": [1, 2], "n_groups": 3}, "centers names 2 centres, but n_groups is 3"),
    ({"centers": np.empty(0, int)}, "number of centers"),
    ({"rng": "numpy", "epoch": 1}, "knew no epoch"),
    ({"rng": "numpy", "include_center": True}, "knew no epoch"),
    ({"rng": "numpy", "centers": [1]}, "knew no epoch"),
    ({"rng": "numpy", "centers": "sequential"}, "knew no epoch"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_bad_input_is_refused_in_words(arguments: dict[str, Any], words: str) -> None:
    arguments = {"positions": np.arange(20.0).reshape(10, 2), **arguments}
    with pytest.raises(ValueError, match=words):
        pf.group_positions(**arguments)


def test_too_many_groups_is_every_position_once_with_a_warning() -> None:
    for rng in ("philox", "numpy"):
        with pytest.warns(UserWarning, match="n_groups=500 exceeds the 400 positions"):
            groups = pf.group_positions(_raster(), 500, seed=1, rng=rng)
        assert sorted(groups.centers) == list(range(400))
