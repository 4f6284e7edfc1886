"""The groups of scans as a data set: batches, epochs, and a part held out for validation."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batches.ahead import AHEAD, Batches
from ptycho_fast.batches.buffers import Buffers
from ptycho_fast.batches.gather import HostGatherer
from ptycho_fast.batches.maker import AT_A_TIME, Maker
from ptycho_fast.batches.options import BatchOptions, with_batch_options
from ptycho_fast.batches.part import Part
from ptycho_fast.batches.plan import Planner
from ptycho_fast.batches.processes import share_of_threads
from ptycho_fast.batches.schedule import Schedule
from ptycho_fast.checks import as_number, as_stack, as_threads
from ptycho_fast.feeds.methods import FeedMethods
from ptycho_fast.frames import Frames
from ptycho_fast.subsampling import held_out_edge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ptycho_fast.batches.maker import Gatherer
    from ptycho_fast.batches.options import BatchArguments
    from ptycho_fast.grouping import Groups
    from ptycho_fast.scan import Scan


class GroupedDataset(FeedMethods):
    """The groups of a scan, ready to be iterated over in batches.

    A pattern belongs to about C groups, so arrays of all groups would hold every pattern C times.
    Here each pattern is held once, the groups are lists of indices, and the patterns of a batch
    are gathered when it is needed, by threads that work a few batches ahead.

    Parameters
    ----------
    scan : Scan
        A scan with its patterns in memory, or left in their file
        (``read_scan(path, load=False)``).
    groups : Groups
        Groups of this scan, from `ptycho_fast.group_positions`.
    normalize : bool
        Scale the patterns, as float32, so that their mean energy over all groups of the scan is
        ``(N/2)**2``. This needs the energy of every pattern: ``scan.energies`` if the scan has
        them, else one pass over the patterns when they are first needed.
    num_threads : int, optional
        Threads that gather the patterns. By default ``PTYCHO_FAST_NUM_THREADS``, else all that
        the process may use, shared among the ``LOCAL_WORLD_SIZE`` processes that ``torchrun``
        starts on a machine. The batches do not depend on it.

    Raises
    ------
    ValueError
        If the groups were drawn from other positions than the scan's, or the patterns are not
        real numbers.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
    >>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 50, seed=1))
    >>> for batch in data.batches(batch_size=20, shuffle=True, seed=0, fields=("Y",)):
    ...     print(batch["diffraction"].shape, batch["Y"].dtype)
    (20, 16, 16, 4) complex64
    (20, 16, 16, 4) complex64
    (10, 16, 16, 4) complex64
    """

    def __init__(
        self,
        scan: Scan,
        groups: Groups,
        *,
        normalize: bool = False,
        num_threads: int | None = None,
    ) -> None:
        if not np.array_equal(scan.positions, groups.positions):
            msg = (
                f"The groups were drawn from {len(groups.positions)} positions that are not the "
                f"scan's {len(scan)}. Draw groups of this scan: group_positions(scan.positions)."
            )
            raise ValueError(msg)
        if not isinstance(scan.diffraction, Frames):
            # A stack in another byte order or memory layout is converted once, not for each batch.
            stack = as_stack(scan.diffraction)
            scan = scan if stack is scan.diffraction else replace(scan, diffraction=stack)
        self.normalize = bool(normalize)
        self._num_threads = as_threads(num_threads)
        self.parts: tuple[Part, ...] = (Part(scan, groups),)
        """The scans, each with its groups."""

    @classmethod
    def concatenate(cls, datasets: Sequence[GroupedDataset]) -> GroupedDataset:
        """Join the groups of several scans into one data set.

        No group spans two scans, and each scan keeps its probe and its scale.

        Parameters
        ----------
        datasets : sequence of GroupedDataset
            In the order of their ``scan_id``: 0, 1, ...

        Returns
        -------
        GroupedDataset

        Raises
        ------
        ValueError
            If they differ in N, C, dtype or `normalize`, or there are none.
        """
        parts = tuple(part for dataset in datasets for part in dataset.parts)
        for name, found in {
            "N": {part.scan.N for part in parts},
            "channels": {part.groups.group_size for part in parts},
            "dtype": {part.scan.diffraction.dtype for part in parts},
            "normalize": {dataset.normalize for dataset in datasets},
        }.items():
            if len(found) != 1:
                listed = ", ".join(sorted(map(str, found))) or "none"
                msg = f"Data sets must have the same {name} to be concatenated, got {listed}."
                raise ValueError(msg)
        return _of_parts(datasets[0], parts)

    def __len__(self) -> int:
        """Return the number of groups."""
        return sum(len(part.groups) for part in self.parts)

    def __repr__(self) -> str:
        scans = f" of {len(self.parts)} scans" if len(self.parts) > 1 else ""
        return f"GroupedDataset({len(self)} groups of {self.group_size}{scans}, N={self.N})"

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern."""
        return self.parts[0].scan.N

    @property
    def group_size(self) -> int:
        """Channels per group (C)."""
        return self.parts[0].groups.group_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the patterns in a batch."""
        if self.normalize:
            return np.dtype(np.float32)
        dtype: np.dtype[Any] = self.parts[0].scan.diffraction.dtype
        return dtype

    @property
    def scans(self) -> tuple[Scan, ...]:
        """The scans, in the order of ``scan_id``."""
        return tuple(part.scan for part in self.parts)

    @property
    def groups(self) -> tuple[Groups, ...]:
        """The groups of each scan."""
        return tuple(part.groups for part in self.parts)

    @property
    def num_threads(self) -> int:
        """Threads that gather the patterns of a batch."""
        return share_of_threads() if self._num_threads is None else self._num_threads

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """The factor by which the patterns of each scan are multiplied, (scans,).

        1 without `normalize`. Both sides of a `split` have the scale of the whole scan.
        """
        if not self.normalize:
            return np.ones(len(self.parts), np.float32)
        return np.array([part.scale() for part in self.parts])

    # --- other data sets from this one ---------------------------------------------------------

    def at_epoch(self, epoch: int) -> GroupedDataset:
        """Draw the groups of another epoch, with the seed that the groups were drawn with.

        The neighbours of the scan positions are found once and used again for every epoch.

        Parameters
        ----------
        epoch : int
            Number of the epoch.

        Returns
        -------
        GroupedDataset
            Of the same scans; after a `split`, of the same side.

        Raises
        ------
        ValueError
            If the groups were drawn with ``rng="numpy"``, NumPy's legacy random numbers, for which
            there are no epochs.
        """
        threads = self.num_threads
        return _of_parts(self, tuple(part.at_epoch(epoch, threads) for part in self.parts))

    def split(
        self, validation: float = 0.1, *, margin: float | None = None
    ) -> tuple[GroupedDataset, GroupedDataset]:
        """Hold out a block of each scan for validation, so that no pattern is on both sides.

        The block lies at the end of the longer side of the scan. The training set has the groups
        that lie entirely outside the block and the margin before it, the validation set those
        entirely inside the block; groups across the edge are in neither.

        Parameters
        ----------
        validation : float
            Share of the positions in the block, between 0 and 1.
        margin : float, optional
            Pixels between the two sides; N/4 by default.

        Returns
        -------
        training, validation : GroupedDataset

        Raises
        ------
        ValueError
            If share and margin leave one side without groups.
        """
        margin = as_number("margin", self.N / 4 if margin is None else margin) or 0.0
        sides: tuple[list[Part], list[Part]] = ([], [])
        for part in self.parts:
            along, edge = held_out_edge(part.scan.positions, validation)
            for side, inside in zip(sides, (along < edge - margin, along >= edge), strict=True):
                side.append(part.within(inside))
        training, held_out = (_of_parts(self, tuple(side)) for side in sides)
        if not len(training) or not len(held_out):
            msg = (
                f"validation={validation} with a margin of {margin:g} pixels leaves "
                f"{len(training)} groups to train on and {len(held_out)} to validate on. "
                "Use another share or a smaller margin."
            )
            raise ValueError(msg)
        return training, held_out

    # --- batches -------------------------------------------------------------------------------

    @with_batch_options
    def batches(
        self,
        batch_size: int,
        *,
        layout: str = "channels_last",
        start_batch: int = 0,
        out: Mapping[str, NDArray[Any]] | None = None,
        **options: Unpack[BatchArguments],
    ) -> Batches[dict[str, NDArray[Any]]]:
        """Iterate over the groups in batches.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        layout : {"channels_last", "channels_first"}
            Shape of patterns and patches: ``(B, N, N, C)`` or ``(B, C, N, N)``.
        start_batch : int
            Begin with this batch, as if those before it had been taken already.
        out : mapping of str to ndarray, optional
            Arrays with `batch_size` rows to write the batches to, by key. Each batch then
            overwrites the one before, and none is made ahead.
        **options
            ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``pad``, ``rank``, ``world_size`` and
            ``fields``, explained in `ptycho_fast.batches.options.BatchOptions`.

        Returns
        -------
        iterator of dict of ndarray
            It has a length. The keys of a batch of B groups are ``diffraction``, (B, N, N, C);
            ``coords_relative``, (B, 1, 2, C), and ``coords_offsets``, (B, 1, 2, 1), float64, in
            pixels; ``nn_indices``, (B, C), int32; and those of ``fields``. The arrays are
            C-contiguous. Their memory is reused only when nothing refers to them any more, so you
            may keep them.

        Raises
        ------
        ValueError
            If there is no whole batch, arguments contradict each other, or a field is missing.
        """
        asked = BatchOptions(batch_size, layout=layout, **options)
        makers = self.makers(asked) if out is None else [self.maker(asked, out=out)]
        ahead = AHEAD if out is None else 0
        return Batches(makers, makers[0].numbers(start_batch), ahead=ahead)

    def materialize(
        self, *, fields: Sequence[str] = (), layout: str = "channels_last"
    ) -> dict[str, NDArray[Any]]:
        """Make one batch of all groups; it takes C times the memory of the patterns.

        Parameters
        ----------
        fields, layout
            As for `batches`.

        Returns
        -------
        dict of ndarray
            As from `batches`.
        """
        with self.batches(len(self), fields=fields, layout=layout, rank=0, world_size=1) as whole:
            return next(whole)

    # --- what feeds are made from: `ptycho_fast.batches.source.BatchSource` --------------------

    def schedule(self, options: BatchOptions) -> Schedule:
        """Return which groups each batch holds; makes none, but refuses options that don't fit."""
        options.check_scans(self.scans)
        return Schedule(len(self), options, num_threads=self.num_threads)

    def maker(
        self,
        options: BatchOptions,
        *,
        gatherer: Gatherer | None = None,
        processes: int = 1,
        step: int = 1,
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> Maker:
        """Return a function that makes a batch from its number.

        `gatherer` collects patterns and patches, by default into arrays in memory; `processes`
        share the threads of this data set; every `step`-th batch will be asked for; `out` is that
        of `batches`.
        """
        buffers = Buffers(out)
        if gatherer is None:
            gatherer = self._gatherer(options, buffers, processes)
        planner = Planner(self.groups, self.schedule(options), step=step)
        return Maker(planner, gatherer, buffers, self.scans)

    def makers(self, options: BatchOptions) -> list[Maker]:
        """Return what makes the batches of these options in turn, in a thread each."""
        # Reading a file takes longer than anything that could be done meanwhile.
        in_files = any(isinstance(scan.diffraction, Frames) for scan in self.scans)
        count = 1 if in_files else min(self.num_threads, AT_A_TIME)
        schedule, makers = self.schedule(options), []
        for _ in range(count):
            planner, buffers = Planner(self.groups, schedule, step=count), Buffers()
            gatherer = self._gatherer(options, buffers, count)
            makers.append(Maker(planner, gatherer, buffers, self.scans))
        return makers

    def _gatherer(self, options: BatchOptions, buffers: Buffers, share: int) -> HostGatherer:
        """Return what collects patterns into memory, as one of so many that share the threads."""
        return HostGatherer(self, options, buffers, max(1, self.num_threads // share))


def _of_parts(dataset: GroupedDataset, parts: tuple[Part, ...]) -> GroupedDataset:
    """Return a data set with the options of another and these scans and groups."""
    other = copy.copy(dataset)
    other.parts = parts
    vars(other).pop("scales", None)  # it is that of the parts
    return other
