"""A series on several processes: workers are really started, and really killed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import ptycho_fast as pf
from ptycho_fast.series import SeriesEntry, cluster, reconstruct_series
from ptycho_fast.series.cluster import spread
from ptycho_fast.series.entry import RECORD
from ptycho_fast.series.work import Job
from series_tables import assert_same_image, statuses

distributed = pytest.importorskip("distributed")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals")

OPTIONS: dict[str, Any] = {"iterations": 3, "prior": "none"}

PATIENCE = 120
"""Seconds for what should happen at once."""


@contextlib.contextmanager
def started(count: int) -> Iterator[Any]:
    """Start workers of one thread, and yield a client of their scheduler."""
    with (
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a scheduler with two workers, for all tests: those that are killed come back."""
    with started(2) as client:
        yield client


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def kill_a_worker_at_work(client: Any, folder: Path, name: str) -> None:
    """Kill the worker of a scan when it has begun: the folder is there, and there is no image."""
    pids = client.run(os.getpid)
    until((folder / name).exists)

    def at_it() -> str | None:
        tasks = client.processing()
        return next(
            (each for each in tasks if any(key.startswith(name) for key in tasks[each])), None
        )

    os.kill(pids[until(at_it)], signal.SIGKILL)
    assert not (folder / name / RECORD).exists()


def test_a_worker_that_is_killed_loses_nothing(
    tmp_path: Path,
    write_scans: Callable[..., list[Path]],
    damaged: Path,
    client: Any,
) -> None:
    paths, out = write_scans(3, n=60, N=32), tmp_path / "OUT"
    killer = threading.Thread(target=kill_a_worker_at_work, args=(client, out, "scan_1"))
    killer.start()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        entries = reconstruct_series(
            [paths[0], damaged, *paths[1:]], out, scheduler=client.scheduler.address, **OPTIONS
        )
    killer.join()
    died = [str(each.message) for each in said if "died" in str(each.message)]
    assert died == ["A worker died at scan_1, which another one does again."]
    assert [entry.status for entry in entries] == ["done", "failed", "done", "done"]
    assert "cut short" in entries[1].error
    assert statuses(out) == {entry.folder: entry.status for entry in entries}
    for path in paths:
        alone = pf.reconstruct(pf.read_scan(path), **OPTIONS)
        assert_same_image(pf.Reconstruction.load(out / path.stem), alone)


def test_a_scan_that_kills_its_workers_fails_and_the_others_go_on(
    tmp_path: Path, write_scans: Callable[..., list[Path]]
) -> None:
    import dask  # noqa: PLC0415

    out, paths = tmp_path / "OUT", write_scans(2, n=60, N=32)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), started(1) as client:
        killer = threading.Thread(target=kill_a_worker_at_work, args=(client, out, "scan_0"))
        killer.start()
        with pytest.warns(UserWarning, match="A worker died at scan_0|has no workers"):
            entries = reconstruct_series(paths, out, scheduler=client.scheduler.address, **OPTIONS)
        killer.join()
    assert [entry.status for entry in entries] == ["failed", "done"]
    assert entries[0].error.startswith("Workers died while they worked on it, 1 in all.")


def test_what_is_stopped_is_dropped_by_the_workers(
    tmp_path: Path, write_scans: Callable[..., list[Path]], client: Any
) -> None:
    out = tmp_path / "OUT"
    [short] = write_scans(1)
    long = tmp_path / "long.npz"
    pf.write_scan(pf.simulate_scan(400, 32, seed=0), long)

    def interrupt(_: SeriesEntry) -> None:
        until((out / "long").exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reconstruct_series(
            [short, long], out, scheduler=client.scheduler.address, progress=interrupt
        )
    until(lambda: not any(client.run(executing).values()))
    assert os.listdir(out / "long") == []


def executing(dask_worker: Any) -> int:
    """How many tasks a worker has."""
    return len(dask_worker.state.tasks)


def test_workers_that_see_other_folders_are_found_out(
    tmp_path: Path, write_scans: Callable[..., list[Path]], client: Any
) -> None:
    [path] = write_scans(1)
    job = Job(SeriesEntry(str(path), "scan_0"), tmp_path / "elsewhere")
    [entry] = spread(client, [job])
    assert entry.status == "failed"
    assert "sees no" in entry.error
    assert str(tmp_path / "elsewhere" / "series.csv") in entry.error


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("tcp://127.0.0.1:9", OSError, "No scheduler answered at tcp://127.0.0.1:9 within 0.5 s"),
        ("foo://host:1", ValueError, "scheduler must be an address such as tcp://host:8786"),
        ("host", ValueError, "scheduler must be an address"),
    ],
)
def test_a_scheduler_that_does_not_answer_is_named_before_anything_is_written(
    tmp_path: Path,
    write_scans: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    with pytest.raises(error, match=words):
        reconstruct_series(write_scans(1), tmp_path / "OUT", scheduler=address)
    assert not (tmp_path / "OUT").exists()
