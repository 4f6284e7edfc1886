"""More groups than positions: several groups around each centre, no two of them the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.checks import as_count
from ptycho_fast.grouping import DrawRequest, draw
from ptycho_fast.grouping.randomness import MOST_LEGACY_SEED
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pool_size(
    n: int, nsamples: int, C: int, *, enabled: bool, K: int, neighbor_pool_size: int | None
) -> int:
    """Return from how many nearest neighbours to draw, or refuse to draw at all.

    Parameters
    ----------
    n : int
        Number of positions.
    nsamples : int
        Number of groups asked for, more than n.
    C : int
        Positions in a group.
    enabled : bool
        Whether the caller allows oversampling.
    K : int
        Number of neighbours if `neighbor_pool_size` is None.
    neighbor_pool_size : int, optional
        Number of neighbours.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If oversampling is not allowed, or there are fewer neighbours than positions in a group.
        Callers match on parts of both texts (docs/contract.md, section 7).
    """
    if not enabled:
        msg = (
            f"nsamples={nsamples} groups were asked for, but the dataset has {n} points, and more "
            "groups than points need K choose C oversampling. Pass enable_oversampling=True, or "
            f"at most nsamples={n} (OVERSAMPLING-001)."
        )
        raise ValueError(msg)
    pool = K if neighbor_pool_size is None else neighbor_pool_size
    pool = as_count("neighbor_pool_size (K by default)", pool, least=0)
    if pool < C:
        msg = (
            f"K choose C oversampling needs neighbor_pool_size >= C, but neighbor_pool_size={pool} "
            f"(K={K} by default) and C={C}. Pass neighbor_pool_size={C + 3} or more "
            "(OVERSAMPLING-001)."
        )
        raise ValueError(msg)
    return pool


def oversample(
    positions: NDArray[np.float64],
    n_groups: int,
    n_neighbors: int,
    C: int,
    seed: int,
    *,
    in_order: bool,
) -> NDArray[np.int32]:
    """Draw more groups than there are positions, by the rule ``oversample`` of the native API.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Columns x and y, in pixels.
    n_groups : int
        Number of groups (B).
    n_neighbors : int
        Number of nearest neighbours to draw from.
    C : int
        Positions in a group.
    seed : int
        0..2**32-1.
    in_order : bool
        Take the centres in the order of the scan instead of a random order.

    Returns
    -------
    ndarray, (B, C), int32

    Raises
    ------
    ValueError
        If the seed is out of range or positions are not finite.

    Warns
    -----
    UserWarning
        If there are fewer different groups than `n_groups`.
    """
    drawn = draw(
        DrawRequest(
            positions,
            n_neighbors,
            as_count("seed", seed, least=0, most=MOST_LEGACY_SEED),
            rule="oversample",
            center_choice="sequential" if in_order else "random",
            n_groups=n_groups,
            group_size=C,
        )
    )
    if drawn.spent:
        n = len(positions)
        S = max(C, min(n_neighbors, n - 1))
        warn(
            f"nsamples={n_groups} exceeds the {n} * {drawn.fewest} different groups there are ({S} "
            f"choose {C} around each of {n} centres): some groups are repeated. Raise "
            "neighbor_pool_size for more different groups.",
        )
    return drawn.indices
