"""The other rules, centre by centre (docs/contract.md, section 4)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from reference.groups import check_sizes, random_centers
from reference.neighbors import squared_distances
from reference.randomness import key, words

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Int32 = NDArray[np.int32]
    Int64 = NDArray[np.int64]
    Words = NDArray[np.uint64]
    Bounds = tuple[tuple[float, float], tuple[float, float]]

QUADRANTS = ((-1, 1), (1, 1), (-1, -1), (1, -1))
"""Signs of dx and dy, in channel order."""


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
    bounds: Bounds | None = None,
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
        How many centres are tried; for `oversample`, how many groups are tried; for
        group-then-sample, how many groups of the pool. All points by default.
    group_size : int
        C, points in a group.
    n_neighbors : int, optional
        K, neighbours considered; C + 3 by default, 30 for `overlap`.
    rule, strategy, min_distance, max_distance, groups_per_center, bounds, scan_ids, N, min_overlap
        As section 4 names them.
    seed, epoch, centers, include_center
        As for `nearest_groups`.

    Returns
    -------
    centers : ndarray of int32, shape (B,)
        For a group of the pool, the first centre that has it.
    indices : ndarray of int32, shape (B, C)
    left_out : dict of str to int
        How many centres lack a group: "bounds" (given, but outside), "scan_ids" (fewer than C
        positions of its label), "distance" (fewer than C slots within the distances),
        "quadrant", "overlap".
    """
    points = np.asarray(positions, dtype=np.float64)
    n = len(points)
    k = (30 if rule == "overlap" else group_size + 3) if n_neighbors is None else n_neighbors
    wanted = n if n_groups is None else n_groups
    check_sizes(n, wanted, group_size, k)
    draw = _Draw(
        points=points,
        size=group_size,
        k=k,
        rule=rule,
        stream=key(seed, epoch),
        include_center=include_center,
        limits=(min_distance, max_distance),
        label=np.zeros(n, dtype=np.int64) if scan_ids is None else np.asarray(scan_ids),
        window=N,
        min_overlap=min_overlap,
    )
    tried, outside = _centers(points, centers, bounds, draw.stream)
    if strategy == "group-then-sample":
        found, left_out = _sampled(draw, tried, wanted)
    elif rule == "oversample":
        rounds = math.ceil(wanted / max(1, len(tried)))
        found, left_out = _in_rounds(draw, tried, rounds, wanted)
    else:
        tried = tried[:wanted]
        found, left_out = _in_rounds(draw, tried, groups_per_center, None)
    if outside:
        left_out["bounds"] = outside
    return (
        np.array([center for center, _ in found], dtype=np.int32),
        np.array([group for _, group in found], dtype=np.int32).reshape(-1, group_size),
        left_out,
    )


def overlap(dx: float, dy: float, N: int) -> float:
    """The overlap of two N x N windows, dx and dy apart, as a fraction of one."""
    return max(0.0, N - abs(dx)) * max(0.0, N - abs(dy)) / (N * N)


def inside_bounds(points: Floats, bounds: Any) -> NDArray[np.bool_]:
    """Which points lie within bounds, which are fractions of the extent along x and along y."""
    inside = np.ones(len(points), dtype=bool)
    for axis, (low, high) in enumerate(bounds):
        value = points[:, axis]
        extent = value.max() - value.min()
        shifted = value - value.min()
        inside &= (low * extent <= shifted) & (shifted <= high * extent)
    return inside


def _centers(
    points: Floats, centers: str | ArrayLike, bounds: Bounds | None, stream: Words
) -> tuple[list[int], int]:
    """Return the centres within the bounds, in order, and how many given ones are outside."""
    n = len(points)
    inside = np.ones(n, dtype=bool) if bounds is None else inside_bounds(points, bounds)
    if isinstance(centers, str):
        ranked = random_centers(n, n, stream) if centers == "random" else np.arange(n)
        return [int(i) for i in ranked if inside[i]], 0
    given = [int(i) for i in np.asarray(centers)]
    tried = [i for i in given if inside[i]]
    return tried, len(given) - len(tried)


