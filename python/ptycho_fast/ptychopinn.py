"""The drop-in: the names, keys and numbers that training code of the PtychoPINN family calls.

Everything goes through the package's own engine. Three things differ from the native API because
callers expect them: groups follow NumPy's legacy random stream, object patches of groups are read
at the mirrored positions (see `get_image_patches`), and arguments left out are looked up in
``ptycho.params.cfg`` where a module of that name is already loaded (it is never imported).

`install` lets an installed PtychoPINN use all of it without an edit.
"""

# ruff: noqa: PLR0917  # the argument lists are those that callers use

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import (
    as_count,
    as_indices,
    as_patch_positions,
    as_real_dtype,
    as_stack,
    as_valid_positions,
    join_coordinates,
)
from ptycho_fast.grouping import (
    DrawRequest,
    ScanIndex,
    draw,
    draw_from_twister,
    group_coordinates,
    relative_coordinates,
)
from ptycho_fast.install import put_in_place, take_out
from ptycho_fast.io import read_scan
from ptycho_fast.io.npz import write_arrays
from ptycho_fast.notices import warn
from ptycho_fast.patches import cpu
from ptycho_fast.patterns import gather_normalised, normalisation_scale
from ptycho_fast.subsampling import draw_subsample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.scan import Scan

__all__ = [
    "RawData",
    "get_image_patches",
    "get_neighbor_indices",
    "get_relative_coords",
    "install",
    "key_coords_offsets",
    "key_coords_relative",
    "local_offset_sign",
    "normalize_data",
    "uninstall",
]

logger = logging.getLogger("ptycho_fast")

local_offset_sign = -1
"""``coords_relative = local_offset_sign * (coords_nn - coords_offsets)``."""

key_coords_offsets = "coords_start_offsets"
"""The key under which loaders find the offsets."""

key_coords_relative = "coords_start_relative"
"""The key under which loaders find the relative coordinates."""

COORDINATES = ("xcoords", "ycoords", "xcoords_start", "ycoords_start")

FILE_KEYS = (
    *COORDINATES, "diff3d", "probeGuess", "scan_index", "objectGuess", "Y", "norm_Y_I",
)  # fmt: skip

GONE = {
    "_find_all_valid_groups": 'ptycho_fast.group_positions(strategy="group-then-sample")',
    "_generate_cache_filename": "ptycho_fast.groups_cache.cache_path",
    "_compute_dataset_checksum": "ptycho_fast.checks.positions_checksum",
    "_save_groups_cache": "ptycho_fast.groups_cache.write",
    "_load_groups_cache": "ptycho_fast.groups_cache.read",
    "get_neighbor_diffraction_and_positions": "RawData.generate_grouped_data",
    "get_neighbor_self_indices": "numpy.arange(n)[:, numpy.newaxis]",
    "sample_rows": "ptycho_fast.group_positions",
}
"""Names that older code calls, and what does it now."""


