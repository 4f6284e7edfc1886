"""Groups drawn from NumPy's legacy random stream, as older code drew them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.grouping.index import ScanIndex


class LegacyDraw(NamedTuple):
    """Groups drawn from NumPy's legacy stream, and the state of the stream after the draw."""

    indices: NDArray[np.int32]
    """(B, C)"""
    centers: NDArray[np.int32]
    """(B,)"""
    state: tuple[NDArray[np.uint32], int]
    """The words of the Mersenne Twister, and the place of the next word."""


def draw_from_twister(
    index: ScanIndex,
    n_groups: int,
    n_neighbors: int,
    group_size: int,
    state: tuple[NDArray[np.uint32], int],
    *,
    num_threads: int | None = None,
    centers: NDArray[np.int32] | None = None,
) -> LegacyDraw:
    """Draw groups from NumPy's legacy stream.

    Parameters
    ----------
    index : ScanIndex
        The index of the scan.
    n_groups, n_neighbors, group_size : int
        B, K and C.
    state : tuple of ndarray (624,) uint32 and int
        The words of the Mersenne Twister, and the place of the next word.
    num_threads : int, optional
        Threads to use. The result does not depend on it.
    centers : ndarray, (B,), int32, optional
        Centres to use. They take nothing from the stream. By default the centres are drawn too.

    Returns
    -------
    LegacyDraw
    """
    words, place = state
    drawn, indices, state = index.compiled.draw_legacy(
        centers, n_groups, n_neighbors, group_size, words, place, num_threads
    )
    return LegacyDraw(indices, drawn, state)


def seeded_state(seed: int) -> tuple[NDArray[np.uint32], int]:
    """Return the state of the stream right after ``np.random.seed(seed)``."""
    state = np.random.RandomState(seed).get_state(legacy=False)["state"]
    return state["key"], state["pos"]