@dataclass
class _Draw:
    """What the groups of all centres share."""

    points: Floats
    size: int
    k: int
    rule: str
    stream: Words
    include_center: bool
    limits: tuple[float | None, float | None]
    label: NDArray[Any]
    window: int
    min_overlap: float
    known: dict[int, Int64] = field(default_factory=dict)

    @property
    def limited(self) -> bool:
        return self.limits != (None, None)

    def near(self, center: int) -> Int64:
        """All positions within the distances, of the centre's own label, nearest first."""
        if center not in self.known:
            own = np.flatnonzero(self.label == self.label[center])
            d2 = squared_distances(self.points[own], self.points[center])
            fits = own != center
            least, most = self.limits
            if least is not None:
                fits &= d2 >= np.float64(least) * np.float64(least)
            if most is not None:
                fits &= d2 <= np.float64(most) * np.float64(most)
            order = np.lexsort((own, d2))
            self.known[center] = own[order[fits[order]]]
        return self.known[center]

    def slots(self, center: int) -> list[int] | str:
        """The centre's slots, or why it is left out."""
        if self.size == 1 and not self.limited:
            return []
        slots: list[int] = self.near(center)[: self.k].tolist()
        same = int((self.label == self.label[center]).sum())
        if self.limited:
            if len(slots) >= self.size:
                return slots
            return "scan_ids" if same < self.size else "distance"
        if same < self.size:
            return "scan_ids"
        if len(slots) < self.size and not self.include_center and self.rule != "overlap":
            slots = [*slots, center]
        return slots

    def run(self, center: int, stage: int, blocks: int, replicate: int) -> Words:
        """The random words of a centre for a stage and a replicate."""
        return words(self.stream, 1 + center * blocks, blocks, replicate, stage)

    def chosen(self, center: int, slots: list[int], replicate: int) -> list[int]:
        """C of the slots, drawn without replacement."""
        run = self.run(center, 2, math.ceil(self.size / 4), replicate)
        if self.include_center:
            return [center, *_shuffled(slots, run, self.size - 1)]
        return _shuffled(slots, run, self.size)

    def group(self, center: int, replicate: int) -> list[int] | str:
        """A centre's group, or why it has none."""
        if self.rule == "quadrant":
            return self.of_quadrants(center, replicate)
        slots = self.slots(center)
        if isinstance(slots, str):
            return slots
        if self.size == 1:
            return [center]
        if self.rule == "overlap":
            return self.grown(center, slots, replicate)
        if self.rule == "oversample":
            return self.of_cycle(center, slots, replicate)
        return self.chosen(center, slots, replicate)

    def of_quadrants(self, center: int, replicate: int) -> list[int] | str:
        """One of the K nearest in each quadrant."""
        run = self.run(center, 2, 1, replicate)
        near = self.near(center)
        dx, dy = (self.points[near] - self.points[center]).T
        group = []
        for word, (right, up) in zip(run, QUADRANTS, strict=True):
            own = near[(dx * right > 0) & (dy * up > 0)][: self.k]
            if not len(own):
                return "quadrant"
            group.append(int(own[_below(word, len(own))]))
        return group

    def of_cycle(self, center: int, slots: list[int], replicate: int) -> list[int]:
        """The set of slots that a full-period sequence over all sets gives this replicate."""
        M = math.comb(len(slots), self.size)
        w0, w1 = self.run(center, 4, 1, 0)[:2]
        a, b = _below(w0, M), 1 + _below(w1, M - 1)
        while M > 1 and math.gcd(b, M) != 1:
            b = (b + 1) % M
        members = _subset((a + replicate * b) % M, len(slots), self.size)
        return self.chosen(center, [slots[m] for m in members], replicate)

    def grown(self, center: int, slots: list[int], replicate: int) -> list[int] | str:
        """A group in which the windows of all pairs overlap."""
        run = self.run(center, 3, math.ceil((self.size - 1) / 4), replicate)
        group, relaxed, least = [center], 0, self.min_overlap
        # The smallest overlap of each slot with all that are in the group.
        scores = {slot: self.shared(slot, center) for slot in slots}
        for j in range(1, self.size):
            while True:
                fit = [slot for slot, score in scores.items() if score >= least]
                if fit:
                    break
                if relaxed == 3:
                    return "overlap"
                least, relaxed = least / 1.5, relaxed + 1
            running = list(itertools.accumulate(_weight(scores[slot]) for slot in fit))
            u = (int(run[j - 1]) >> 11) * 2.0**-53
            exceeding = [i for i, weight in enumerate(running) if weight > u * running[-1]]
            taken = fit[exceeding[0] if exceeding else -1]
            group.append(taken)
            del scores[taken]
            scores = {slot: min(score, self.shared(slot, taken)) for slot, score in scores.items()}
        return group

    def shared(self, slot: int, member: int) -> float:
        """The overlap of two windows."""
        dx, dy = self.points[slot] - self.points[member]
        return overlap(float(dx), float(dy), self.window)


Found = list[tuple[int, list[int]]]


def _in_rounds(
    draw: _Draw, tried: list[int], rounds: int, most: int | None
) -> tuple[Found, dict[str, int]]:
    """Draw around all centres, round after round; `most` counts the tries."""
    tasks = itertools.product(range(rounds), range(len(tried)))
    found, lacking = [], {}
    for replicate, row in itertools.islice(tasks, most):
        group = draw.group(tried[row], replicate)
        if isinstance(group, str):
            lacking[row] = group
        else:
            found.append((tried[row], group))
    return found, _counted(lacking.values())


def _sampled(draw: _Draw, tried: list[int], wanted: int) -> tuple[Found, dict[str, int]]:
    """List the sets of all centres, each once, and sample the list."""
    pool: dict[tuple[int, ...], int] = {}
    lacking = []
    for center in sorted(tried):
        slots = draw.slots(center)
        if isinstance(slots, str):
            lacking.append(slots)
            continue
        sets: list[list[int]]
        if draw.size == 1:
            sets = [[center]]
        elif math.comb(len(slots), draw.size) <= 50:
            sets = [list(some) for some in itertools.combinations(slots, draw.size)]
        else:
            sets = [draw.chosen(center, slots, r) for r in range(50)]
        for some in sets:
            pool.setdefault(tuple(sorted(some)), center)
    rows = sorted(pool)
    rank = words(draw.stream, 1, 1 + len(rows) // 4, replicate=0, stage=5)[: len(rows)]
    sample = np.argsort(rank, kind="stable")[:wanted].tolist()
    return [(pool[rows[i]], list(rows[i])) for i in sample], _counted(lacking)


def _counted(reasons: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


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
    members, member = [], n_slots
    for i in range(size, 0, -1):
        # The largest that fits; each is smaller than the one before it.
        member = next(m for m in reversed(range(member)) if math.comb(m, i) <= rank)
        rank -= math.comb(member, i)
        members.append(member)
    return members[::-1]


def _weight(score: float) -> float:
    """`p(2 * score)`: the Taylor polynomial of exp to degree 12, by Horner."""
    x = 2 * score
    value = 0.0
    for degree in range(12, -1, -1):
        value = value * x + 1 / math.factorial(degree)
    return value
