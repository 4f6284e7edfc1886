"""Files that keep the pool of ``group-then-sample``: ``<scan>.g{gridsize}k{K}.groups_cache.npz``.

The pool is every group from which that strategy samples. A file holds its groups (``all_groups``),
the first centre of each (``centers``), the centres that have none (``without_group``), and what the
pool was made for (``gridsize``, ``overlap_factor``, which is K, and ``dataset_checksum``). The file
is used again for the same positions, gridsize, K and limits. Where a position has too many sets of
neighbours to list them all, some are drawn, and the seed and epoch must be the same too. A file
that was made for anything else is replaced.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.checks import as_indices, as_positions, positions_checksum
from ptycho_fast.grouping.rules.pool import Pool
from ptycho_fast.io.npz import read_array
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.grouping.request import DrawRequest

logger = logging.getLogger("ptycho_fast")

SUFFIX = ".groups_cache.npz"

LISTED = 50
"""Up to this many sets of a position are all in the pool; of more, this many are drawn."""

LARGE = 100e6
"""Bytes above which a file is worth a warning."""


@dataclass(frozen=True)
class PoolFile:
    """The file in which the pool of a request is kept.

    Parameters
    ----------
    path : path
        The file.
    gridsize : int
        The square root of C.
    compress : bool
        Whether it is compressed.
    """

    path: Path
    gridsize: int
    compress: bool

    @classmethod
    def beside(
        cls, scan: str | os.PathLike[str] | None, request: DrawRequest, *, compress: bool
    ) -> PoolFile | None:
        """Return the file beside a scan's file; None where no scan is given.

        Raises
        ------
        ValueError
            If the request has no pool, or its groups no gridsize.
        """
        if not scan:
            if compress:
                msg = (
                    "compress=True compresses the file of cache=, but cache= is not given. Pass "
                    "cache='scan.npz', or leave compress out."
                )
                raise ValueError(msg)
            return None
        if isinstance(scan, bool):
            msg = (
                "cache=True does not say where the pool is to be kept: positions do not know the "
                "file they come from. Pass the scan's file: cache='scan.npz'."
            )
            raise ValueError(msg)
        if request.strategy != "group-then-sample":
            msg = (
                "cache= keeps the pool of strategy='group-then-sample', not of "
                f"{request.strategy!r}. Leave cache out."
            )
            raise ValueError(msg)
        gridsize = math.isqrt(request.group_size)
        if gridsize**2 != request.group_size:
            msg = (
                "cache= names its file by the gridsize, but no gridsize makes groups of "
                f"group_size={request.group_size}. Use a square number such as 4, or leave cache "
                "out."
            )
            raise ValueError(msg)
        return cls(cache_path(scan, gridsize, request.n_neighbors), gridsize, compress)

    def read(self, request: DrawRequest) -> Pool | None:
        """Return the pool of a request, or None if the file does not hold it."""
        return read(
            self.path,
            request.positions,
            self.gridsize,
            request.n_neighbors,
            key=request.key,
            filters=_filters(request),
        )

    def write(self, pool: Pool, request: DrawRequest) -> None:
        """Keep the pool, if it is not empty and the disk has room: the draw does not need it."""
        if not len(pool.groups):
            return
        try:
            write(
                self.path,
                pool,
                request.positions,
                self.gridsize,
                request.n_neighbors,
                key=request.key,
                filters=_filters(request),
                compress=self.compress,
            )
        except OSError as error:
            logger.warning("groups cache: %s can't be written: %s", self.path, error)


def cache_path(scan: str | os.PathLike[str], gridsize: int, n_neighbors: int) -> Path:
    """Return the file in which the pool of a scan file is kept. It lies beside the scan.

    Parameters
    ----------
    scan : path
        The scan file.
    gridsize, n_neighbors : int
        What the groups are drawn with.

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
    """Read a pool, if the file exists and was made for the same draw.

    Parameters
    ----------
    path : path
        The file.
    positions : array_like, (n, 2), real
        The scan positions, in pixels.
    gridsize, n_neighbors : int
        What the groups are drawn with.
    key : tuple of int
        The key of the counter generator for a seed and an epoch. It matters only where sets of
        neighbours are drawn, not listed.
    filters : str
        Whatever else the pool depends on: distances, labels, bounds.

    Returns
    -------
    Pool or None
        ``groups`` (P, C), ``centers`` (P,) and ``without`` (the centres that have no group),
        int32. None if there is no such file, or if it was made for something else; the log says
        which.
    """
    name = os.fspath(path)
    if not os.path.exists(path):
        logger.info("groups cache: %s does not exist yet", name)
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
        told = f"it holds {count} groups of {C} positions, but {len(pool.centers)} centres"
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
    """Write a pool to a file, which appears complete or not at all.

    Parameters
    ----------
    path : path
        The file.
    pool : Pool
        All groups, their centres, and the centres without a group.
    positions, gridsize, n_neighbors, key, filters
        As for `read`.
    compress : bool
        Compress the file: it is smaller, but slower to write and to read.

    Raises
    ------
    OSError
        If it cannot be written.

    Warns
    -----
    UserWarning
        If the file is larger than 100 MB.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ptycho_fast import groups_cache
    >>> positions = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> path = groups_cache.cache_path(tempfile.mkdtemp() + "/scan.npz", 2, 4)
    >>> some = np.array([0], np.int32)
    >>> pool = groups_cache.Pool(np.array([[0, 1, 2, 3]], np.int32), some, some[:0])
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
    """Find the pool files in a folder and in all folders below it, whichever code wrote them.

    Parameters
    ----------
    folder : path
        Where to look. Links to other folders are not followed.

    Returns
    -------
    list of (Path, int)
        The files and their sizes in bytes, sorted by path.

    Raises
    ------
    NotADirectoryError
        If the path is not a folder.

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
        msg = f"{os.fspath(folder)} is not a folder. Name the folder that holds the scans."
        raise NotADirectoryError(msg)
    paths = [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.endswith(SUFFIX)
    ]
    return [(path, path.lstat().st_size) for path in sorted(paths)]


def _filters(request: DrawRequest) -> str:
    """Say to which neighbours and centres the pool is limited; nothing where it is not."""
    names = ("min_distance", "max_distance", "bounds")
    given = {name: getattr(request, name) for name in names}
    parts = [f"{name}={value!r}" for name, value in given.items() if value is not None]
    if request.scan_ids is not None:
        labels = np.ascontiguousarray(request.scan_ids, dtype="<i4")
        parts.append(f"scan_ids={hashlib.sha256(labels.data).hexdigest()}")
    return " ".join(parts)


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
