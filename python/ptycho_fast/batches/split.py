"""Which positions of a scan are held out for validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def held_out_block(positions: NDArray[np.float64], validation: float) -> NDArray[np.bool_]:
    """Return which positions `GroupedDataset.split` holds out.

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
        If the share is not between 0 and 1.
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
        If the share is not between 0 and 1.
    """
    if not 0 < validation < 1:
        msg = f"validation must be a share between 0 and 1, got {validation!r}."
        raise ValueError(msg)
    along = positions[:, np.argmax(np.ptp(positions, axis=0))]
    return along, float(np.quantile(along, 1 - validation))
