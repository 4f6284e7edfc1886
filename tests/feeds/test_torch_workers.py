"""Workers of a ``DataLoader`` and ranks of a distributed run share each epoch of a feed."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pickle
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import ptycho_fast as pf
import reference
from small_scans import N, in_file, make_data, make_scan, shuffled
from torch_loaders import GROUPS, SEED, expected, groups_of, loader_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ptycho_fast.feeds.torch import TorchFeed

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from torch.utils.data import IterableDataset  # noqa: E402

from ptycho_fast.feeds.torch_epochs import SharedEpochs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_batches_of_workers_hold_what_the_definition_says(layout: str, dtype: Any) -> None:
    scan = make_scan(dtype=dtype)
    groups = pf.group_positions(scan.positions, GROUPS, seed=3)
    data = pf.GroupedDataset(scan, groups)
    assert scan.object is not None
    fields = ("Y", "probe", "scan_id")
    feed = data.to_torch(10, shuffle=True, seed=SEED, epoch=2, fields=fields, layout=layout)
    batches = list(loader_of(feed, 2))  # all of them, before the first is looked at
    assert len(feed) == len(batches) == 6
    order = shuffled(GROUPS, SEED, 2)
    for first, batch in zip(range(0, GROUPS, 10), batches, strict=True):
        indices = groups.indices[order[first : first + 10]]
        coords = reference.coordinates(scan.positions, indices)
        patterns = reference.gather(scan.diffraction, indices)
        patches = reference.extract_patches(scan.object, coords["coords_nn"], N)
        if layout == "channels_first":
            patterns, patches = patterns.transpose(0, 3, 1, 2), patches.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(batch["diffraction"].numpy(), patterns)
        assert batch["diffraction"].dtype == torch.from_numpy(np.empty(0, dtype)).dtype
        np.testing.assert_array_equal(batch["coords_relative"], coords["coords_relative"])
        np.testing.assert_array_equal(batch["coords_offsets"], coords["coords_offsets"])
        assert batch["coords_offsets"].dtype == torch.float64
        np.testing.assert_array_equal(batch["nn_indices"], indices)
        np.testing.assert_allclose(batch["Y"], patches, atol=1e-5)
        assert batch["Y"].dtype == torch.complex64
        np.testing.assert_array_equal(batch["probe"], [scan.probe] * len(indices))
        assert batch["scan_id"].tolist() == [0] * len(indices)
        assert all(tensor.is_contiguous() for tensor in batch.values())


def test_workers_normalise_patterns_alike() -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, GROUPS, seed=3)
    data = pf.GroupedDataset(scan, groups, normalize=True)
    scale = reference.normalisation_scale(reference.gather(scan.diffraction, groups.indices), N)
    for workers in (0, 2):
        (batch,) = loader_of(data.to_torch(GROUPS), workers)
        patterns = scan.diffraction[groups.indices]
        np.testing.assert_allclose(batch["diffraction"], scale * patterns, rtol=3e-7)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("persistent", [False, True])
def test_each_iteration_is_the_next_epoch(workers: int, persistent: bool) -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED, epoch=7)
    loader = loader_of(feed, workers, persistent_workers=persistent and workers > 0)
    for epoch in (7, 8, 9):
        assert feed.epoch == epoch
        assert len(loader) == 14
        assert groups_of(loader) == expected(data, epoch)
    feed.set_epoch(3)
    assert groups_of(loader) == expected(data, 3)
    assert groups_of(loader) == expected(data, 4)
    feed.set_epoch(4)
    assert groups_of(loader) == expected(data, 4)


@pytest.mark.parametrize("persistent", [False, True])
def test_spawned_workers_share_each_epoch(persistent: bool, tmp_path: Path) -> None:
    scan = in_file(tmp_path / "stack.bin", make_scan())
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, 2, "spawn", persistent_workers=persistent)
    batches = list(loader)
    assert groups_of(batches) == expected(data, 0)
    patterns = reference.gather(np.asarray(scan.diffraction), batches[5]["nn_indices"])
    np.testing.assert_array_equal(batches[5]["diffraction"], patterns.transpose(0, 3, 1, 2))
    assert groups_of(loader) == expected(data, 1)
    feed.set_epoch(5)
    assert groups_of(loader) == expected(data, 5)


def test_loaders_of_different_kinds_can_take_turns() -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    lasting = loader_of(feed, 3, persistent_workers=True)
    loaders = [feed, lasting, loader_of(feed, 2), lasting, feed, lasting, loader_of(feed, 5)]
    for epoch, loader in enumerate([*loaders, lasting, lasting]):
        assert groups_of(loader) == expected(data, epoch), epoch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_that_is_left_early_counts(workers: int, persistent: bool) -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, workers, persistent_workers=persistent and workers > 0)
    for taken in (1, 3):
        assert len(list(itertools.islice(loader, taken))) == taken
    assert groups_of(loader) == expected(data, 2)


def test_the_same_seed_of_pytorch_repeats_the_epoch() -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, 2)
    for _ in range(2):
        torch.manual_seed(0)
        assert groups_of(loader) == expected(data, 0)
    assert groups_of(loader) == expected(data, 1)
    torch.manual_seed(0)
    feed.set_epoch(6)  # but what is asked for goes before
    assert groups_of(loader) == expected(data, 6)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_workers_agree_on_the_epoch_whoever_comes_first(data: st.DataObject) -> None:
    """Loaders with workers that last or do not take turns; some workers die before they begin."""
    main = SharedEpochs()
    main.set(0, 0)
    latest = 0  # what follows all that were
    lasting: list[list[Any]] = []
    for turn in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            latest = data.draw(st.integers(0, 5))
            main.set(latest, 2)
        kind = data.draw(st.sampled_from(["main", "new", "lasting"]))
        if kind == "main":
            assert main.begin(None)[0] == latest
        else:
            if kind == "new" or not lasting:
                workers = make_workers(main, data.draw(st.integers(1, 4)), seed=99 * turn)
                if data.draw(st.booleans()):
                    lasting.append(workers)
            else:
                workers = data.draw(st.sampled_from(lasting))
            order = data.draw(st.permutations(workers))
            if workers not in lasting:
                order = order[: data.draw(st.integers(1, len(order)))]
            assert {epochs.begin(worker)[0] for epochs, worker in order} == {latest}
        latest += 1
    assert main.following()[0] == latest


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_workers_agree_on_the_epoch_however_late_one_is(data: st.DataObject) -> None:
    """Workers that last, epochs that are left at once: one begins when others begin the next."""
    main = SharedEpochs()
    main.set(0, 0)
    workers = make_workers(main, data.draw(st.integers(2, 4)), seed=0)
    latest = 0
    behind: dict[int, int] = {}  # who has yet to begin the iteration before, and its epoch
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            latest = data.draw(st.integers(0, 5))
            main.set(latest, 0)
        order = data.draw(st.permutations(range(len(workers))))
        in_time = data.draw(st.integers(1, len(order)))  # or nobody would have left the epoch
        for i in order[:in_time]:
            epochs, worker = workers[i]
            if i in behind:
                assert epochs.begin(worker)[0] == behind.pop(i)
            assert epochs.begin(worker)[0] == latest
        for i in list(behind):  # no later than this
            epochs, worker = workers[i]
            assert epochs.begin(worker)[0] == behind.pop(i)
        behind = dict.fromkeys(order[in_time:], latest)
        latest += 1
    assert main.following()[0] == latest


def make_workers(main: SharedEpochs, count: int, seed: int) -> list[Any]:
    """Workers of a loader: a copy shares the memory, as one in another process does."""
    return [
        (copy.copy(main), SimpleNamespace(id=i, num_workers=count, seed=seed + i))
        for i in range(count)
    ]


@pytest.mark.parametrize("set_epoch", [False, True])
def test_workers_that_start_late_agree_on_the_epoch(set_epoch: bool) -> None:
    """Epochs are left after a batch of the first worker, before the second has started."""
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, 2, persistent_workers=True, worker_init_fn=second_is_late)
    for epoch in range(2):
        if set_epoch:
            feed.set_epoch(5 + epoch)
        next(iter(loader))
    if set_epoch:
        feed.set_epoch(3)
    assert groups_of(loader) == expected(data, 3 if set_epoch else 2)


def second_is_late(worker: int) -> None:
    time.sleep(worker)


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 5, 13, 14])
def test_start_batch_continues_in_the_middle_of_an_epoch(workers: int, start: int) -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    feed.set_epoch(3, start_batch=start)
    loader = loader_of(feed, workers)
    assert groups_of(loader) == expected(data, 3)[start:]
    assert groups_of(loader) == expected(data, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_draw_the_groups_of_each_epoch(workers: int) -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED, redraw=True, epoch=1)
    loader = loader_of(feed, workers)
    for epoch in (1, 2):
        positions = data.scans[0].positions
        _, drawn = reference.nearest_groups(positions, GROUPS, seed=3, epoch=epoch)
        rows = np.concatenate([batch["nn_indices"] for batch in loader])
        np.testing.assert_array_equal(rows, drawn[shuffled(GROUPS, SEED, epoch)])


RANKS = [(0, "fork", False), (0, "fork", True), (2, "fork", False), (1, "spawn", True)]
"""Workers of each rank, how they are started, and whether the last batch is padded."""


def train(rank: int, folder: str) -> None:
    """One of two processes: rank and world size are those of the process group."""
    torch.set_num_threads(1)
    data = make_data(GROUPS)
    # Made before there is a process group.
    feeds = [data.to_torch(4, shuffle=True, seed=SEED, pad=pad) for *_, pad in RANKS]
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = []
    for feed, (workers, method, _) in zip(feeds, RANKS, strict=True):
        loader = loader_of(feed, workers, method)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(N * N, 1))
        epochs = []
        for _ in range(2):
            seen = []
            for batch in loader:
                model(batch["diffraction"].flatten(-2)).sum().backward()  # waits for the other
                seen.append(batch["nn_indices"].tolist())
            assert len(seen) == len(loader)
            epochs.append(seen)
        found.append(epochs)
    dist.barrier()
    dist.destroy_process_group()
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each rank saw: for each of `RANKS` and each epoch, the groups of its batches."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(train, (str(folder),), nprocs=2)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


@pytest.mark.parametrize("case", range(len(RANKS)), ids=lambda case: str(RANKS[case]))
def test_two_ranks_share_each_epoch(of_two_ranks: list[Any], case: int) -> None:
    """53 groups, a prime number, in batches of 2 x 4: 6 whole ones and 5 groups."""
    data, pad = make_data(GROUPS), RANKS[case][2]
    for epoch, both in enumerate(zip(*(rank[case] for rank in of_two_ranks), strict=True)):
        assert [len(batches) for batches in both] == [7 if pad else 6] * 2
        found = [group for pair in zip(*both, strict=True) for batch in pair for group in batch]
        order = data.groups[0].indices[shuffled(GROUPS, SEED, epoch)].tolist()
        assert found == (order + order[:3] if pad else order[:48])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyTorch's own
def test_a_killed_worker_is_an_error_and_the_next_epoch_works() -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, 2, prefetch_factor=1)
    iterator = iter(loader)
    next(iterator)
    children = [child.pid for child in multiprocessing.active_children() if child.pid]
    os.kill(max(children), signal.SIGKILL)
    # If it dies while it hands over a batch, PyTorch tells of the connection, not of the worker.
    with pytest.raises((RuntimeError, EOFError, ConnectionError)) as raised:
        list(iterator)
    if isinstance(raised.value, RuntimeError):
        assert "DataLoader worker" in str(raised.value)
    del iterator
    assert groups_of(loader) == expected(data, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_truncated_while_workers_read_it_is_named(
    workers: int, tmp_path: Path, assert_no_thread_is_left: Any
) -> None:
    path = tmp_path / "stack.bin"
    whole = make_scan()
    scan = in_file(path, whole)
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    loader = loader_of(data.to_torch(4), workers)
    iterator = iter(loader)
    next(iterator)
    os.truncate(path, 16)
    with pytest.raises(OSError, match=re.escape(str(path))):
        list(iterator)
    del iterator
    assert_no_thread_is_left()
    scan = in_file(path, whole)
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    assert len(list(loader_of(data.to_torch(4), workers))) == 14


class SetsEpoch(IterableDataset[Any]):
    def __init__(self, feed: TorchFeed) -> None:
        self.feed = feed

    def __iter__(self) -> Iterator[Any]:
        self.feed.set_epoch(0)
        yield from self.feed


def test_a_worker_cannot_set_the_epoch() -> None:
    with pytest.raises(RuntimeError, match="Set the epoch in the process that has the DataLoader"):
        list(loader_of(SetsEpoch(make_data(GROUPS).to_torch(4)), 1))
