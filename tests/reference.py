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
    }
