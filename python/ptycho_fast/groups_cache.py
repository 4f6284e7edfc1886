"""Files that keep the pool of group-then-sample, `<scan>.g{gridsize}k{K}.groups_cache.npz`.

The pool is every group from which that strategy samples. A file holds its groups (`all_groups`),
the first centre of each (`centers`), the centres that have none (`without_group`), and what it was
made for (`gridsize`, `overlap_factor`, which is K, and `dataset_checksum`). It serves the
positions, gridsize, K, limits and, where the sets around a position are too many to be listed, the
seed and epoch that it was made for; anything else in it is a reason to make it anew.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.checks import as_indices, as_positions, positions_checksum
from ptycho_fast.io.npz import read_array
from ptycho_fast.notices import warn
from ptycho_fast.rules import Pool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger("ptycho_fast")

SUFFIX = ".groups_cache.npz"

LISTED = 50
"""All sets of a position are in the pool up to this many; beyond, so many are drawn."""

LARGE = 100e6
"""Bytes above which a file is worth a warning."""


def cache_path(scan: str | os.PathLike[str], gridsize: int, n_neighbors: int) -> Path:
    """Return where the pool of a scan file is kept: beside it.

    Parameters
    ----------
    scan : path
        The scan file.
    gridsize, n_neighbors : int
        What the groups are drawn by.

    Returns
    -------
    Path

    Examples
    --------
    >>> from ptycho_fast.groups_cache import cache_path
    >>> cache_path("data/scan.npz", 2, 7).as_posix()
    'data/scan.g2k7.groups_cache.npz'
    """
    path = Path(scan)
    stem = path.stem if path.suffix == ".npz" else path.name
    return path.with_name(f"{stem}.g{gridsize}k{n_neighbors}{SUFFIX}")


def read(
    path: str | os.PathLike[str],
    positions: ArrayLike,
    gridsize: int,
    n_neighbors: int,
    *,
    key: tuple[int, int],
    filters: str = "",
) -> Pool | None:
    """Read a pool, if the file is there and was made for the same.

    Parameters
    ----------
    path : path
        The file.
    positions : array_like, (n, 2), real
        The scan's positions.
    gridsize, n_neighbors : int
        What the groups are drawn by.
    key : tuple of int
        Key of (seed, epoch). It only matters where sets are drawn, not listed.
    filters : str
        Whatever else the pool depends on: distances, labels, bounds.

    Returns
    -------
    Pool or None
        ``groups`` (P, C), ``centers`` (P,) and ``without`` (the centres that have no group),
        int32. None if there is no such file, or it was made for something else; the log says which.
    """
    name = os.fspath(path)
    if not os.path.exists(path):
        logger.info("groups cache: %s is not there yet", name)
        return None
    points = as_positions(positions)
    expected = {
        "gridsize": gridsize,
        "overlap_factor": n_neighbors,
        "dataset_checksum": _checksum(points, gridsize, n_neighbors, key, filters),
    }
    try:
        found = {entry: read_array(path, entry) for entry in expected}
        for entry, value in expected.items():
            if found[entry].shape != () or found[entry].item() != value:
                told = np.array2string(found[entry], threshold=4)
                logger.info("groups cache: %s rejected: %s is %s, not %s", name, entry, told, value)
                return None
        pool = Pool(
            as_indices("all_groups", read_array(path, "all_groups"), 2, len(points)),
            as_indices("centers", read_array(path, "centers"), 1, len(points)),
            as_indices("without_group", read_array(path, "without_group"), 1, len(points)),
        )
    except (OSError, KeyError, ValueError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        logger.info("groups cache: %s rejected: %s", name, reason)
        return None
    count, C = pool.groups.shape
    if gridsize**2 != C or len(pool.centers) != count:
        told = f"{count} groups of {C}, {len(pool.centers)} centres"
        logger.info("groups cache: %s rejected: %s", name, told)
        return None
    logger.info("groups cache: %s reused: %d groups", name, count)
    return pool


def write(
    path: str | os.PathLike[str],
    pool: Pool,
    positions: ArrayLike,
    gridsize: int,
    n_neighbors: int,
    *,
    key: tuple[int, int],
    filters: str = "",
    compress: bool = False,
) -> None:
    """Write a pool to a file, which appears whole or not at all.

    Parameters
    ----------
    path : path
        The file.
    pool : Pool
        All groups, their centres, and the centres without a group.
    positions, gridsize, n_neighbors, key, filters
        As of `read`.
    compress : bool
        A smaller file, slower to write and to read.

    Raises
    ------
    OSError
        If it can't be written.

    Warns
    -----
    UserWarning
        If the file takes more than 100 MB.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ptycho_fast import groups_cache
    >>> from ptycho_fast.rules import Pool
    >>> positions = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> path = groups_cache.cache_path(tempfile.mkdtemp() + "/scan.npz", 2, 4)
    >>> some = np.array([0], np.int32)
    >>> pool = Pool(np.array([[0, 1, 2, 3]], np.int32), some, some[:0])
    >>> groups_cache.write(path, pool, positions, 2, 4, key=(0, 0))
    >>> groups_cache.read(path, positions, 2, 4, key=(0, 0)).groups
    array([[0, 1, 2, 3]], dtype=int32)
    """
    name = os.fspath(path)
    count, size = len(pool.groups), sum(array.nbytes for array in pool)
    if size > LARGE and not compress:
        warn(
            f"{name} takes {size / 1e6:.0f} MB for {count} groups. compress=True makes it "
            "smaller, and `ptycho-fast clean-cache` removes such files.",
        )
    save = np.savez_compressed if compress else np.savez
    with replacing(path) as file:
        save(
            file,
            all_groups=pool.groups,
            centers=pool.centers,
            without_group=pool.without,
            dataset_checksum=_checksum(
                as_positions(positions), gridsize, n_neighbors, key, filters
            ),
            gridsize=gridsize,
            overlap_factor=n_neighbors,
        )
    logger.info(
        "groups cache: %s created: %d groups, %.1f MB", name, count, os.path.getsize(path) / 1e6
    )


def find(folder: str | os.PathLike[str]) -> list[tuple[Path, int]]:
    """Find such files in a folder and all below it, whoever wrote them.

    Parameters
    ----------
    folder : path
        Where to look. Links to other folders are not followed.

    Returns
    -------
    list of (Path, int)
        Files and their bytes, by name.

    Raises
    ------
    NotADirectoryError
        If that is no folder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from ptycho_fast import groups_cache
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "scan.g2k4.groups_cache.npz").write_bytes(b"old")
    >>> [(path.name, size) for path, size in groups_cache.find(folder)]
    [('scan.g2k4.groups_cache.npz', 3)]
    """
    if not os.path.isdir(folder):
        msg = f"{os.fspath(folder)} is no folder. Name the one that holds the scans."
        raise NotADirectoryError(msg)
    paths = [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.endswith(SUFFIX)
    ]
    return [(path, path.lstat().st_size) for path in sorted(paths)]


def _checksum(
    positions: NDArray[np.float64],
    gridsize: int,
    n_neighbors: int,
    key: tuple[int, int],
    filters: str,
) -> str:
    """Return a digest of all that a pool depends on and that has no entry of its own."""
    C = gridsize**2
    slots = max(min(n_neighbors, len(positions) - 1), C)
    drawn = [int(word) for word in key] if math.comb(slots, C) > LISTED else "listed"
    parts = f"{positions_checksum(positions)} {drawn} {filters}"
    return hashlib.sha256(parts.encode()).hexdigest()
