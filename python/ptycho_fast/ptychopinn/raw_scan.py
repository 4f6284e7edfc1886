"""A scan file as plain arrays under the file's own names, and its groups as one dictionary."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, check_neighbors
from ptycho_fast.io import read_scan
from ptycho_fast.notices import warn
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.ptychopinn.raw_data import RawData

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RawScan:
    """What a scan file holds, under the names it has there.

    Parameters
    ----------
    xcoords, ycoords : ndarray, (n,), float64
        Centre of each patch in pixels of the object grid, columns and rows.
    diffraction : ndarray, (n, N, N)
        Measured amplitude.
    probeGuess : ndarray, (N, N) or (modes, N, N), complex, optional
    objectGuess : ndarray, (H, W), complex, optional
    scan_index : ndarray, (n,), optional
    metadata : mapping
    """

    xcoords: NDArray[np.float64]
    ycoords: NDArray[np.float64]
    diffraction: NDArray[Any]
    probeGuess: NDArray[np.complexfloating] | None  # noqa: N815
    objectGuess: NDArray[np.complexfloating] | None  # noqa: N815
    scan_index: NDArray[Any] | None
    metadata: Mapping[str, Any]


def load_raw_npz(path: str | os.PathLike[str]) -> RawScan:
    """Read a scan file under the names it has there.

    Parameters
    ----------
    path : path-like
        What `ptycho_fast.read_scan` reads.

    Returns
    -------
    RawScan

    Raises
    ------
    ValueError, OSError
        As `ptycho_fast.read_scan`.
    """
    scan = read_scan(path)
    return RawScan(
        xcoords=scan.positions[:, 0].copy(),
        ycoords=scan.positions[:, 1].copy(),
        diffraction=scan.diffraction,
        probeGuess=scan.probe,
        objectGuess=scan.object,
        scan_index=scan.scan_index,
        metadata=scan.metadata,
    )


def group_raw_npz(
    raw: RawScan,
    *,
    N: int,
    gridsize: int,
    neighbor_count: int,
    n_groups: int,
    seed: int | None = None,
) -> dict[str, Any]:
    """Draw groups and gather all that belongs to them.

    Nothing that another package has set is read, and TensorFlow is not imported.

    Parameters
    ----------
    raw : RawScan
    N : int
        Pixels per side of a pattern.
    gridsize : int
        C = gridsize² patterns in a group.
    neighbor_count : int
        Neighbours considered per centre.
    n_groups : int
        How many groups (B), at most one around each position.
    seed : int, optional
        0..2**32-1. Fresh entropy by default; NumPy's global stream is neither read nor changed.

    Returns
    -------
    dict
        As `ptycho_fast.ptychopinn.RawData.generate_grouped_data`, with ``Y`` by the Rust kernel.

    Raises
    ------
    ValueError
        If ``neighbor_count < gridsize**2``, or as there.

    Warns
    -----
    UserWarning
        If there are fewer positions than `n_groups`: each then has one group.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.models import RawScan, group_raw_npz
    >>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
    >>> raw = RawScan(*scan.positions.T, scan.diffraction, scan.probe, scan.object, None, {})
    >>> data = group_raw_npz(raw, N=16, gridsize=2, neighbor_count=4, n_groups=10, seed=1)
    >>> data["diffraction"].shape
    (10, 16, 16, 4)
    """
    check_neighbors(neighbor_count, as_count("gridsize", gridsize, most=46340) ** 2)
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
    n = len(raw.xcoords)
    if as_count("n_groups", n_groups) > n > 0:
        warn(
            f"n_groups={n_groups} exceeds the {n} positions of the scan: every position becomes "
            f"a centre once, which makes {n} groups.",
        )
        n_groups = n
    # Without the object: the record would cut its patches as another package's settings say.
    record = RawData(
        raw.xcoords, raw.ycoords, None, None, raw.diffraction, raw.probeGuess, raw.scan_index
    )
    data = record.generate_grouped_data(
        N, K=neighbor_count, nsamples=n_groups, seed=seed, gridsize=gridsize
    )
    if raw.objectGuess is not None:
        # Rounded as there, so that the patches are those of the record to the bit.
        places = (data["coords_offsets"] + data["coords_relative"]).astype(np.float32)
        data["Y"] = extract_patches(raw.objectGuess, places, N)
        data["objectGuess"] = raw.objectGuess
    return data
