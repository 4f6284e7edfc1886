"""The rules by which groups are chosen: what each takes, and the draw.

==================== ===========================================================================
``nearest``          C of the K nearest neighbours.
``oversample``       More groups than positions; no set of a centre twice until all are spent.
``quadrant``         One of the K nearest in each quadrant around the centre.
``overlap``          Grown from the centre: each next position overlaps all that are in.
group-then-sample    A strategy: a pool of the groups around all centres, then a sample of it.
==================== ===========================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

RULES = ("nearest", "oversample", "quadrant", "overlap")
STRATEGIES = ("sample-then-group", "group-then-sample")

Bounds: TypeAlias = "tuple[tuple[float, float], tuple[float, float]]"
Source: TypeAlias = "_core.ScanIndex | _core.LabelledIndex | NDArray[np.int32]"


class Drawn(NamedTuple):
    """What a rule drew."""

    indices: NDArray[np.int32]
    centers: NDArray[np.int32]
    left_out: dict[str, int]
    spent: tuple[int, int] = (0, 0)
    """How many centres were asked for more groups than they have sets, and the fewest sets."""
    pool: int | None = None
    """Groups in the pool that was sampled."""


class Pool(NamedTuple):
    """All groups that group-then-sample samples from."""

    groups: NDArray[np.int32]
    """(P, C), each sorted, in lexicographic order."""
    centers: NDArray[np.int32]
    """(P,), the first centre that has the group."""
    without: NDArray[np.int32]
    """The centres that have none."""


@dataclass(frozen=True)
class Rule:
    """A rule with its numbers; `as_rule` makes one of what a caller passed."""

    rule: str
    n_neighbors: int
    group_size: int
    include_center: bool = False
    min_distance: float | None = None
    max_distance: float | None = None
    groups_per_center: int = 1
    N: int | None = None
    min_overlap: float | None = None
    strategy: str = "sample-then-group"

    @property
    def limits(self) -> tuple[float, float] | None:
        """The smallest and the largest distance, None where there is no limit."""
        if self.min_distance is None and self.max_distance is None:
            return None
        return (
            0.0 if self.min_distance is None else self.min_distance,
            math.inf if self.max_distance is None else self.max_distance,
        )

    @property
    def needs_neighbors(self) -> bool:
        """Whether there is anything to search: else a group is its centre."""
        return self.group_size > 1 or self.limits is not None or self.strategy != STRATEGIES[0]

    @property
    def is_plain(self) -> bool:
        """Whether it is the rule ``nearest`` without anything else."""
        return self == Rule("nearest", self.n_neighbors, self.group_size, self.include_center)

    @property
    def lists_suffice(self) -> bool:
        """Whether the K nearest neighbours are all that a draw looks at."""
        return (
            self.rule != "quadrant"
            and not self.min_distance
            and self.strategy == "sample-then-group"
        )

    def draw(
        self,
        source: Source | None,
        positions: NDArray[np.float64],
        centers: NDArray[np.int32],
        n_groups: int,
        key: tuple[int, int],
        *,
        num_threads: int | None = None,
        labels: NDArray[np.int32] | None = None,
    ) -> Drawn:
        """Draw groups around `centers`.

        Parameters
        ----------
        source : index or ndarray, (n, K), int32
            Who knows the neighbours; None where `needs_neighbors` is False.
        positions : ndarray, (n, 2), float64
        centers : ndarray, (m,), int32
            The centres tried.
        n_groups : int
            Of ``oversample`` and group-then-sample: how many groups.
        key : tuple of int
            What the random words come from.
        num_threads : int, optional
        labels : ndarray, (n,), int32, optional
            Those of the index, to tell why a centre is left out.
        """
        _core.check_group(len(positions), self.n_neighbors, self.group_size)
        if source is None:
            indices = np.tile(centers, self.groups_per_center)
            return Drawn(indices[:, np.newaxis], indices, {})
        if self.is_plain and not isinstance(source, _core.LabelledIndex):
            shared = (centers, self.n_neighbors, self.group_size, self.include_center, key)
            if isinstance(source, _core.ScanIndex):
                return Drawn(source.draw_nearest(*shared, num_threads), centers, {})
            return Drawn(_core.draw_listed(source, *shared, num_threads), centers, {})

        request = self._request(
            source, positions, centers, key, num_threads=num_threads, labels=labels
        )
        spent, pool = (0, 0), None
        if self.strategy == "group-then-sample":
            found, pool = _core.draw_pool(request, n_groups)
        elif self.rule == "oversample":
            found, *spent_ = _core.draw_oversample(request, n_groups)
            spent = (spent_[0], spent_[1])
        elif self.rule == "quadrant":
            found = _core.draw_quadrant(request, self.groups_per_center)
        elif self.rule == "overlap":
            window, least = self.N or 0, self.min_overlap or 0.0
            found = _core.draw_overlap(request, window, least, self.groups_per_center)
        else:
            found = _core.draw_within(request, self.include_center, self.groups_per_center)
        kept, indices, too_few, no_group = found
        return Drawn(indices, kept, self._left_out(too_few, no_group, labels), spent, pool)

    def list_pool(
        self,
        source: Source,
        positions: NDArray[np.float64],
        centers: NDArray[np.int32],
        key: tuple[int, int],
        *,
        num_threads: int | None = None,
        labels: NDArray[np.int32] | None = None,
    ) -> Pool:
        """List what `draw` samples from, with the arguments of `draw`."""
        found = _core.list_pool(
            self._request(source, positions, centers, key, num_threads=num_threads, labels=labels)
        )
        return Pool(found[1], found[0], found[2])

    def sample(
        self,
        pool: Pool,
        n_groups: int,
        key: tuple[int, int],
        *,
        num_threads: int | None = None,
        labels: NDArray[np.int32] | None = None,
    ) -> Drawn:
        """Draw from a pool that was listed before."""
        rows = _core.sample_pool(len(pool.groups), n_groups, key, num_threads)
        left_out = self._left_out(pool.without, 0, labels)
        return Drawn(pool.groups[rows], pool.centers[rows], left_out, pool=len(pool.groups))

    def _request(
        self,
        source: Source,
        positions: NDArray[np.float64],
        centers: NDArray[np.int32],
        key: tuple[int, int],
        *,
        num_threads: int | None,
        labels: NDArray[np.int32] | None,
    ) -> dict[str, Any]:
        return {
            "source": source,
            "positions": positions,
            "centers": centers,
            "n_neighbors": self.n_neighbors,
            "group_size": self.group_size,
            "limits": self.limits,
            "labels": labels,
            "key": key,
            "num_threads": num_threads,
        }

    def _left_out(
        self, too_few: NDArray[np.int32], no_group: int, labels: NDArray[np.int32] | None
    ) -> dict[str, int]:
        """Count the centres without a group, by reason."""
        small = 0
        if labels is not None:
            sizes = np.bincount(labels)[labels]
            small = int(np.count_nonzero(sizes[too_few] < self.group_size))
        counts = {"scan_ids": small, "distance": len(too_few) - small, self.rule: no_group}
        return {reason: count for reason, count in counts.items() if count}


def as_rule(
    rule: str,
    strategy: str,
    *,
    group_size: int,
    n_neighbors: int | None,
    include_center: bool,
    min_distance: float | None,
    max_distance: float | None,
    groups_per_center: int,
    N: int | None,
    min_overlap: float | None,
) -> Rule:
    """Return the rule, or say what contradicts what."""
    one_of("rule", rule, RULES)
    one_of("strategy", strategy, STRATEGIES)
    C = group_size
    include_center = bool(include_center)
    m = as_count("groups_per_center", groups_per_center)
    nearest = _as_number("min_distance", min_distance)
    farthest = _as_number("max_distance", max_distance)
    if nearest is not None and farthest is not None and nearest > farthest:
        msg = f"min_distance={nearest:g} exceeds max_distance={farthest:g}: nothing lies between."
        raise ValueError(msg)
    whole = strategy == "group-then-sample"
    if whole and rule != "nearest":
        msg = f"strategy='group-then-sample' has a pool of its own; it takes no rule={rule!r}."
        raise ValueError(msg)
    name = f"strategy={strategy!r}" if whole else f"rule={rule!r}"
    if include_center and (whole or rule in {"oversample", "quadrant"}):
        msg = f"include_center=True does not go with {name}. Use rule='nearest'."
        raise ValueError(msg)
    if m > 1 and (whole or rule == "oversample"):
        msg = f"groups_per_center={m} does not go with {name}, which counts by n_groups alone."
        raise ValueError(msg)
    if rule == "quadrant" and C != 4:
        msg = (
            "rule='quadrant' takes one position from each of 4 quadrants: C must be 4 "
            f"(gridsize 2), got C={C} (gridsize {math.sqrt(C):g})."
        )
        raise ValueError(msg)
    if rule == "quadrant" and farthest is None:
        msg = "rule='quadrant' needs max_distance, in pixels: how far a quadrant reaches."
        raise ValueError(msg)
    if rule == "oversample" and C == 1:
        msg = "rule='oversample' needs groups of 2 or more (C=1): alone a centre has one group."
        raise ValueError(msg)
    if rule == "overlap":
        if N is None:
            msg = "rule='overlap' needs N, the pixels per side of a pattern."
            raise ValueError(msg)
        N = as_count("N", N)
        min_overlap = _as_number("min_overlap", 0.25 if min_overlap is None else min_overlap, 1.0)
        include_center = True  # channel 0 is the centre
    elif N is not None or min_overlap is not None:
        given = f"N={N!r}" if N is not None else f"min_overlap={min_overlap!r}"
        msg = f"{given} is for rule='overlap' alone, not for {name}."
        raise ValueError(msg)
    K = (30 if rule == "overlap" else C + 3) if n_neighbors is None else n_neighbors
    return Rule(
        rule=rule,
        n_neighbors=as_count("n_neighbors", K),
        group_size=C,
        include_center=include_center,
        min_distance=nearest,
        max_distance=farthest,
        groups_per_center=m,
        N=N,
        min_overlap=min_overlap,
        strategy=strategy,
    )


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of some words."""
    if not isinstance(value, str) or value not in allowed:
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        raise ValueError(msg)


