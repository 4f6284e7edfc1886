"""Batches for PyTorch against the reference: every epoch, every worker, every rank."""

from __future__ import annotations

import copy
import gc
import itertools
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
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
from places import ROOT
from ptycho_fast.frames import FileFrames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ptycho_fast.feeds.torch import TorchFeed

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

from ptycho_fast.feeds.torch_epochs import SharedEpochs  # noqa: E402

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

N, GROUPS, SEED = 8, 53, 5


def make_scan(seed: int = 0, dtype: Any = np.float32, **fields: Any) -> pf.Scan:
    scan = pf.simulate_scan(60, N, seed=seed)
    stack = (4 * scan.diffraction).astype(dtype)
    return pf.Scan(scan.positions, stack, probe=scan.probe, object=scan.object, **fields)


def make_data(n_groups: int = GROUPS, seed: int = 0, **fields: Any) -> pf.GroupedDataset:
    scan = make_scan(seed, **fields)
    return pf.GroupedDataset(scan, pf.group_positions(scan.positions, n_groups, seed=3))


def in_file(path: Path, scan: pf.Scan) -> pf.Scan:
    stack = scan.diffraction
    path.write_bytes(stack.tobytes())
    held = FileFrames(path, 0, stack.shape, stack.dtype)
    return pf.Scan(scan.positions, held, probe=scan.probe, object=scan.object, mask=scan.mask)


def stage_6(n: int, epoch: int) -> NDArray[np.int64]:
    """CONTRACT 3: rows by (word, row) of stage 6."""
    words = reference.words(reference.key(SEED, epoch), 1, -(-n // 4), 0, 6)[:n]
    return np.lexsort((np.arange(n), words))


def expected(data: pf.GroupedDataset, epoch: int, batch_size: int = 4) -> list[list[list[int]]]:
    """The groups of each batch of a shuffled epoch."""
    order = data.groups[0].indices[stage_6(len(data), epoch)]
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def groups_of(batches: Iterable[dict[str, Any]]) -> list[list[list[int]]]:
    return [batch["nn_indices"].tolist() for batch in batches]


def loader_of(
    feed: IterableDataset[Any], workers: int, method: str = "fork", **options: Any
) -> Any:
    if workers:
        options |= {"num_workers": workers, "multiprocessing_context": method}
    return DataLoader(feed, batch_size=None, **options)


# --- what is in a batch ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_would_stack_batches_is_told(workers: int) -> None:
    feed = make_data().to_torch(10, epoch=4)
    for options in ({}, {"batch_size": 8}, {"batch_size": 8, "drop_last": True}):
        loader = DataLoader(feed, num_workers=workers, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"DataLoader\(feed, batch_size=None\)"):
            next(iter(loader))
    if not workers:
        assert feed.epoch == 4
    # Whoever takes the batches apart again knows what they do.
    single = DataLoader(feed, batch_size=1, collate_fn=lambda batches: batches[0])
    assert len(next(iter(single))["diffraction"]) == 10


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_the_definition_says(layout: str, dtype: Any, workers: int) -> None:
    data = make_data(dtype=dtype)
    scan, groups = data.scans[0], data.groups[0]
    assert scan.object is not None
    fields = ("Y", "probe", "scan_id")
    feed = data.to_torch(10, shuffle=True, seed=SEED, epoch=2, fields=fields, layout=layout)
    batches = list(loader_of(feed, workers))  # all of them, before the first is looked at
    assert len(feed) == len(batches) == 6
    order = stage_6(GROUPS, 2)
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


def test_nothing_is_copied_and_nothing_that_is_kept_is_overwritten() -> None:
    """A buffer comes back once its tensor is gone, and a tensor made from it holds it too."""
    data = make_data()
    feed = data.to_torch(4, epoch=0)
    addresses, kept, copies = [], [], []
    for number, batch in enumerate(feed):
        patterns = batch["diffraction"]
        addresses.append(patterns.data_ptr())
        if number % 3 == 0:
            kept.append(patterns[1:, :, ::2].reshape(-1)[::3] if number % 2 else patterns[0, 1])
            copies.append(kept[-1].clone())
        del batch, patterns
    assert len(set(addresses)) < len(addresses)
    for view, copied in zip(kept, copies, strict=True):
        assert torch.equal(view, copied)


def test_normalised() -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, GROUPS, seed=3)
    data = pf.GroupedDataset(scan, groups, normalize=True)
    scale = reference.normalisation_scale(reference.gather(scan.diffraction, groups.indices), N)
    for workers in (0, 2):
        (batch,) = loader_of(data.to_torch(GROUPS), workers)
        patterns = scan.diffraction[groups.indices]
        np.testing.assert_allclose(batch["diffraction"], scale * patterns, rtol=3e-7)


# --- epochs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("persistent", [False, True])
def test_each_iteration_is_the_next_epoch(workers: int, persistent: bool) -> None:
    data = make_data()
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
def test_workers_that_are_spawned(persistent: bool, tmp_path: Path) -> None:
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


def test_loaders_of_different_kinds_take_turns() -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    lasting = loader_of(feed, 3, persistent_workers=True)
    loaders = [feed, lasting, loader_of(feed, 2), lasting, feed, lasting, loader_of(feed, 5)]
    for epoch, loader in enumerate([*loaders, lasting, lasting]):
        assert groups_of(loader) == expected(data, epoch), epoch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_that_is_left_counts(workers: int, persistent: bool) -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, workers, persistent_workers=persistent and workers > 0)
    for taken in (1, 3):
        assert len(list(itertools.islice(loader, taken))) == taken
    assert groups_of(loader) == expected(data, 2)


