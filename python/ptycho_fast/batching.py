"""The machinery of batches: which rows, which buffers, which thread. It knows nothing of scans."""

from __future__ import annotations

import logging
import math
import os
import queue
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Batch = dict[str, NDArray[Any]]

logger = logging.getLogger("ptycho_fast")


def rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return what was given, else what ``torch.distributed`` says, else 0 of 1."""
    if (rank is None) != (world_size is None):
        msg = f"Give rank and world_size both or neither, got {rank!r} and {world_size!r}."
        raise ValueError(msg)
    if rank is None or world_size is None:
        distributed = getattr(sys.modules.get("torch"), "distributed", None)
        if distributed is None or not distributed.is_available():
            return 0, 1
        if not distributed.is_initialized():
            return 0, 1
        rank, world_size = distributed.get_rank(), distributed.get_world_size()
    world_size = as_count("world_size", world_size)
    return as_count("rank", rank, least=0, most=world_size - 1), world_size


class Schedule:
    """The rows of each batch of one rank."""

    def __init__(
        self,
        n: int,
        batch_size: int,
        rank: int,
        world_size: int,
        *,
        drop_last: bool | None,
        pad: bool,
        order: NDArray[np.int32] | None,
    ) -> None:
        drop_last = world_size > 1 and not pad if drop_last is None else bool(drop_last)
        if pad and drop_last:
            msg = "pad=True fills the last batch, drop_last=True drops it: choose one."
            raise ValueError(msg)
        if world_size > 1 and not pad and not drop_last:
            msg = (
                f"drop_last=False would give {world_size} ranks different numbers of batches, "
                "which hangs distributed training. Use pad=True to keep every group."
            )
            raise ValueError(msg)
        self.n, self.batch_size, self.order = n, batch_size, order
        self.stride, self.offset, self.pad = world_size * batch_size, rank * batch_size, pad
        self.count = n // self.stride if drop_last else -(-n // self.stride)
        if not self.count:
            msg = (
                f"{n} groups make no whole batch of {world_size} x {batch_size}. Use a smaller "
                "batch_size, drop_last=False or pad=True."
            )
            raise ValueError(msg)
        if drop_last and n % self.stride:
            logger.info(
                "batches: the last %d of %d groups make no whole batch of %d x %d and are "
                "dropped this epoch",
                n % self.stride,
                n,
                world_size,
                batch_size,
            )

    def __len__(self) -> int:
        return self.count

    def rows(self, batch: int) -> NDArray[np.integer[Any]]:
        """Return the groups of a batch."""
        first = batch * self.stride + self.offset
        places = np.arange(first, first + self.batch_size)
        places = places % self.n if self.pad else places[places < self.n]
        return places if self.order is None else self.order[places]


class Buffers:
    """Arrays that are given out again once nobody else refers to them."""

    MOST = 8

    def __init__(self) -> None:
        self._kept: dict[Any, list[NDArray[Any]]] = {}
        # How many references an array has that is in a list alone, while it is asked.
        alone = [np.empty(0)]
        self._idle = sys.getrefcount(alone[0])

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array to fill, new or no longer in use.

        It begins on 64 bytes, so that TensorFlow takes it as it is.
        """
        kept = self._kept.setdefault((name, shape, np.dtype(dtype)), [])
        size = math.prod(shape) * np.dtype(dtype).itemsize
        for i in range(len(kept)):
            # What is given out refers to it, and so does anything made from that.
            if sys.getrefcount(kept[i]) == self._idle:
                memory = kept[i]
                break
        else:
            memory = np.empty(size + 64, np.uint8)
            if len(kept) < self.MOST:
                kept.append(memory)
        start = -memory.ctypes.data % 64
        aligned: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
        return aligned


class Batches:
    """An iterator over batches, with a length; closing it, or forgetting it, ends its thread."""

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, *, ahead: int) -> None:
        self._make, self._next, self._stop = make, start, stop
        self._made: queue.SimpleQueue[Any] | None = None
        # One for each batch that may lie ready; taking a batch gives one back.
        self._tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._process = os.getpid()
        self.close: Callable[[], object] = lambda: None
        if ahead and start < stop:
            self._made = queue.SimpleQueue()
            for _ in range(ahead):
                self._tickets.put(None)
            ended = threading.Event()
            queues = (self._made, self._tickets, ended)
            thread = threading.Thread(
                target=_make_ahead,
                args=(make, range(start, stop), *queues),
                name="ptycho_fast-batches",
                daemon=True,
            )
            # The thread knows nothing of this iterator, so that forgetting it ends the thread.
            self.close = weakref.finalize(self, _end, thread, *queues)
            thread.start()

    def __len__(self) -> int:
        """Return the number of batches still to come."""
        return self._stop - self._next

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._next >= self._stop:
            raise StopIteration
        if self._made is None:
            made: Any = self._make(self._next)
        else:
            if os.getpid() != self._process:
                msg = "These batches belong to the parent process: iterate anew in the child."
                raise RuntimeError(msg)
            made = self._made.get()
            self._tickets.put(None)
            if isinstance(made, BaseException):
                self._next = self._stop
                self.close()
                raise made
        self._next += 1
        batch: Batch = made
        return batch

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._next = self._stop
        self.close()


def _make_ahead(
    make: Callable[[int], Batch],
    batches: range,
    made: queue.SimpleQueue[Any],
    tickets: queue.SimpleQueue[None],
    ended: threading.Event,
) -> None:
    for number in batches:
        tickets.get()
        if ended.is_set():
            return
        try:
            made.put(make(number))
        except BaseException as error:  # it arrives where the batch is asked for
            made.put(error)
            return


def _end(
    thread: threading.Thread,
    made: queue.SimpleQueue[Any],
    tickets: queue.SimpleQueue[None],
    ended: threading.Event,
) -> None:
    ended.set()
    tickets.put(None)
    if thread is not threading.current_thread() and thread.is_alive():
        thread.join(timeout=5)
    while not made.empty():  # what was made ahead is memory
        made.get()