class _Gone:
    """A name that is there no more, and says where to go."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise _gone(self.name)


def _gone(name: str) -> AttributeError:
    return AttributeError(f"{name} is gone: use {GONE[name]} (docs/migration.md says more).")


def __getattr__(name: str) -> Any:
    if name in GONE:
        raise _gone(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


class RawData:
    """A scan, and the grouped arrays that a network trains on.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Positions in pixels of the object grid: x along columns, y along rows.
    xcoords_start, ycoords_start : array_like, (n,), real, or None
        The positions as they were planned.
    diff3d : ndarray, (n, N, N), of any real dtype of up to 64 bits, or None
        Measured **amplitude** of each position.
    probeGuess : ndarray, (N, N) or (modes, N, N), complex, or None
        The illumination.
    scan_index : array_like, (n,), or None
        Kept and ignored: in the wild it is a frame counter as often as a label.
    objectGuess : ndarray, (H, W), complex, optional
        The object, indexed ``[row=y, column=x]``.
    Y : ndarray, (n, N, N) or (B, N, N, C), complex, optional
        Object patches of the positions, or of the groups.
    norm_Y_I : optional
        Kept.
    metadata : mapping, optional
        Kept. `to_file` writes arrays in it as further keys, and all else as JSON under
        ``_metadata``.

    Attributes
    ----------
    sample_indices, subsample_seed : optional
        None, for callers or `subsample` to set. ``sample_indices`` becomes a key of the grouped
        data.

    Raises
    ------
    ValueError
        If lengths differ, or coordinates are no real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.ptychopinn import RawData
    >>> x, y = (axis.ravel() for axis in np.meshgrid(np.arange(5.0), np.arange(4.0)))
    >>> patterns = np.ones((20, 8, 8), np.float32)
    >>> record = RawData(x, y, None, None, patterns, probeGuess=None, scan_index=None)
    >>> data = record.generate_grouped_data(N=8, K=7, nsamples=6, seed=42, gridsize=2)
    >>> data["X_full"].shape, data["coords_relative"].shape
    ((6, 8, 8, 4), (6, 1, 2, 4))
    """

    _find_all_valid_groups = _Gone()
    _generate_cache_filename = _Gone()
    _compute_dataset_checksum = _Gone()
    _save_groups_cache = _Gone()
    _load_groups_cache = _Gone()

    _mirror = True
    """Read the patches of groups mirrored; `install` may say otherwise."""

    _installed = False
    """As there: a file's own ``Y`` is not read, and ``Y`` is a tensor."""

    def __init__(
        self,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        xcoords_start: ArrayLike | None,
        ycoords_start: ArrayLike | None,
        diff3d: NDArray[Any] | None,
        probeGuess: NDArray[Any] | None,
        scan_index: ArrayLike | None,
        objectGuess: NDArray[Any] | None = None,
        Y: NDArray[Any] | None = None,
        norm_Y_I: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.xcoords = xcoords
        self.ycoords = ycoords
        self.xcoords_start = xcoords_start
        self.ycoords_start = ycoords_start
        self.diff3d = diff3d
        self.probeGuess = probeGuess
        self.scan_index = scan_index
        self.objectGuess = objectGuess
        self.Y = Y
        self.norm_Y_I = norm_Y_I
        self.metadata = metadata
        self.sample_indices: Any = None
        self.subsample_seed: Any = None
        self._positions()

    @classmethod
    def from_coords_without_pc(
        cls,
        xcoords: ArrayLike,
        ycoords: ArrayLike,
        diff3d: NDArray[Any] | None,
        probeGuess: NDArray[Any] | None,
        scan_index: ArrayLike | None,
        objectGuess: NDArray[Any] | None = None,
    ) -> RawData:
        """Make a record whose planned positions are its positions (no position correction).

        Parameters
        ----------
        xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess
            As of `RawData`.

        Returns
        -------
        RawData
        """
        return cls(xcoords, ycoords, xcoords, ycoords, diff3d, probeGuess, scan_index, objectGuess)

    @classmethod
    def from_file(
        cls,
        train_data_file_path: str | os.PathLike[str],
        validate_config: bool = False,
        current_config: object = None,
    ) -> RawData:
        """Read a scan file, as `ptycho_fast.read_scan` does.

        Parameters
        ----------
        train_data_file_path : path
            An NPZ file.
        validate_config, current_config
            Accepted and unused.

        Returns
        -------
        RawData
            ``metadata`` is what the file has under ``_metadata`` (JSON, or a pickle of plain
            values: no code runs), and its keys that have no attribute. A missing ``scan_index``
            is zeros. Where this was installed into PtychoPINN, the file's ``Y`` is not read.

        Raises
        ------
        OSError, KeyError, ValueError
            As of `ptycho_fast.read_scan`.

        Warns
        -----
        UserWarning
            If the file has a detector mask, or pixels that are bad in some patterns, which a
            record has no place for.
        """
        scan = read_scan(train_data_file_path)
        _warn_of_bad_pixels(train_data_file_path, scan)
        metadata = dict(scan.metadata)
        told = metadata.pop("_metadata", {})
        metadata.update(told if isinstance(told, dict) else {"_metadata": told})
        Y = metadata.pop("Y", None)
        if scan.scan_index is None:
            scan_index: NDArray[Any] = np.zeros(len(scan), np.int64)
        else:
            scan_index = scan.scan_index
        return cls(
            xcoords=scan.positions[:, 0].copy(),
            ycoords=scan.positions[:, 1].copy(),
            xcoords_start=scan.positions_start[:, 0].copy(),
            ycoords_start=scan.positions_start[:, 1].copy(),
            diff3d=scan.diffraction,
            probeGuess=scan.probe,
            scan_index=scan_index,
            objectGuess=scan.object,
            Y=None if cls._installed else Y,
            norm_Y_I=metadata.pop("norm_Y_I", None),
            metadata=metadata or None,
        )

    @classmethod
    def from_files(
        cls,
        train_data_file_path: str | os.PathLike[str],
        test_data_file_path: str | os.PathLike[str],
    ) -> tuple[RawData, RawData]:
        """Read two scan files.

        Parameters
        ----------
        train_data_file_path, test_data_file_path : path
            NPZ files.

        Returns
        -------
        train, test : RawData

        Raises
        ------
        OSError, KeyError, ValueError
            As of `ptycho_fast.read_scan`.
        """
        return cls.from_file(train_data_file_path), cls.from_file(test_data_file_path)

    def subsample(self, n_subsample: int, subsample_seed: int | None = None) -> RawData:
        """Thin the scan before anything is grouped.

        Parameters
        ----------
        n_subsample : int
            How many positions to keep, drawn at random.
        subsample_seed : int, optional
            0..2**32-1, the positions that ``np.random.seed(subsample_seed)`` and
            ``np.random.choice(n, n_subsample, replace=False)`` name. Without it one is drawn from
            NumPy's global stream.

        Returns
        -------
        RawData
            The positions in the order of the scan, with all that belongs to them;
            ``sample_indices`` (ascending) and ``subsample_seed`` are set.

        Raises
        ------
        ValueError
            If ``n_subsample < 1``, the seed is none, positions are not finite, or ``Y`` is by
            group.

        Warns
        -----
        UserWarning
            If there are fewer positions, or what is left of them is stretched, see
            `ptycho_fast.subsampling.draw_subsample`.

        Examples
        --------
        >>> import numpy as np
        >>> from ptycho_fast.ptychopinn import RawData
        >>> x, y = np.random.default_rng(0).uniform(0, 50, (2, 10))
        >>> record = RawData(x, y, None, None, None, probeGuess=None, scan_index=None)
        >>> record.subsample(9, subsample_seed=3).sample_indices
        array([0, 1, 2, 3, 4, 5, 6, 7, 9])
        """
        positions, _ = self._positions()
        n = len(positions)
        if self.Y is not None and len(self.Y) != n:
            msg = (
                f"Y has {len(self.Y)} rows for {n} positions: it is by group, and can't be "
                "thinned. Set it to None."
            )
            raise ValueError(msg)
        if subsample_seed is None:
            subsample_seed = int(np.random.randint(2**32, dtype=np.int64))  # noqa: NPY002
        rows = draw_subsample(positions, n_subsample, subsample_seed)
        fields = {key: getattr(self, key) for key in (*FILE_KEYS, "metadata")}
        for key in (*COORDINATES, "scan_index", "Y"):
            if fields[key] is not None:
                fields[key] = np.asarray(fields[key])[rows]
        if self.diff3d is not None:
            fields["diff3d"] = self.diff3d[rows]
        thinned = type(self)(**fields)
        before = self.sample_indices
        thinned.sample_indices = rows if before is None else np.asarray(before)[rows]
        thinned.subsample_seed = subsample_seed
        return thinned

    def to_file(self, file_path: str | os.PathLike[str]) -> None:
        """Write the record to an NPZ file, which appears whole or not at all.

        Fields that are None are left out. `ptycho_fast.read_scan` and `from_file` read the file
        again if there are patterns in it.

        Parameters
        ----------
        file_path : path
            The file; ``.npz`` is added where it is not there.

        Raises
        ------
        OSError
            If it can't be written.
        ValueError
            If a field is no array of numbers or text, or ``metadata`` has what JSON has no place
            for.
        """
        fields = {key: getattr(self, key) for key in FILE_KEYS}
        told = dict(self.metadata or {})
        arrays = {key: told.pop(key) for key in [*told] if _is_array(told[key])}
        for key in told:
            if key in fields:
                msg = f"metadata[{key!r}] can't be written: the name is taken. Rename it."
                raise ValueError(msg)
        path = os.fspath(file_path)
        path = path if path.endswith(".npz") else f"{path}.npz"
        write_arrays(path, fields, {**arrays, **({"_metadata": told} if told else {})})

    def __str__(self) -> str:
        lines = [f"RawData: {np.size(self.xcoords)} positions"]
        for key in (*FILE_KEYS, "metadata", "sample_indices", "subsample_seed"):
            value = getattr(self, key)
            shown = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else None
            lines.append(f"  {key}: {shown or type(value).__name__}")
        return "\n".join(lines)

    def generate_grouped_data(
        self,
        N: int,
        K: int = 4,
        nsamples: int = 1,
        dataset_path: object = None,
        seed: int | None = None,
        sequential_sampling: bool = False,
        gridsize: int | None = None,
        enable_oversampling: bool = False,
        neighbor_pool_size: int | None = None,
    ) -> dict[str, Any]:
        """Draw groups of positions and gather all that belongs to them.

        Parameters
        ----------
        N : int
            Pixels per side of a pattern.
        K : int
            Neighbours considered per centre.
        nsamples : int
            How many groups (B); at most one per position unless oversampled.
        dataset_path
            Accepted and unused: there are no cache files.
        seed : int, optional
            0..2**32-1, the groups of ``np.random.seed(seed)``. Without it NumPy's global stream
            is continued, and left advanced.
        sequential_sampling : bool
            Centres 0..B-1 and seed 0.
        gridsize : int, optional
            C = gridsize²; by default ``ptycho.params.cfg['gridsize']`` where that is loaded,
            else 1.
        enable_oversampling : bool
            Allow more groups than positions, for gridsize > 1: several sets per centre, none of
            them twice until all are spent.
        neighbor_pool_size : int, optional
            Neighbours to oversample from; K by default.

        Returns
        -------
        dict
            ``diffraction`` (B, N, N, C) as the stack, ``X_full`` (B, N, N, C) float32 normalised
            (both None without ``diff3d``), ``Y`` (B, N, N, C) complex64 or None, ``coords_nn``
            and ``coords_relative`` (B, 1, 2, C) float64, ``coords_offsets`` (B, 1, 2, 1) float64,
            ``coords_start_nn``, ``coords_start_relative``, ``coords_start_offsets`` likewise,
            ``nn_indices`` (B, C) int32, ``objectGuess`` as given, and a copy of ``sample_indices``
            if set.
            Without start coordinates ``coords_start_nn`` is None, and the start's offsets and
            relative coordinates, which loaders read, are those of the positions.

            ``Y`` is the record's own ``Y``, else patches of ``objectGuess`` at
            ``coords_offsets + coords_relative`` (mirrored, see `get_image_patches`), else None.

        Raises
        ------
        ValueError
            If K < C, n < C, ``nsamples < 1``, more groups than positions are asked for without
            oversampling, or shapes or dtypes do not fit.
        MemoryError
            If the arrays do not fit in memory.

        Warns
        -----
        UserWarning
            If `nsamples` exceeds the positions (gridsize 1) or all sets there are (oversampling).

        Notes
        -----
        A seed gives the groups that older code drew with it, but for two cases: oversampling is
        drawn by a rule of its own, and where neighbours are tied (exact rasters) the older order
        was an accident of its search tree, while here it is by index.
        """
        N = as_count("N", N)
        nsamples = as_count("nsamples", nsamples)
        gridsize = _setting("gridsize", 1) if gridsize is None else gridsize
        C = as_count("gridsize", gridsize, most=46340) ** 2
        positions, start = self._positions()
        n = len(positions)
        seed = 0 if sequential_sampling else seed

        # With n < C there is no group at all, which the ordinary draw says.
        if nsamples > n >= C > 1:
            pool = _pool(n, nsamples, C, enable_oversampling, K, neighbor_pool_size)
            # The Philox key comes from the global stream, so that a script that seeds it once
            # can be repeated.
            seed = int(np.random.randint(2**32, dtype=np.int64)) if seed is None else seed  # noqa: NPY002
            strategy, considered = "oversample", pool
            groups = _oversample(positions, nsamples, pool, C, seed, in_order=sequential_sampling)
        else:
            strategy, considered = "sequential" if sequential_sampling else "random centres", K
            in_order = np.arange(min(nsamples, n)) if sequential_sampling else None
            groups = self._generate_groups_efficiently(
                nsamples=nsamples, K=K, C=C, seed=seed, seed_indices=in_order
            )
        indices = as_indices("nn_indices", groups, 2, n)
        logger.info(
            "groups: strategy=%s n=%d B=%d K=%d C=%d seed=%s",
            strategy,
            n,
            len(indices),
            considered,
            C,
            "NumPy's global stream" if seed is None else seed,
        )

        coords_nn = group_coordinates(positions, indices)
        coords_start_nn = (
            None if start is None else group_coordinates(as_valid_positions(start), indices)
        )
        offsets, relative = relative_coordinates(coords_nn)
        start_offsets, start_relative = relative_coordinates(
            coords_nn if coords_start_nn is None else coords_start_nn
        )
        diffraction, X_full = self._gather(indices, N)
        Y = self._patches(indices, N, offsets, relative)
        data = {
            "diffraction": diffraction,
            "X_full": X_full,
            "Y": Y if Y is None or not self._installed else _as_tensor(Y),
            "coords_nn": coords_nn,
            "coords_offsets": offsets,
            "coords_relative": relative,
            "coords_start_nn": coords_start_nn,
            "coords_start_offsets": start_offsets,
            "coords_start_relative": start_relative,
            "nn_indices": indices,
            "objectGuess": self.objectGuess,
        }
        if self.sample_indices is not None:
            data["sample_indices"] = np.array(self.sample_indices)
        return data

    def _generate_groups_efficiently(
        self,
        nsamples: int,
        K: int,
        C: int,
        seed: int | None = None,
        seed_indices: ArrayLike | None = None,
    ) -> NDArray[np.int32]:
        """Draw groups by NumPy's legacy stream; training code calls this one too.

        Parameters
        ----------
        nsamples : int
            How many groups; with more than n, every point becomes a centre once.
        K : int
            Neighbours considered per centre.
        C : int
            Channels per group, any number from 1.
        seed : int, optional
            Without it NumPy's global stream is continued, unless `seed_indices` are given.
        seed_indices : array_like, (B,), int, optional
            The centres to use, as given, instead of a sample of `nsamples`; without a seed their
            groups are those of seed 0.

        Returns
        -------
        ndarray, (min(nsamples, n), C) or (B, C), int32
        """
        # Built anew each time: callers may have set other coordinates meanwhile.
        index = ScanIndex(self._positions()[0])
        n = len(index)
        nsamples, C = as_count("nsamples", nsamples), as_count("C", C)
        K = as_count("K", K, least=0)
        _core.check_group(n, K, C)
        centers = None
        if seed_indices is not None:
            centers = as_indices("seed_indices", seed_indices, 1, n)
            as_count("The number of seed_indices", len(centers))
            seed = 0 if seed is None else seed
        if nsamples > n:
            warn(
                f"nsamples={nsamples} exceeds the {n} points of the dataset: every point becomes "
                "a centre once.",
            )
        stream = _stream(seed)
        words, place = stream["state"]["key"], stream["state"]["pos"]
        drawn = draw_from_twister(index, min(nsamples, n), K, C, (words, place), centers=centers)
        if seed is None:
            words, place = drawn.state
            stream["state"] = {"key": words, "pos": place}
            np.random.set_state(stream)  # noqa: NPY002
        return drawn.indices

    def _positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Return positions and planned positions, (n, 2), if all lengths fit."""
        shapes = {
            key: np.shape(value) for key in COORDINATES if (value := getattr(self, key)) is not None
        }
        if len(set(shapes.values())) != 1:
            found = ", ".join(f"{key} is {shape}" for key, shape in shapes.items())
            msg = f"Coordinate arrays must have matching shapes. {found}; each must be (n,)."
            raise ValueError(msg)
        if (self.xcoords_start is None) != (self.ycoords_start is None):
            msg = "xcoords_start and ycoords_start go together: give both, or None for both."
            raise ValueError(msg)
        positions = join_coordinates(self.xcoords, self.ycoords)
        if self.diff3d is not None and np.shape(self.diff3d)[:1] != (len(positions),):
            msg = (
                f"diff3d has shape {np.shape(self.diff3d)}, but there are {len(positions)} "
                f"coordinates: ({len(positions)}, N, N) is needed."
            )
            raise ValueError(msg)
        if self.xcoords_start is None or self.ycoords_start is None:
            return positions, None
        return positions, join_coordinates(self.xcoords_start, self.ycoords_start)

    def _gather(
        self, indices: NDArray[np.int32], N: int
    ) -> tuple[NDArray[Any] | None, NDArray[np.float32] | None]:
        """Return the patterns of groups as they are, and normalised."""
        if self.diff3d is None:
            return None, None
        stack = as_stack(self.diff3d)
        if stack.shape[1] != N:
            msg = f"N={N}, but the patterns of diff3d are {stack.shape[1]} pixels a side."
            raise ValueError(msg)
        return gather_normalised(stack, indices)

    def _patches(
        self,
        indices: NDArray[np.int32],
        N: int,
        offsets: NDArray[np.float64],
        relative: NDArray[np.float64],
    ) -> NDArray[np.complex64] | None:
        """Return ``Y``, and say where it came from."""
        if self.Y is not None:
            logger.info("Y: the record's own")
            return _own_patches(np.asarray(self.Y), indices, np.size(self.xcoords), N)
        if self.objectGuess is None:
            logger.info("Y: None, for the record has neither Y nor objectGuess")
            return None
        if not self._mirror:
            logger.info("Y: patches of objectGuess at the positions themselves")
            positions = group_coordinates(self._positions()[0], indices)
            return cpu.extract_patches(self.objectGuess, positions, N)
        logger.info(
            "Y: patches of objectGuess at coords_offsets + coords_relative (for gridsize > 1 "
            "mirrored through the mean of the group)"
        )
        gridsize = math.isqrt(indices.shape[1])
        return get_image_patches(self.objectGuess, offsets, relative, N=N, gridsize=gridsize)


def get_image_patches(
    gt_image: ArrayLike,
    global_offsets: ArrayLike,
    local_offsets: ArrayLike,
    N: int | None = None,
    gridsize: int | None = None,
) -> NDArray[np.complex64]:
    """Cut the patches of an object at ``global_offsets + local_offsets``.

    With ``coords_offsets`` and ``coords_relative`` of `RawData.generate_grouped_data` this reads
    channel c at ``2 * mean - position``: mirrored through the mean of its group where there is
    more than one channel. It is kept because callers expect these numbers;
    `ptycho_fast.extract_patches` cuts at the positions themselves.

    Parameters
    ----------
    gt_image : array_like, (H, W), complex
        The object, indexed ``[row=y, column=x]``, and 0 outside.
    global_offsets : array_like, (B, 1, 2, 1), real
        x, then y, in pixels. The sum is taken in float64, then rounded to float32.
    local_offsets : array_like, (B, 1, 2, C), real
        Likewise, of each channel.
    N : int, optional
        Pixels per side of a patch; by default ``ptycho.params.cfg['N']`` where that is loaded.
    gridsize : int, optional
        C = gridsize², as a check; by default ``ptycho.params.cfg['gridsize']`` where that is
        loaded, else what `local_offsets` has.

    Returns
    -------
    ndarray, (B, N, N, C), complex64
        By the Rust kernel; where ``ptycho.params.cfg['use_batched_patch_extraction']`` is loaded
        and false, by TensorFlow, patch by patch.

    Raises
    ------
    ValueError
        If shapes do not fit one another, offsets are not finite, or N is not known.
    MemoryError
        If the patches do not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.ptychopinn import get_image_patches
    >>> offsets, relative = np.array([[[[2.0], [1.0]]]]), np.zeros((1, 1, 2, 1))
    >>> image = np.arange(30.0).reshape(5, 6)
    >>> get_image_patches(image, offsets, relative, N=2, gridsize=1)[0, :, :, 0].real
    array([[1., 2.],
           [7., 8.]], dtype=float32)
    """
    N = _setting("N", None) if N is None else N
    if N is None:
        msg = "N is not known: pass N, the pixels per side of a patch."
        raise ValueError(msg)
    N = as_count("N", N)
    middle, local = as_patch_positions(global_offsets), as_patch_positions(local_offsets)
    B, _, C = local.shape
    if middle.shape != (B, 2, 1):
        msg = (
            f"global_offsets {np.shape(global_offsets)} and local_offsets "
            f"{np.shape(local_offsets)} do not fit: (B, 1, 2, 1) and (B, 1, 2, C) are needed."
        )
        raise ValueError(msg)
    gridsize = _setting("gridsize", None) if gridsize is None else gridsize
    if gridsize is not None and as_count("gridsize", gridsize) ** 2 != C:
        msg = (
            f"gridsize={gridsize} means {gridsize**2} channels, but local_offsets has {C}. "
            "Without the argument it is ptycho.params.cfg['gridsize']."
        )
        raise ValueError(msg)
    positions = (middle + local).astype(np.float32).astype(np.float64)
    if _setting("use_batched_patch_extraction", default=True):
        return cpu.extract_patches(gt_image, positions, N)
    from ptycho_fast.patches import tensorflow  # noqa: PLC0415  # TensorFlow takes seconds

    return np.asarray(tensorflow.extract_patches(gt_image, positions, N, method="iterative"))


def get_relative_coords(
    coords_nn: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split positions of groups into the groups' means and the rest, with the field's minus.

    Parameters
    ----------
    coords_nn : array_like, (B, 1, 2, C), real
        Positions, x then y.

    Returns
    -------
    offsets : ndarray, (B, 1, 2, 1), float64
        The mean over channels.
    relative : ndarray, (B, 1, 2, C), float64
        ``-(coords_nn - offsets)``.

    Raises
    ------
    ValueError
        If `coords_nn` is of another shape or no real numbers.

    Examples
    --------
    >>> from ptycho_fast.ptychopinn import get_relative_coords
    >>> offsets, relative = get_relative_coords([[[[1.0, 2.0], [5.0, 9.0]]]])
    >>> offsets.ravel(), relative[0, 0]
    (array([1.5, 7. ]), array([[ 0.5, -0.5],
           [ 2. , -2. ]]))
    """
    return relative_coordinates(as_patch_positions(coords_nn)[:, np.newaxis])


def get_neighbor_indices(xcoords: ArrayLike, ycoords: ArrayLike, K: int = 3) -> NDArray[np.int64]:
    """Find each position's nearest neighbours, itself first.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Positions in pixels.
    K : int
        Neighbours of each, at most n - 1.

    Returns
    -------
    ndarray, (n, K + 1), int64
        The position, then its neighbours in the order of (distance, index).

    Raises
    ------
    ValueError
        If lengths differ, positions are not finite, or K is not in 1..n-1.

    Examples
    --------
    >>> from ptycho_fast.ptychopinn import get_neighbor_indices
    >>> get_neighbor_indices([0.0, 1.0, 3.0], [0.0, 0.0, 0.0], K=2)
    array([[0, 1, 2],
           [1, 0, 2],
           [2, 1, 0]])
    """
    index = ScanIndex(join_coordinates(xcoords, ycoords))
    n = len(index)
    K = as_count("K", K)
    if n <= K:
        msg = f"K={K} neighbours were asked for, but of {n} points each has {n - 1}."
        raise ValueError(msg)
    return np.column_stack([np.arange(n), index.neighbors(K)])


def normalize_data(dset: Mapping[str, Any], N: int) -> NDArray[np.float32]:
    """Scale grouped patterns to a mean energy of ``(N/2)**2``.

    Parameters
    ----------
    dset : mapping
        ``dset['diffraction']``, (B, N, N, C) or (n, N, N), of any real dtype, is read.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    ndarray, as ``dset['diffraction']``, float32
        ``X_full``.

    Raises
    ------
    KeyError
        If there is no ``'diffraction'``.
    ValueError
        If it is of another shape, not real, not finite, or all zero.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.ptychopinn import normalize_data
    >>> normalize_data({"diffraction": np.full((1, 4, 4, 1), 3.0)}, N=4).mean()
    np.float32(0.5)
    """
    diffraction = np.asarray(dset["diffraction"])
    as_real_dtype("dset['diffraction']", diffraction.dtype)
    if diffraction.ndim not in (3, 4):
        msg = f"dset['diffraction'] must be (B, N, N, C) or (n, N, N), got {diffraction.shape}."
        raise ValueError(msg)
    channels = diffraction if diffraction.ndim == 4 else diffraction[..., np.newaxis]
    energies = np.einsum("bijc,bijc->bc", channels, channels, dtype=np.float64).ravel()
    scale = normalisation_scale(energies, np.arange(energies.size), N)
    X_full = diffraction.astype(np.float32)
    X_full *= scale
    return X_full


def group_coords(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int, C: int | None, nsamples: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Draw groups around every position (deprecated: it goes after this release).

    `ptycho_fast.group_positions` draws as many as are wanted, and is repeatable.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Positions in pixels.
    K : int
        A group is drawn from a position and its K nearest neighbours.
    C : int, optional
        Channels per group; by default ``ptycho.params.cfg['gridsize']`` squared where that is
        loaded, else 1. With C = 1 a group is its position, once.
    nsamples : int
        Groups of each position.

    Returns
    -------
    nn_indices : ndarray, (n * nsamples, C), int32
        Position after position, by NumPy's global stream.
    coords_nn : ndarray, (n * nsamples, 1, 2, C), float64
        Their positions, x then y.

    Raises
    ------
    ValueError
        As of `get_neighbor_indices`, or if ``C > K + 1``.

    Warns
    -----
    DeprecationWarning
        Always.
    """
    _deprecated("group_coords", "ptycho_fast.group_positions")
    return _draw_around_all(xcoords, ycoords, K, C, nsamples)


def calculate_relative_coords(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int = 4, C: int | None = None, nsamples: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Draw groups around every position and split their coordinates (deprecated, as above).

    Parameters
    ----------
    xcoords, ycoords, K, C, nsamples
        As of `group_coords`.

    Returns
    -------
    coords_nn : ndarray, (B, 1, 2, C), float64
        Positions of the groups.
    coords_offsets : ndarray, (B, 1, 2, 1), float64
        Their means.
    coords_relative : ndarray, (B, 1, 2, C), float64
        The rest, see `get_relative_coords`.
    nn_indices : ndarray, (B, C), int32
        The groups.

    Raises
    ------
    ValueError
        As of `group_coords`.

    Warns
    -----
    DeprecationWarning
        Always.
    """
    _deprecated("calculate_relative_coords", "ptycho_fast.group_positions and Groups.relative")
    indices, coords = _draw_around_all(xcoords, ycoords, K, C, nsamples)
    return (coords, *relative_coordinates(coords), indices)


def _draw_around_all(
    xcoords: ArrayLike, ycoords: ArrayLike, K: int, C: int | None, nsamples: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    positions = as_valid_positions(join_coordinates(xcoords, ycoords))
    C = as_count("gridsize", _setting("gridsize", 1)) ** 2 if C is None else as_count("C", C)
    nsamples = as_count("nsamples", nsamples)
    if C == 1:
        indices = np.arange(len(positions), dtype=np.int32)[:, np.newaxis]
        return indices, group_coordinates(positions, indices)
    near = get_neighbor_indices(xcoords, ycoords, K).astype(np.int32)
    if near.shape[1] < C:
        msg = f"C={C} channels can't be drawn from a position and its K={K} neighbours."
        raise ValueError(msg)
    indices = np.array(
        [np.random.choice(row, C, replace=False) for row in near for _ in range(nsamples)]  # noqa: NPY002
    )
    return indices, group_coordinates(positions, indices)


def _deprecated(name: str, successor: str) -> None:
    warn(
        f"{name} goes after this release. Use {successor} instead.",
        DeprecationWarning,
    )


def install(*, mirror: bool = True) -> tuple[str, ...]:
    """Let an installed PtychoPINN use these functions, without an edit.

    The methods of ``ptycho.raw_data.RawData`` that read, group and write are replaced on that
    class itself, and the functions beside it in every loaded module that has them, so that it
    does not matter what was imported first. Modules imported later get them too.

    Parameters
    ----------
    mirror : bool
        True keeps the numbers that callers know: for gridsize > 1 the object patches ``Y`` are
        read mirrored, see `get_image_patches`. False reads them at the true positions.

    Returns
    -------
    tuple of str
        What was replaced, by full names; the log has it too.

    Raises
    ------
    ImportError
        If PtychoPINN can't be imported.
    ValueError
        If its functions take other arguments than these, before anything is replaced.

    Notes
    -----
    Installed again, it starts afresh; refused, it leaves things as they were. ``get_image_patches``
    and ``Y`` are tensors there, for callers use their ``.numpy()``; the former reads where its
    arguments say, whatever `mirror` is. A file's own ``Y`` is not read. What keeps a
    function elsewhere than under a name of a module (a default argument, an attribute) keeps it.

    Examples
    --------
    >>> from ptycho_fast import ptychopinn
    >>> ptychopinn.install()  # doctest: +SKIP
    ('ptycho.raw_data.RawData.from_coords_without_pc', ...)
    """
    return put_in_place(
        "ptycho.raw_data",
        RawData,
        (
            "from_coords_without_pc",
            "from_file",
            "from_files",
            "to_file",
            "generate_grouped_data",
            "_generate_groups_efficiently",
        ),
        {
            "get_image_patches": _image_patches_as_tensor,
            "get_relative_coords": get_relative_coords,
            "get_neighbor_indices": get_neighbor_indices,
            "normalize_data": normalize_data,
        },
        {"_mirror": bool(mirror), "_installed": True},
    )


def uninstall() -> tuple[str, ...]:
    """Restore what `install` replaced, exactly, also in modules that were imported since.

    Returns
    -------
    tuple of str
        What was restored, by full names; empty if nothing was installed.

    Examples
    --------
    >>> from ptycho_fast import ptychopinn
    >>> ptychopinn.uninstall()
    ()
    """
    return take_out()


@functools.wraps(get_image_patches)
def _image_patches_as_tensor(*arguments: Any, **keywords: Any) -> Any:
    return _as_tensor(get_image_patches(*arguments, **keywords))


def _as_tensor(patches: NDArray[np.complex64]) -> Any:
    import tensorflow as tf  # noqa: PLC0415  # PtychoPINN has loaded it by now

    return tf.convert_to_tensor(patches)


def _is_array(value: Any) -> bool:
    """Tell whether NumPy has a place for a value, and JSON has none."""
    if isinstance(value, np.generic):
        return value.dtype.kind not in "biufU"
    return isinstance(value, np.ndarray | complex | bytes)


def _warn_of_bad_pixels(path: str | os.PathLike[str], scan: Scan) -> None:
    """Say what a record has no place for."""
    lost = []
    if scan.mask is not None and not scan.mask.all():
        lost.append(f"masks {np.count_nonzero(~scan.mask)} pixels of the detector")
    bad = scan.bad_pixels
    if bad is not None and len(bad.pixels):
        some = np.count_nonzero(np.diff(bad.starts))
        lost.append(f"has {len(bad.pixels)} more bad pixels in {some} of {len(bad)} patterns")
    if lost:
        warn(
            f"{os.fspath(path)} {' and '.join(lost)}, but RawData has no place for a mask: all "
            "pixels are used as they are, bad ones as 0 where they were recognised. "
            "ptycho_fast.GroupedDataset honours it.",
        )


def _setting(name: str, default: Any) -> Any:
    """Look a setting up in ``ptycho.params`` if that is loaded; never import it."""
    value = getattr(sys.modules.get("ptycho.params"), "cfg", {}).get(name)
    return default if value is None else value


def _stream(seed: int | None) -> dict[str, Any]:
    """Return the state of the Mersenne Twister to draw from: the seed's, or NumPy's global one."""
    if seed is not None:
        seed = as_count("seed", seed, least=0, most=2**32 - 1)
        return np.random.RandomState(seed).get_state(legacy=False)
    state: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    if state["bit_generator"] != "MT19937":
        msg = (
            f"NumPy's global generator is {state['bit_generator']} (np.random.set_bit_generator), "
            "but groups without a seed continue an MT19937 stream. Pass seed=."
        )
        raise ValueError(msg)
    return state


def _own_patches(
    Y: NDArray[Any], indices: NDArray[np.int32], n: int, N: int
) -> NDArray[np.complex64]:
    """Return a record's own ``Y`` by group: it may be by position."""
    B, C = indices.shape
    by_position = Y[..., 0] if Y.shape == (n, N, N, 1) else Y
    if Y.dtype.kind in "fiuc" and by_position.shape == (n, N, N):
        patches = np.empty((B, N, N, C), np.complex64)
        for channel in range(C):  # one at a time: no second array of that size
            patches[..., channel] = by_position[indices[:, channel]]
        return patches
    if Y.dtype.kind in "fiuc" and Y.shape == (B, N, N, C):
        return np.asarray(Y, dtype=np.complex64)
    msg = (
        f"Y has shape {Y.shape} of {Y.dtype}, which fits neither the positions ({n}, {N}, {N}) "
        f"nor these groups ({B}, {N}, {N}, {C}). Set Y to None to take patches of objectGuess."
    )
    raise ValueError(msg)


def _pool(
    n: int, nsamples: int, C: int, enabled: bool, K: int, neighbor_pool_size: int | None
) -> int:
    """Return how many neighbours to oversample from, if it is allowed and they are enough."""
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


def _oversample(
    positions: NDArray[np.float64],
    n_groups: int,
    n_neighbors: int,
    C: int,
    seed: int,
    *,
    in_order: bool,
) -> NDArray[np.int32]:
    """Draw groups by the rule `oversample` on the native stream."""
    n = len(positions)
    request = DrawRequest(
        positions,
        n_neighbors,
        as_count("seed", seed, least=0, most=2**32 - 1),
        rule="oversample",
        center_choice="sequential" if in_order else "random",
        n_groups=n_groups,
        group_size=C,
    )
    drawn = draw(request)
    if drawn.spent:
        S = max(C, min(n_neighbors, n - 1))
        warn(
            f"nsamples={n_groups} exceeds the {n} * {drawn.fewest} sets there are ({S} choose {C} "
            "of each centre): sets come again. Raise neighbor_pool_size for more.",
        )
    return drawn.indices