def test_the_same_seed_of_pytorch_repeats_what_its_own_shuffling_would_repeat() -> None:
    data = make_data()
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
def test_workers_agree_whoever_comes_first(data: st.DataObject) -> None:
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
def test_workers_agree_however_late_one_is(data: st.DataObject) -> None:
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
def test_workers_that_start_late_agree(set_epoch: bool) -> None:
    """Epochs are left after a batch of the first worker, before the second has started."""
    data = make_data()
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


# --- going on in the middle -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 5, 13, 14])
def test_an_epoch_goes_on_where_it_was_left(workers: int, start: int) -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    feed.set_epoch(3, start_batch=start)
    loader = loader_of(feed, workers)
    assert groups_of(loader) == expected(data, 3)[start:]
    assert groups_of(loader) == expected(data, 4)


def test_the_state_of_an_iteration() -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED, epoch=2)
    assert feed.state_dict() == {"epoch": 2, "start_batch": 0}
    iterator = iter(feed)
    taken = groups_of(itertools.islice(iterator, 5))
    state = pickle.loads(pickle.dumps(feed.state_dict()))
    assert state == {"epoch": 2, "start_batch": 5}
    rest = groups_of(iterator)
    assert feed.state_dict() == {"epoch": 3, "start_batch": 0}

    again = data.to_torch(4, shuffle=True, seed=SEED)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert groups_of(again) == rest == expected(data, 2)[5:]
    assert taken == expected(data, 2)[:5]
    assert groups_of(again) == expected(data, 3)


def test_a_feed_is_copied_and_pickled() -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    feed.set_epoch(2, 3)
    for other in (copy.deepcopy(feed), pickle.loads(pickle.dumps(feed))):
        loader = loader_of(other, 2)
        assert groups_of(loader) == expected(data, 2)[3:]
        assert groups_of(loader) == expected(data, 3)
    assert feed.epoch == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_groups_are_drawn_anew(workers: int) -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED, redraw=True, epoch=1)
    loader = loader_of(feed, workers)
    for epoch in (1, 2):
        positions = data.scans[0].positions
        _, drawn = reference.nearest_groups(positions, GROUPS, seed=3, epoch=epoch)
        rows = np.concatenate([batch["nn_indices"] for batch in loader])
        np.testing.assert_array_equal(rows, drawn[stage_6(GROUPS, epoch)])


def test_groups_are_drawn_anew_on_one_side_of_a_split() -> None:
    """Their number differs from epoch to epoch, and so does that of the batches."""
    training, _ = make_data(60).split(0.3, margin=0)
    feed = training.to_torch(1, redraw=True)
    lengths = []
    for epoch in range(4):
        drawn = training.at_epoch(epoch).groups[0].indices
        lengths.append(len(feed))
        rows = np.concatenate([batch["nn_indices"] for batch in feed])
        np.testing.assert_array_equal(rows, drawn)
        assert lengths[-1] == len(drawn)
    assert len(set(lengths)) > 1


# --- patterns that stay on a device ---------------------------------------------------------------

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"
))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("where", ["memory", "file", "two scans"])
def test_resident_batches_are_the_same(
    device: str, layout: str, normalize: bool, dtype: Any, where: str, tmp_path: Path
) -> None:
    masks = np.random.default_rng(0).random((2, N, N)) < 0.8
    scans = [make_scan(seed, dtype, mask=mask) for seed, mask in enumerate(masks)]
    if where == "file":
        scans[0] = in_file(tmp_path / "stack.bin", scans[0])
    parts = [
        pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=1), normalize=normalize)
        for scan in (scans if where == "two scans" else scans[:1])
    ]
    data = pf.GroupedDataset.concatenate(parts)
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "layout": layout}
    options["fields"] = ("Y", "probe", "scan_id")
    feed = data.to_torch(7, resident=True, device=device, **options)
    for epoch in (0, 1):
        for found, made in zip(feed, data.batches(7, epoch=epoch, **options), strict=True):
            assert found.keys() == made.keys()
            for key, tensor in found.items():
                assert tensor.device.type == device
                assert tensor.is_contiguous()
                wanted = torch.from_numpy(made[key])
                if key == "Y":
                    torch.testing.assert_close(tensor.cpu(), wanted, rtol=0, atol=1e-5)
                else:
                    assert torch.equal(tensor.cpu(), wanted)