def _as_number(name: str, value: object, most: float = math.inf) -> float | None:
    """Return a finite number in ``0..most``."""
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= most or math.isinf(number) or isinstance(value, bool | str):
        limit = "of at least 0" if math.isinf(most) else f"in 0..{most:g}"
        msg = f"{name} must be a number {limit}, got {value!r}."
        raise ValueError(msg)
    return number


# --- which positions become centres -----------------------------------------------------------


def as_bounds(bounds: object) -> Bounds | None:
    """Return ``((x0, x1), (y0, y1))``, shares of the scan's extent."""
    if bounds is None:
        return None
    pairs: Any = bounds
    try:
        along_x, along_y = pairs
        (x0, x1), (y0, y1) = map(float, along_x), map(float, along_y)
    except (TypeError, ValueError, OverflowError):
        msg = f"bounds must be ((x0, x1), (y0, y1)), shares of the scan's extent, got {bounds!r}."
        raise ValueError(msg) from None
    for axis, (low, high) in zip("xy", ((x0, x1), (y0, y1)), strict=True):
        if not (0 <= low <= 1 and 0 <= high <= 1):
            msg = f"bounds must lie in 0..1, shares of the scan's extent, got ({low:g}, {high:g})"
            raise ValueError(f"{msg} along {axis}.")
        if low > high:
            msg = f"bounds ({low:g}, {high:g}) along {axis} are reversed. Pass ({high:g}, {low:g})."
            raise ValueError(msg)
    return (x0, x1), (y0, y1)


