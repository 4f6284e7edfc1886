"""What is particular to PyTorch: memory, going on in the middle, loaders, pinned memory."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from small_scans import in_file, make_data, make_scan
from torch_loaders import GROUPS, SEED, expected, groups_of, loader_of

if TYPE_CHECKING:
    from pathlib import Path

    from ptycho_fast.feeds.torch import TorchFeed

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_would_stack_batches_is_refused(workers: int) -> None:
    feed = make_data(GROUPS).to_torch(10, epoch=4)
    for options in ({}, {"batch_size": 8}, {"batch_size": 8, "drop_last": True}):
        loader = DataLoader(feed, num_workers=workers, **options)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"DataLoader\(feed, batch_size=None\)"):
            next(iter(loader))
    if not workers:
        assert feed.epoch == 4
    # Whoever takes the batches apart again knows what they do.
    single = DataLoader(feed, batch_size=1, collate_fn=lambda batches: batches[0])
    assert len(next(iter(single))["diffraction"]) == 10


def test_memory_is_reused_but_never_while_a_tensor_needs_it() -> None:
    """A buffer comes back once its tensor is gone, and a tensor made from it holds it too."""
    data = make_data(GROUPS)
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


def test_state_dict_continues_in_the_middle_of_an_epoch() -> None:
    data = make_data(GROUPS)
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


def test_a_feed_can_be_copied_and_pickled() -> None:
    data = make_data(GROUPS)
    feed = data.to_torch(4, shuffle=True, seed=SEED)
    feed.set_epoch(2, 3)
    for other in (copy.deepcopy(feed), pickle.loads(pickle.dumps(feed))):
        loader = loader_of(other, 2)
        assert groups_of(loader) == expected(data, 2)[3:]
        assert groups_of(loader) == expected(data, 3)
    assert feed.epoch == 2


def test_redraw_changes_the_number_of_batches_after_a_split() -> None:
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


def test_a_device_without_resident_is_refused() -> None:
    with pytest.raises(
        ValueError, match="device='cpu' says where resident=True keeps the patterns"
    ):
        make_data(GROUPS).to_torch(4, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_pinned_memory_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="pin_memory=True needs a CUDA device"):
        make_data(GROUPS).to_torch(4, pin_memory=True)
    assert not make_data(GROUPS).to_torch(4).pin_memory


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_is_pinned_for_a_gpu() -> None:
    for batch in make_data(GROUPS).to_torch(4):
        assert all(tensor.is_pinned() for tensor in batch.values())


def test_set_epoch_refuses_what_is_no_epoch() -> None:
    feed = make_data(GROUPS).to_torch(4)
    for arguments in ((-1,), (1.5,), (0, -1)):
        with pytest.raises(ValueError, match="must be a whole number"):
            feed.set_epoch(*arguments)
    feed.set_epoch(0, 15)
    with pytest.raises(ValueError, match=r"start_batch must be a whole number in 0\.\.14, got 15"):
        iter(feed)


def in_a_child(feed: TorchFeed, queue: Any) -> None:
    queue.put(groups_of(feed))


def test_a_forked_child_can_iterate_too(tmp_path: Path) -> None:
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
