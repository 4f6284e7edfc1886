"""Groups of overlapping scan positions: an index of the scan, and draws from it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import (
    as_count,
    as_indices,
    as_positions,
    as_threads,
    as_valid_positions,
    join_coordinates,
)
from ptycho_fast.io.npz import read_array, write_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

FORMAT = 1
"""Version of the files that `Groups.save` writes."""


class ScanIndex:
    """An index of scan positions, from which neighbours are read and groups are drawn.

    Building it is most of the work of a draw, so build it once to draw often. It never changes,
    and threads may share it.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Columns x and y, in pixels of the object grid.
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

    def __init__(self, positions: ArrayLike, *, num_threads: int | None = None) -> None:
        # A copy of our own: the tree would not see a later change of the caller's array.
        self.positions: NDArray[np.float64] = np.array(as_positions(positions))
        self.positions.flags.writeable = False
        self._tree = _core.ScanIndex(self.positions, as_threads(num_threads))

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"ScanIndex({len(self)} positions)"

    def __reduce__(self) -> tuple[type[ScanIndex], tuple[NDArray[np.float64]]]:
        return ScanIndex, (self.positions,)

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
        return self._tree.neighbors(
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
        Reason -> how many centres have no group for it.
    """

    indices: NDArray[np.int32]
    centers: NDArray[np.int32]
    positions: NDArray[np.float64]
    n_neighbors: int
    seed: int
    epoch: int = 0
    rule: str = "nearest"
    rng: str = "philox"
    engine: str = "kdtree"
    include_center: bool = False
    center_choice: str = "random"
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

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

        Its keys are ``indices``, ``centers``, ``positions``, and ``parameters``: JSON with the
        arguments of the draw and the SHA-256 of the positions.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        OSError
            If it can't be written.
        """
        parameters = {
            "format": FORMAT,
            "positions_sha256": positions_checksum(self.positions),
            "n_neighbors": self.n_neighbors,
            "seed": self.seed,
            "epoch": self.epoch,
            "rule": self.rule,
            "rng": self.rng,
            "engine": self.engine,
            "include_center": self.include_center,
            "center_choice": self.center_choice,
            "left_out": dict(self.left_out),
        }
        arrays = {
            "indices": self.indices,
            "centers": self.centers,
            "positions": self.positions,
            "parameters": json.dumps(parameters),
        }
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
        arrays = {
            key: read_array(path, key) for key in ("indices", "centers", "positions", "parameters")
        }
        try:
            parameters = json.loads(str(arrays["parameters"]))
            checksum, version = parameters.pop("positions_sha256"), parameters.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
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
            return cls(indices=indices, centers=centers, positions=stored, **parameters)
        except TypeError as error:
            msg = f"{name}: 'parameters' is not what Groups.save writes ({error})."
            raise ValueError(msg) from error


def positions_checksum(positions: NDArray[np.float64]) -> str:
    """SHA-256 of positions as little-endian float64."""
    little_endian = np.ascontiguousarray(positions, dtype="<f8")
    return hashlib.sha256(little_endian.data).hexdigest()


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
    centers: str | ArrayLike = "random",
    include_center: bool = False,
    rng: str = "philox",
    engine: str = "auto",
    num_threads: int | None = None,
) -> Groups:
    """Draw groups of overlapping positions from a scan: sample the centres, then group.

    A group is C distinct positions drawn from the K nearest neighbours of its centre. The result
    is a function of the positions, K, C, seed and epoch alone: not of the number of threads, the
    engine, or which other groups are drawn. A larger `n_groups` only appends.

    Parameters
    ----------
    positions : array_like, (n, 2), real, or ScanIndex
        Columns x and y, in pixels of the object grid; or an index built before.
    n_groups : int, optional
        How many groups (B); by default one around every position.
    xcoords, ycoords : array_like, (n,), real, optional
        Instead of `positions`.
    gridsize : int, optional
        C = gridsize². 2 by default.
    group_size : int, optional
        C itself, any number from 1, instead of `gridsize`. At C = 1 a group is its centre.
    n_neighbors : int, optional
        Neighbours considered per centre (K >= C); C + 3 by default.
    seed : int, optional
        Fresh entropy if not given; ``Groups.seed`` records it either way.
    epoch : int
        Another epoch draws other groups from the same seed.
    rule : {"nearest"}
        How a group is chosen.
    centers : {"random", "sequential"} or array_like, (B,), int
        A random sample in random order, the first B positions, or these, in this order.
    include_center : bool
        Channel 0 is the centre, and C - 1 neighbours are drawn.
    rng : {"philox", "numpy"}
        ``"numpy"`` draws from the stream of ``np.random.seed(seed)`` instead, for the groups
        that older code drew.
    engine : {"auto", "kdtree"}
        The index that finds the neighbours.
    num_threads : int, optional
        Threads to use; ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        If K < C, n < C, ``n_groups < 1``, positions are not finite, or arguments contradict.

    Warns
    -----
    UserWarning
        If `n_groups` exceeds the number of positions: every position becomes a centre once.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> groups = pf.group_positions(scan.positions, n_groups=10, gridsize=2, seed=42)
    >>> groups.indices.shape, groups.relative.shape
    ((10, 4), (10, 1, 2, 4))
    """
    index, points = _index_or_points(positions, xcoords, ycoords)
    n = len(points)
    C = _group_size(gridsize, group_size)
    K = C + 3 if n_neighbors is None else as_count("n_neighbors", n_neighbors)
    threads = as_threads(num_threads)
    _one_of("rule", rule, ("nearest",))
    _one_of("rng", rng, ("philox", "numpy"))
    _one_of("engine", engine, ("auto", "kdtree"))
    chosen = None if isinstance(centers, str) else as_indices("centers", centers, 1, n)
    if isinstance(centers, str):
        _one_of("centers", centers, ("random", "sequential"))
    B = _group_count(n_groups, chosen, n)
    include_center = bool(include_center)
    epoch = as_count("epoch", epoch, least=0, most=2**32 - 1)

    if rng == "numpy":
        if epoch or include_center or chosen is not None or centers != "random":
            msg = (
                'rng="numpy" repeats what older code drew, which knew no epoch, include_center '
                "or centers. Leave them out, or use the native stream."
            )
            raise ValueError(msg)
        seed = _seed(seed, most=2**32 - 1)
        state = np.random.RandomState(seed).get_state(legacy=False)["state"]
        index = ScanIndex(points, num_threads=threads) if index is None else index
        drawn = draw_from_twister(index, B, K, C, (state["key"], state["pos"]), num_threads=threads)
        indices, drawn_centers = drawn.indices, drawn.centers
    else:
        seed = _seed(seed)
        key = philox_key(seed, epoch)
        if chosen is None and centers == "random":
            chosen = _core.draw_centers(n, B, key, threads)
        elif chosen is None:
            chosen = np.arange(B, dtype=np.int32)
        drawn_centers = chosen
        _core.check_group(n, K, C)
        if C == 1:
            indices = chosen[:, np.newaxis]
        else:
            index = ScanIndex(points, num_threads=threads) if index is None else index
            indices = index._tree.draw_nearest(chosen, K, C, include_center, key, threads)
    return Groups(
        indices=indices,
        centers=drawn_centers,
        positions=points,
        n_neighbors=K,
        seed=seed,
        epoch=epoch,
        rule=rule,
        rng=rng,
        include_center=include_center,
        center_choice=centers if isinstance(centers, str) else "given",
    )


