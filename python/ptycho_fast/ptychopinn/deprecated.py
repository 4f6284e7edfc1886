"""Functions of older code that work for one more release, with a warning."""

# the argument lists are those that callers use

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_count, as_valid_positions, join_coordinates
from ptycho_fast.grouping import group_coordinates, relative_coordinates
from ptycho_fast.notices import warn
from ptycho_fast.ptychopinn.functions import get_neighbor_indices
from ptycho_fast.ptychopinn.params import setting

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def group_coords(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int, C: int | None, nsamples: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Draw groups around every position (deprecated; it will be removed after this release).

    Use `ptycho_fast.group_positions` instead: it draws as many groups as you want, and can be
    repeated.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Positions in pixels.
    K : int
        A group is drawn from a position and its K nearest neighbours.
    C : int, optional
        Positions in a group (channels). By default ``ptycho.params.cfg['gridsize']`` squared where
        that module is loaded, else 1. With C = 1 each position is a group, once.
    nsamples : int
        Groups around each position.

    Returns
    -------
    nn_indices : ndarray, (n * nsamples, C), int32
        The groups around the first position, then those around the second and so on, drawn from
        NumPy's global stream.
    coords_nn : ndarray, (n * nsamples, 1, 2, C), float64
        Positions of their members, x then y.

    Raises
    ------
    ValueError
        As `get_neighbor_indices`, or if ``C > K + 1``.

    Warns
    -----
    DeprecationWarning
        Always.
    """
    _warn_of("group_coords", "ptycho_fast.group_positions")
    return _draw_around_all(xcoords, ycoords, K, C, nsamples)


def calculate_relative_coords(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int = 4, C: int | None = None, nsamples: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Draw groups around every position and split their coordinates (deprecated like the above).

    Use `ptycho_fast.group_positions` and ``Groups.relative`` instead.

    Parameters
    ----------
    xcoords, ycoords, K, C, nsamples
        As of `group_coords`.

    Returns
    -------
    coords_nn : ndarray, (B, 1, 2, C), float64
        Positions of the groups' members.
    coords_offsets : ndarray, (B, 1, 2, 1), float64
        Mean position of each group.
    coords_relative : ndarray, (B, 1, 2, C), float64
        Positions relative to the mean, see `get_relative_coords`.
    nn_indices : ndarray, (B, C), int32
        The groups.

    Raises
    ------
    ValueError
        As `group_coords`.

    Warns
    -----
    DeprecationWarning
        Always.
    """
    _warn_of("calculate_relative_coords", "ptycho_fast.group_positions and Groups.relative")
    indices, coords = _draw_around_all(xcoords, ycoords, K, C, nsamples)
    return (coords, *relative_coordinates(coords), indices)


def _draw_around_all(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int, C: int | None, nsamples: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    positions = as_valid_positions(join_coordinates(xcoords, ycoords))
    C = as_count("gridsize", setting("gridsize", 1)) ** 2 if C is None else as_count("C", C)
    nsamples = as_count("nsamples", nsamples)
    if C == 1:
        indices = np.arange(len(positions), dtype=np.int32)[:, np.newaxis]
        return indices, group_coordinates(positions, indices)
    near = get_neighbor_indices(xcoords, ycoords, K).astype(np.int32)
    if near.shape[1] < C:
        msg = (
            f"Groups of C={C} can't be drawn from a position and its K={K} neighbours. Pass K of "
            f"at least {C - 1}."
        )
        raise ValueError(msg)
    indices = np.array(
        [np.random.choice(row, C, replace=False) for row in near for _ in range(nsamples)]  # noqa: NPY002
    )
    return indices, group_coordinates(positions, indices)


def _warn_of(name: str, successor: str) -> None:
    warn(
        f"{name} is deprecated and will be removed after this release. Use {successor} instead.",
        DeprecationWarning,
    )