def inside_bounds(positions: NDArray[np.float64], bounds: Bounds) -> NDArray[np.bool_]:
    """Return which positions are within the bounds, (n,)."""
    inside = np.ones(len(positions), np.bool_)
    for values, (low, high) in zip(positions.T, bounds, strict=True):
        from_least = values - values.min()
        extent = values.max() - values.min()
        inside &= (low * extent <= from_least) & (from_least <= high * extent)
    return inside


def as_labels(scan_ids: ArrayLike | None, n: int) -> NDArray[np.int32] | None:
    """Return the number of each position's label, (n,), labels in sorted order."""
    if scan_ids is None:
        return None
    labels = np.asarray(scan_ids)
    if labels.shape != (n,) or labels.dtype.kind not in "iubUS":
        msg = (
            f"scan_ids must be ({n},) whole numbers or text, a label for each position, got "
            f"shape {labels.shape} of {labels.dtype}."
        )
        raise ValueError(msg)
    numbers: NDArray[np.int32] = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    return numbers.reshape(n)


# --- when every centre is left out ------------------------------------------------------------


def refuse_bounds(positions: NDArray[np.float64], bounds: Bounds, tried: NDArray[np.int32]) -> str:
    """Say which bounds would hold the nearest of the centres."""
    shares = []
    for values in positions.T:
        extent = values.max() - values.min()
        shares.append((values[tried] - values.min()) / (extent if extent > 0 else 1.0))
    beyond = [
        np.maximum(np.maximum(low - share, share - high), 0)
        for share, (low, high) in zip(shares, bounds, strict=True)
    ]
    best = int(np.argmin(beyond[0] + beyond[1]))
    wider = []
    for share, (low, high) in zip(shares, bounds, strict=True):
        least = max(0.0, math.floor((share[best] - 1e-9) * 1e4) / 1e4)
        most = min(1.0, math.ceil((share[best] + 1e-9) * 1e4) / 1e4)
        wider.append((min(low, least), max(high, most)))
    return (
        f"bounds={bounds} hold none of the {len(tried)} positions that may be centres. "
        f"Widen them to {tuple(wider)}, which holds the nearest ({tried[best]})."
    )


