"""The thread that makes batches ahead, the memory they are made in, and processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from small_scans import in_file, make_data, make_scan

if TYPE_CHECKING:
    from pathlib import Path


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "ptycho_fast-batches" in thread.name]


def wait_until_gone() -> None:
    deadline = time.monotonic() + 10
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not our_threads()


def _epoch_in_child(data: pf.GroupedDataset, result: Any) -> None:
    result.put(sum(float(batch["diffraction"].sum()) for batch in data.batches(10)))


def test_the_number_of_threads_does_not_affect_batches() -> None:
    expected = [batch["diffraction"] for batch in make_data(num_threads=1).batches(10)]
    for threads in (2, 8):
        found = [batch["diffraction"] for batch in make_data(num_threads=threads).batches(10)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_processes_of_a_machine_share_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "6")
    assert make_data().num_threads == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert make_data().num_threads == 1
    assert make_data(num_threads=5).num_threads == 5


def test_batches_that_are_kept_are_not_overwritten() -> None:
    data = make_data()
    kept = list(data.batches(2, shuffle=True, fields=("Y",)))
    addresses = {batch["diffraction"].ctypes.data for batch in kept}
    assert len(addresses) == len(kept) == 24
    alone = [data.batches(2, shuffle=True, fields=("Y",), start_batch=i) for i in range(24)]
    for batch, iterator in zip(kept, alone, strict=True):
        with iterator:
            again = next(iterator)
        np.testing.assert_array_equal(batch["diffraction"], again["diffraction"])
        np.testing.assert_array_equal(batch["Y"], again["Y"])


def test_views_of_a_batch_keep_its_memory() -> None:
    data = make_data()
    slices, copies = [], []
    for batch in data.batches(2):
        slices.append(batch["diffraction"][0, :, :, 1])  # a view of a view
        copies.append(slices[-1].copy())
        del batch
    for view, copy in zip(slices, copies, strict=True):
        np.testing.assert_array_equal(view, copy)


def test_memory_of_forgotten_batches_is_reused() -> None:
    addresses = {batch["diffraction"].ctypes.data for batch in make_data().batches(2)}
    assert len(addresses) < 10  # of 24 batches


def test_arrays_are_aligned_to_64_bytes() -> None:
    for batch in make_data().batches(3, fields=("Y",)):
        assert batch["diffraction"].ctypes.data % 64 == batch["Y"].ctypes.data % 64 == 0


def test_an_abandoned_iterator_leaves_no_thread() -> None:
    data = make_data()
    iterator = data.batches(2)
    next(iterator)
    assert our_threads()
    del iterator
    gc.collect()
    wait_until_gone()
    for _ in data.batches(2):
        break
    gc.collect()
    wait_until_gone()
    with data.batches(2) as batches:
        next(batches)
    wait_until_gone()
    assert len(list(data.batches(2))) == 24
    wait_until_gone()


def test_an_exception_in_the_consumer_ends_the_thread() -> None:
    data = make_data()

    def consume() -> None:
        for _ in data.batches(2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    gc.collect()
    wait_until_gone()


def test_a_truncated_file_is_an_error_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 47, seed=3)

    def opened() -> pf.GroupedDataset:
        return pf.GroupedDataset(in_file(tmp_path / "stack.bin", scan), groups)

    data = opened()
    expected = [batch["diffraction"] for batch in data.batches(5)]
    os.truncate(tmp_path / "stack.bin", 4000)
    with pytest.raises(OSError, match=r"stack.bin was (cut short|changed)"):
        list(data.batches(5))
    wait_until_gone()
    for one, other in zip(opened().batches(5), expected, strict=True):  # written again
        np.testing.assert_array_equal(one["diffraction"], other)


def test_ctrl_c_interrupts_the_wait_for_a_batch(tmp_path: Path) -> None:
    """SIGINT while the main thread waits for a batch that takes for ever."""
    script = """
import os, signal, threading, time
import numpy as np
import ptycho_fast as pf
from ptycho_fast.frames import Frames
class Slow(Frames):
    shape, dtype = (60, 8, 8), np.dtype("f4")
    def read(self, rows, out):
        time.sleep(60)
positions = np.random.default_rng(0).random((60, 2))
data = pf.GroupedDataset(pf.Scan(positions, Slow()), pf.group_positions(positions, seed=0))
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    next(data.batches(4))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_can_iterate_too(tmp_path: Path, method: str) -> None:
    scan = in_file(tmp_path / "stack.bin", make_scan())
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 47, seed=3), normalize=True)
    expected = sum(float(batch["diffraction"].sum()) for batch in data.batches(10))
    context: Any = multiprocessing.get_context(method)
    result = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking while threads run
        child = context.Process(target=_epoch_in_child, args=(data, result))
        child.start()
    assert result.get(timeout=60) == expected
    child.join(timeout=60)
    assert child.exitcode == 0


def test_batches_of_the_parent_are_refused_in_a_child() -> None:
    batches = make_data().batches(2)
    next(batches)
    context: Any = multiprocessing.get_context("fork")
    result = context.Queue()

    def ask_for_a_batch() -> None:
        try:
            next(batches)
        except RuntimeError as error:
            result.put(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking while threads run
        child = context.Process(target=ask_for_a_batch)
        child.start()
    assert "made by threads of the parent process" in result.get(timeout=60)
    child.join(timeout=60)


def test_a_data_set_can_be_pickled() -> None:
    data = make_data(normalize=True)
    again = pickle.loads(pickle.dumps(data))
    for one, other in zip(again.batches(10), data.batches(10), strict=True):
        np.testing.assert_array_equal(one["diffraction"], other["diffraction"])
