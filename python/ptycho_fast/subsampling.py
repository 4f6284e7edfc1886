"""How much of a scan is used: counting groups, a sample of the positions, a block held out.

Three numbers say how much, each with one meaning:

- ``n_groups`` counts groups, as everywhere in the package.
- ``n_images`` counts images at gridsize 1, where a group is one image, and groups at larger
  gridsizes: ``n_images=512, gridsize=2`` is 512 groups, or 2048 patterns.
- ``n_subsample`` counts the positions that are kept before groups are drawn.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions
from ptycho_fast.notices import warn
from ptycho_fast.spacing import median_spacing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger("ptycho_fast")

STRETCH = 1.1
"""A warning is given if the spacing of the kept positions grows by more than this factor."""


def count_groups(
    gridsize: int, *, n_images: int | None = None, n_groups: int | None = None
) -> int | None:
    """Return how many groups are asked for, and log how many patterns they hold.

    Parameters
    ----------
    gridsize : int
        A group has C = gridsize² patterns.
    n_images : int, optional
        Images at gridsize 1, groups at larger gridsizes.
    n_groups : int, optional
        Groups. Pass one of the two, or neither for the default of the function that draws.

    Returns
    -------
    int or None
        To be passed as ``n_groups`` to `ptycho_fast.group_positions`, or as ``nsamples`` to the
        drop-in.

    Raises
    ------
    ValueError
        If both are given, or one is not a whole number from 1.

    Examples
    --------
    >>> from ptycho_fast.subsampling import count_groups
    >>> count_groups(2, n_images=512)
    512
    """
    C = as_count("gridsize", gridsize, most=46340) ** 2
    if n_images is not None and n_groups is not None:
        msg = (
            f"n_images={n_images} and n_groups={n_groups} both say how many groups to draw. "
            "Pass one of them."
        )
        raise ValueError(msg)
    if n_images is None and n_groups is None:
        return None
    name, value = ("n_groups", n_groups) if n_images is None else ("n_images", n_images)
    B = as_count(name, value)
    logger.info("%s=%d, gridsize=%d: %d groups, %d patterns", name, B, gridsize, B, B * C)
    return B


def draw_subsample(positions: ArrayLike, n_subsample: int, seed: int) -> NDArray[np.int64]:
    """Draw a random sample of a scan's positions: those that are kept.

    Parameters
    ----------
    positions : array_like, (n, 2), real
        Scan positions, columns x and y, in pixels.
    n_subsample : int
        How many to keep.
    seed : int
        0..2**32-1. The sample is that of ``np.random.seed(seed)`` followed by
        ``np.random.choice(n, n_subsample, replace=False)``. NumPy's global state is left alone.

    Returns
    -------
    ndarray, (min(n_subsample, n),), int64
        The indices of the positions, in ascending order.

    Raises
    ------
    ValueError
        If ``n_subsample < 1``, the seed is not an integer in 0..2**32-1, or positions are not
        finite.

    Warns
    -----
    UserWarning
        If there are fewer positions than asked for (all are kept), or if the median distance to
        the nearest neighbour grows by more than a tenth.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.subsampling import draw_subsample
    >>> draw_subsample(np.random.default_rng(0).uniform(0, 9, (10, 2)), 9, seed=3)
    array([0, 1, 2, 3, 4, 5, 6, 7, 9])
    """
    points = as_valid_positions(positions)
    n, kept = len(points), as_count("n_subsample", n_subsample)
    seed = as_count("subsample_seed", seed, least=0, most=2**32 - 1)
    if kept > n:
        warn(f"n_subsample={kept} exceeds the {n} positions of the scan: all of them are kept.")
        kept = n
    rows = np.sort(np.random.RandomState(seed).choice(n, kept, replace=False))
    if kept > 1:
        before, after = median_spacing(points), median_spacing(points[rows])
        if after > STRETCH * before:
            warn(
                f"Keeping {kept} of {n} positions stretches the median distance to the nearest "
                f"neighbour from {before:.4g} to {after:.4g} pixels, so the members of a group "
                "overlap less. To use fewer patterns of a dense scan, draw fewer groups from all "
                "of its positions instead (n_groups, or nsamples in the drop-in).",
            )
    logger.info("subsample: %d of %d positions, seed=%d", kept, n, seed)
    return rows


def held_out_block(positions: NDArray[np.float64], validation: float) -> NDArray[np.bool_]:
    """Return which positions `Scan.split` and `GroupedDataset.split` hold out.

    Passed as ``scan_ids`` to `ptycho_fast.group_positions`, this keeps groups from reaching across
    the edge, where both sides would lose them.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Scan positions in pixels, x then y.
    validation : float
        Share of the positions.

    Returns
    -------
    ndarray, (n,), bool
        True for positions in the block.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1, or there are no positions, or some are not finite.
    """
    along, edge = held_out_edge(positions, validation)
    return along >= edge


def held_out_edge(
    positions: NDArray[np.float64], validation: float
) -> tuple[NDArray[np.float64], float]:
    """Return where along the longer side of a scan the held-out block begins.

    Parameters
    ----------
    positions, validation
        As for `held_out_block`.

    Returns
    -------
    along : ndarray, (n,), float64
        Coordinates of the positions along the longer side, in pixels.
    edge : float
        Positions from this coordinate on are held out.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1, or there are no positions, or some are not finite.
    """
    if not 0 < validation < 1:
        msg = f"validation must be a share between 0 and 1, got {validation!r}."
        raise ValueError(msg)
    positions = as_valid_positions(positions)
    along = positions[:, np.argmax(np.ptp(positions, axis=0))]
    return along, float(np.quantile(along, 1 - validation))
