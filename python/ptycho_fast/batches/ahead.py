"""The iterator over batches, and the threads that make them before they are asked for."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AHEAD = 4
"""Batches that are made before they are asked for."""

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """An iterator over batches, with a length.

    Threads make up to `ahead` batches before they are asked for. They end when the last is made,
    when the iterator is closed (``with`` does), and when nobody refers to the iterator any more.

    Parameters
    ----------
    makes : sequence of callable
        Each makes a batch from its number. The k-th of m of them makes every m-th batch from the
        k-th on, in a thread of its own.
    numbers : range
        The batches to make.
    ahead : int
        How many may be ready and waiting, a multiple of m; 0 starts no thread and makes each when
        it is asked for.

    Raises
    ------
    RuntimeError
        On iteration, if the process was forked since: the threads exist only in the parent.

    Examples
    --------
    >>> from ptycho_fast.batches.ahead import Batches
    >>> list(Batches([lambda number: number**2] * 2, range(4), ahead=2))
    [0, 1, 4, 9]
    """

    def __init__(
        self, makes: Sequence[Callable[[int], Batch]], numbers: range, *, ahead: int
    ) -> None:
        self._makes, self._left = makes, numbers
        self._process = os.getpid()
        self.close: Callable[[], object] = lambda: None
        self._lines: list[_Line] = []
        """Where the next batches come from, in turn."""
        if ahead and numbers:
            count = len(makes)
            self._lines = [
                _Line(make, numbers[k::count], ahead // count) for k, make in enumerate(makes)
            ]
            # The threads have no reference to this iterator, so that it can be forgotten.
            self.close = weakref.finalize(self, _end, tuple(self._lines))

    def __len__(self) -> int:
        """Return the number of batches still to come."""
        return len(self._left)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._left:
            raise StopIteration
        if not self._lines:
            made: Any = self._makes[0](self._left[0])
        else:
            if os.getpid() != self._process:
                msg = (
                    "These batches are made by threads of the parent process. Call batches() "
                    "again in this one."
                )
                raise RuntimeError(msg)
            made = self._lines[0].take()
            self._lines.append(self._lines.pop(0))
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


class _Line:
    """Some of the batches in order, and the thread that makes them."""

    def __init__(self, make: Callable[[int], Any], numbers: range, ahead: int) -> None:
        self._make, self._numbers = make, numbers
        self._made: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # One ticket for each batch that may lie ready; whoever takes a batch gives one back.
        self._tickets: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(ahead):
            self._tickets.put(None)
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ptycho_fast-batches", daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """Return the next batch, or the exception that was raised instead."""
        made = self._made.get()
        self._tickets.put(None)
        return made

    def _run(self) -> None:
        """Make the batches one after another, whenever there is a ticket."""
        for number in self._numbers:
            self._tickets.get()
            if self._ended:
                return
            try:
                self._made.put(self._make(number))
            except BaseException as error:  # raised where the batch is asked for
                self._made.put(error)
                return

    def stop(self) -> None:
        """Let the thread make no other batch."""
        self._ended = True
        self._tickets.put(None)

    def clear(self) -> None:
        """Wait for the thread, and free the batches that it has made."""
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(timeout=5)
        while not self._made.empty():
            self._made.get()


def _end(lines: tuple[_Line, ...]) -> None:
    for line in lines:
        line.stop()
    for line in lines:
        line.clear()
