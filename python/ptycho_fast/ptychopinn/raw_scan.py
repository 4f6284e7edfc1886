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
    """The arrays of a scan file, under the names they have in the file.

    Parameters
    ----------
    xcoords, ycoords : ndarray, (n,), float64
        Scan positions in pixels of the object: x along its columns, y along its rows.
    diffraction : ndarray, (n, N, N), real
        Measured amplitudes, one diffraction pattern for each position.
    probeGuess : ndarray, (N, N) or (modes, N, N), complex, or None
        The probe.
    objectGuess : ndarray, (H, W), complex, or None
        The object, indexed ``[row=y, column=x]``.
    scan_index : ndarray, (n,), or None
        The file's ``scan_index``. It is not used.
    metadata : mapping
        The file's other keys.
    """

    xcoords: NDArray[np.float64]
    ycoords: NDArray[np.float64]
    diffraction: NDArray[Any]
    probeGuess: NDArray[np.complexfloating] | None  # noqa: N815
    objectGuess: NDArray[np.complexfloating] | None  # noqa: N815
    scan_index: NDArray[Any] | None
    metadata: Mapping[str, Any]


def load_raw_npz(path: str | os.PathLike[str]) -> RawScan:
    """Read a scan file and keep the names that its arrays have in the file.

    Parameters
    ----------
    path : path-like
        A file that `ptycho_fast.read_scan` can read.

    Returns
    -------
    RawScan

    Raises
    ------
    OSError, KeyError, ValueError
        As `ptycho_fast.read_scan`.
    """
    scan = read_scan(path, load=True)
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
    """Draw groups of positions and gather everything that belongs to them.

    The result depends on the arguments alone: settings of PtychoPINN (``ptycho.params``) are not
    read, and TensorFlow is not imported.

    Parameters
    ----------
    raw : RawScan
        The scan.
    N : int
        Pixels per side of a diffraction pattern.
    gridsize : int
        A group has C = gridsize² patterns.
    neighbor_count : int
        Number of nearest neighbours that a group is drawn from, at least C.
    n_groups : int
        Number of groups (B), at most one around each position.
    seed : int, optional
        0..2**32-1; a new one by default. NumPy's global stream is neither read nor changed.

    Returns
    -------
    dict
        As of `ptycho_fast.ptychopinn.RawData.generate_grouped_data`. ``Y`` is always cut by the
        Rust core.

    Raises
    ------
    ValueError
        If ``neighbor_count < gridsize**2``, or as `RawData.generate_grouped_data`.

    Warns
    -----
    UserWarning
        If there are fewer positions than `n_groups`. Each then has one group.

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
    # The record gets no object, because it would cut the patches as PtychoPINN's settings say.
    record = RawData(
        raw.xcoords, raw.ycoords, None, None, raw.diffraction, raw.probeGuess, raw.scan_index
    )
    data = record.generate_grouped_data(
        N, K=neighbor_count, nsamples=n_groups, seed=seed, gridsize=gridsize
    )
    if raw.objectGuess is not None:
        # Rounded as in get_image_patches, so that the patches are those of a record to the bit.
        places = (data["coords_offsets"] + data["coords_relative"]).astype(np.float32)
        data["Y"] = extract_patches(raw.objectGuess, places, N)
        data["objectGuess"] = raw.objectGuess
    return data
