"""What ptycho_fast must compute, written from the numerical contract alone.

Plain NumPy and SciPy, brute force from the definitions, correct before fast. The section numbers
are those of the contract. Nothing here imports the package under test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree  # type: ignore[import-untyped, unused-ignore]

Floats = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Words = NDArray[np.uint64]
NeighborSearch = Callable[[ArrayLike, ArrayLike, int], Int64]

MASK = 2**64 - 1


# --- randomness (section 3) -------------------------------------------------------------------


def key(seed: int, epoch: int = 0) -> Words:
    """Philox key of a seed and an epoch.

    Parameters
    ----------
    seed : int
        Seed, any non-negative integer.
    epoch : int
        Epoch, any non-negative integer.

    Returns
    -------
    ndarray of uint64, shape (2,)
        The two key words.
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(epoch,))
    return np.asarray(sequence.generate_state(2, np.uint64), dtype=np.uint64)


def words(key: Words, first_block: int, n_blocks: int, replicate: int, stage: int) -> Words:
    """Random words of consecutive blocks, from `numpy.random.Philox`.

    NumPy steps its counter before it makes a block, so block b is the first one made by a
    generator whose counter is b - 1.

    Parameters
    ----------
    key : ndarray of uint64, shape (2,)
        Key, see `key`.
    first_block : int
        Number of the first block; blocks are counted from 1.
    n_blocks : int
        How many blocks.
    replicate, stage : int
        Words 2 and 3 of the counter.

    Returns
    -------
    ndarray of uint64, shape (4 * n_blocks,)
        Words 0 to 3 of the first block, then those of the next.
    """
    if first_block < 1:
        raise ValueError(f"blocks are counted from 1, not from {first_block}")
    counter = np.array([first_block - 1, 0, replicate, stage], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(4 * n_blocks)
    return np.asarray(raw, dtype=np.uint64)


def philox_block(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 of one counter, in Python integers (Salmon et al., SC11).

    Parameters
    ----------
    counter : sequence of 4 int
        `(block, 0, replicate, stage)`, the lowest word first.
    key : sequence of 2 int
        Key words.

    Returns
    -------
    tuple of 4 int
        The four words of the block.
    """
    c0, c1, c2, c3 = (int(word) for word in counter)
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        product0 = 0xD2E7470EE14C6C93 * c0
        product1 = 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (
            (product1 >> 64) ^ c1 ^ k0,
            product1 & MASK,
            (product0 >> 64) ^ c3 ^ k1,
            product0 & MASK,
        )
        k0 = (k0 + 0x9E3779B97F4A7C15) & MASK
        k1 = (k1 + 0xBB67AE8584CAA73B) & MASK
    return c0, c1, c2, c3


# --- neighbours (section 2, rule 1) -----------------------------------------------------------


def _squared_distances(a: Floats, b: Floats) -> Floats:
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
        d2 = _squared_distances(points[None], points[block, None])
        d2[np.arange(len(block)), block] = np.inf
        # A stable sort leaves equal distances in the order of the index.
        found[start : start + step] = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return found


def nearest_neighbors_tree(positions: ArrayLike, centers: ArrayLike, n_neighbors: int) -> Int64:
    """Find the same as `nearest_neighbors` with a k-d tree, for large n.

    The tree only proposes candidates: distances are computed again and sorted by (d2, index), and
    the query is widened until every point that was not proposed is clearly farther away than the
    last one taken. Centres at the same place share one query.

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
            d2 = _squared_distances(points[index], places[block, None])
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


# --- groups (sections 2 and 3) ----------------------------------------------------------------


def centers(n: int, n_groups: int, key: Words) -> Int32:
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


_random_centers = centers


def _check_sizes(n: int, n_groups: int, group_size: int, n_neighbors: int) -> None:
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
        _check_sizes(n, count, size, k)
        if centers == "random":
            chosen = _random_centers(n, count, stream)
        elif centers == "sequential":
            chosen = np.arange(min(count, n), dtype=np.int32)
        else:
            raise ValueError(f"centers={centers!r} is not known")
    else:
        given = np.asarray(centers)
        count = len(given) if n_groups is None else n_groups
        _check_sizes(n, count, size, k)
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
    _check_sizes(n, n_groups, group_size, n_neighbors)
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


# --- other rules (section 4) ------------------------------------------------------------------


def _below(word: Any, n: int) -> int:
    """`floor(word * n / 2**64)`."""
    return int(word) * n >> 64


def _shuffled(slots: list[int], run: Words, n_draws: int) -> list[int]:
    """Draw from the slots without replacement, by the words of a run (section 3, stage 2)."""
    slots = list(slots)
    for j in range(n_draws):
        t = j + _below(run[j], len(slots) - j)
        slots[j], slots[t] = slots[t], slots[j]
    return slots[:n_draws]


def _subset(rank: int, n_slots: int, size: int) -> list[int]:
    """The subset of slots with a colexicographic rank: compared by the largest member first."""
    members = []
    for i in range(size, 0, -1):
        member = max(m for m in range(n_slots) if math.comb(m, i) <= rank)
        rank -= math.comb(member, i)
        members.append(member)
    return members[::-1]


def overlap(dx: float, dy: float, N: int) -> float:
    """The overlap of two N x N windows, dx and dy apart, as a share of one."""
    return max(0.0, N - abs(dx)) * max(0.0, N - abs(dy)) / (N * N)


def _weight(score: float) -> float:
    """`p(2 * score)`: the Taylor polynomial of exp to degree 12, by Horner."""
    x = 2 * score
    value = 0.0
    for degree in range(12, -1, -1):
        value = value * x + 1 / math.factorial(degree)
    return value


def _grown(
    points: Floats, center: int, slots: list[int], size: int, N: int, least: float, run: Words
) -> list[int] | None:
    """A group of the rule `overlap`, or None where it can't be grown."""
    group, relaxed = [center], 0
    for j in range(1, size):
        while True:
            scores = {}
            for slot in slots:
                if slot not in group:
                    apart = [points[slot] - points[member] for member in group]
                    scores[slot] = min(overlap(float(dx), float(dy), N) for dx, dy in apart)
            fit = [slot for slot, score in scores.items() if score >= least]
            if fit:
                break
            if relaxed == 3:
                return None
            least, relaxed = least / 1.5, relaxed + 1
        running = list(itertools.accumulate(_weight(scores[slot]) for slot in fit))
        u = (int(run[j - 1]) >> 11) * 2.0**-53
        exceeding = [i for i, weight in enumerate(running) if weight > u * running[-1]]
        group.append(fit[exceeding[0] if exceeding else -1])
    return group


def rule_groups(
    positions: ArrayLike,
    n_groups: int | None = None,
    group_size: int = 4,
    n_neighbors: int | None = None,
    *,
    rule: str = "nearest",
    strategy: str = "sample-then-group",
    seed: int = 0,
    epoch: int = 0,
    centers: str | ArrayLike = "random",
    include_center: bool = False,
    min_distance: float | None = None,
    max_distance: float | None = None,
    groups_per_center: int = 1,
    bounds: tuple[tuple[float, float], tuple[float, float]] | None = None,
    scan_ids: ArrayLike | None = None,
    N: int = 0,
    min_overlap: float = 0.25,
) -> tuple[Int32, Int32, dict[str, int]]:
    """Draw groups by any rule of section 4, centre by centre.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    n_groups : int, optional
        Centres tried; of `oversample` groups tried, and of group-then-sample rows of the pool.
        All points by default.
    group_size : int
        C, points in a group.
    n_neighbors : int, optional
        K, neighbours considered; C + 3 by default, 30 of `overlap`.
    rule, strategy, min_distance, max_distance, groups_per_center, bounds, scan_ids, N, min_overlap
        As section 4 names them.
    seed, epoch, centers, include_center
        As of `nearest_groups`.

    Returns
    -------
    centers : ndarray of int32, shape (B,)
        Of a group of the pool, the first centre that has it.
    indices : ndarray of int32, shape (B, C)
    left_out : dict of str to int
        How many centres lack a group: "bounds" (given, but outside), "scan_ids" (fewer than C
        positions of its label), "distance" (fewer than C slots within the distances),
        "quadrant", "overlap".
    """
    points = np.asarray(positions, dtype=np.float64)
    n, size = len(points), group_size
    k = (30 if rule == "overlap" else size + 3) if n_neighbors is None else n_neighbors
    _check_sizes(n, 1 if n_groups is None else n_groups, size, k)
    stream = key(seed, epoch)
    label = np.zeros(n, dtype=np.int64) if scan_ids is None else np.asarray(scan_ids)
    filtered = min_distance is not None or max_distance is not None
    left_out: dict[str, int] = {}

    inside = np.ones(n, dtype=bool)
    if bounds is not None:
        for axis, (low, high) in enumerate(bounds):
            value = points[:, axis]
            extent = value.max() - value.min()
            shifted = value - value.min()
            inside &= (low * extent <= shifted) & (shifted <= high * extent)
    if isinstance(centers, str):
        ranked = _random_centers(n, n, stream) if centers == "random" else np.arange(n)
        tried = [int(i) for i in ranked if inside[i]]
    else:
        given = [int(i) for i in np.asarray(centers)]
        tried = [i for i in given if inside[i]]
        if len(tried) < len(given):
            left_out["bounds"] = len(given) - len(tried)
    wanted = n if n_groups is None else n_groups

    def near(center: int) -> tuple[list[int], list[float]]:
        """All within the distances, of the centre's own label."""
        own = np.flatnonzero(label == label[center])
        d2 = _squared_distances(points[own], points[center])
        fits = own != center
        if min_distance is not None:
            fits &= d2 >= np.float64(min_distance) * np.float64(min_distance)
        if max_distance is not None:
            fits &= d2 <= np.float64(max_distance) * np.float64(max_distance)
        order = np.lexsort((own, d2))
        order = order[fits[order]]
        return own[order].tolist(), d2[order].tolist()

    def slots_of(center: int) -> list[int] | str:
        """The centre's slots, or why it is left out."""
        if size == 1 and not filtered:
            return []
        slots = near(center)[0][:k]
        same = int((label == label[center]).sum())
        if filtered:
            return slots if len(slots) >= size else "scan_ids" if same < size else "distance"
        if same < size:
            return "scan_ids"
        if len(slots) < size and not include_center and rule != "overlap":
            slots = [*slots, center]
        return slots

    def run_of(center: int, stage: int, blocks: int, replicate: int) -> Words:
        return words(stream, 1 + center * blocks, blocks, replicate, stage)

    def chosen(center: int, slots: list[int], replicate: int) -> list[int]:
        run = run_of(center, 2, math.ceil(size / 4), replicate)
        if include_center:
            return [center, *_shuffled(slots, run, size - 1)]
        return _shuffled(slots, run, size)

    def draw(center: int, slots: list[int], replicate: int) -> list[int] | None:
        if size == 1:
            return [center]
        if rule == "overlap":
            blocks = math.ceil((size - 1) / 4)
            run = run_of(center, 3, blocks, replicate)
            return _grown(points, center, slots, size, N, min_overlap, run)
        if rule == "oversample":
            M = math.comb(len(slots), size)
            w0, w1 = run_of(center, 4, 1, 0)[:2]
            a, b = _below(w0, M), 1 + _below(w1, M - 1)
            while M > 1 and math.gcd(b, M) != 1:
                b = (b + 1) % M
            members = _subset((a + replicate * b) % M, len(slots), size)
            return chosen(center, [slots[m] for m in members], replicate)
        return chosen(center, slots, replicate)

    def quadrants(center: int, replicate: int) -> list[int] | None:
        run = run_of(center, 2, 1, replicate)
        group = []
        for q, (right, up) in enumerate(
            [(False, True), (True, True), (False, False), (True, False)]
        ):
            own = []
            for slot in near(center)[0]:
                dx, dy = points[slot] - points[center]
                if (dx > 0 if right else dx < 0) and (dy > 0 if up else dy < 0):
                    own.append(slot)
            own = own[:k]
            if not own:
                return None
            group.append(own[_below(run[q], len(own))])
        return group

    def pack(found: list[tuple[int, list[int]]]) -> tuple[Int32, Int32, dict[str, int]]:
        return (
            np.array([center for center, _ in found], dtype=np.int32),
            np.array([group for _, group in found], dtype=np.int32).reshape(-1, size),
            left_out,
        )

    if strategy == "group-then-sample":
        pool: dict[tuple[int, ...], int] = {}
        for center in sorted(tried):
            slots = slots_of(center)
            if isinstance(slots, str):
                left_out[slots] = left_out.get(slots, 0) + 1
                continue
            sets: list[list[int]]
            if size == 1:
                sets = [[center]]
            elif math.comb(len(slots), size) <= 50:
                sets = [list(some) for some in itertools.combinations(slots, size)]
            else:
                sets = [chosen(center, slots, r) for r in range(50)]
            for some in sets:
                pool.setdefault(tuple(sorted(some)), center)
        rows = sorted(pool)
        rank = words(stream, 1, 1 + len(rows) // 4, replicate=0, stage=5)[: len(rows)]
        sample = np.argsort(rank, kind="stable")[:wanted].tolist()
        return pack([(pool[rows[i]], list(rows[i])) for i in sample])

    if rule == "oversample":
        rounds = math.ceil(wanted / max(1, len(tried)))
        tasks = [(r, row) for r in range(rounds) for row in range(len(tried))][:wanted]
    else:
        tried = tried[:wanted]
        tasks = [(r, row) for r in range(groups_per_center) for row in range(len(tried))]
    found = []
    lacking: dict[int, str] = {}
    for replicate, row in tasks:
        center = tried[row]
        group: list[int] | None = None
        reason = rule
        if rule == "quadrant":
            group = quadrants(center, replicate)
        else:
            slots = slots_of(center)
            if isinstance(slots, str):
                reason = slots
            else:
                group = draw(center, slots, replicate)
        if group is None:
            lacking.setdefault(row, reason)
        else:
            found.append((center, group))
    for reason in lacking.values():
        left_out[reason] = left_out.get(reason, 0) + 1
    return pack(found)


# --- coordinates, patterns, scale (sections 1 and 6) ------------------------------------------


def coordinates(positions: ArrayLike, indices: ArrayLike) -> dict[str, Floats]:
    """Coordinates of groups: absolute, mean, and relative to the mean with the field's minus.

    Parameters
    ----------
    positions : array_like, shape (n, 2)
        Positions (x, y).
    indices : array_like of int, shape (B, C)
        Groups.

    Returns
    -------
    dict
        `coords_nn` (B, 1, 2, C), `coords_offsets` (B, 1, 2, 1), `coords_relative` (B, 1, 2, C).
    """
    points = np.asarray(positions, dtype=np.float64)
    groups = np.asarray(indices)
    nn = np.ascontiguousarray(points[groups].transpose(0, 2, 1)[:, None])
    total = nn[..., 0].copy()
    for c in range(1, groups.shape[1]):
        total += nn[..., c]
    offsets = (total / groups.shape[1])[..., None]
    return {"coords_nn": nn, "coords_offsets": offsets, "coords_relative": -(nn - offsets)}


def gather(stack: NDArray[Any], indices: ArrayLike) -> NDArray[Any]:
    """Patterns of groups, channels last.

    Parameters
    ----------
    stack : ndarray, shape (n, N, N)
        Diffraction patterns.
    indices : array_like of int, shape (B, C)
        Groups.

    Returns
    -------
    ndarray, shape (B, N, N, C)
        C-contiguous, of the stack's dtype.
    """
    return np.ascontiguousarray(stack[np.asarray(indices)].transpose(0, 2, 3, 1))


def normalisation_scale(diffraction_groups: NDArray[Any], N: int) -> np.float32:
    """Scale at which the mean energy of a pattern is (N/2)**2.

    Parameters
    ----------
    diffraction_groups : ndarray, shape (B, N, N, C)
        Gathered amplitudes.
    N : int
        Pixels per side.

    Returns
    -------
    numpy.float32
        The scale; `X_full` is the scale times the amplitudes in float32.
    """
    energy = np.sum(diffraction_groups.astype(np.float64) ** 2, axis=(1, 2))
    mean = float(np.mean(energy))
    if not mean > 0:
        raise ValueError("an all-zero stack has no scale")
    return np.float32(np.sqrt((N / 2) ** 2 / mean))


# --- patches (section 5) ----------------------------------------------------------------------


def _taps(coordinate: Floats, size: int) -> list[tuple[Int64, Floats]]:
    """Index and weight of the two taps along one axis of an object with a border of zeros."""
    lower = np.floor(coordinate)
    fraction = coordinate - lower
    taps = []
    for tap, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
        taps.append((np.clip(tap, -1, size).astype(np.int64) + 1, weight))
    return taps


def extract_patches(obj: NDArray[Any], positions: ArrayLike, N: int) -> NDArray[np.complex128]:
    """Object patches around positions, bilinear, in float64.

    Parameters
    ----------
    obj : ndarray, shape (H, W)
        Object, zero outside its bounds.
    positions : array_like, shape (B, 2, C) or (B, 1, 2, C)
        Positions, x then y; each falls on patch index N // 2.
    N : int
        Pixels per side of a patch.

    Returns
    -------
    ndarray of complex128, shape (B, N, N, C)
        Patches.
    """
    image = np.asarray(obj, dtype=np.complex128)
    at = np.asarray(positions, dtype=np.float64)
    if at.ndim == 4 and at.shape[1] == 1:
        at = at[:, 0]
    if image.ndim != 2 or at.ndim != 3 or at.shape[1] != 2 or N < 1 or not np.isfinite(at).all():
        raise ValueError(f"object {image.shape}, positions {at.shape}, N={N}: not extractable")
    height, width = image.shape
    pixel = np.arange(N, dtype=np.float64)
    patches = np.zeros((at.shape[0], N, N, at.shape[2]), dtype=np.complex128)
    bordered = np.pad(image, 1)  # a tap outside reads a zero, whatever its weight
    for b, c in np.ndindex(at.shape[0], at.shape[2]):
        x, y = at[b, :, c]
        rows = _taps(pixel + y - N // 2, height)
        columns = _taps(pixel + x - N // 2, width)
        for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
            weight = row_weight[:, None] * column_weight[None, :]
            patches[b, :, :, c] += weight * bordered[np.ix_(row, column)]
    return patches


# --- scans to test on -------------------------------------------------------------------------


def _raster(n: int) -> Floats:
    """Make the first n points of a square raster of pitch 1, row by row."""
    side = math.ceil(math.sqrt(n))
    row, column = np.divmod(np.arange(n), side)
    return np.stack([column, row], axis=1).astype(np.float64)


def _circles(n: int, rng: np.random.Generator) -> Floats:
    """Make a centre at the origin and points at exactly the same distance from it.

    The integer points of a circle, out of the Gaussian integers z of norm p: each prime p
    brings one of z*z, z*conj(z), conj(z)**2. More than 2916 points take further circles, halved
    each time. All squares stay below 2**53 times a power of four, so every tie is exact.
    """
    circle = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    for a, b in ((2, 1), (3, 2), (4, 1), (5, 2), (6, 1), (5, 4)):
        real, imag = a * a - b * b, 2 * a * b
        factors = ((real, imag), (a * a + b * b, 0), (real, -imag))
        circle = [(x * u - y * v, x * v + y * u) for x, y in circle for u, v in factors]
        if len(circle) >= n - 1:
            break
    full = rng.permutation(np.array(circle, dtype=np.float64))
    rings = [full * 0.5**i for i in range(math.ceil((n - 1) / len(full)))]
    return np.concatenate([np.zeros((1, 2)), *rings])[:n]


def scan_shapes(n: int, seed: int) -> dict[str, Floats]:
    """Make scans of n positions in every shape that has trouble in it.

    Parameters
    ----------
    n : int
        Number of positions, 1 or more.
    seed : int
        Seed of whatever is random about them.

    Returns
    -------
    dict of str to ndarray of float64, shape (n, 2)
        Positions (x, y) by the name of the shape.
    """
    rng = np.random.default_rng(seed)
    raster = _raster(n)
    side = math.ceil(math.sqrt(n))
    steps = np.arange(n, dtype=np.float64)
    constant = np.full(n, 12.5)

    angle = steps * math.pi * (3 - math.sqrt(5))
    spiral = np.sqrt(steps)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    n_places = max(n // 1000, min(3, n))
    places = rng.uniform(0, 1000, (n_places, 2))

    decades = 10.0 ** np.linspace(-4, 4, 9)
    which = rng.integers(0, len(decades), n)
    middle = rng.uniform(-1e5, 1e5, (len(decades), 2))

    signed = 8 * (raster - side // 2)
    signed[(signed == 0) & (rng.random((n, 2)) < 0.5)] = -0.0

    lines = np.stack([0.5 * (steps // 3), 200.0 * (steps % 3)], axis=1)

    # Differences that lose their bits, and squares that underflow or keep few of them.
    fresh = np.random.default_rng([seed, 1])
    square = fresh.uniform(0, 1, (n, 2))
    outlier = 3e-6 * square
    outlier[n // 2] = 1e9
    sizes = 10.0 ** fresh.uniform(-300, 149, n)
    return {
        "raster": 8 * raster,
        "jittered_raster": 8 * raster + rng.uniform(-2, 2, (n, 2)),
        "uniform": rng.uniform(0, 8 * side, (n, 2)),
        "spiral": 5 * spiral,
        "equal_x": np.stack([constant, rng.uniform(0, n, n)], axis=1),
        "equal_y": np.stack([rng.permutation(steps), constant], axis=1),
        "three_lines": lines,
        "copies": places[rng.permutation(n) % n_places],
        "all_the_same": np.tile([[3.7, -1.2]], (n, 1)),
        "clusters": middle[which] + decades[which, None] * rng.normal(size=(n, 2)),
        "large_offset": 1e8 + 0.1 * raster,
        "circles": _circles(n, rng),
        "signed_zeros": signed,
        "integers": rng.integers(-side, side + 1, (n, 2)).astype(np.float64),
        "metres_and_an_outlier": outlier,
        "far_clusters": square + 1e12 * (steps % 2)[:, None],
        "all_decades": sizes[:, None] * np.stack([np.cos(steps), np.sin(steps)], axis=1),
        "no_squares": 1e-170 * square,
        "squares_of_few_bits": 1e-161 * square,
        "jittered_line": np.stack([steps, 1e-9 * square[:, 1]], axis=1),
    }
