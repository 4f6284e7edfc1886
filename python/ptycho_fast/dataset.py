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
from ptycho_fast.batches.maker import Maker
from ptycho_fast.batches.options import BatchOptions, with_batch_options
from ptycho_fast.batches.part import Part
from ptycho_fast.batches.plan import Planner
from ptycho_fast.batches.processes import share_of_threads
from ptycho_fast.batches.schedule import Schedule
from ptycho_fast.batches.split import held_out_block, held_out_edge
from ptycho_fast.checks import as_stack, as_threads
from ptycho_fast.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ptycho_fast.batches.maker import Gatherer
    from ptycho_fast.batches.options import BatchArguments
    from ptycho_fast.feeds.torch import TorchFeed
    from ptycho_fast.grouping import Groups
    from ptycho_fast.scan import Scan

__all__ = ["GroupedDataset", "held_out_block"]


class GroupedDataset:
    """The groups of a scan, ready to be iterated over in batches.

    A pattern belongs to about C groups, so arrays of all groups would hold every pattern C times.
    Here each pattern is held once, the groups are lists of indices, and the patterns of a batch
    are gathered when it is needed, by a thread that works a few batches ahead.

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
        margin = self.N / 4 if margin is None else margin
        sides: tuple[list[Part], list[Part]] = ([], [])
        for part in self.parts:
            along, edge = held_out_edge(part.scan.positions, validation)
            for side, inside in zip(sides, (along < edge - margin, along >= edge), strict=True):
                side.append(part.within(inside))
        training, held_out = (_of_parts(self, tuple(side)) for side in sides)
        if not len(training) or not len(held_out):
            msg = (
                f"validation={validation} with a margin of {margin} pixels leaves "
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
        maker = self.maker(BatchOptions(batch_size, layout=layout, **options), out=out)
        ahead = AHEAD if out is None else 0
        return Batches(maker, maker.numbers(start_batch), ahead=ahead)

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

    @with_batch_options
    def to_tensorflow(
        self,
        batch_size: int,
        *,
        layout: str = "channels_last",
        redraw: bool = False,
        intensity_scale: float = 1.0,
        **options: Unpack[BatchArguments],
    ) -> Any:
        """Return a ``tf.data.Dataset`` of batches, for ``model.fit`` or a loop of your own.

        Each iteration over it is the next epoch. Its ``set_epoch(epoch)`` sets the epoch of the
        next iteration. Shapes are static, except for the number of groups if the last batch may be
        smaller.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        layout : {"channels_last", "channels_first", "ptychopinn"}
            As for `batches`; or, with "ptychopinn", pairs ``(inputs, targets)`` for the
            ``model.fit`` of PtychoPINN, all float32. With the amplitude
            ``a = intensity_scale * diffraction`` of a normalised data set, the inputs are
            ``(a, coords_relative)`` and the targets ``(object, a, a**2)``. The coordinates are
            those of the planned positions (``coords_start_relative``) if the scan has others than
            the true ones. ``object``, (B, N, N, 1), is the modulus of the object around the centre
            of the group, or zeros if the scan has no object. The number of groups is never static,
            because PtychoPINN's model would take it for the number of patterns.
        redraw : bool
            Draw new groups for each epoch, as `at_epoch` does. All epochs have the same number of
            batches: if an epoch has more groups than the first one had, the rest is dropped; if it
            has fewer, it starts again from its first.
        intensity_scale : float
            For ``layout="ptychopinn"`` only.
        **options
            ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``pad``, ``rank``, ``world_size`` and
            ``fields``, explained in `ptycho_fast.batches.options.BatchOptions`. ``epoch`` is that
            of the first iteration.

        Returns
        -------
        tf.data.Dataset
            Its elements are dicts of tensors with the keys of `batches`. If there is a GPU and one
            scan, patches are cut on the GPU.

        Raises
        ------
        ValueError
            As `batches` does, or if `layout`, ``fields`` and `intensity_scale` do not go together.
        ImportError
            If TensorFlow is not installed.

        Notes
        -----
        An error while a batch is made arrives as a ``tf.errors.OpError`` with the same text.

        `ptycho_fast.feeds.tensorflow` shows how to train with Keras, and with several workers.
        """
        from ptycho_fast.feeds.tensorflow import to_tensorflow  # noqa: PLC0415

        return to_tensorflow(
            self,
            batch_size,
            layout=layout,
            redraw=redraw,
            intensity_scale=intensity_scale,
            **options,
        )

    @with_batch_options
    def to_torch(
        self,
        batch_size: int,
        *,
        layout: str = "channels_first",
        redraw: bool = False,
        pin_memory: bool | None = None,
        resident: bool = False,
        device: Any = None,
        **options: Unpack[BatchArguments],
    ) -> TorchFeed:
        """Return an iterable of batches for PyTorch's ``DataLoader(feed, batch_size=None)``.

        Each iteration over it is the next epoch. Its ``set_epoch(epoch, start_batch=0)`` sets the
        epoch of the next iteration and the batch it begins with; ``state_dict()`` and
        ``load_state_dict()`` do the same for checkpoints. Its length is the number of batches in
        an epoch.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        layout : {"channels_first", "channels_last"}
            Shape of patterns and patches: ``(B, C, N, N)`` or ``(B, N, N, C)``.
        redraw : bool
            Draw new groups for each epoch, as `at_epoch` does.
        pin_memory : bool, optional
            Make batches in page-locked memory, from which copies to a GPU are fastest. By default
            where there is CUDA. The workers of a ``DataLoader`` cannot do this: use the
            ``pin_memory`` of the loader.
        resident : bool
            Keep all patterns on `device` and gather them there, so that only indices are sent in
            every batch. Patches are cut there too. It needs ``num_workers=0``.
        device : torch.device or str, optional
            For `resident`: by default the current CUDA device, else the CPU.
        **options
            ``shuffle``, ``seed``, ``epoch``, ``drop_last``, ``pad``, ``rank``, ``world_size`` and
            ``fields``, explained in `ptycho_fast.batches.options.BatchOptions`. ``epoch`` is that
            of the first iteration. Ranks that are left open are looked up in
            ``torch.distributed`` at the start of each iteration.

        Returns
        -------
        ptycho_fast.feeds.torch.TorchFeed
            Its elements are dicts of tensors with the keys of `batches`. A thread makes them
            ahead, so that a loader needs no workers.

        Raises
        ------
        ValueError
            As `batches` does, or if `device` or `pin_memory` cannot be used.
        ImportError
            If PyTorch is not installed.

        Examples
        --------
        >>> import ptycho_fast as pf
        >>> from torch.utils.data import DataLoader
        >>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
        >>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 50, seed=1))
        >>> loader = DataLoader(data.to_torch(batch_size=20, shuffle=True), batch_size=None)
        >>> [tuple(batch["diffraction"].shape) for batch in loader]
        [(20, 4, 16, 16), (20, 4, 16, 16), (10, 4, 16, 16)]
        """
        from ptycho_fast.feeds.torch import TorchFeed  # noqa: PLC0415

        return TorchFeed(
            self,
            batch_size,
            layout=layout,
            redraw=redraw,
            pin_memory=pin_memory,
            resident=resident,
            device=device,
            **options,
        )

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
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> Maker:
        """Return a function that makes a batch from its number.

        `gatherer` collects patterns and patches, by default into arrays in memory; `processes`
        share the threads of this data set; `out` is that of `batches`.
        """
        planner, buffers = Planner(self.groups, self.schedule(options)), Buffers(out)
        if gatherer is None:
            threads = max(1, self.num_threads // processes)
            gatherer = HostGatherer(self, options, buffers, threads)
        return Maker(planner, gatherer, buffers, self.scans)


def _of_parts(dataset: GroupedDataset, parts: tuple[Part, ...]) -> GroupedDataset:
    """Return a data set with the options of another and these scans and groups."""
    other = copy.copy(dataset)
    other.parts = parts
    vars(other).pop("scales", None)  # it is that of the parts
    return other
