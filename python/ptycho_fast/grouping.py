"""Groups of overlapping scan positions: an index of the scan, and draws from it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast import _core, groups_cache
from ptycho_fast.checks import (
    as_count,
    as_indices,
    as_positions,
    as_threads,
    as_valid_positions,
    join_coordinates,
    positions_checksum,
)
from ptycho_fast.io.npz import read_array, read_arrays, write_arrays
from ptycho_fast.notices import warn
from ptycho_fast.rules import (
    Bounds,
    Drawn,
    Pool,
    Rule,
    Source,
    as_bounds,
    as_labels,
    as_rule,
    inside_bounds,
    one_of,
    refuse_all,
    refuse_bounds,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger("ptycho_fast")

ENGINES = ("auto", "grid", "kdtree")

FORMAT = 1
"""Version of the files that `Groups.save` writes."""

OPTIONAL_ARRAYS = ("scan_ids", "given_centers")
"""Arrays of `Groups` that not all have."""


class ScanIndex:
    """An index of scan positions, from which neighbours are read and groups are drawn.

    Building it is most of the work of a draw, so build it once to draw often. It never changes,
    and threads may share it.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Columns x and y, in pixels of the object grid.
    engine : {"auto", "grid", "kdtree"}
        Which index finds the neighbours: cells, or a tree, which is faster where positions crowd
        in few places. The answers are the same. Where positions crowd so that cells would take
        quadratic time, it is a tree whatever is asked for.
    num_threads : int, optional
        Threads to build with; ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use.

    Raises
    ------
    ValueError
        If positions are not (n, 2) real numbers, finite and within 1e150, at least one of them.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> index = pf.ScanIndex(np.array([[0, 0], [3, 0], [1, 0], [0, 2]]))
    >>> index.neighbors(2, centers=[0])
    array([[2, 3]], dtype=int32)
    >>> pf.group_positions(index, gridsize=1, seed=1).indices.shape
    (4, 1)
    """

    def __init__(
        self, positions: ArrayLike, *, engine: str = "auto", num_threads: int | None = None
    ) -> None:
        one_of("engine", engine, ENGINES)
        # A copy of our own: the index would not see a later change of the caller's array.
        self.positions: NDArray[np.float64] = np.array(as_positions(positions))
        self.positions.flags.writeable = False
        self._index = _core.ScanIndex(self.positions, engine, as_threads(num_threads))

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"ScanIndex({len(self)} positions)"

    @property
    def engine(self) -> str:
        """Which index it is: ``"grid"`` or ``"kdtree"``."""
        return self._index.engine

    def __reduce__(self) -> tuple[partial[ScanIndex], tuple[NDArray[np.float64]]]:
        return partial(ScanIndex, engine=self.engine), (self.positions,)

    def neighbors(
        self,
        n_neighbors: int,
        centers: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> NDArray[np.int32]:
        """Find the nearest neighbours of positions, nearest first.

        The order is that of (d², index), with ``d² = dx*dx + dy*dy`` in float64; the centre is
        left out by index, so a second position at the same place is a neighbour at distance 0.

        Parameters
        ----------
        n_neighbors : int
            How many (K).
        centers : array_like, (B,), int, optional
            Whose neighbours; all positions by default.
        num_threads : int, optional
            Threads to use. The result does not depend on it.

        Returns
        -------
        ndarray, (B, min(K, n - 1)), int32

        Raises
        ------
        ValueError
            If ``n_neighbors < 1`` or a centre is not in 0..n-1.
        """
        n = len(self)
        rows = np.arange(n, dtype=np.int32) if centers is None else centers
        return self._index.neighbors(
            as_indices("centers", rows, 1, n),
            as_count("n_neighbors", n_neighbors),
            as_threads(num_threads),
        )


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups drawn from a scan, and what it takes to draw them again.

    Parameters
    ----------
    indices : ndarray, (B, C), int32
        Scan positions of each group, in channel order.
    centers : ndarray, (B,), int32
        The position that each group was drawn around.
    positions : ndarray, (n, 2), float64
        The scan's positions, x and y.
    n_neighbors : int
        Neighbours considered per centre (K).
    seed, epoch : int
        The draw is a function of these two.
    rule, rng, engine : str
        The rule of choosing, the random stream, and the index that found the neighbours.
    include_center : bool
        Whether channel 0 is the centre.
    center_choice : {"random", "sequential", "given"}
        How the centres were chosen.
    left_out : mapping of str to int
        Reason -> how many of the centres tried lack a group for it: ``"distance"`` (fewer than C
        neighbours within the distances), ``"quadrant"`` (one is empty), ``"overlap"`` (nobody
        overlaps enough), ``"scan_ids"`` (fewer than C positions of its label), ``"bounds"`` (a
        given centre outside of them).
    strategy, min_distance, max_distance, groups_per_center, bounds, N, min_overlap
        As of `group_positions`.
    n_groups : int, optional
        What was asked for: `left_out` may have taken from it.
    scan_ids : ndarray, (n,), int32, optional
        The number of each position's label, labels in sorted order.
    given_centers : ndarray, int32, optional
        The centres that were given.
    """

    indices: NDArray[np.int32]
    centers: NDArray[np.int32]
    positions: NDArray[np.float64]
    n_neighbors: int
    seed: int
    epoch: int = 0
    rule: str = "nearest"
    rng: str = "philox"
    engine: str = "grid"
    include_center: bool = False
    center_choice: str = "random"
    left_out: Mapping[str, int] = field(default_factory=dict)
    strategy: str = "sample-then-group"
    min_distance: float | None = None
    max_distance: float | None = None
    groups_per_center: int = 1
    bounds: Bounds | None = None
    N: int | None = None
    min_overlap: float | None = None
    n_groups: int | None = None
    scan_ids: NDArray[np.int32] | None = None
    given_centers: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        of = f"{len(self)} of {self.group_size} positions"
        return (
            f"Groups({of}, scan of {len(self.positions)}, K={self.n_neighbors}, "
            f"rule={self.rule!r}, seed={self.seed}, epoch={self.epoch})"
        )

    @property
    def group_size(self) -> int:
        """Channels per group (C)."""
        return int(self.indices.shape[1])

    @cached_property
    def coords(self) -> NDArray[np.float64]:
        """Position of each channel, (B, 1, 2, C), x then y."""
        return group_coordinates(self.positions, self.indices)

    @cached_property
    def offsets(self) -> NDArray[np.float64]:
        """Mean position of each group, (B, 1, 2, 1), x then y; never narrowed to float32."""
        return relative_coordinates(self.coords)[0]

    @cached_property
    def relative(self) -> NDArray[np.float64]:
        """Minus each position relative to its group's mean, (B, 1, 2, C).

        The minus is the field's convention: it is the shift that brings the object under a
        channel to the centre.
        """
        return relative_coordinates(self.coords)[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the groups to an NPZ file, which appears whole or not at all.

        Its keys are ``indices``, ``centers``, ``positions``, ``parameters``: JSON with the
        arguments of the draw and the SHA-256 of the positions; and where the draw had them,
        ``scan_ids`` and ``given_centers``.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        OSError
            If it can't be written.
        """
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays = {name: values.pop(name) for name in ("indices", "centers", "positions")}
        for name in OPTIONAL_ARRAYS:
            array = values.pop(name)
            if array is not None:
                arrays[name] = array
        parameters = {
            "format": FORMAT,
            "positions_sha256": positions_checksum(self.positions),
            **values,
            "left_out": dict(self.left_out),
            "arrays": [name for name in OPTIONAL_ARRAYS if name in arrays],
        }
        arrays["parameters"] = json.dumps(parameters)
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], positions: ArrayLike | None = None) -> Groups:
        """Read groups that `save` wrote.

        Parameters
        ----------
        path : path
            The file.
        positions : array_like, (n, 2), optional
            The positions of the scan that the groups are to be used with: they must be those
            that the groups were drawn from.

        Returns
        -------
        Groups

        Raises
        ------
        OSError
            If the file is missing, damaged, or no NPZ file.
        KeyError
            If it holds no groups.
        ValueError
            If its content does not fit together, or `positions` are others.
        """
        name = os.fspath(path)
        arrays = read_arrays(path, ("indices", "centers", "positions", "parameters"))
        try:
            parameters = json.loads(str(arrays["parameters"]))
            checksum, version = parameters.pop("positions_sha256"), parameters.pop("format")
            if (bounds := parameters.get("bounds")) is not None:
                parameters["bounds"] = tuple(map(tuple, bounds))
            also: dict[str, Any] = {
                name: np.asarray(read_array(path, name), np.int32)
                for name in parameters.pop("arrays", ())
                if name in OPTIONAL_ARRAYS
            }
        # RecursionError: JSON that is nested deeper than Python calls.
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            msg = f"{name}: 'parameters' is not what Groups.save writes ({error!r})."
            raise ValueError(msg) from error
        if version != FORMAT:
            msg = f"{name} has format {version}; this version of ptycho_fast reads {FORMAT}."
            raise ValueError(msg)
        stored = as_positions(arrays["positions"])
        if positions_checksum(stored) != checksum:
            msg = f"{name} is damaged: its positions do not match their checksum."
            raise ValueError(msg)
        if positions is not None and positions_checksum(as_positions(positions)) != checksum:
            msg = (
                f"{name} was drawn from other positions ({len(stored)} of them, SHA-256 "
                f"{checksum[:12]}...). Draw the groups of this scan again."
            )
            raise ValueError(msg)
        indices = as_indices("indices", arrays["indices"], 2, len(stored))
        centers = as_indices("centers", arrays["centers"], 1, len(stored))
        if len(centers) != len(indices):
            msg = f"{name} holds {len(indices)} groups but {len(centers)} centres."
            raise ValueError(msg)
        try:
            return cls(indices=indices, centers=centers, positions=stored, **also, **parameters)
        except TypeError as error:
            msg = f"{name}: 'parameters' is not what Groups.save writes ({error})."
            raise ValueError(msg) from error


def group_coordinates(
    positions: NDArray[np.float64], indices: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the positions ``(n, 2)`` of groups ``(B, C)`` as ``(B, 1, 2, C)``, x then y."""
    return np.ascontiguousarray(positions[indices].transpose(0, 2, 1))[:, np.newaxis]


def relative_coordinates(
    coords: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split positions of groups into the groups' means and the rest.

    Parameters
    ----------
    coords : ndarray, (B, 1, 2, C)
        Positions, x then y.

    Returns
    -------
    offsets : ndarray, (B, 1, 2, 1), float64
        The mean over channels, summed c = 0, 1, ... and divided once: another order of summing
        would change the last bit.
    relative : ndarray, (B, 1, 2, C), float64
        ``-(coords - offsets)``.
    """
    total = np.array(coords[..., 0], dtype=np.float64)
    for channel in range(1, coords.shape[-1]):
        total += coords[..., channel]
    offsets = (total / coords.shape[-1])[..., np.newaxis]
    relative = coords - offsets
    np.negative(relative, out=relative)
    return offsets, relative


def group_positions(
    positions: ArrayLike | ScanIndex | None = None,
    n_groups: int | None = None,
    *,
    xcoords: ArrayLike | None = None,
    ycoords: ArrayLike | None = None,
    gridsize: int | None = None,
    group_size: int | None = None,
    n_neighbors: int | None = None,
    seed: int | None = None,
    epoch: int = 0,
    rule: str = "nearest",
    strategy: str = "sample-then-group",
    centers: str | ArrayLike = "random",
    include_center: bool = False,
    min_distance: float | None = None,
    max_distance: float | None = None,
    groups_per_center: int = 1,
    bounds: Bounds | None = None,
    scan_ids: ArrayLike | None = None,
    N: int | None = None,
    min_overlap: float | None = None,
    rng: str = "philox",
    engine: str = "auto",
    num_threads: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    compress: bool = False,
) -> Groups:
    """Draw groups of overlapping positions from a scan: sample the centres, then group.

    A group is C distinct positions drawn from the K nearest neighbours of its centre. The result
    is a function of the positions, K, C, seed, epoch and the rule alone: not of the number of
    threads, the engine, or which other groups are drawn. A larger `n_groups` only appends.

    Parameters
    ----------
    positions : array_like, (n, 2), real, or ScanIndex
        Columns x and y, in pixels of the object grid; or an index built before.
    n_groups : int, optional
        How many centres are tried; by default every position. ``Groups.left_out`` counts those
        that have no group. Of ``rule="oversample"`` it counts groups, and may exceed the
        positions; of ``strategy="group-then-sample"`` groups of the pool.
    xcoords, ycoords : array_like, (n,), real, optional
        Instead of `positions`.
    gridsize : int, optional
        C = gridsize². 2 by default.
    group_size : int, optional
        C itself, any number from 1, instead of `gridsize`. At C = 1 a group is its centre.
    n_neighbors : int, optional
        Neighbours considered per centre (K >= C); C + 3 by default, 30 of ``rule="overlap"``.
    seed : int, optional
        Fresh entropy if not given; ``Groups.seed`` records it either way.
    epoch : int
        Another epoch draws other groups from the same seed.
    rule : {"nearest", "oversample", "quadrant", "overlap"}
        How a group is chosen. ``"nearest"``: C of the K nearest neighbours. ``"oversample"``:
        the same, round after round of all centres, no set of a centre twice until all its sets
        are spent. ``"quadrant"`` (C = 4, `max_distance` needed): one of the K nearest in each
        quadrant around the centre: dx<0, dy>0; dx>0, dy>0; dx<0, dy<0; dx>0, dy<0.
        ``"overlap"`` (`N` needed): grown from the centre (channel 0), each next position among
        those whose smallest overlap with all that are in is at least `min_overlap`, the more
        likely the larger it is.
    strategy : {"sample-then-group", "group-then-sample"}
        The latter lists a pool of groups, those around all centres (up to 50 each), without
        duplicates, and returns a sample of it; a group's centre is the first that has it.
    centers : {"random", "sequential"} or array_like, (B,), int
        A random sample in random order, the first B positions, or these, in this order.
    include_center : bool
        Channel 0 is the centre, and C - 1 neighbours are drawn.
    min_distance, max_distance : float, optional
        Neighbours are at least and at most so far from the centre, in pixels. A centre with
        fewer than C of them is left out.
    groups_per_center : int
        Groups drawn around each centre, round after round of all centres.
    bounds : ((x0, x1), (y0, y1)), optional
        Centres lie in this part of the scan's extent (0..1); their neighbours need not.
    scan_ids : array_like, (n,), int or str, optional
        A label for each position: groups never mix labels.
    N : int, optional
        Pixels per side of a pattern, whose windows ``rule="overlap"`` compares.
    min_overlap : float, optional
        Share of a window, 0..1; 0.25 by default. Where no position qualifies, it is divided by
        1.5 for that group, three times at most.
    rng : {"philox", "numpy"}
        ``"numpy"`` draws from the stream of ``np.random.seed(seed)`` instead, for the groups
        that older code drew.
    engine : {"auto", "grid", "kdtree"}
        Which index finds the neighbours: cells, or a tree where positions crowd. The groups are
        the same; ``Groups.engine`` says which it was.
    num_threads : int, optional
        Threads to use; ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use.
    cache : path, optional
        The scan's file, beside which ``strategy="group-then-sample"`` keeps its pool, as
        ``<scan>.g{gridsize}k{K}.groups_cache.npz``. The groups are the same with and without. A
        file made for something else is made anew; the log says why. If it can't be written, the
        log warns, and the groups are returned.
    compress : bool
        A smaller file, slower to write and to read.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        If K < C, n < C, ``n_groups < 1``, positions are not finite, arguments contradict, or a
        rule leaves out every centre: then it says which limit to change to what.

    Warns
    -----
    UserWarning
        If `n_groups` exceeds the number of positions (every position becomes a centre once), the
        sets to oversample from (sets come again), or the pool (all of it is returned); and of a
        cache file above 100 MB.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> groups = pf.group_positions(scan.positions, n_groups=10, gridsize=2, seed=42)
    >>> groups.indices.shape, groups.relative.shape
    ((10, 4), (10, 1, 2, 4))
    >>> more = pf.group_positions(scan.positions, 250, rule="oversample", seed=42)
    >>> more.indices.shape
    (250, 4)
    """
    index, points = _index_or_points(positions, xcoords, ycoords)
    n = len(points)
    how = as_rule(
        rule,
        strategy,
        group_size=_group_size(gridsize, group_size),
        n_neighbors=n_neighbors,
        include_center=include_center,
        min_distance=min_distance,
        max_distance=max_distance,
        groups_per_center=groups_per_center,
        N=N,
        min_overlap=min_overlap,
    )
    threads = as_threads(num_threads)
    one_of("rng", rng, ("philox", "numpy"))
    one_of("engine", engine, ENGINES)
    if index is not None and engine not in ("auto", index.engine):
        msg = f"engine={engine!r}, but the index given is a {index.engine!r}. Leave engine out."
        raise ValueError(msg)
    given = None if isinstance(centers, str) else as_indices("centers", centers, 1, n)
    if isinstance(centers, str):
        one_of("centers", centers, ("random", "sequential"))
    choice = centers if isinstance(centers, str) else "given"
    if how.strategy == "group-then-sample" and choice != "random":
        msg = (
            "strategy='group-then-sample' has groups around all positions, in order of index. "
            "Leave centers out."
        )
        raise ValueError(msg)
    file = _cache_file(cache, how, compress=compress)
    area, labels = as_bounds(bounds), as_labels(scan_ids, n)
    epoch = as_count("epoch", epoch, least=0, most=2**32 - 1)

    if rng == "numpy":
        known = Rule("nearest", how.n_neighbors, how.group_size)
        if epoch or how != known or choice != "random" or area is not None or labels is not None:
            msg = (
                'rng="numpy" repeats what older code drew, which knew no epoch, include_center '
                "or centers, no other rule or strategy, distances, groups_per_center, bounds or "
                "scan_ids. Leave them out, or use the native stream."
            )
            raise ValueError(msg)
        B = _group_count(n_groups, None, n, "of the scan")
        seed = _seed(seed, most=2**32 - 1)
        state = np.random.RandomState(seed).get_state(legacy=False)["state"]
        if index is None:
            index = ScanIndex(points, engine=engine, num_threads=threads)
        K, C = how.n_neighbors, how.group_size
        drawn = draw_from_twister(index, B, K, C, (state["key"], state["pos"]), num_threads=threads)
        return Groups(
            **_recorded(how),
            indices=drawn.indices,
            centers=drawn.centers,
            positions=points,
            seed=seed,
            rng=rng,
            engine=index.engine,
            n_groups=B,
        )

    _core.check_group(n, how.n_neighbors, how.group_size)
    allowed = _may_be_centers(points, area, given)
    if given is not None:
        B = _group_count(n_groups, given, n, "")
    elif how.rule == "oversample" or how.strategy == "group-then-sample":
        B = n if n_groups is None else as_count("n_groups", n_groups)
    elif allowed is None:
        B = _group_count(n_groups, None, n, "of the scan")
    else:
        B = _group_count(n_groups, None, int(np.count_nonzero(allowed)), "within bounds")
    asked = Groups(
        **_recorded(how),
        indices=np.empty((0, how.group_size), np.int32),
        centers=np.empty(0, np.int32),
        positions=points,
        seed=_seed(seed),
        epoch=epoch,
        center_choice=choice,
        bounds=area,
        n_groups=B,
        scan_ids=labels,
        given_centers=given,
    )
    source = None if index is None else index._index
    found, ran = _draw(asked, source, engine, threads, file)
    spent, fewest = found.spent
    if spent:
        warn(
            f"n_groups={B} asks {spent} centres for more groups than they have sets (as few as "
            f"{fewest}): sets come again. Raise n_neighbors ({how.n_neighbors}) for more.",
        )
    if found.pool is not None and found.pool < B and n_groups is not None:
        warn(
            f"n_groups={B} exceeds the {found.pool} groups of the pool: all of them are returned.",
        )
    return replace(
        asked,
        indices=found.indices,
        centers=found.centers,
        left_out=found.left_out,
        engine=ran,
    )


def redraw(
    groups: Groups,
    neighbors: NDArray[np.int32] | ScanIndex,
    epoch: int,
    num_threads: int | None = None,
) -> Groups:
    """Draw the groups of another epoch from the same seed, without searching neighbours again.

    Parameters
    ----------
    groups : Groups
        What was drawn by `group_positions`.
    neighbors : ndarray, (n, min(K, n - 1)), int32, or ScanIndex
        ``ScanIndex(groups.positions).neighbors(groups.n_neighbors)``; or the index itself. The
        lists do not suffice for `min_distance`, `scan_ids`, ``rule="quadrant"`` and
        ``strategy="group-then-sample"``: there neighbours are searched again, in the index where
        that is given.
    epoch : int
        Which epoch.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    Groups
        What `group_positions` returns for that epoch.

    Raises
    ------
    ValueError
        If the groups follow NumPy's legacy stream, which knows no epochs.
    """
    if groups.rng != "philox":
        msg = (
            f"Groups of rng={groups.rng!r} can't be redrawn: that stream knows no epochs. "
            "Draw them with the native stream."
        )
        raise ValueError(msg)
    epoch = as_count("epoch", epoch, least=0, most=2**32 - 1)
    asked = replace(groups, epoch=epoch)
    source: Source | None = None
    if isinstance(neighbors, ScanIndex):
        source = neighbors._index
    elif lists_suffice(groups):
        source = neighbors
    found, _ = _draw(asked, source, groups.engine, num_threads)
    return replace(asked, indices=found.indices, centers=found.centers, left_out=found.left_out)


def lists_suffice(groups: Groups) -> bool:
    """Whether `redraw` gets along with the K nearest neighbours of each position, searched once."""
    return _rule_of(groups).lists_suffice and groups.scan_ids is None


def _recorded(rule: Rule) -> dict[str, Any]:
    """Return what `Groups` keep of a rule; the group size is that of the indices."""
    return {name: value for name, value in vars(rule).items() if name != "group_size"}


def _rule_of(groups: Groups) -> Rule:
    return Rule(**{name: getattr(groups, name) for name in Rule.__dataclass_fields__})


class _CacheFile(NamedTuple):
    """Where the pool of group-then-sample is kept."""

    path: os.PathLike[str]
    gridsize: int
    compress: bool

    def read(self, asked: Groups, key: tuple[int, int]) -> Pool | None:
        """Return the pool of these groups, if the file holds it."""
        return groups_cache.read(
            self.path,
            asked.positions,
            self.gridsize,
            asked.n_neighbors,
            key=key,
            filters=_filters(asked),
        )

    def write(self, pool: Pool, asked: Groups, key: tuple[int, int]) -> None:
        """Keep the pool, if there is room for it: the draw does not depend on that."""
        if not len(pool.groups):
            return
        try:
            groups_cache.write(
                self.path,
                pool,
                asked.positions,
                self.gridsize,
                asked.n_neighbors,
                key=key,
                filters=_filters(asked),
                compress=self.compress,
            )
        except OSError as error:
            logger.warning("groups cache: %s can't be written: %s", self.path, error)


def _filters(asked: Groups) -> str:
    """Say which neighbours and centres the pool is of, where not of all."""
    names = ("min_distance", "max_distance", "bounds")
    given = {name: getattr(asked, name) for name in names}
    parts = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if asked.scan_ids is not None:
        labels = np.ascontiguousarray(asked.scan_ids, dtype="<i4")
        parts.append(f"scan_ids={hashlib.sha256(labels.data).hexdigest()}")
    return " ".join(parts)


def _cache_file(
    cache: str | os.PathLike[str] | None, rule: Rule, *, compress: bool
) -> _CacheFile | None:
    if not cache:
        if compress:
            msg = "compress=True is for the file of cache=, which is not given."
            raise ValueError(msg)
        return None
    if isinstance(cache, bool):
        msg = (
            "cache=True can't be kept beside a scan whose file positions do not know. Pass the "
            "scan's file: cache='scan.npz'."
        )
        raise ValueError(msg)
    if rule.strategy != "group-then-sample":
        msg = f"cache= keeps the pool of strategy='group-then-sample', not of {rule.strategy!r}."
        raise ValueError(msg)
    gridsize = math.isqrt(rule.group_size)
    if gridsize**2 != rule.group_size:
        msg = f"cache= names its file by the gridsize, which group_size={rule.group_size} has none."
        raise ValueError(msg)
    path = groups_cache.cache_path(cache, gridsize, rule.n_neighbors)
    return _CacheFile(path, gridsize, compress)


def _draw(
    asked: Groups,
    source: Source | None,
    engine: str,
    threads: int | None,
    file: _CacheFile | None = None,
) -> tuple[Drawn, str]:
    """Draw what `asked` says it takes, and say which engine found the neighbours.

    Without a source it is built, of this engine, where one is needed. With a file the pool of
    groups is read from it, or written to it.
    """
    rule, points, labels = _rule_of(asked), asked.positions, asked.scan_ids
    n = len(points)
    B = len(asked) if asked.n_groups is None else asked.n_groups
    key = philox_key(asked.seed, asked.epoch)
    allowed = _may_be_centers(points, asked.bounds, asked.given_centers)
    if asked.center_choice == "given":
        given = asked.centers if asked.given_centers is None else asked.given_centers
        tried = given if allowed is None else given[allowed[given]]
        outside = len(given) - len(tried)
    else:
        outside = 0
        if rule.strategy == "group-then-sample" or asked.center_choice == "sequential":
            ranked = np.arange(n, dtype=np.int32)
        else:
            ranked = _core.draw_centers(n, min(B, n) if allowed is None else n, key, threads)
        if allowed is not None:
            ranked = ranked[allowed[ranked]]
        tried = ranked if rule.strategy == "group-then-sample" else ranked[:B]
    left_out = {"bounds": outside} if outside else {}
    plain = rule.is_plain and rule.needs_neighbors and labels is None
    if plain and source is None and engine != "kdtree":
        few = (rule.n_neighbors, rule.group_size, rule.include_center, key, threads)
        indices = _core.draw_few(points, tried, *few)
        if indices is not None:
            return Drawn(indices, tried, left_out), "grid"
    pool = None if file is None else file.read(asked, key)
    if not rule.needs_neighbors or pool is not None:
        source = None
    elif labels is not None:
        source = _core.LabelledIndex(points, labels, engine, threads)
    elif source is None:
        source = _core.ScanIndex(points, engine, threads)
    if file is not None and pool is None:
        assert source is not None
        pool = rule.list_pool(source, points, tried, key, num_threads=threads, labels=labels)
        file.write(pool, asked, key)
    if pool is None:
        drawn = rule.draw(source, points, tried, B, key, num_threads=threads, labels=labels)
    else:
        drawn = rule.sample(pool, B, key, num_threads=threads, labels=labels)
    if not len(drawn.indices):
        raise ValueError(refuse_all(rule, points, tried, drawn.left_out, labels))
    if isinstance(source, _core.ScanIndex | _core.LabelledIndex):
        engine = source.engine
    drawn = drawn._replace(left_out={**drawn.left_out, **left_out})
    return drawn, "grid" if engine == "auto" else engine


def _may_be_centers(
    points: NDArray[np.float64], bounds: Bounds | None, given: NDArray[np.int32] | None
) -> NDArray[np.bool_] | None:
    """Return which positions are within the bounds; None for all."""
    if bounds is None:
        return None
    inside = inside_bounds(points, bounds)
    tried = np.arange(len(points), dtype=np.int32) if given is None else given
    if not inside[tried].any():
        raise ValueError(refuse_bounds(points, bounds, tried))
    return inside


def philox_key(seed: int, epoch: int) -> tuple[int, int]:
    """Return the key of the counter generator (Philox4x64) for an epoch of a seed."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(epoch,))
    first, second = sequence.generate_state(2, np.uint64)
    return int(first), int(second)


class LegacyDraw(NamedTuple):
    """Groups drawn from NumPy's legacy stream, and where the stream stands then."""

    indices: NDArray[np.int32]
    centers: NDArray[np.int32]
    state: tuple[NDArray[np.uint32], int]


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
    """Draw by NumPy's legacy stream, from a Mersenne Twister in `state` (words, place).

    `centers`, where given, are used as they are and take nothing from the stream.
    """
    words, place = state
    drawn, indices, state = index._index.draw_legacy(
        centers, n_groups, n_neighbors, group_size, words, place, num_threads
    )
    return LegacyDraw(indices, drawn, state)


def _index_or_points(
    positions: ArrayLike | ScanIndex | None, xcoords: ArrayLike | None, ycoords: ArrayLike | None
) -> tuple[ScanIndex | None, NDArray[np.float64]]:
    if (positions is None) == (xcoords is None and ycoords is None):
        msg = "Give positions, or xcoords and ycoords."
        raise ValueError(msg)
    if isinstance(positions, ScanIndex):
        return positions, positions.positions
    if positions is None:
        if xcoords is None or ycoords is None:
            msg = f"{'xcoords' if xcoords is None else 'ycoords'} is missing beside the other."
            raise ValueError(msg)
        positions = join_coordinates(xcoords, ycoords)
    return None, as_valid_positions(positions)


def _group_size(gridsize: int | None, group_size: int | None) -> int:
    if group_size is None:
        return as_count("gridsize", 2 if gridsize is None else gridsize, most=46340) ** 2
    if gridsize is not None:
        msg = f"Give gridsize ({gridsize!r}) or group_size ({group_size!r}), not both."
        raise ValueError(msg)
    return as_count("group_size", group_size)


def _group_count(n_groups: int | None, chosen: NDArray[np.int32] | None, n: int, which: str) -> int:
    """Return B, at most one for each of the n positions that may be centres."""
    if chosen is not None:
        if n_groups is not None and as_count("n_groups", n_groups) != len(chosen):
            msg = f"centers names {len(chosen)} centres, but n_groups is {n_groups}."
            raise ValueError(msg)
        return as_count("The number of centers", len(chosen))
    B = n if n_groups is None else as_count("n_groups", n_groups)
    if n < B:
        warn(
            f"n_groups={B} exceeds the {n} positions {which}: every position becomes a "
            "centre once. rule='oversample' draws more groups than positions.",
        )
    return min(B, n)


def _seed(seed: int | None, most: int = 2**128 - 1) -> int:
    """Return the seed, or fresh entropy, so that every draw can be repeated."""
    if seed is None:
        return int.from_bytes(os.urandom(16), "little") % (most + 1)
    return as_count("seed", seed, least=0, most=most)
