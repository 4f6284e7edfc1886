"""Batches for PyTorch's ``DataLoader``: `GroupedDataset.to_torch` explains the arguments.

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

import functools
import inspect
from typing import TYPE_CHECKING, Any

from ptycho_fast.batches.ahead import AHEAD, Batches
from ptycho_fast.batches.options import BatchOptions
from ptycho_fast.checks import as_count
from ptycho_fast.feeds.torch_resident import (  # an ImportError says what to install
    ResidentGatherer,
    ResidentScans,
)

# isort: split
import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from ptycho_fast.feeds.torch_epochs import SharedEpochs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor
    from typing_extensions import Unpack

    from ptycho_fast.batches.maker import Maker
    from ptycho_fast.batches.options import BatchArguments
    from ptycho_fast.batches.source import BatchSource

    Batch = dict[str, Tensor]


class TorchFeed(IterableDataset[Any]):
    """The batches of a data set as tensors, epoch after epoch.

    `GroupedDataset.to_torch` makes it and explains its arguments. Each iteration is the next
    epoch. With W workers of a ``DataLoader``, worker w makes batches w, w + W, ..., which the
    loader puts back in order. Only one iteration at a time is possible.

    The workers agree on the epoch by the seed that a loader draws for them from PyTorch's random
    generator. So setting that generator to the same seed before each epoch repeats the same epoch,
    as it does with the loader's own shuffling.
    """

    def __init__(
        self,
        source: BatchSource,
        batch_size: int,
        *,
        layout: str = "channels_first",
        redraw: bool = False,
        pin_memory: bool | None = None,
        resident: bool = False,
        device: Any = None,
        **options: Unpack[BatchArguments],
    ) -> None:
        if device is not None and not resident:
            msg = (
                f"device={device!r} says where resident=True keeps the patterns, but resident is "
                "False. Pass both, or neither."
            )
            raise ValueError(msg)
        if pin_memory and not torch.cuda.is_available():
            msg = "pin_memory=True needs a CUDA device, and there is none. Leave it out."
            raise ValueError(msg)
        self.source, self.redraw = source, bool(redraw)
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else bool(pin_memory)
        self._epochs = SharedEpochs()
        self._drawn: tuple[int, BatchSource] | None = None
        self.set_epoch(options.get("epoch", 0))
        self._options = BatchOptions(batch_size, layout=layout, **options)
        self._resident: ResidentScans | None = None
        if resident:
            default = "cuda" if torch.cuda.is_available() else "cpu"
            with_good = "good" in self._options.fields
            place = torch.device(device or default)
            self._resident = ResidentScans(source, place, with_good=with_good)
        len(self)  # refuses now what does not fit the data set
        if source.normalize:
            self._at(self.epoch).scales  # noqa: B018  # computed once, before workers are forked

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, for this rank."""
        return len(self._at(self.epoch).schedule(self._options))

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self._epochs.following()[0]

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Set the epoch of the next iteration, and the batch it begins with.

        Parameters
        ----------
        epoch : int
            The next epoch; later iterations go on from there.
        start_batch : int
            Begin with this batch of that epoch, as if those before it had been taken already.

        Raises
        ------
        ValueError
            If one of them is negative.
        RuntimeError
            In a worker of a ``DataLoader``.
        """
        epoch = as_count("epoch", epoch, least=0, most=2**31 - 2)
        start_batch = as_count("start_batch", start_batch, least=0)
        if get_worker_info() is not None:
            msg = "Set the epoch in the process that has the DataLoader, not in its workers."
            raise RuntimeError(msg)
        self._epochs.set(epoch, start_batch)
        self._position: tuple[int, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return how far the iteration has come, for `load_state_dict`.

        If workers iterate, this process does not know how far they are, and the state is the epoch
        after theirs. Then count the batches that come out of the loader, and use `set_epoch`.
        """
        epoch, start_batch = self._position or self._epochs.following()
        return {"epoch": epoch, "start_batch": start_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was called."""
        self.set_epoch(state["epoch"], state["start_batch"])

    def __iter__(self) -> Iterator[Batch]:
        frame = inspect.currentframe()
        if frame is not None and frame.f_back is not None:
            _check_loader(frame.f_back.f_locals)
        worker = get_worker_info()
        if worker is not None and self._resident is not None:
            msg = (
                "resident=True makes batches in the process that holds the patterns. Use "
                "num_workers=0."
            )
            raise RuntimeError(msg)
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        # Now, not at the first batch: every worker counts every epoch, even if it makes no batch.
        epoch, start = self._epochs.begin(worker)
        source, options = self._at(epoch), self._options.at_epoch(epoch)
        if worker is None and self._resident is None:
            makers, ahead = source.makers(options), AHEAD
        else:
            # Workers are ahead anyway, and a GPU is given its work by the thread that waits for it.
            gatherer = None
            if self._resident is not None:
                gatherer = ResidentGatherer(source, options, self._resident)
            makers = [source.maker(options, gatherer=gatherer, processes=step, step=step)]
            ahead = 0
        self._position = epoch, start
        return self._iterate(makers, makers[0].numbers(start)[number::step], epoch, ahead)

    def _iterate(
        self, makers: list[Maker], numbers: range, epoch: int, ahead: int
    ) -> Iterator[Batch]:
        pin = self.pin_memory and ahead > 0  # a loader with workers pins memory on its own

        def make(maker: Maker, number: int) -> Batch:
            batch = {key: torch.as_tensor(value) for key, value in maker(number).items()}
            if self._resident is not None:
                return {key: value.to(self._resident.device) for key, value in batch.items()}
            return {key: value.pin_memory() for key, value in batch.items()} if pin else batch

        count = numbers.start
        makes = [functools.partial(make, maker) for maker in makers]
        with Batches(makes, numbers, ahead=ahead) as batches:
            for batch in batches:
                count += numbers.step
                self._position = epoch, count
                yield batch
                del batch  # else its buffers would count as in use while the next one is made
        self._position = None

    def _at(self, epoch: int) -> BatchSource:
        """Return the data set with the groups of an epoch."""
        if not self.redraw:
            return self.source
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self.source.at_epoch(epoch)
        return self._drawn[1]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_drawn": None, "_position": None}
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # A spawned worker is in no process group, so it is told its rank.
            state["_options"] = self._options.of_this_process()
        return state


def _check_loader(asking: Mapping[str, Any]) -> None:
    """Refuse a DataLoader that would make batches of batches; PyTorch does so without a word.

    Parameters
    ----------
    asking : mapping
        The local variables of the function that iterates.
    """
    if asking.get("auto_collation") and asking.get("collate_fn") is default_collate:
        msg = (
            "This DataLoader would stack whole batches of groups into batches of its own. Make it "
            "with DataLoader(feed, batch_size=None), and choose the number of groups in a batch "
            "with to_torch(batch_size=...)."
        )
        raise ValueError(msg)