def test_resident_reads_each_pattern_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = FileFrames.read

    def recorded(self: FileFrames, rows: NDArray[Any], out: NDArray[Any]) -> None:
        read.extend(rows)
        original(self, rows, out)

    monkeypatch.setattr(FileFrames, "read", recorded)
    scan = in_file(tmp_path / "stack.bin", make_scan())
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=3))
    feed = data.to_torch(4, resident=True)
    assert not read
    for _ in range(2):
        list(feed)
    assert sorted(read) == list(range(60))


def test_resident_is_refused_in_workers() -> None:
    feed = make_data().to_torch(4, resident=True)
    with pytest.raises(RuntimeError, match="Use num_workers=0"):
        list(loader_of(feed, 1))
    assert len(list(feed)) == 14


# --- ranks ----------------------------------------------------------------------------------------


def train(rank: int, folder: str, workers: int, method: str, pad: bool) -> None:
    """One of two processes: rank and world size are those of the process group."""
    torch.set_num_threads(1)
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED, pad=pad)  # before there is a group
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    loader = loader_of(feed, workers, method)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(N * N, 1))
    epochs = []
    for _ in range(2):
        seen = []
        for batch in loader:
            model(batch["diffraction"].flatten(-2)).sum().backward()  # waits for the other rank
            seen.append(batch["nn_indices"].tolist())
        assert len(seen) == len(loader)
        epochs.append(seen)
    dist.barrier()
    dist.destroy_process_group()
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(epochs))


@pytest.mark.parametrize(
    ("workers", "method", "pad"),
    [(0, "fork", False), (0, "fork", True), (2, "fork", False), (1, "spawn", True)],
)
def test_two_ranks_share_each_epoch(tmp_path: Path, workers: int, method: str, pad: bool) -> None:
    """53 groups, a prime number, in batches of 2 x 4: 6 whole ones and 5 groups."""
    arguments = (str(tmp_path), workers, method, pad)
    torch.multiprocessing.spawn(train, arguments, nprocs=2)
    data = make_data()
    ranks = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]
    for epoch, both in enumerate(zip(*ranks, strict=True)):
        assert [len(batches) for batches in both] == [7 if pad else 6] * 2
        found = [group for pair in zip(*both, strict=True) for batch in pair for group in batch]
        order = data.groups[0].indices[stage_6(GROUPS, epoch)].tolist()
        assert found == (order + order[:3] if pad else order[:48])


def test_what_is_dropped_is_said(caplog: pytest.LogCaptureFixture) -> None:
    feed = make_data().to_torch(4, rank=1, world_size=2)
    caplog.clear()
    with caplog.at_level("INFO", logger="ptycho_fast"):
        list(feed)
    assert "the last 5 of 53 groups make no whole batch of 2 x 4 and are dropped" in caplog.text


