"""Progress of a command: a bar while a step runs, then a line with its result and its time."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Step:
    """A step of a command while it runs.

    Parameters
    ----------
    advance : callable
        Called with the share of the work (0..1) that was done since the last call.
    """

    def __init__(self, advance: Callable[[float], object]) -> None:
        self.advance = advance
        self.result = ""

    def done(self, result: str) -> None:
        """Say what the step's line is to show as its result.

        Parameters
        ----------
        result : str
            At most 64 characters, for the times to stand below one another.
        """
        self.result = result


@contextlib.contextmanager
def step(name: str) -> Iterator[Step]:
    """Time a step, show its progress, and print a line with its result when it has ended.

    Parameters
    ----------
    name : str
        At most 11 characters.

    Yields
    ------
    Step
    """
    start = time.perf_counter()
    with bar(name) as advance:
        running = Step(advance)
        yield running
    print(f"{name:12}{running.result:64} {duration(time.perf_counter() - start):>9}")


@contextlib.contextmanager
def bar(name: str) -> Iterator[Callable[[float], object]]:
    """Show a progress bar for work that takes more than a second.

    There is a bar only where tqdm is installed and standard error is a terminal.

    Parameters
    ----------
    name : str
        What stands before the bar.

    Yields
    ------
    callable
        Takes the share of the work (0..1) that was done since it was last called.
    """
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda share: None
        return
    form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}"
    # disable=None: no bar where standard error is not a terminal.
    with tqdm(total=1, desc=name, bar_format=form, leave=False, delay=1, disable=None) as shown:
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(1):
                shown.refresh()

        # A single long call into the core or to the disk reports nothing until it returns; the
        # elapsed time at least goes on.
        clock = threading.Thread(target=tick, daemon=True)
        if not shown.disable:
            clock.start()
        try:
            yield shown.update
        finally:
            ended.set()
            if not shown.disable:
                clock.join()


def duration(seconds: float) -> str:
    """Return a time as text, in seconds or milliseconds.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    str
    """
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