def refuse_all(
    rule: Rule,
    positions: NDArray[np.float64],
    centers: NDArray[np.int32],
    left_out: dict[str, int],
    labels: NDArray[np.int32] | None,
) -> str:
    """Say why no centre has a group, and which limit to change to what."""
    C = rule.group_size
    everyone = f"all {len(centers)} centres"
    if "quadrant" in left_out:
        return _refuse_quadrants(rule, positions, centers, labels)
    if "overlap" in left_out:
        around = _neighbors(positions, centers, labels, rule.limits)
        near = next((near for near in around if len(near.neighbors) >= C - 1), None)
        return (
            f"min_overlap={rule.min_overlap:g} leaves out {everyone}, although relaxed to "
            f"{(rule.min_overlap or 0) / 1.5**3:.3g}: windows of N={rule.N} overlap less. Lower "
            f"min_overlap to {'0' if near is None else _widest_overlap(rule, positions, near)}"
            f"{'' if near is None else f', which serves centre {near.center}'}, or check N."
        )
    if "distance" not in left_out and labels is not None:
        return (
            f"scan_ids leaves out {everyone}: a group needs C={C} positions of one label, and "
            f"the longest label has {np.bincount(labels).max()}. Use a smaller gridsize, or leave "
            "scan_ids out."
        )
    nearest, farthest = rule.limits or (0.0, math.inf)
    spacing = _spacing(positions)
    for near in _neighbors(positions, centers, labels, None):
        d2 = near.distance2
        if len(d2) < C:
            continue  # of a label with too few positions
        far = d2[d2 >= nearest * nearest]
        close = d2[d2 <= farthest * farthest]
        if math.isfinite(farthest) and len(far) >= C:
            return (
                f"max_distance={farthest:g} leaves out {everyone}: none has C={C} neighbours so "
                f"near, at a scan's spacing of {spacing:.4g} (the median distance to the nearest "
                f"neighbour). Raise max_distance to {_up(far[C - 1])}, which serves centre "
                f"{near.center}."
            )
        if len(close) >= C:
            return (
                f"min_distance={nearest:g} leaves out {everyone}: none has C={C} neighbours so "
                f"far, at a scan's spacing of {spacing:.4g}. Lower min_distance to "
                f"{_down(close[-C])}, which serves centre {near.center}."
            )
        return (
            f"min_distance={nearest:g} and max_distance={farthest:g} leave out {everyone}, at a "
            f"scan's spacing of {spacing:.4g}. Lower min_distance to 0 and raise max_distance to "
            f"{_up(d2[C - 1])}, which serves centre {near.center}."
        )
    return (
        f"Within distance limits a group needs C={C} neighbours beside its centre, and no centre "
        "has as many. Leave min_distance and max_distance out, or use a smaller gridsize."
    )


