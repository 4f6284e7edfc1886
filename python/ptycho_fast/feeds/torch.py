"""Batches for PyTorch's ``DataLoader``.

`GroupedDataset.to_torch` says what there is to ask for.

Examples
--------
>>> import ptycho_fast as pf
>>> from torch.utils.data import DataLoader
>>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
>>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 50, seed=1))
>>> feed = data.to_torch(batch_size=20, shuffle=True, drop_last=True)
>>> for batch in DataLoader(feed, batch_size=None):
...     print(batch["diffraction"].shape)
torch.Size([20, 4, 16, 16])
torch.Size([20, 4, 16, 16])
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batching import Batches, rank_and_world
from ptycho_fast.checks import as_count
from ptycho_fast.dataset import AHEAD, Maker
from ptycho_fast.frames import BLOCK_BYTES
from ptycho_fast.patches.torch import extract_patches  # says what to install

# isort: split
import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.dataset import GroupedDataset

    Batch = dict[str, Tensor]

logger = logging.getLogger("ptycho_fast")

SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}

MOST_WORKERS = 1024
"""Of a DataLoader: each has a place in memory that all share."""


class TorchFeed(IterableDataset[Any]):
    """The batches of a data set as tensors, epoch after epoch; `GroupedDataset.to_torch` makes it.

    Each iteration is the next epoch. With the workers of a ``DataLoader``, worker w of W makes
    batches w, w + W, ..., which the loader brings back into their order. The workers agree on the
    epoch by the seed that a loader draws for them from PyTorch's generator: whoever sets that to
    the same number before each epoch repeats the epoch, as with the loader's own shuffling. One
    feed serves one iteration at a time.
    """

    def __init__(
        self,
        dataset: GroupedDataset,
        batch_size: int,
        *,
        epoch: int,
        redraw: bool,
        pin_memory: bool | None,
        resident: bool,
        device: Any,
        fields: Sequence[str],
        layout: str,
        rank: int | None,
        world_size: int | None,
        **order: Any,
    ) -> None:
        if device is not None and not resident:
            msg = f"device={device!r} is where resident=True keeps the patterns. Pass both."
            raise ValueError(msg)
        if pin_memory and not torch.cuda.is_available():
            msg = "pin_memory=True needs a CUDA device, and there is none."
            raise ValueError(msg)
        self.dataset, self.redraw = dataset, bool(redraw)
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else bool(pin_memory)
        self._options = {
            "batch_size": batch_size,
            "fields": tuple(fields),
            "layout": layout,
            "rank": rank,
            "world_size": world_size,
            **order,
        }
        self._resident: _Resident | None = None
        if resident:
            default = "cuda" if torch.cuda.is_available() else "cpu"
            self._resident = _Resident(
                dataset, torch.device(device or default), with_good="good" in fields
            )
        self._epochs = _Epochs()
        self._drawn: tuple[int, GroupedDataset] | None = None
        self.set_epoch(epoch)
        # What is wrong is refused here, and what the workers share is computed.
        len(self)
        if dataset.normalize:
            self._at(self.epoch).scales  # noqa: B018

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, for this rank."""
        options = {**self._options, "shuffle": False}
        # With `out` no thread begins to make any.
        return len(self._at(self.epoch).batches(**options, out={}))

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self._epochs.following()[0]

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Say which epoch the next iteration is, and with which of its batches it begins.

        Parameters
        ----------
        epoch : int
            Which epoch; those after it follow from there.
        start_batch : int
            Go on in it as if the batches before had been taken.

        Raises
        ------
        ValueError
            If one of them is negative.
        """
        epoch = as_count("epoch", epoch, least=0, most=2**31 - 2)
        start_batch = as_count("start_batch", start_batch, least=0)
        if get_worker_info() is not None:
            msg = "The epoch is set in the process that has the DataLoader, not in its workers."
            raise RuntimeError(msg)
        self._epochs.set(epoch, start_batch)
        self._position: tuple[int, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return how far the iteration has come: what `set_epoch` takes.

        Where workers iterate, this process does not know how far: it is the epoch after theirs.
        Then count the batches that came out of the loader, and use `set_epoch`.
        """
        epoch, start_batch = self._position or self._epochs.following()
        return {"epoch": epoch, "start_batch": start_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.set_epoch(state["epoch"], state["start_batch"])

    def __iter__(self) -> Iterator[Batch]:
        _check_loader(sys._getframe(1).f_locals)
        worker = get_worker_info()
        if worker is not None and self._resident is not None:
            msg = "resident=True makes its batches where the patterns are. Use num_workers=0."
            raise RuntimeError(msg)
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # At once, not at the first batch: every worker counts every epoch, whatever it makes of it.
        epoch, start = self._epochs.begin(worker)
        # With `out` no thread of its own begins to make any.
        made = self._at(epoch).batches(**self._options, epoch=epoch, start_batch=start, out={})
        maker: Any = made._make
        if self._resident is not None:
            maker = ResidentMaker(maker, self._resident)
        maker.threads = max(1, maker.threads // step)
        numbers = range(start + number, len(maker.schedule), step)
        self._position = epoch, start
        # A worker is itself ahead, and a GPU is told what to do by the thread that waits for it.
        ahead = AHEAD if worker is None and self._resident is None else 0
        return self._iterate(maker, numbers, epoch, ahead)

    def _iterate(self, maker: Maker, numbers: range, epoch: int, ahead: int) -> Iterator[Batch]:
        pin = self.pin_memory and ahead > 0  # a loader with workers pins on its own

        def make(i: int) -> Any:
            batch = {key: torch.as_tensor(value) for key, value in maker(numbers[i]).items()}
            if self._resident is not None:
                return {key: value.to(self._resident.device) for key, value in batch.items()}
            return {key: value.pin_memory() for key, value in batch.items()} if pin else batch

        count = numbers.start
        with Batches(make, 0, len(numbers), ahead=ahead) as batches:
            for batch in batches:
                count += numbers.step
                self._position = epoch, count
                yield batch  # type: ignore[misc]
                del batch  # or its buffers would count as in use while the next is made
        self._position = None

    def _at(self, epoch: int) -> GroupedDataset:
        if not self.redraw:
            return self.dataset
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.dataset.at_epoch(epoch)
        return self._drawn[1]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_drawn": None, "_position": None}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # A spawned worker belongs to no process group: it is told.
            rank = rank_and_world(self._options["rank"], self._options["world_size"])
            state["_options"] = {**self._options, "rank": rank[0], "world_size": rank[1]}
        return state


def _check_loader(asking: Mapping[str, Any]) -> None:
    """Refuse a DataLoader that would make batches of batches; nothing else says what it does.

    Parameters
    ----------
    asking : mapping
        The variables of whoever iterates.
    """
    if asking.get("auto_collation") and asking.get("collate_fn") is default_collate:
        msg = (
            "The DataLoader would stack whole batches of groups into batches of its own. Make it "
            "with batch_size=None: DataLoader(feed, batch_size=None). How many groups are in a "
            "batch is said to to_torch."
        )
        raise ValueError(msg)


class _Epochs:
    """Which epoch an iteration is, agreed upon by processes that can't talk to each other.

    A DataLoader tells its workers nothing of epochs, and the feed that it was made with nothing of
    its workers. But all of them know which iteration this is: by the seed that the loader drew for
    its workers, how often `set` had been called when they were made, and how often each of them
    has begun. That is a mark. Who finds none in the memory that all share is the first to begin,
    takes the epoch that follows and writes both there, in a place of its own; the others read it,
    even one so late that the next iteration has begun. A loader lets none be later than that.
    There is no lock: a worker that is killed would keep it.
    """

    def __init__(self) -> None:
        # For each worker the mark and epoch of its latest two iterations, and what follows them;
        # last, epoch and batch that were set.
        self._shared = torch.zeros((4, MOST_WORKERS), dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call, unused-ignore]
        self._set = self._begun = 0  # in this process, or before it was made

    def set(self, epoch: int, start_batch: int) -> None:
        """Say what the next iteration is, to this process and to all workers."""
        _, _, following, asked = self._shared.numpy()
        self._set += 1
        asked[:2] = epoch, start_batch
        following[:] = epoch

    def following(self) -> tuple[int, int]:
        """Return epoch and first batch of the next iteration."""
        epoch = int(self._shared[2].max())
        return epoch, self._start(epoch)

    def _start(self, epoch: int) -> int:
        asked = self._shared[3]
        return int(asked[1]) if epoch == asked[0] else 0

    def begin(self, worker: Any) -> tuple[int, int]:
        """Return epoch and first batch of an iteration of this process, which begins."""
        epoch, start = self.following()
        if worker is None:
            self.set(epoch + 1, 0)
            return epoch, start
        if worker.num_workers > MOST_WORKERS:
            msg = f"num_workers={worker.num_workers} is more than {MOST_WORKERS}."
            raise ValueError(msg)
        words = self._shared.numpy()
        mark = hash((worker.seed - worker.id, self._set, self._begun)) % 2**31
        written = words[:2][words[:2] >> 32 == mark]
        if len(written):
            epoch = int(written[0] % 2**32)
        else:
            # Where two are first at once they write the same: what follows was read before the
            # marks, and is written after them.
            words[self._begun % 2, worker.id] = mark << 32 | epoch
            words[2, worker.id] = epoch + 1
        self._begun += 1
        return epoch, self._start(epoch)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Nothing happens if it is.
        self._shared.share_memory_()  # type: ignore[no-untyped-call, unused-ignore]


# --- patterns that stay on a device ---------------------------------------------------------------


class _Resident:
    """The patterns and objects of a data set on a device, brought there at first use."""

    def __init__(self, dataset: GroupedDataset, device: torch.device, *, with_good: bool) -> None:
        self.device, self.scans, self.with_good = device, dataset.scans, with_good
        self.first_row = np.cumsum([0, *(len(scan) for scan in self.scans)])
        self._patterns: Tensor | None = None
        self._good: Tensor | None = None
        self._objects: dict[int, Tensor] = {}

    def patterns(self, rows: NDArray[np.integer[Any]]) -> Tensor:
        """Return patterns of all scans, counted through: (rows, N, N)."""
        held = self._bring()
        # What PyTorch can do with these is little, and to copy them takes no arithmetic.
        words = held.view(SIGNED[held.dtype]) if held.dtype in SIGNED else held
        taken = words.index_select(0, torch.from_numpy(rows).to(self.device))
        return taken.view(held.dtype)

    def good(self, rows: NDArray[np.integer[Any]]) -> Tensor:
        """Return which of their pixels were measured: (rows, N, N), bool."""
        self._bring()
        assert self._good is not None  # it was asked for when this was made
        return self._good.index_select(0, torch.from_numpy(rows).to(self.device))

    def object(self, part: int) -> Tensor:
        """Return the object of a scan."""
        if part not in self._objects:
            image = np.array(self.scans[part].object, np.complex64)
            self._objects[part] = torch.from_numpy(image).to(self.device)
        return self._objects[part]

    def _bring(self) -> Tensor:
        """Bring the patterns, once, and what is good of them if that is wanted."""
        if self._patterns is not None:
            return self._patterns
        N, dtype = self.scans[0].N, self.scans[0].diffraction.dtype.newbyteorder("=")
        shape = (int(self.first_row[-1]), N, N)
        logger.info(
            "to_torch: bringing %d patterns (%.0f MB) to %s",
            shape[0],
            np.prod(shape) * dtype.itemsize / 1e6,
            self.device,
        )
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        held = torch.empty(shape, dtype=kind, device=self.device)
        if self.with_good:
            self._good = torch.ones(shape, dtype=torch.bool, device=self.device)
        each = max(1, BLOCK_BYTES // max(1, N * N * dtype.itemsize))
        for scan, first in zip(self.scans, self.first_row, strict=False):
            for start in range(0, len(scan), each):
                rows = np.arange(start, min(start + each, len(scan)))
                block, good = scan.measured(rows)
                there = slice(first + start, first + start + len(rows))
                held[there] = torch.from_numpy(block.astype(dtype, copy=False))
                if self._good is not None and good is not None:
                    self._good[there] = torch.from_numpy(good).to(self.device)
        self._patterns = held
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_patterns": None, "_good": None, "_objects": {}}


class ResidentMaker(Maker):
    """Makes batches on the device where the patterns are."""

    def __init__(self, maker: Maker, resident: _Resident) -> None:
        layout = "channels_first" if maker.channels_first else "channels_last"
        super().__init__(maker.dataset, maker.schedule, maker.fields, layout, None)
        self.resident = resident

    def _patterns(self, indices: NDArray[np.int32], scan_id: NDArray[np.int32], shares: Any) -> Any:
        N, (B, C) = self.dataset.N, indices.shape
        rows = (indices + self.resident.first_row[scan_id][:, np.newaxis]).ravel()
        good = None
        if "good" in self.fields:
            good = self._layout(self.resident.good(rows).reshape(B, C, N, N))
        patterns = self.resident.patterns(rows).reshape(B, C, N, N)
        if self.dataset.normalize:
            scales = torch.from_numpy(self.dataset.scales[scan_id]).to(patterns.device)
            patterns = patterns.to(torch.float32) * scales[:, None, None, None]
        return self._layout(patterns), good

    def _patches(self, coords: NDArray[np.float64], shares: Any) -> Any:
        N, (B, _, _, C) = self.dataset.N, coords.shape
        # Each channel is a group of one, so that channels come first.
        each = coords[:, 0].transpose(0, 2, 1).reshape(B * C, 2, 1)
        patches = torch.empty((B * C, N, N), dtype=torch.complex64, device=self.resident.device)
        for part, own in shares:
            if len(shares) == 1:
                return self._layout(self._cut(part, each).reshape(B, C, N, N))
            mine = np.flatnonzero(np.repeat(own, C))
            patches[torch.from_numpy(mine).to(patches.device)] = self._cut(part, each[mine])
        return self._layout(patches.reshape(B, C, N, N))

    def _cut(self, part: int, positions: NDArray[np.float64]) -> Tensor:
        return extract_patches(self.resident.object(part), positions, self.dataset.N)[..., 0]

    def _layout(self, images: Tensor) -> Tensor:
        """Return ``(B, C, N, N)`` as it was asked for."""
        return images if self.channels_first else images.permute(0, 2, 3, 1).contiguous()
