"""Scans of a series on several processes, of this machine or of others, through dask.distributed.

Each worker has one scan at a time. The scheduler notices a worker that dies, and gives its scan to
another one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import uuid
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptycho_fast import _core
from ptycho_fast.notices import sentence_of, warn
from ptycho_fast.series.table import TABLE
from ptycho_fast.series.work import image_scan

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ptycho_fast.series.entry import SeriesEntry
    from ptycho_fast.series.work import Job

CONNECT = 5.0
"""Seconds within which a scheduler must answer."""

ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?([^/:\[\]]+|\[.+\]):\d+")

POLL = 1.0
"""Seconds after which it is looked whether there are more workers, or fewer."""

STOPPED = "It was not finished: the series was stopped."

_one_at_a_time = threading.Lock()


def distributed() -> Any:
    """Return the module dask.distributed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import distributed  # noqa: PLC0415
    except ImportError as error:
        msg = (
            f"Several processes need dask.distributed ({error}). Install it with: "
            'pip install "ptycho_fast[cluster]"'
        )
        raise ImportError(msg) from None
    return distributed


def start_workers(workers: int, stack: contextlib.ExitStack) -> Any:
    """Start processes on this machine, which share its processors, and return their scheduler.

    Parameters
    ----------
    workers : int
    stack : ExitStack
        They end with it.

    Returns
    -------
    distributed.LocalCluster

    Raises
    ------
    OSError
        If they can't be started.
    """
    module = distributed()
    import dask  # noqa: PLC0415

    try:
        # A worker would otherwise take a sample of what it does, a hundred times a second.
        with dask.config.set({"distributed.worker.profile.enabled": False}):
            cluster = module.LocalCluster(
                n_workers=workers,
                threads_per_worker=max(1, _core.count_threads(None) // workers),
                processes=True,
                memory_limit=None,  # a limit would kill a worker that needs more than its share
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        msg = (
            f"Not all of {workers} processes could be started ({error}). Ask for fewer, and in a "
            'script put what starts them under if __name__ == "__main__":.'
        )
        raise OSError(msg) from error
    return stack.enter_context(cluster)


def connect(scheduler: Any, stack: contextlib.ExitStack) -> Any:
    """Return a client of a scheduler.

    Parameters
    ----------
    scheduler : str or distributed.LocalCluster
        Its address, or what `start_workers` returned.
    stack : ExitStack
        The connection ends with it.

    Returns
    -------
    distributed.Client

    Raises
    ------
    OSError
        If the scheduler does not answer.
    ValueError
        If this is no address.
    """
    if isinstance(scheduler, str) and not ADDRESS.fullmatch(scheduler):
        msg = f"scheduler must be an address such as tcp://host:8786, got {scheduler!r}."
        raise ValueError(msg)
    try:
        return stack.enter_context(
            distributed().Client(scheduler, timeout=CONNECT, set_as_default=False)
        )
    except OSError as error:
        logging.getLogger("ptycho_fast").info("%s", error)
        msg = (
            f"No scheduler answered at {scheduler} within {CONNECT:g} s. Start one with 'dask "
            "scheduler', which prints its address, and workers with 'dask worker ADDRESS'; or use "
            "processes of this machine (workers=2)."
        )
        raise OSError(msg) from None


def spread(client: Any, jobs: Sequence[Job]) -> Generator[SeriesEntry]:
    """Reconstruct scans on the workers of a scheduler, and return each as soon as it has ended.

    Parameters
    ----------
    client : distributed.Client
    jobs : sequence of Job

    Raises
    ------
    OSError
        If the scheduler no longer answers.
    """
    yield from _Spread(client, jobs).run()


class _Spread:
    """Scans on their way to the workers of a scheduler."""

    def __init__(self, client: Any, jobs: Sequence[Job]) -> None:
        self._client = client
        self._left = deque(jobs)
        self._running: dict[Any, tuple[Job, str]] = {}
        self._address = client.scheduler.address
        self._told_of_none = False

    def run(self) -> Generator[SeriesEntry]:
        """Return each scan as soon as it has ended."""
        try:
            while self._left or self._running:
                self._submit()
                for future in self._wait():
                    job, _ = self._running.pop(future)
                    yield _entry_of(future, job)
        finally:
            # Workers that are at it notice, and drop what they have.
            with contextlib.suppress(Exception):
                self._client.cancel(list(self._running))

    def _submit(self) -> None:
        """Give a scan to each worker that has none."""
        try:
            live = list(self._client.nthreads())
        except (OSError, TimeoutError) as error:
            msg = (
                f"The scheduler at {self._address} no longer answers ({error}). Scans that are "
                "done are kept: run the same again to go on."
            )
            raise OSError(msg) from None
        if not live and not self._told_of_none:
            warn(
                f"The scheduler at {self._address} has no workers: waiting for some. Start them "
                "with 'dask worker ADDRESS'."
            )
        self._told_of_none = not live
        for future, (job, worker) in self._running.items():
            if worker and worker not in live:
                warn(f"A worker died at {job.entry.folder}, which another one does again.")
                self._running[future] = job, ""
        busy = {worker for _, worker in self._running.values()}
        for worker in live:
            if self._left and worker not in busy:
                job = self._left.popleft()
                future = self._client.submit(
                    _on_worker,
                    job,
                    len(live),
                    pure=False,
                    key=f"{job.entry.folder}-{uuid.uuid4().hex}",
                    workers=[worker],
                    allow_other_workers=True,
                )
                self._running[future] = job, worker

    def _wait(self) -> list[Any]:
        """Return the futures that have ended; after a while, also if there are none."""
        if not self._running:
            threading.Event().wait(POLL)
            return []
        with contextlib.suppress(TimeoutError), self._client.as_current():
            distributed().wait(list(self._running), timeout=POLL, return_when="FIRST_COMPLETED")
        return [future for future in self._running if future.done()]


def _entry_of(future: Any, job: Job) -> SeriesEntry:
    try:
        entry: SeriesEntry = future.result()
    except distributed().KilledWorker as error:
        return job.entry.failed(
            f"Workers died while they worked on it, {1 + error.allowed_failures} in all. There may "
            "be too little memory: try it alone."
        )
    except CancelledError:
        return job.entry.failed("The scheduler dropped it. Run the same again.")
    except Exception as error:  # any: of the worker's Python, for example
        return job.entry.failed(f"The worker could not begin: {sentence_of(error)}")
    return entry


def _on_worker(job: Job, sharing: int) -> SeriesEntry:
    """Reconstruct a scan; this runs on a worker."""
    worker = distributed().get_worker()
    key = worker.get_current_task()
    # A scheduler may give two scans to a worker, and warnings belong to the whole process.
    with _one_at_a_time:
        if not (job.series / TABLE).exists():
            return job.entry.failed(
                f"The worker at {worker.address} sees no {job.series / TABLE}. Workers must see "
                "the same folders, under the same names."
            )
        if job.num_threads is None:
            job = replace(job, num_threads=worker.state.nthreads)

        def stopped() -> bool:
            task = worker.state.tasks.get(key)
            return task is None or task.state == "cancelled"

        try:
            return image_scan(job, sharing=sharing, stopped=stopped)
        except KeyboardInterrupt:
            return job.entry.failed(STOPPED)