class _Near(NamedTuple):
    """A centre and its neighbours, nearest first."""

    center: int
    neighbors: NDArray[np.intp]
    distance2: NDArray[np.float64]


def _looks(positions: NDArray[np.float64], centers: NDArray[np.int32]) -> int:
    """Of how many centres all neighbours are looked at."""
    return min(len(centers), 1000, max(1, 2 * 10**6 // len(positions)))


def _neighbors(
    positions: NDArray[np.float64],
    centers: NDArray[np.int32],
    labels: NDArray[np.int32] | None,
    limits: tuple[float, float] | None,
) -> Iterator[_Near]:
    """All neighbours of the first centres: on the way to a refusal a second does not matter."""
    for center in centers[: _looks(positions, centers)].tolist():
        apart = positions - positions[center]
        d2 = apart[:, 0] * apart[:, 0] + apart[:, 1] * apart[:, 1]
        fits = np.arange(len(positions)) != center
        if labels is not None:
            fits &= labels == labels[center]
        if limits is not None:
            fits &= (limits[0] * limits[0] <= d2) & (d2 <= limits[1] * limits[1])
        own = np.flatnonzero(fits)
        order = own[np.argsort(d2[own], kind="stable")]
        yield _Near(center, order, d2[order])


def _refuse_quadrants(
    rule: Rule,
    positions: NDArray[np.float64],
    centers: NDArray[np.int32],
    labels: NDArray[np.int32] | None,
) -> str:
    nearest, farthest = rule.limits or (0.0, math.inf)
    text = f"max_distance={farthest:g} leaves out all {len(centers)} centres"
    for near in _neighbors(positions, centers, labels, (nearest, math.inf)):
        apart = positions[near.neighbors] - positions[near.center]
        reach = [
            near.distance2[(apart[:, 0] * right > 0) & (apart[:, 1] * up > 0)][:1]
            for right in (-1, 1)
            for up in (-1, 1)
        ]
        if all(map(len, reach)):
            return (
                f"{text}: none has a neighbour so near in each quadrant, at a scan's spacing of "
                f"{_spacing(positions):.4g}. Raise max_distance to {_up(max(reach)[0])}, which "
                f"serves centre {near.center}."
            )
    looks = _looks(positions, centers)
    return (
        f"{text}, and no larger one serves any of the first {looks}: they have no neighbour in "
        "each quadrant at all. Use rule='nearest' or other centres, or leave min_distance out."
    )


def _widest_overlap(rule: Rule, positions: NDArray[np.float64], near: _Near) -> str:
    """Return a min_overlap that is met by all pairs around a centre."""
    N = float(rule.N or 0)
    most = min(rule.n_neighbors, 1000)  # all pairs of them
    around = positions[[near.center, *near.neighbors[:most]]]
    sides = np.maximum(0.0, N - np.abs(around[:, np.newaxis] - around))
    return _rounded(float(sides.prod(axis=-1).min() / (N * N)), math.floor, lambda _: True)


def _spacing(positions: NDArray[np.float64]) -> float:
    n = len(positions)
    every = np.arange(n, dtype=np.int32)
    nearest = _core.ScanIndex(positions, "auto", None).neighbors(every, 1, None)
    if nearest.shape[1] == 0:
        return 0.0
    apart = positions[nearest[:, 0]] - positions
    return float(np.median(np.hypot(apart[:, 0], apart[:, 1])))


def _up(d2: float) -> str:
    """Return a distance of 4 digits that is not less than the one squared."""
    return _rounded(math.sqrt(d2), math.ceil, lambda distance: distance * distance >= d2)


def _down(d2: float) -> str:
    return _rounded(math.sqrt(d2), math.floor, lambda distance: distance * distance <= d2)


def _rounded(value: float, how: Callable[[float], int], holds: Callable[[float], bool]) -> str:
    if value == 0:
        return "0"
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    count, step = how(value / unit), 1 if how is math.ceil else -1
    while not holds(float(text := f"{count * unit:.4g}")):
        count += step
    return text