def redraw(
    groups: Groups, neighbors: NDArray[np.int32], epoch: int, num_threads: int | None = None
) -> Groups:
    """Draw the groups of another epoch from the same seed, without searching neighbours again.

    Parameters
    ----------
    groups : Groups
        What was drawn by `group_positions`.
    neighbors : ndarray, (n, min(K, n - 1)), int32
        ``ScanIndex(groups.positions).neighbors(groups.n_neighbors)``.
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
    key = philox_key(groups.seed, epoch)
    n, K, C = len(groups.positions), groups.n_neighbors, groups.group_size
    centers = groups.centers
    if groups.center_choice == "random":
        centers = _core.draw_centers(n, len(groups), key, num_threads)
    if C == 1:
        indices = centers[:, np.newaxis]
    else:
        indices = _core.draw_listed(
            neighbors, centers, K, C, groups.include_center, key, num_threads
        )
    return replace(groups, indices=indices, centers=centers, epoch=epoch)


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
    drawn, indices, state = index._tree.draw_legacy(
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


def _group_count(n_groups: int | None, chosen: NDArray[np.int32] | None, n: int) -> int:
    """Return B, at most one group for each position."""
    if chosen is not None:
        if n_groups is not None and as_count("n_groups", n_groups) != len(chosen):
            msg = f"centers names {len(chosen)} centres, but n_groups is {n_groups}."
            raise ValueError(msg)
        return as_count("The number of centers", len(chosen))
    B = n if n_groups is None else as_count("n_groups", n_groups)
    if n < B:
        warnings.warn(
            f"n_groups={B} exceeds the {n} positions of the scan: every position becomes a "
            "centre once.",
            stacklevel=3,
        )
    return min(B, n)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        msg = f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
        raise ValueError(msg)


def _seed(seed: int | None, most: int = 2**128 - 1) -> int:
    """Return the seed, or fresh entropy, so that every draw can be repeated."""
    if seed is None:
        return int.from_bytes(os.urandom(16), "little") % (most + 1)
    return as_count("seed", seed, least=0, most=most)
