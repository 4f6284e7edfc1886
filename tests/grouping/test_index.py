"""`ScanIndex`: shared by draws and threads, pickled, and never slow on crowds."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
import reference

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_one_index_serves_many_draws_and_threads() -> None:
    positions = reference.scan_shapes(3000, 0)["uniform"]
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


def test_an_index_keeps_its_positions_and_pickles(raster: NDArray[np.float64]) -> None:
    positions = raster.copy()
    index = pf.ScanIndex(positions)
    neighbors = index.neighbors(5)
    positions[:] = 0
    np.testing.assert_array_equal(index.neighbors(5), neighbors)
    again = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(again.neighbors(5), neighbors)
    assert len(again) == 400


@pytest.mark.parametrize("engine", ["auto", "grid", "kdtree"])
def test_a_pickled_index_is_of_the_same_engine(raster: NDArray[np.float64], engine: str) -> None:
    index = pf.ScanIndex(raster, engine=engine)
    assert index.engine == ("kdtree" if engine == "kdtree" else "grid")
    assert pickle.loads(pickle.dumps(index)).engine == index.engine


def test_crowds_are_never_searched_in_cells() -> None:
    """Where cells would take quadratic time, no choice of engine does."""
    for shape in ("metres_and_an_outlier", "all_the_same", "no_squares", "all_decades"):
        for engine in ("auto", "grid", "kdtree"):
            assert (
                pf.ScanIndex(reference.scan_shapes(500, 0)[shape], engine=engine).engine == "kdtree"
            )
