"""Drawing groups: from the arguments of a caller, again for another epoch, or from a request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ptycho_fast.checks import as_count, as_threads
from ptycho_fast.grouping.arguments import accept_request, as_index_or_points
from ptycho_fast.grouping.centers import choose_centers
from ptycho_fast.grouping.groups import Groups
from ptycho_fast.grouping.index import LabelledIndex, ScanIndex
from ptycho_fast.grouping.legacy import draw_from_twister, seeded_state
from ptycho_fast.grouping.pool_file import PoolFile
from ptycho_fast.grouping.rules import GROUP_THEN_SAMPLE, find_rule
from ptycho_fast.grouping.rules.base import Drawn, NeighborSource
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.grouping.request import Bounds, DrawRequest
    from ptycho_fast.grouping.rules.base import Rule

KnownNeighbors: TypeAlias = "NDArray[np.int32] | ScanIndex | LabelledIndex"
"""What may be known of the neighbours before a draw: their lists, or an index."""


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

    A group consists of C distinct positions, drawn from the K nearest neighbours of its centre.
    The result is a function of the positions, K, C, seed, epoch and the rule alone. It does not
    depend on the number of threads, on the engine, or on which other groups are drawn: a larger
    `n_groups` only appends groups.

    Parameters
    ----------
    positions : array_like, (n, 2), real, or ScanIndex
        Scan positions, columns x and y, in pixels of the object grid; or an index built before.
    n_groups : int, optional
        How many centres are tried; by default every position. Centres that have no group are left
        out and counted in ``Groups.left_out``. With ``rule="oversample"``, `n_groups` counts
        groups and may exceed the number of positions; with ``strategy="group-then-sample"`` it
        counts groups taken from the pool.
    xcoords, ycoords : array_like, (n,), real, optional
        The coordinates in two arrays, instead of `positions`.
    gridsize : int, optional
        C = gridsize². The default is 2.
    group_size : int, optional
        C itself, any number from 1, instead of `gridsize`. With C = 1 a group is its centre.
    n_neighbors : int, optional
        Neighbours considered per centre (K >= C). The default is C + 3, or 30 with
        ``rule="overlap"``.
    seed : int, optional
        Without a seed the groups are different each time; ``Groups.seed`` records the seed used.
    epoch : int
        Other epochs draw other groups from the same seed.
    rule : {"nearest", "oversample", "quadrant", "overlap"}
        How a group is chosen.

        - ``"nearest"``: C of the K nearest neighbours.
        - ``"oversample"``: the same, round after round over all centres; a centre repeats none of
          its groups until it has used them all.
        - ``"quadrant"`` (C = 4, needs `max_distance`): one of the K nearest in each quadrant
          around the centre, in the order dx<0, dy>0; dx>0, dy>0; dx<0, dy<0; dx>0, dy<0.
        - ``"overlap"`` (needs `N`): grown from the centre, which is channel 0. Each next position
          is drawn from those whose overlap with every position in the group is at least
          `min_overlap`; the larger the smallest of these overlaps, the more likely it is drawn.
    strategy : {"sample-then-group", "group-then-sample"}
        The latter lists the groups around all centres (up to 50 each) without duplicates, and
        returns a sample of this pool. The centre of a group is the first that has it.
    centers : {"random", "sequential"} or array_like, (B,), int
        A random sample in random order, the first B positions, or these positions in this order.
    include_center : bool
        Whether channel 0 is the centre, and C - 1 neighbours are drawn.
    min_distance, max_distance : float, optional
        Neighbours are at least and at most this far from the centre, in pixels. A centre with
        fewer than C of them is left out.
    groups_per_center : int
        Groups drawn around each centre, round after round over all centres.
    bounds : ((x0, x1), (y0, y1)), optional
        Centres lie in this part of the scan, in fractions 0..1 of its extent in x and y. Their
        neighbours may lie outside.
    scan_ids : array_like, (n,), int or str, optional
        A label for each position, such as the scan it comes from. Groups never mix labels.
    N : int, optional
        Pixels per side of a pattern: the windows that ``rule="overlap"`` compares.
    min_overlap : float, optional
        Overlap as a fraction of a window, 0..1. The default is 0.25. Where no position qualifies,
        it is divided by 1.5 for this group, up to three times.
    rng : {"philox", "numpy"}
        The random stream. ``"numpy"`` takes that of ``np.random.seed(seed)``, which repeats the
        groups of older code. NumPy's global state is left alone.
    engine : {"auto", "grid", "kdtree"}
        Which kind of index finds the neighbours: cells, or a tree where positions crowd. The
        groups are the same; ``Groups.engine`` says which it was.
    num_threads : int, optional
        Threads to use. The default is ``PTYCHO_FAST_NUM_THREADS``, or else all threads that the
        process may use.
    cache : path, optional
        The scan's file. ``strategy="group-then-sample"`` keeps its pool beside it, in
        ``<scan>.g{gridsize}k{K}.groups_cache.npz``. The groups are the same with and without. A
        file that was made for something else is replaced, and the log says why. If the file cannot
        be written, the log warns, and the groups are returned.
    compress : bool
        Compress the cache file: it is smaller, but slower to write and to read.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        If K < C, n < C, ``n_groups < 1``, positions are not finite, arguments contradict each
        other, or no centre has a group; the message then names a limit that would help.

    Warns
    -----
    UserWarning
        If `n_groups` exceeds the number of positions (every position becomes a centre once), the
        number of distinct groups to oversample from (some are repeated), or the pool (all of it is
        returned); and if a cache file is larger than 100 MB.

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
    index, points = as_index_or_points(positions, xcoords, ycoords)
    threads = as_threads(num_threads)
    request = accept_request(
        points,
        n_groups,
        gridsize=gridsize,
        group_size=group_size,
        n_neighbors=n_neighbors,
        seed=seed,
        epoch=epoch,
        rule=rule,
        strategy=strategy,
        centers=centers,
        include_center=include_center,
        min_distance=min_distance,
        max_distance=max_distance,
        groups_per_center=groups_per_center,
        bounds=bounds,
        scan_ids=scan_ids,
        N=N,
        min_overlap=min_overlap,
        rng=rng,
        engine=engine,
    )
    if index is not None and engine not in ("auto", index.engine):
        msg = f"engine={engine!r}, but the index given is a {index.engine!r}. Leave engine out."
        raise ValueError(msg)
    file = PoolFile.beside(cache, request, compress=compress)
    if rng == "numpy":
        return Groups.answer(request, _draw_legacy(request, index, threads))
    drawn = draw(request, index, num_threads=threads, file=file)
    if drawn.spent:
        centres = "1 centre has" if drawn.spent == 1 else f"{drawn.spent} centres have"
        warn(
            f"For n_groups={request.count}, {centres} too few distinct groups (as few as "
            f"{drawn.fewest}); some groups are repeated. Raise n_neighbors "
            f"({request.n_neighbors}) for more."
        )
    if drawn.pool is not None and n_groups is not None and drawn.pool < request.count:
        warn(
            f"n_groups={request.count} exceeds the {drawn.pool} groups of the pool: all of them "
            "are returned."
        )
    return Groups.answer(request, drawn)


def prepare_redraw(groups: Groups, num_threads: int | None = None) -> KnownNeighbors:
    """Return what makes `redraw` fast for these groups, to be kept for all epochs.

    Parameters
    ----------
    groups : Groups
        Groups that `group_positions` drew.
    num_threads : int, optional
        Threads to use.

    Returns
    -------
    ndarray, (n, min(K, n - 1)), int32, or ScanIndex or LabelledIndex
        The nearest neighbours of each position, if the rule looks at nothing else: drawing from
        these lists is faster than searching again. Else an index; with `scan_ids`, one a label.
    """
    if groups.scan_ids is not None:
        return LabelledIndex(groups.positions, groups.scan_ids, num_threads=num_threads)
    index = ScanIndex(groups.positions, num_threads=num_threads)
    if not find_rule(groups.rule, groups.strategy).lists_suffice(groups):
        return index
    return index.neighbors(groups.n_neighbors, num_threads=num_threads)


def redraw(
    groups: Groups,
    neighbors: KnownNeighbors,
    epoch: int,
    num_threads: int | None = None,
) -> Groups:
    """Draw the groups of another epoch from the same seed, without searching neighbours again.

    Parameters
    ----------
    groups : Groups
        Groups that `group_positions` drew.
    neighbors : ndarray, (n, min(K, n - 1)), int32, or ScanIndex or LabelledIndex
        What `prepare_redraw` returned, or any index of the positions.
    epoch : int
        The epoch.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    Groups
        What `group_positions` returns for that epoch.

    Raises
    ------
    ValueError
        If the groups follow NumPy's legacy stream, which has no epochs.
    """
    if groups.rng != "philox":
        msg = (
            f"Groups of rng={groups.rng!r} can't be redrawn: that random stream has no epochs. "
            "Draw them with rng='philox'."
        )
        raise ValueError(msg)
    request = replace(groups.request, epoch=as_count("epoch", epoch, least=0, most=2**32 - 1))
    drawn = draw(request, neighbors, num_threads=num_threads)
    return replace(
        groups,
        epoch=request.epoch,
        indices=drawn.indices,
        centers=drawn.centers,
        left_out=drawn.left_out,
    )


def draw(
    request: DrawRequest,
    neighbors: KnownNeighbors | None = None,
    *,
    num_threads: int | None = None,
    file: PoolFile | None = None,
) -> Drawn:
    """Draw the groups of a request.

    Parameters
    ----------
    request : DrawRequest
        What to draw, on the package's own random stream.
    neighbors : ScanIndex, LabelledIndex or ndarray, (n, K), int32, optional
        Where the neighbours come from: an index, or the lists of the K nearest of each position.
        Where it is missing or is no help, an index is built if one is needed.
    num_threads : int, optional
        Threads to use. The result does not depend on it.
    file : PoolFile, optional
        Where the pool of ``group-then-sample`` is kept.

    Returns
    -------
    Drawn

    Raises
    ------
    ValueError
        If no centre has a group.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.grouping import DrawRequest, draw
    >>> positions = pf.simulate_scan(n_positions=100, N=32, seed=0).positions
    >>> draw(DrawRequest(positions, n_neighbors=7, seed=42, n_groups=10)).indices.shape
    (10, 4)
    """
    rule = find_rule(request.rule, request.strategy)
    centers, outside = choose_centers(
        request, all_positions=rule.draws_around_all, num_threads=num_threads
    )
    source = _source(request, rule, neighbors)
    if file is None:
        drawn = rule.draw(request, centers, source, num_threads)
    else:
        pool = file.read(request)
        engine = "grid" if request.engine == "auto" else request.engine
        if pool is None:
            pool, engine = GROUP_THEN_SAMPLE.list_pool(request, centers, source, num_threads)
            file.write(pool, request)
        drawn = GROUP_THEN_SAMPLE.sample(request, pool, engine, num_threads)
    if not len(drawn.indices):
        raise ValueError(rule.explain(request, centers, drawn.left_out))
    if outside:
        drawn = drawn._replace(left_out={**drawn.left_out, "bounds": outside})
    return drawn


def _source(
    request: DrawRequest, rule: Rule, neighbors: KnownNeighbors | None
) -> NeighborSource | None:
    """Return what the core can use of what is known of the neighbours."""
    if request.scan_ids is not None:
        return neighbors.compiled if isinstance(neighbors, LabelledIndex) else None
    if isinstance(neighbors, ScanIndex):
        return neighbors.compiled
    if isinstance(neighbors, np.ndarray) and rule.lists_suffice(request):
        return neighbors
    return None


def _draw_legacy(request: DrawRequest, index: ScanIndex | None, num_threads: int | None) -> Drawn:
    if index is None:
        index = ScanIndex(request.positions, engine=request.engine, num_threads=num_threads)
    state = seeded_state(request.seed)
    K, C = request.n_neighbors, request.group_size
    found = draw_from_twister(index, request.count, K, C, state, num_threads=num_threads)
    return Drawn(found.indices, found.centers, {}, index.engine)
