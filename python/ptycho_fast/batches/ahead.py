"""The iterator over batches, and the thread that makes them before they are asked for."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AHEAD = 3
"""Batches that are made before they are asked for."""

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """An iterator over batches, with a length.

    A thread makes up to `ahead` batches before they are asked for. It ends when the last is made,
    when the iterator is closed (``with`` does), and when nobody refers to the iterator any more.

    Parameters
    ----------
    make : callable
        Makes a batch from its number.
    numbers : range
        The batches to make.
    ahead : int
        How many may be ready and waiting; 0 starts no thread and makes each when it is asked for.

    Raises
    ------
    RuntimeError
        On iteration, if the process was forked since: the thread exists only in the parent.

    Examples
    --------
    >>> from ptycho_fast.batches.ahead import Batches
    >>> list(Batches(lambda number: number**2, range(4), ahead=2))
    [0, 1, 4, 9]
    """

    def __init__(self, make: Callable[[int], Batch], numbers: range, *, ahead: int) -> None:
        self._make, self._left = make, numbers
        self._made: queue.SimpleQueue[Any] | None = None
        # One ticket for each batch that may lie ready; whoever takes a batch gives one back.
        self._tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._process = os.getpid()
        self.close: Callable[[], object] = lambda: None
        if ahead and numbers:
            self._made = queue.SimpleQueue()
            for _ in range(ahead):
                self._tickets.put(None)
            ended = threading.Event()
            queues = (self._made, self._tickets, ended)
            # The thread has no reference to this iterator, so that the iterator can be forgotten.
            thread = threading.Thread(
                target=_make_ahead,
                args=(make, numbers, *queues),
                name="ptycho_fast-batches",
                daemon=True,
            )
            self.close = weakref.finalize(self, _end, thread, *queues)
            thread.start()

    def __len__(self) -> int:
        """Return the number of batches still to come."""
        return len(self._left)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._left:
            raise StopIteration
        if self._made is None:
            made: Any = self._make(self._left[0])
        else:
            if os.getpid() != self._process:
                msg = (
                    "These batches are made by a thread of the parent process. Call batches() "
                    "again in this one."
                )
                raise RuntimeError(msg)
            made = self._made.get()
            self._tickets.put(None)
            if isinstance(made, BaseException):
                self._left = range(0)
                self.close()
                raise made
        self._left = self._left[1:]
        batch: Batch = made
        return batch

    def __enter__(self) -> Batches[Batch]:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = range(0)
        self.close()


def _make_ahead(
    make: Callable[[int], Any],
    numbers: range,
    made: queue.SimpleQueue[Any],
    tickets: queue.SimpleQueue[None],
    ended: threading.Event,
) -> None:
    """Make the batches one after another, whenever there is a ticket."""
    for number in numbers:
        tickets.get()
        if ended.is_set():
            return
        try:
            made.put(make(number))
        except BaseException as error:  # raised where the batch is asked for
            made.put(error)
            return


def _end(
    thread: threading.Thread,
    made: queue.SimpleQueue[Any],
    tickets: queue.SimpleQueue[None],
    ended: threading.Event,
) -> None:
    """Stop the thread, and free the batches that it has made."""
    ended.set()
    tickets.put(None)
    if thread is not threading.current_thread() and thread.is_alive():
        thread.join(timeout=5)
    while not made.empty():
        made.get()
