"""The rule `nearest`, and the legacy stream (docs/contract.md, sections 2 and 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from reference.neighbors import nearest_neighbors
from reference.randomness import key, words

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from reference.neighbors import NeighborSearch

    Int32 = NDArray[np.int32]
    Words = NDArray[np.uint64]


def random_centers(n: int, n_groups: int, key: Words) -> Int32:
    """Random centres, stage 1: the points with the smallest (word, index), in that order.

    Parameters
    ----------
    n : int
        Number of points.
    n_groups : int
        How many centres; n at most are returned.
    key : ndarray of uint64, shape (2,)
        Key, see `key`.

    Returns
    -------
    ndarray of int32, shape (min(n_groups, n),)
        Indices of the centres.
    """
    rank = words(key, 1, math.ceil(n / 4), replicate=0, stage=1)[:n]
    return np.argsort(rank, kind="stable")[:n_groups].astype(np.int32)


def check_sizes(n: int, n_groups: int, group_size: int, n_neighbors: int) -> None:
    """Refuse what section 2, rule 5 refuses."""
    if n_groups < 1 or group_size < 1:
        raise ValueError(f"n_groups={n_groups} and group_size={group_size} must be at least 1")
    if not group_size <= n_neighbors < 2**31:
        raise ValueError(f"K={n_neighbors} must be >= C={group_size} and below 2**31")
    if n < group_size:
        raise ValueError(f"only {n} points but {group_size} per group requested")


def nearest_groups(
    positions: ArrayLike,
    n_groups: int | None = None,
    group_size: int = 4,
    n_neighbors: int | None = None,
    seed: int = 0,
    epoch: int = 0,
    centers: Literal["random", "sequential"] | ArrayLike = "random",
    include_center: bool = False,
    replicate: int = 0,
    neighbor_search: NeighborSearch = nearest_neighbors,
) -> tuple[Int32, Int32]:
    """Draw groups from the nearest neighbours of each centre, on the Philox stream.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    n_groups : int, optional
        Number of centres; all points by default, and n at most (no warning is given here).
    group_size : int
        C, points in a group.
    n_neighbors : int, optional
        K, neighbours considered; C + 3 by default.
    seed, epoch : int
        What the key is made from.
    centers : "random", "sequential" or array_like of int
        Stage 1, the first points in order, or these indices as given.
    include_center : bool
        Whether channel 0 is the centre itself.
    replicate : int
        Replicate of stage 2 (the r-th group of the same centre).
    neighbor_search : callable
        `nearest_neighbors` or `nearest_neighbors_tree`.

    Returns
    -------
    centers : ndarray of int32, shape (B,)
    indices : ndarray of int32, shape (B, C)
    """
    points = np.asarray(positions, dtype=np.float64)
    n = len(points)
    size = group_size
    k = size + 3 if n_neighbors is None else n_neighbors
    stream = key(seed, epoch)

    if isinstance(centers, str):
        count = n if n_groups is None else n_groups
        check_sizes(n, count, size, k)
        if centers == "random":
            chosen = random_centers(n, count, stream)
        elif centers == "sequential":
            chosen = np.arange(min(count, n), dtype=np.int32)
        else:
            raise ValueError(f"centers={centers!r} is not known")
    else:
        given = np.asarray(centers)
        count = len(given) if n_groups is None else n_groups
        check_sizes(n, count, size, k)
        if given.dtype.kind not in "iu" or given.ndim != 1 or len(given) != count:
            raise ValueError(f"centers must be {count} integers in one row")
        if given.min() < 0 or given.max() >= n:
            raise ValueError(f"centers must lie in 0..{n - 1}")
        chosen = given.astype(np.int32)

    if size == 1:
        return chosen, chosen[:, None].copy()

    slots = neighbor_search(points, chosen, k)
    if slots.shape[1] < size and not include_center:
        slots = np.concatenate([slots, chosen[:, None]], axis=1)
    n_slots = slots.shape[1]
    n_draws = size - 1 if include_center else size

    blocks = math.ceil(size / 4)  # of every centre; centre i has the i-th run of them
    run = words(stream, 1, n * blocks, replicate, stage=2).reshape(n, 4 * blocks)[chosen]
    rows = np.arange(len(chosen))
    for j in range(n_draws):
        product = run[:, j].astype(object) * (n_slots - j)  # Python integers: all 128 bits
        target = j + (product >> 64).astype(np.int64)
        taken = slots[rows, target]
        slots[rows, target] = slots[:, j]
        slots[:, j] = taken

    drawn = slots[:, :n_draws]
    if include_center:
        drawn = np.concatenate([chosen[:, None], drawn], axis=1)
    return chosen, np.ascontiguousarray(drawn, dtype=np.int32)


def legacy_groups(
    positions: ArrayLike,
    n_groups: int,
    group_size: int,
    n_neighbors: int,
    seed: int,
    neighbor_search: NeighborSearch = nearest_neighbors,
) -> tuple[Int32, Int32]:
    """Draw groups on the legacy NumPy stream, `rng="numpy"`.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    n_groups : int
        Number of centres; with n or more, all points in order.
    group_size : int
        C, points in a group.
    n_neighbors : int
        K, neighbours considered.
    seed : int
        Seed of `numpy.random.RandomState`.
    neighbor_search : callable
        `nearest_neighbors` or `nearest_neighbors_tree`.

    Returns
    -------
    centers : ndarray of int32, shape (B,)
    indices : ndarray of int32, shape (B, C)
    """
    points = np.asarray(positions, dtype=np.float64)
    n = len(points)
    check_sizes(n, n_groups, group_size, n_neighbors)
    random = np.random.RandomState(seed)
    if n_groups < n:
        chosen = random.choice(n, n_groups, replace=False).astype(np.int32)
    else:
        chosen = np.arange(n, dtype=np.int32)
    if group_size == 1:
        return chosen, chosen[:, None].copy()

    neighbors = neighbor_search(points, chosen, n_neighbors)
    if n <= n_neighbors:
        neighbors = np.concatenate([chosen[:, None], neighbors], axis=1)
    groups = [random.choice(row, group_size, replace=False) for row in neighbors]
    return chosen, np.array(groups, dtype=np.int32)
