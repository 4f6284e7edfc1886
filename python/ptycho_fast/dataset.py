"""Batches of groups, made when they are wanted: the groups stay indices."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast import _core
from ptycho_fast.batching import Batches, Buffers, Schedule, rank_and_world
from ptycho_fast.checks import as_count, as_stack, as_threads
from ptycho_fast.frames import Frames
from ptycho_fast.grouping import (
    Groups,
    ScanIndex,
    group_coordinates,
    lists_suffice,
    philox_key,
    redraw,
    relative_coordinates,
)
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.patterns import (
    brought_energies,
    gather_patterns,
    measured_energies,
    normalisation_scale,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ptycho_fast.feeds.torch import TorchFeed
    from ptycho_fast.scan import Scan

    Batch = dict[str, NDArray[Any]]

logger = logging.getLogger("ptycho_fast")

FIELDS = ("Y", "probe", "scan_id", "good")
LAYOUTS = ("channels_last", "channels_first")

AHEAD = 3
"""Batches that are made before they are asked for."""

TOGETHER = 16
"""Batches whose coordinates are worked out at once: NumPy's calls cost more than the numbers."""


class GroupedDataset:
    """The groups of a scan as batches of arrays, each pattern held once.

    Grouping repeats every pattern about C times. Here the groups stay indices, and a batch is
    gathered when it is wanted, in a thread that stays a few batches ahead.

    Parameters
    ----------
    scan : Scan
        Patterns in memory, or in their file (``read_scan(path, load=False)``).
    groups : Groups
        Groups of this scan.
    normalize : bool
        Scale patterns to a mean energy of ``(N/2)**2`` over all groups of the scan, as float32.
        It needs one energy per pattern: ``scan.energies``, else one pass at first use.
    num_threads : int, optional
        Threads that gather; ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use,
        shared among the ``LOCAL_WORLD_SIZE`` processes of a machine. No batch depends on it.

    Raises
    ------
    ValueError
        If the groups were drawn from other positions than the scan's, or patterns are no real
        numbers.

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
                f"scan's {len(scan)}. Draw the groups of this scan."
            )
            raise ValueError(msg)
        if not isinstance(scan.diffraction, Frames):
            # Once, and not for each batch, where they lie otherwise than the core takes them.
            stack = as_stack(scan.diffraction)
            scan = scan if stack is scan.diffraction else replace(scan, diffraction=stack)
        self.normalize = bool(normalize)
        self._threads = as_threads(num_threads)
        self._parts: tuple[_Part, ...] = (_Part(scan, groups, _Shared()),)

    @classmethod
    def concatenate(cls, datasets: Sequence[GroupedDataset]) -> GroupedDataset:
        """Join the groups of several scans: none spans two, each scan keeps probe and scale.

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
            If N, C, dtypes or `normalize` differ, or there is none.
        """
        parts = tuple(part for dataset in datasets for part in dataset._parts)
        kinds: dict[str, set[Any]] = {
            "N": {part.scan.N for part in parts},
            "channels": {part.groups.group_size for part in parts},
            "dtypes": {str(part.scan.diffraction.dtype) for part in parts},
            "normalize": {dataset.normalize for dataset in datasets},
        }
        for name, found in kinds.items():
            if len(found) != 1:
                listed = ", ".join(map(str, sorted(found, key=str))) or "none"
                msg = f"Data sets of one {name} can be concatenated, got {listed}."
                raise ValueError(msg)
        return datasets[0]._of(parts)

    def _of(self, parts: tuple[_Part, ...]) -> GroupedDataset:
        """Return a data set like this one of other parts."""
        other = GroupedDataset.__new__(GroupedDataset)
        other.normalize, other._threads, other._parts = self.normalize, self._threads, parts
        return other

    def __len__(self) -> int:
        """Return the number of groups."""
        return sum(len(part.groups) for part in self._parts)

    def __repr__(self) -> str:
        scans = f" of {len(self._parts)} scans" if len(self._parts) > 1 else ""
        return f"GroupedDataset({len(self)} groups of {self.group_size}{scans}, N={self.N})"

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern."""
        return self._parts[0].scan.N

    @property
    def group_size(self) -> int:
        """Channels per group (C)."""
        return self._parts[0].groups.group_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the patterns in a batch."""
        if self.normalize:
            return np.dtype(np.float32)
        dtype: np.dtype[Any] = self._parts[0].scan.diffraction.dtype
        return dtype

    @property
    def scans(self) -> tuple[Scan, ...]:
        """The scans, by ``scan_id``."""
        return tuple(part.scan for part in self._parts)

    @property
    def groups(self) -> tuple[Groups, ...]:
        """The groups of each scan."""
        return tuple(part.groups for part in self._parts)

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """What the patterns of each scan are multiplied by, (scans,): 1 unless `normalize`.

        Both sides of a `split` have the scale of the whole.
        """
        if not self.normalize:
            return np.ones(len(self._parts), np.float32)
        return np.array(
            [
                normalisation_scale(part.energies(), part.whole.indices, self.N)
                for part in self._parts
            ]
        )

    # --- other data sets from this one ---------------------------------------------------------

    def at_epoch(self, epoch: int) -> GroupedDataset:
        """Draw the groups of another epoch; a scan is indexed once.

        Parameters
        ----------
        epoch : int
            Which epoch; the seed is that of the groups.

        Returns
        -------
        GroupedDataset
            Of the same scans. After `split` it keeps to the same side.

        Raises
        ------
        ValueError
            If the groups follow NumPy's legacy stream, which knows no epochs.
        """
        threads = self._thread_count()
        return self._of(tuple(part.at_epoch(epoch, threads) for part in self._parts))

    def split(
        self, validation: float = 0.1, *, margin: float | None = None
    ) -> tuple[GroupedDataset, GroupedDataset]:
        """Hold out a block of each scan: no pattern is in both.

        The block lies at the end of the scan's longer side. Groups that reach into it or into
        the margin before it are left out of the training set, groups that leave it out of the
        validation set.

        Parameters
        ----------
        validation : float
            Share of the positions in the block, between 0 and 1.
        margin : float, optional
            Pixels between the two; N/4 by default.

        Returns
        -------
        training, validation : GroupedDataset

        Raises
        ------
        ValueError
            If a share or margin leaves one of them without groups.
        """
        margin = self.N / 4 if margin is None else margin
        sides: tuple[list[_Part], list[_Part]] = ([], [])
        for part in self._parts:
            along, edge = _held_out(part.scan.positions, validation)
            for side, inside in zip(sides, (along < edge - margin, along >= edge), strict=True):
                side.append(part.within(inside))
        training, held_out = (self._of(tuple(side)) for side in sides)
        if not len(training) or not len(held_out):
            msg = (
                f"validation={validation} with a margin of {margin} pixels leaves "
                f"{len(training)} groups to train on and {len(held_out)} to validate on. "
                "Use another share or a smaller margin."
            )
            raise ValueError(msg)
        return training, held_out

    # --- batches -------------------------------------------------------------------------------

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool | None = None,
        pad: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        start_batch: int = 0,
        fields: Sequence[str] = (),
        layout: str = "channels_last",
        out: Mapping[str, NDArray[Any]] | None = None,
    ) -> Batches:
        """Iterate over the groups in batches.

        A global batch is the next ``world_size * batch_size`` groups of the epoch's order, and
        rank q takes its q-th `batch_size`, so that all ranks yield as many batches.

        Parameters
        ----------
        batch_size : int
            Groups per batch.
        shuffle : bool
            In an order that is a function of (seed, epoch), else in the groups' own.
        seed, epoch : int
            Of the order only; `at_epoch` draws other groups.
        drop_last : bool, optional
            Drop the incomplete last global batch; by default if there is more than one rank.
        pad : bool
            Fill it from the start of the order instead.
        rank, world_size : int, optional
            Those of ``torch.distributed`` where that is initialised, else 0 of 1.
        start_batch : int
            Begin at this batch, as if those before had been taken.
        fields : sequence of {"Y", "probe", "scan_id", "good"}
            Further keys: patches of the object at the true positions, the scan's probe, the
            number of the scan, and of which pixels the patterns were measured (bool, of the shape
            of ``diffraction``; False where it is 0 because nothing is known there).
        layout : {"channels_last", "channels_first"}
            Of patterns and patches: ``(B, N, N, C)`` or ``(B, C, N, N)``.
        out : mapping of str to ndarray, optional
            Arrays of a whole batch to fill, by key. Each batch then overwrites the one before,
            and none is made ahead.

        Returns
        -------
        iterator of dict
            With a length. ``diffraction``; ``coords_relative`` (B, 1, 2, C) and
            ``coords_offsets`` (B, 1, 2, 1), float64; ``nn_indices`` (B, C), int32; and `fields`.
            The arrays are C-contiguous, and reused only when nobody refers to them any more.

        Raises
        ------
        ValueError
            If there is no whole batch, or arguments contradict.
        """
        rank, world_size = rank_and_world(rank, world_size)
        batch_size = as_count("batch_size", batch_size)
        unknown = [field for field in fields if field not in FIELDS]
        if unknown or layout not in LAYOUTS:
            msg = (
                f"fields must be among {FIELDS}, got {unknown}."
                if unknown
                else f"layout must be one of {LAYOUTS}, got {layout!r}."
            )
            raise ValueError(msg)
        for field, name in (("Y", "object"), ("probe", "probe")):
            missing = [i for i, scan in enumerate(self.scans) if getattr(scan, name) is None]
            if field in fields and missing:
                msg = f"{field!r} needs scan.{name}, which scan {missing[0]} does not have."
                raise ValueError(msg)
        order = None
        if shuffle:
            key = philox_key(
                as_count("seed", seed, least=0, most=2**128 - 1),
                as_count("epoch", epoch, least=0, most=2**32 - 1),
            )
            order = _core.draw_order(len(self), key, self._thread_count())
        schedule = Schedule(
            len(self), batch_size, rank, world_size, drop_last=drop_last, pad=pad, order=order
        )
        maker = Maker(self, schedule, tuple(fields), layout, out)
        start = as_count("start_batch", start_batch, least=0, most=len(schedule))
        return Batches(maker, start, len(schedule), ahead=AHEAD if out is None else 0)

    def materialize(
        self, *, fields: Sequence[str] = (), layout: str = "channels_last"
    ) -> dict[str, NDArray[Any]]:
        """Make everything at once: C times the memory of the patterns.

        Parameters
        ----------
        fields, layout
            As of `batches`.

        Returns
        -------
        dict
            One batch of all groups.
        """
        with self.batches(len(self), fields=fields, layout=layout, rank=0, world_size=1) as all_:
            return next(all_)

    def to_tensorflow(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        redraw: bool = False,
        drop_last: bool | None = None,
        pad: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        fields: Sequence[str] = (),
        layout: str = "channels_last",
        intensity_scale: float = 1.0,
    ) -> Any:
        """Feed TensorFlow: a ``tf.data.Dataset`` of whole batches, for ``model.fit`` or a loop.

        Each iteration is the next epoch, beginning with `epoch`; ``.set_epoch(e)`` of what is
        returned says otherwise. Shapes are static, but for the number of groups where the last
        batch may be smaller. An error while a batch is made is a ``tf.errors.OpError`` that holds
        its sentence.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, pad, fields
            As of `batches`.
        epoch : int
            The first one.
        redraw : bool
            Draw the groups of each epoch as `at_epoch` does. All epochs have as many batches:
            should other groups be more, the rest is dropped; if fewer, the first come again.
        rank, world_size : int, optional
            As of `batches`. In ``tf.distribute`` there is one data set for each worker, and its
            batches go to the worker's replicas in turn::

                strategy.distribute_datasets_from_function(
                    lambda context: data.to_tensorflow(
                        batch_size,
                        rank=context.input_pipeline_id,
                        world_size=context.num_input_pipelines,
                    )
                )

            Automatic sharding is off.
        layout : {"channels_last", "channels_first", "ptychopinn"}
            As of `batches`, or ``(inputs, targets)`` of PtychoPINN's ``model.fit``: with the
            amplitude ``a = intensity_scale * diffraction`` of a data set that normalises, inputs
            ``(a, coords_relative)`` and targets ``(object, a, a**2)``, all float32. The coordinates
            are those of the planned positions, ``coords_start_relative``, where these differ.
            ``object``, (B, N, N, 1), is the modulus of the object around the group's centre; zeros
            where the scan has no object. The number of groups is never static: PtychoPINN's model
            would take it for that of patterns.
        intensity_scale : float
            Of ``layout="ptychopinn"``.

        Returns
        -------
        tf.data.Dataset
            Of dicts of tensors, with the keys of `batches`. Where there is a GPU, patches of a
            single scan's object are cut there.

        Raises
        ------
        ValueError
            As `batches`, or if `layout`, `fields` and `intensity_scale` do not go together.
        ImportError
            If TensorFlow is not installed.

        Notes
        -----
        Before it trains, Keras looks at one batch to build a model, which counts as an iteration.
        ``keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: feed.set_epoch(epoch))``
        makes its epochs those of the feed, also with ``initial_epoch=``.
        """
        from ptycho_fast.feeds.tensorflow import to_tensorflow  # noqa: PLC0415

        return to_tensorflow(
            self,
            batch_size,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            redraw=redraw,
            drop_last=drop_last,
            pad=pad,
            rank=rank,
            world_size=world_size,
            fields=fields,
            layout=layout,
            intensity_scale=intensity_scale,
        )

    def to_torch(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        redraw: bool = False,
        drop_last: bool | None = None,
        pad: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        fields: Sequence[str] = (),
        layout: str = "channels_first",
        pin_memory: bool | None = None,
        resident: bool = False,
        device: Any = None,
    ) -> TorchFeed:
        """Feed PyTorch: an iterable data set of whole batches, as dicts of tensors.

        Each iteration is the next epoch, and ``feed.set_epoch(epoch, start_batch=0)`` says which
        it is and where in it to begin; ``state_dict`` and ``load_state_dict`` do so for
        checkpoints. Its ``len`` is the number of batches of an epoch.

        Parameters
        ----------
        batch_size, shuffle, seed, drop_last, pad, fields
            As of `batches`.
        epoch : int
            The first.
        redraw : bool
            Draw new groups for each epoch, as `at_epoch` does.
        rank, world_size : int, optional
            Those of ``torch.distributed`` where that is initialised by the time of an iteration,
            else 0 of 1.
        layout : {"channels_first", "channels_last"}
            Of patterns and patches: ``(B, C, N, N)`` or ``(B, N, N, C)``.
        pin_memory : bool, optional
            Make batches in page-locked memory, from which they reach a GPU fastest; by default
            where there is CUDA. The workers of a ``DataLoader`` can't: use the loader's own.
        resident : bool
            Keep all patterns on `device` and gather there: an index is all that travels. Object
            patches are cut there too, and all tensors are there. It needs ``num_workers=0``.
        device : torch.device or str, optional
            For `resident`: by default the current CUDA device, else the CPU.

        Returns
        -------
        ptycho_fast.feeds.torch.TorchFeed
            For ``DataLoader(feed, batch_size=None)``. A thread makes batches ahead; workers are
            not needed for that.

        Raises
        ------
        ValueError
            If there is no whole batch, or arguments contradict.
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
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            redraw=redraw,
            drop_last=drop_last,
            pad=pad,
            rank=rank,
            world_size=world_size,
            fields=fields,
            layout=layout,
            pin_memory=pin_memory,
            resident=resident,
            device=device,
        )

    def _thread_count(self) -> int:
        if self._threads is not None:
            return self._threads
        local = os.environ.get("LOCAL_WORLD_SIZE", "1")
        share = int(local) if local.isdigit() and int(local) else 1
        return max(1, _core.count_threads(None) // share)


# --- the scans of a data set ------------------------------------------------------------------


class _Shared:
    """What all data sets of one scan share, computed at first use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.energies: NDArray[np.float64] | None = None
        self.neighbors: NDArray[np.int32] | ScanIndex | None = None

    def __reduce__(self) -> tuple[type[_Shared], tuple[()]]:
        return _Shared, ()  # a lock can't be pickled; another process computes its own


@dataclass(frozen=True, eq=False)
class _Part:
    """One scan and its groups; after a split, those within some positions."""

    scan: Scan
    groups: Groups
    shared: _Shared
    inside: NDArray[np.bool_] | None = None
    drawn: Groups | None = None

    @property
    def whole(self) -> Groups:
        """The groups before any split."""
        return self.groups if self.drawn is None else self.drawn

    def energies(self) -> NDArray[np.float64]:
        with self.shared.lock:
            if self.shared.energies is None:
                self.shared.energies = brought_energies(self.scan)
            if self.shared.energies is None:
                logger.info(
                    "normalize: one pass over %d patterns (%.0f MB) for their energies; "
                    "`ptycho-fast convert` stores them",
                    len(self.scan),
                    self.scan.diffraction.nbytes / 1e6,
                )
                self.shared.energies = measured_energies(self.scan)
            return self.shared.energies

    def at_epoch(self, epoch: int, threads: int) -> _Part:
        with self.shared.lock:
            if self.shared.neighbors is None:
                index = ScanIndex(self.scan.positions, num_threads=threads)
                # The lists are faster to draw from, where they are all that a rule looks at.
                listed = lists_suffice(self.whole)
                K = self.whole.n_neighbors
                self.shared.neighbors = index.neighbors(K, num_threads=threads) if listed else index
            neighbors = self.shared.neighbors
        part = replace(self, groups=redraw(self.whole, neighbors, epoch, threads), drawn=None)
        return part if self.inside is None else part.within(self.inside)

    def within(self, inside: NDArray[np.bool_]) -> _Part:
        if self.inside is not None:
            inside = inside & self.inside
        kept = inside[self.groups.indices].all(axis=1)
        groups = replace(
            self.groups, indices=self.groups.indices[kept], centers=self.groups.centers[kept]
        )
        return replace(self, groups=groups, inside=inside, drawn=self.whole)


# --- making a batch ---------------------------------------------------------------------------


class _Plan(NamedTuple):
    """Groups and coordinates of some batches, one after another."""

    first: int
    ends: list[int]
    scan_id: NDArray[np.int32]
    indices: NDArray[np.int32]
    coords: NDArray[np.float64]
    offsets: NDArray[np.float64]
    relative: NDArray[np.float64]


# A scan's number, and which rows of a batch are its own.
_Share = tuple[int, "slice | NDArray[np.bool_]"]


class Maker:
    """Makes batch after batch; it knows the data set, the schedule and the buffers."""

    def __init__(
        self,
        dataset: GroupedDataset,
        schedule: Schedule,
        fields: tuple[str, ...],
        layout: str,
        out: Mapping[str, NDArray[Any]] | None,
    ) -> None:
        self.dataset, self.schedule, self.fields, self.out = dataset, schedule, fields, out
        self.channels_first = layout == "channels_first"
        self.buffers = Buffers()
        self.threads = dataset._thread_count()
        self._plan: _Plan | None = None
        self.parts = dataset._parts
        self.first_row = np.cumsum([0, *(len(part.groups) for part in self.parts)])

    def __call__(self, batch: int) -> Batch:
        """Return a batch by its number."""
        place = batch % TOGETHER
        if self._plan is None or self._plan.first != batch - place:
            self._plan = self._planned(batch - place)
        plan = self._plan
        here = slice(plan.ends[place], plan.ends[place + 1])
        scan_id = plan.scan_id[here]
        shares: list[_Share] = [(0, slice(None))]
        if len(self.parts) > 1:
            shares = [(part, scan_id == part) for part in np.unique(scan_id)]
        patterns, good = self._patterns(plan.indices[here], scan_id, shares)
        made = {
            "diffraction": patterns,
            "coords_relative": self._put("coords_relative", plan.relative[here]),
            "coords_offsets": self._put("coords_offsets", plan.offsets[here]),
            "nn_indices": self._put("nn_indices", plan.indices[here]),
        }
        if "Y" in self.fields:
            made["Y"] = self._patches(plan.coords[here], shares)
        if "probe" in self.fields:
            made["probe"] = self._put("probe", self._probes[scan_id])
        if "scan_id" in self.fields:
            made["scan_id"] = self._put("scan_id", scan_id)
        if good is not None:
            made["good"] = good
        return made

    def _planned(self, first: int) -> _Plan:
        """Work out which groups some batches hold, and their coordinates."""
        batches = range(first, min(first + TOGETHER, len(self.schedule)))
        each = [self.schedule.rows(batch) for batch in batches]
        rows = np.concatenate(each)
        scan_id = np.zeros(len(rows), np.int32)
        shares: list[_Share] = [(0, slice(None))]
        if len(self.parts) > 1:
            scan_id[:] = np.searchsorted(self.first_row, rows, side="right") - 1
            shares = [(part, scan_id == part) for part in np.unique(scan_id)]
        indices = np.empty((len(rows), self.dataset.group_size), np.int32)
        coords = np.empty((len(rows), 1, 2, self.dataset.group_size))
        for part, own in shares:
            groups = self.parts[part].groups
            indices[own] = groups.indices[rows[own] - self.first_row[part]]
            coords[own] = group_coordinates(groups.positions, indices[own])
        ends = [0, *np.cumsum([len(some) for some in each]).tolist()]
        return _Plan(first, ends, scan_id, indices, coords, *relative_coordinates(coords))

    def _take(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array to fill: the caller's, or one of the buffers."""
        if self.out is None or name not in self.out:
            return self.buffers.take(name, shape, dtype)
        out = self.out[name]
        if out.shape[1:] != shape[1:] or len(out) < shape[0] or out.dtype != dtype:
            msg = (
                f"out[{name!r}] is {out.shape} of {out.dtype}; {shape} of {np.dtype(dtype)} is "
                "needed."
            )
            raise ValueError(msg)
        return out[: shape[0]]

    def _put(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if self.out is None or name not in self.out:
            return values
        out = self._take(name, values.shape, values.dtype)
        out[...] = values
        return out

    def _image_shape(self, B: int) -> tuple[int, ...]:
        N, C = self.dataset.N, self.dataset.group_size
        return (B, C, N, N) if self.channels_first else (B, N, N, C)

    def _patterns(
        self, indices: NDArray[np.int32], scan_id: NDArray[np.int32], shares: list[_Share]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Gather the patterns of a batch, straight from memory or by way of a staging buffer.

        With them comes, if it was asked for, which of their pixels count.
        """
        scan = self.parts[shares[0][0]].scan
        scale = self.dataset.scales[scan_id] if self.dataset.normalize else None
        source, columns, mask = scan.diffraction, indices, scan.mask
        measured = None
        if len(shares) > 1 or isinstance(source, Frames) or scan.may_have_bad_pixels:
            source, measured, columns = self._stage(indices, shares)
        if len(shares) > 1:
            mask = None  # each scan's own was applied where it was staged
        good = None
        if "good" in self.fields:
            good = self._good(columns, measured, mask)
        out = self._take("diffraction", self._image_shape(len(indices)), self.dataset.dtype)
        target = out
        if self.channels_first:
            # Channels first are groups of one, one after another.
            B, C = columns.shape
            columns, target = columns.reshape(-1, 1), out.reshape(B * C, *out.shape[2:], 1)
            scale = None if scale is None else np.repeat(scale, C)
        gather_patterns(
            source, columns, scale=scale, mask=mask, out=target, num_threads=self.threads
        )
        return out, good

    def _good(
        self,
        columns: NDArray[np.int32],
        measured: NDArray[np.bool_] | None,
        mask: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Say which pixels of a batch count: those of each staged pattern, and of the detector."""
        good = self._take("good", self._image_shape(len(columns)), np.bool_)
        channels = good if self.channels_first else good.transpose(0, 3, 1, 2)
        if measured is None:
            channels[...] = True if mask is None else mask
        else:
            channels[...] = measured[columns] if mask is None else measured[columns] & mask
        return good

    def _stage(
        self, indices: NDArray[np.int32], shares: list[_Share]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None, NDArray[np.int32]]:
        """Bring each pattern that a batch needs into memory once, and what is good of it."""
        columns = np.empty_like(indices)
        wanted, count = [], 0
        for part, own in shares:
            rows, places = np.unique(indices[own], return_inverse=True)
            columns[own] = count + places.reshape(-1, indices.shape[1])
            wanted.append((self.parts[part].scan, slice(count, count + len(rows)), rows))
            count += len(rows)
        N, dtype = self.dataset.N, self.parts[0].scan.diffraction.dtype
        # As large as it can get, so that every batch fits the same buffer.
        staged = self.buffers.take("staged", (indices.size, N, N), dtype)[:count]
        measured = None
        if "good" in self.fields:
            measured = self.buffers.take("measured", (indices.size, N, N), np.bool_)[:count]
        for scan, where, rows in wanted:
            good = scan.fill(rows, staged[where])
            # That of a single scan is applied where the patterns are gathered.
            mask = scan.mask if len(shares) > 1 else None
            if mask is not None:
                staged[where][:, ~mask] = 0
            if measured is not None:
                measured[where] = True if good is None else good
                if mask is not None:
                    measured[where] &= mask
        return staged, measured, columns

    def _patches(self, coords: NDArray[np.float64], shares: list[_Share]) -> NDArray[np.complex64]:
        """Cut the patches of the objects at the positions themselves."""
        B, _, _, C = coords.shape
        N, out = self.dataset.N, self._take("Y", self._image_shape(B), np.complex64)
        positions, target = coords[:, 0], out
        if self.channels_first:
            positions = positions.transpose(0, 2, 1).reshape(B * C, 2, 1)
            target = out.reshape(B * C, N, N, 1)
        for part, own in shares:
            image = self.parts[part].scan.object
            assert image is not None  # batches() looked
            if len(shares) == 1:
                extract_patches(image, positions, N, out=target, num_threads=self.threads)
                break
            mine: Any = np.repeat(np.asarray(own), C) if self.channels_first else own
            target[mine] = extract_patches(image, positions[mine], N, num_threads=self.threads)
        return out

    @cached_property
    def _probes(self) -> NDArray[Any]:
        probes = [scan.probe for scan in self.dataset.scans if scan.probe is not None]
        shapes = {probe.shape for probe in probes}
        if len(shapes) > 1:
            msg = f"The scans' probes have different shapes, {shapes}: one batch can't hold both."
            raise ValueError(msg)
        return np.stack(probes)


def held_out_block(positions: NDArray[np.float64], validation: float) -> NDArray[np.bool_]:
    """Say which positions `GroupedDataset.split` holds out.

    As ``scan_ids`` of `ptycho_fast.group_positions` it keeps groups from reaching across the edge,
    where they would be lost to both sides.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
    validation : float
        Share of the positions.

    Returns
    -------
    ndarray, (n,), bool

    Raises
    ------
    ValueError
        If the share is not between 0 and 1.
    """
    along, edge = _held_out(positions, validation)
    return along >= edge


def _held_out(
    positions: NDArray[np.float64], validation: float
) -> tuple[NDArray[np.float64], float]:
    """Return the positions along the longer side, and from where on they are held out."""
    if not 0 < validation < 1:
        msg = f"validation must be a share between 0 and 1, got {validation!r}."
        raise ValueError(msg)
    along = positions[:, np.argmax(np.ptp(positions, axis=0))]
    return along, float(np.quantile(along, 1 - validation))