# --- faults ---------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("ptycho_fast")]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyTorch's own
def test_a_killed_worker_is_an_error_and_the_next_epoch_works() -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    loader = loader_of(feed, 2, prefetch_factor=1)
    iterator = iter(loader)
    next(iterator)
    os.kill(iterator._workers[1].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(iterator)
    del iterator
    assert groups_of(loader) == expected(data, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_cut_short_while_it_is_read(workers: int, tmp_path: Path) -> None:
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
    gc.collect()
    assert not threads()
    scan = in_file(path, whole)
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    assert len(list(loader_of(data.to_torch(4), workers))) == 14


def test_an_iterator_that_is_left_leaves_no_thread() -> None:
    feed = make_data().to_torch(4)
    for batch in feed:
        assert len(batch) == 4
        assert len(threads()) == 1
        break
    assert not threads()
    iterator = iter(loader_of(feed, 0))
    next(iterator)
    assert threads()
    del iterator
    gc.collect()
    assert not threads()
    iter(feed)  # never asked for a batch
    assert not threads()


def test_an_exception_in_the_consumer_leaves_no_thread() -> None:
    data = make_data()
    feed = data.to_torch(4, shuffle=True, seed=SEED)

    def consume() -> None:
        for _ in loader_of(feed, 0):
            raise KeyError

    with pytest.raises(KeyError):
        consume()
    gc.collect()
    assert not threads()
    assert groups_of(feed) == expected(data, 1)


def in_a_child(feed: TorchFeed, queue: Any) -> None:
    queue.put(groups_of(feed))


def test_a_forked_child_iterates_too(tmp_path: Path) -> None:
    scan = in_file(tmp_path / "stack.bin", make_scan())
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    iterator = iter(feed)
    next(iterator)  # a thread is at work
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=in_a_child, args=(feed, queue))
    child.start()
    assert queue.get(timeout=60) == expected(data, 1)
    child.join(60)
    assert child.exitcode == 0
    assert groups_of(iterator) == expected(data, 0)[1:]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be a whole number in 1\.\."),
        ({"fields": ("X",)}, r"fields must be among .* got \['X'\]"),
        ({"layout": "NCHW"}, "layout must be one of"),
        ({"epoch": -1}, "epoch must be a whole number"),
        ({"rank": 1}, "both rank and world_size, or neither"),
        ({"rank": 0, "world_size": 2, "drop_last": False}, "hangs distributed training"),
        ({"pad": True, "drop_last": True}, "choose one"),
        ({"batch_size": 54, "drop_last": True}, "53 groups make no whole batch of 1 x 54"),
        ({"device": "cpu"}, "resident=True"),
    ],
)
def test_a_bad_argument_is_a_sentence_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_data().to_torch(**{"batch_size": 4, **options})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_pinned_memory_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="pin_memory=True needs a CUDA device"):
        make_data().to_torch(4, pin_memory=True)
    assert not make_data().to_torch(4).pin_memory


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_is_pinned() -> None:
    for batch in make_data().to_torch(4):
        assert all(tensor.is_pinned() for tensor in batch.values())


def test_an_epoch_is_a_whole_number_and_has_an_end() -> None:
    feed = make_data().to_torch(4)
    for arguments in ((-1,), (1.5,), (0, -1)):
        with pytest.raises(ValueError, match="must be a whole number"):
            feed.set_epoch(*arguments)
    feed.set_epoch(0, 15)
    with pytest.raises(ValueError, match=r"start_batch must be a whole number in 0\.\.14, got 15"):
        iter(feed)


class SetsEpoch(IterableDataset[Any]):
    def __init__(self, feed: TorchFeed) -> None:
        self.feed = feed

    def __iter__(self) -> Iterator[Any]:
        self.feed.set_epoch(0)
        yield from self.feed


def test_a_worker_does_not_set_the_epoch() -> None:
    with pytest.raises(RuntimeError, match="not in its workers"):
        list(loader_of(SetsEpoch(make_data().to_torch(4)), 1))


# --- Lightning ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_the_epochs_of_its_trainer(tmp_path: Path) -> None:
    """Also where a run goes on from a checkpoint."""
    lightning = pytest.importorskip("lightning")
    from ptycho_fast.feeds.lightning import GroupedDataModule  # noqa: PLC0415

    training, validation = make_data().split(0.3, margin=0)
    seen: dict[int, list[Any]] = {}
    looked_at = []

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(N, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            seen.setdefault(self.current_epoch, []).append(batch["nn_indices"].tolist())
            return self.layer(batch["diffraction"]).sum()

        def validation_step(self, batch: Any, _: int) -> None:
            looked_at.append(batch["nn_indices"].tolist())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-6)

    def fit(epochs: int, checkpoint: str | None) -> Any:
        module = GroupedDataModule(training, validation, batch_size=4, seed=SEED)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        )  # fmt: skip
        trainer.fit(Model(), module, ckpt_path=checkpoint)
        return trainer

    fit(2, None).save_checkpoint(tmp_path / "run.ckpt")
    assert set(seen) == {0, 1}
    fit(4, str(tmp_path / "run.ckpt"))
    assert seen == {epoch: expected(training, epoch) for epoch in range(4)}
    first = validation.groups[0].indices[:4].tolist()
    assert [batch for batch in looked_at if batch == first]

    module = GroupedDataModule(training, batch_size=4, num_workers=1)
    assert groups_of(module.train_dataloader())
    assert module.val_dataloader() == []
    assert isinstance(pickle.loads(pickle.dumps(module)), GroupedDataModule)


def test_the_example_trains() -> None:
    pytest.importorskip("lightning")
    script = ROOT / "examples" / "train_lightning.py"
    command = [sys.executable, str(script), "--epochs", "2", "--groups", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = [float(value) for value in re.findall(r"epoch \d+: loss ([\d.]+)", done.stdout)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert "the loss fell" in done.stdout
    (ranks,) = re.findall(r"batches of each rank: \[(\d+), (\d+)\]", done.stdout)
    assert ranks[0] == ranks[1] != "0"
