"""Nearest neighbours in the order of (d2, index) (docs/contract.md, section 2, rule 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    Floats = NDArray[np.float64]

Int64 = NDArray[np.int64]
NeighborSearch = Callable[[ArrayLike, ArrayLike, int], Int64]


def squared_distances(a: Floats, b: Floats) -> Floats:
    """`dx*dx + dy*dy` over the last axis, each product and the sum rounded on its own."""
    dx = a[..., 0] - b[..., 0]
    dy = a[..., 1] - b[..., 1]
    d2: Floats = dx * dx + dy * dy
    return d2


def nearest_neighbors(positions: ArrayLike, centers: ArrayLike, n_neighbors: int) -> Int64:
    """Find the nearest neighbours of some points, by brute force.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    centers : array_like of int, shape (m,)
        Indices of the points whose neighbours are wanted.
    n_neighbors : int
        K, how many.

    Returns
    -------
    ndarray of int64, shape (m, min(K, n - 1))
        Neighbours in the order of (d2, index), the centre left out by index.
    """
    points = np.asarray(positions, dtype=np.float64)
    wanted = np.asarray(centers, dtype=np.int64)
    n = len(points)
    k = min(n_neighbors, n - 1)
    found = np.empty((len(wanted), k), dtype=np.int64)
    step = max(1, 2_000_000 // n)
    for start in range(0, len(wanted), step):
        block = wanted[start : start + step]
        d2 = squared_distances(points[None], points[block, None])
        d2[np.arange(len(block)), block] = np.inf
        # A stable sort leaves equal distances in the order of the index.
        found[start : start + step] = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return found


def nearest_neighbors_tree(positions: ArrayLike, centers: ArrayLike, n_neighbors: int) -> Int64:
    """Find the same as `nearest_neighbors` with a k-d tree, for large n.

    The tree only proposes candidates: distances are computed again and sorted by (d2, index), and
    the query is widened until every point that was not proposed is clearly farther away than the
    last one taken. Centres at the same place share one query.
    """
    points = np.asarray(positions, dtype=np.float64)
    wanted = np.asarray(centers, dtype=np.int64)
    n = len(points)
    k = min(n_neighbors, n - 1)
    if k == 0 or len(wanted) == 0:
        return np.empty((len(wanted), k), dtype=np.int64)
    places, place_of = np.unique(points[wanted], axis=0, return_inverse=True)
    place_of = place_of.reshape(-1)

    # The first k + 1 points seen from each place, whoever stands there.
    first = np.empty((len(places), k + 1), dtype=np.int64)
    tree = cKDTree(points, balanced_tree=False)
    open_places = np.arange(len(places))
    width = k + 1 + 8
    while len(open_places):
        width = min(width, n)
        step = max(1, 2_000_000 // width)
        in_doubt = []
        for start in range(0, len(open_places), step):
            block = open_places[start : start + step]
            distance, index = tree.query(places[block], k=width)
            d2 = squared_distances(points[index], places[block, None])
            order = np.lexsort((index, d2), axis=-1)[:, : k + 1]
            first[block] = np.take_along_axis(index, order, axis=1)
            last = np.take_along_axis(d2, order[:, -1:], axis=1)[:, 0]
            reach = distance[:, -1] ** 2
            sure = (last * (1 + 1e-9) + 1e-300 < reach) | (width == n)
            in_doubt.append(block[~sure])
        open_places = np.concatenate(in_doubt)
        width *= 2

    # Drop the centre; where it is not among the first k + 1, drop the last of them.
    found: Int64 = first[place_of]
    keep = found != wanted[:, None]
    keep[keep.all(axis=1), -1] = False
    others: Int64 = found[keep].reshape(len(wanted), k)
    return others
