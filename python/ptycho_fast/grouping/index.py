"""The search structures in which the nearest neighbours of scan positions are found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import as_count, as_indices, as_positions, as_threads, one_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ENGINES = ("auto", "grid", "kdtree")
"""Kinds of index. ``"auto"`` takes cells (``"grid"``) unless the positions are too crowded."""


class ScanIndex:
    """A search index of scan positions: it finds neighbours, and groups are drawn from it.

    Building the index is most of the work of a draw, so build it once if you draw often. It never
    changes, and threads may share it.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Scan positions, columns x and y, in pixels of the object grid.
    engine : {"auto", "grid", "kdtree"}
        The kind of index: square cells, or a k-d tree, which is faster where positions crowd in
        a few places. The neighbours are the same. Where positions crowd so much that a search in
        cells would take quadratic time, a tree is built whichever kind is asked for.
    num_threads : int, optional
        Threads to build with. The default is ``PTYCHO_FAST_NUM_THREADS``, or else all threads
        that the process may use.

    Attributes
    ----------
    positions : ndarray, (n, 2), float64
        The scan positions; read-only.
    compiled : _core.ScanIndex
        The index in the compiled core.

    Raises
    ------
    ValueError
        If the positions are not (n, 2) real numbers, n >= 1, all of them finite and within 1e150.

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
        # The index would not notice a later change of the caller's array, so it keeps a copy.
        self.positions: NDArray[np.float64] = np.array(as_positions(positions))
        self.positions.flags.writeable = False
        self.compiled = _core.ScanIndex(self.positions, engine, as_threads(num_threads))

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"ScanIndex({len(self)} positions)"

    @property
    def engine(self) -> str:
        """The kind of index that was built: ``"grid"`` or ``"kdtree"``."""
        return self.compiled.engine

    def __reduce__(self) -> tuple[partial[ScanIndex], tuple[NDArray[np.float64]]]:
        return partial(ScanIndex, engine=self.engine), (self.positions,)

    def neighbors(
        self,
        n_neighbors: int,
        centers: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> NDArray[np.int32]:
        """Find the nearest neighbours of scan positions, nearest first.

        Neighbours are ordered by (d², index), with ``d² = dx*dx + dy*dy`` in float64. Only the
        centre itself is left out: another position at the same place is a neighbour at distance 0.

        Parameters
        ----------
        n_neighbors : int
            How many neighbours to find (K).
        centers : array_like, (B,), int, optional
            The positions whose neighbours are wanted, as indices 0..n-1; all by default.
        num_threads : int, optional
            Threads to use. The result does not depend on it.

        Returns
        -------
        ndarray, (B, min(K, n - 1)), int32
            Indices of the neighbours.

        Raises
        ------
        ValueError
            If ``n_neighbors < 1`` or a centre is not in 0..n-1.
        """
        n = len(self)
        rows = np.arange(n, dtype=np.int32) if centers is None else centers
        return self.compiled.neighbors(
            as_indices("centers", rows, 1, n),
            as_count("n_neighbors", n_neighbors),
            as_threads(num_threads),
        )


class LabelledIndex:
    """A search index for each label of a scan, to draw groups that never mix labels.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        The scan positions, x and y, in pixels.
    scan_ids : ndarray, (n,), int32
        The number of each position's label, as in `Groups.scan_ids`.
    engine : {"auto", "grid", "kdtree"}
        The kind of index.
    num_threads : int, optional
        Threads to build with.
    """

    def __init__(
        self,
        positions: NDArray[np.float64],
        scan_ids: NDArray[np.int32],
        *,
        engine: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        self.compiled = _core.LabelledIndex(positions, scan_ids, engine, num_threads)
