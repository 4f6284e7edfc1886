"""`RawData`: a scan as PtychoPINN holds it, and the grouped arrays that its networks train on."""

# ruff: noqa: PLR0917  # the argument lists are those that callers use

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count, as_indices, join_coordinates
from ptycho_fast.ptychopinn.fields import COORDINATES, FILE_KEYS
from ptycho_fast.ptychopinn.files import read_fields, write_fields
from ptycho_fast.ptychopinn.gone import Gone
from ptycho_fast.ptychopinn.grouped import (
    grouped_coordinates,
    grouped_patterns,
    object_patches,
    own_patches,
)
from ptycho_fast.ptychopinn.legacy import draw_groups, fresh_seed
from ptycho_fast.ptychopinn.oversampling import oversample, pool_size
from ptycho_fast.ptychopinn.params import setting
from ptycho_fast.ptychopinn.tensors import as_tensor
from ptycho_fast.subsampling import draw_subsample

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

logger = logging.getLogger("ptycho_fast")


class RawData:
    """A scan, and the grouped arrays that a network trains on.

    Parameters
    ----------
    xcoords, ycoords : array_like, (n,), real
        Scan positions in pixels of the object: x along its columns, y along its rows.
    xcoords_start, ycoords_start : array_like, (n,), real, or None
        The positions as they were planned.
    diff3d : ndarray, (n, N, N), of any real dtype of up to 64 bits, or None
        Measured **amplitudes** (not counts), one diffraction pattern for each position.
    probeGuess : ndarray, (N, N) or (modes, N, N), complex, or None
        The probe.
    scan_index : array_like, (n,), or None
        Kept, but not used: in files found in practice it is as often a frame counter as a label.
    objectGuess : ndarray, (H, W), complex, optional
        The object, indexed ``[row=y, column=x]``.
    Y : ndarray, (n, N, N) or (B, N, N, C), complex, optional
        Object patches of the positions, or of the groups.
    norm_Y_I : optional
        Kept, but not used.
    metadata : mapping, optional
        Kept. `to_file` writes arrays in it as further keys, and everything else as JSON under
        ``_metadata``.

    Attributes
    ----------
    sample_indices, subsample_seed : optional
        None until a caller or `subsample` sets them. ``sample_indices`` becomes a key of the
        grouped data once it is set.

    Raises
    ------
    ValueError
        If lengths differ, or coordinates are not real numbers.

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

    _find_all_valid_groups = Gone()
    _generate_cache_filename = Gone()
    _compute_dataset_checksum = Gone()
    _save_groups_cache = Gone()
    _load_groups_cache = Gone()

    # `install` copies the private members to PtychoPINN's class, and refuses to if that has members
    # of the same names. So there are few, and what can be a function is one, in another file.

    _mirror = True
    """Read the patches of groups at mirrored positions; `install` can change it."""

    _installed = False
    """Whether this is PtychoPINN's class: the ``Y`` of files is not read, and ``Y`` is a tensor."""

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
            Accepted, but not used.

        Returns
        -------
        RawData
            ``metadata`` is what the file holds under ``_metadata`` (JSON, or a pickle of plain
            values, which is read without running code), and those keys of the file that are no
            field of a record. A missing ``scan_index`` is zeros. Where this was installed into
            PtychoPINN, the file's ``Y`` is not read.

        Raises
        ------
        OSError, KeyError, ValueError
            As `ptycho_fast.read_scan`.

        Warns
        -----
        UserWarning
            If the file has a detector mask, or pixels that are bad in some patterns: a record has
            no place for either.
        """
        fields = read_fields(train_data_file_path)
        if cls._installed:
            fields["Y"] = None
        return cls(**fields)

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
            As `ptycho_fast.read_scan`.
        """
        return cls.from_file(train_data_file_path), cls.from_file(test_data_file_path)

    def subsample(self, n_subsample: int, subsample_seed: int | None = None) -> RawData:
        """Keep only some of the scan positions, drawn at random, before anything is grouped.

        Parameters
        ----------
        n_subsample : int
            How many positions to keep.
        subsample_seed : int, optional
            0..2**32-1. The positions are those that ``np.random.seed(subsample_seed)`` and
            ``np.random.choice(n, n_subsample, replace=False)`` give. Without a seed, one is drawn
            from NumPy's global stream.

        Returns
        -------
        RawData
            The positions that are kept, in the order of the scan, with everything that belongs to
            them. Its ``sample_indices`` (ascending) and ``subsample_seed`` are set.

        Raises
        ------
        ValueError
            If ``n_subsample < 1``, the seed is not an integer in 0..2**32-1, positions are not
            finite, or ``Y`` holds patches of groups.

        Warns
        -----
        UserWarning
            If there are fewer positions than `n_subsample`, or those that are kept lie farther
            apart, see `ptycho_fast.subsampling.draw_subsample`.

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
                f"Y has {len(self.Y)} rows for {n} positions: it holds patches of groups, of which "
                "none belongs to a single position. Set Y to None before you subsample."
            )
            raise ValueError(msg)
        subsample_seed = fresh_seed() if subsample_seed is None else subsample_seed
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

        Fields that are None are left out. `ptycho_fast.read_scan` and `from_file` can read the file
        if it has patterns.

        Parameters
        ----------
        file_path : path
            The file; ``.npz`` is added if it is missing.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If a field is not an array of numbers or text, or ``metadata`` holds something that JSON
            cannot store.
        """
        write_fields(file_path, {key: getattr(self, key) for key in FILE_KEYS}, self.metadata)

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
        """Draw groups of positions and gather everything that belongs to them.

        Parameters
        ----------
        N : int
            Pixels per side of a diffraction pattern.
        K : int
            Number of nearest neighbours that a group is drawn from.
        nsamples : int
            Number of groups (B); at most one for each position unless oversampled.
        dataset_path
            Accepted, but not used: there are no cache files.
        seed : int, optional
            0..2**32-1. The groups are those that ``np.random.seed(seed)`` gave in older code.
            Without a seed, NumPy's global stream is continued and left advanced.
        sequential_sampling : bool
            Take positions 0..B-1 as centres, and seed 0 whatever `seed` is.
        gridsize : int, optional
            A group has C = gridsize² positions. By default ``ptycho.params.cfg['gridsize']`` where
            that module is loaded, else 1.
        enable_oversampling : bool
            Allow more groups than positions, for gridsize > 1. There are then several groups around
            each centre, no two of them the same until all different ones are used.
        neighbor_pool_size : int, optional
            Number of nearest neighbours to oversample from; K by default.

        Returns
        -------
        dict
            ``diffraction`` (B, N, N, C), of the dtype of ``diff3d``, and ``X_full`` (B, N, N, C),
            float32, the same normalised; both None without ``diff3d``. ``Y`` (B, N, N, C),
            complex64, or None. ``coords_nn`` and ``coords_relative`` (B, 1, 2, C) and
            ``coords_offsets`` (B, 1, 2, 1), float64, in pixels; ``coords_start_nn``,
            ``coords_start_relative`` and ``coords_start_offsets``, the same of the planned
            positions. ``nn_indices`` (B, C), int32: the groups. ``objectGuess`` as given, and a
            copy of ``sample_indices`` if that is set.

            Without planned positions ``coords_start_nn`` is None, and ``coords_start_offsets`` and
            ``coords_start_relative``, which loaders read, are those of the positions.

            ``Y`` is the record's own ``Y`` if it has one. Otherwise it is cut from ``objectGuess``
            at ``coords_offsets + coords_relative`` (mirrored positions, see `get_image_patches`).
            Without either it is None.

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
            If there are fewer positions than `nsamples` (gridsize 1), or fewer different groups
            (oversampling).

        Notes
        -----
        A seed gives the groups that older code drew with it, except in two cases. Oversampling
        follows a rule of its own. And where neighbours lie at the same distance, as on exact
        rasters, their order was an accident of the search tree in older code; here the smaller
        index comes first.
        """
        N = as_count("N", N)
        nsamples = as_count("nsamples", nsamples)
        gridsize = setting("gridsize", 1) if gridsize is None else gridsize
        C = as_count("gridsize", gridsize, most=46340) ** 2
        positions, planned = self._positions()
        n = len(positions)
        seed = 0 if sequential_sampling else seed

        # Where n < C there is no group at all; the ordinary draw says so.
        if nsamples > n >= C > 1:
            pool = pool_size(
                n,
                nsamples,
                C,
                enabled=enable_oversampling,
                K=K,
                neighbor_pool_size=neighbor_pool_size,
            )
            seed = fresh_seed() if seed is None else seed
            strategy, considered = "oversample", pool
            groups = oversample(positions, nsamples, pool, C, seed, in_order=sequential_sampling)
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
        coordinates = grouped_coordinates(positions, planned, indices)
        patterns = grouped_patterns(self.diff3d, indices, N)
        if self.Y is None:
            Y = object_patches(self.objectGuess, coordinates, N, mirror=self._mirror)
        else:
            Y = own_patches(np.asarray(self.Y), indices, n, N)
        data = {
            **patterns,
            "Y": Y if Y is None or not self._installed else as_tensor(Y),
            **coordinates,
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
        """Draw groups from NumPy's legacy stream. Training code calls this one too.

        Parameters
        ----------
        nsamples : int
            Number of groups. If there are fewer positions, each is a centre once.
        K : int
            Number of nearest neighbours that a group is drawn from.
        C : int
            Positions in a group, any number from 1.
        seed : int, optional
            0..2**32-1. Without it NumPy's global stream is continued, unless `seed_indices` are
            given.
        seed_indices : array_like, (B,), int, optional
            The centres to use, as given, instead of a sample of `nsamples`. Without a seed their
            groups are those of seed 0.

        Returns
        -------
        ndarray, (min(nsamples, n), C) or (B, C), int32
        """
        # The positions are read anew each time: callers may have set others meanwhile.
        positions, _ = self._positions()
        return draw_groups(positions, nsamples, K, C, seed=seed, seed_indices=seed_indices)

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
