"""What every framework's feed does: the batches of `GroupedDataset.batches`, epoch after epoch."""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from ptycho_fast.frames import Frames
from small_scans import N, in_file, make_data, make_scan, rows, shuffled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

ALL = ("Y", "probe", "scan_id", "good")
GROUPS = 53
"""A prime number, so that the last batch is never whole."""

Arrays = Any


@pytest.fixture(scope="module")
def data() -> pf.GroupedDataset:
    return make_data(GROUPS)


@pytest.fixture(scope="module")
def assert_same(arrays: Arrays) -> Callable[[Iterable[Any], Iterable[Any]], None]:
    def compare(found: Iterable[Any], expected: Iterable[Any]) -> None:
        for batch, other in zip(map(arrays, found), expected, strict=True):
            assert batch.keys() == other.keys()
            for name, array in other.items():
                assert batch[name].dtype == array.dtype
                np.testing.assert_array_equal(batch[name], array, name)

    return compare


# --- what a batch holds -----------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_epoch_after_epoch_holds_the_batches_of_the_data_set(
    framework: Any, assert_same: Any, layout: str, normalize: bool
) -> None:
    data = make_data(GROUPS, normalize=normalize)
    options: dict[str, Any] = {"shuffle": True, "seed": 5, "fields": ALL, "layout": layout}
    feed = framework.feed(data, 8, **options)
    for epoch in range(3):
        assert_same(feed, data.batches(8, epoch=epoch, **options))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_batches_follow_the_definitions(
    framework: Any, arrays: Arrays, layout: str, dtype: Any
) -> None:
    scan = make_scan(dtype=dtype)
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, GROUPS, seed=3))
    assert scan.object is not None
    feed = framework.feed(
        data, 10, shuffle=True, seed=5, epoch=2, fields=("Y", "probe", "scan_id"), layout=layout
    )
    batches = list(feed)  # all of them, before the first is looked at
    assert framework.length(feed) == len(batches) == 6
    order = shuffled(GROUPS, 5, 2)
    for first, batch in zip(range(0, GROUPS, 10), map(arrays, batches), strict=True):
        indices = data.groups[0].indices[order[first : first + 10]]
        coords = reference.coordinates(scan.positions, indices)
        patterns = reference.gather(scan.diffraction, indices)
        patches = reference.extract_patches(scan.object, coords["coords_nn"], N)
        if layout == "channels_first":
            patterns, patches = patterns.transpose(0, 3, 1, 2), patches.transpose(0, 3, 1, 2)
        assert batch["diffraction"].dtype == dtype
        np.testing.assert_array_equal(batch["diffraction"], patterns)
        assert batch["coords_offsets"].dtype == np.float64
        np.testing.assert_array_equal(batch["coords_relative"], coords["coords_relative"])
        np.testing.assert_array_equal(batch["coords_offsets"], coords["coords_offsets"])
        np.testing.assert_array_equal(batch["nn_indices"], indices)
        assert batch["Y"].dtype == np.complex64
        np.testing.assert_allclose(batch["Y"], patches, atol=2e-6)
        np.testing.assert_array_equal(batch["probe"], [scan.probe] * len(indices))
        assert batch["scan_id"].tolist() == [0] * len(indices)


def test_normalised_patterns_have_the_scale_of_the_definition(
    framework: Any, arrays: Arrays
) -> None:
    data = make_data(GROUPS, normalize=True)
    gathered = reference.gather(data.scans[0].diffraction, data.groups[0].indices)
    (batch,) = map(arrays, framework.feed(data, GROUPS))
    scale = reference.normalisation_scale(gathered, N)
    np.testing.assert_allclose(batch["diffraction"], scale * gathered, rtol=3e-7)


def test_groups_of_several_scans_are_mixed(
    framework: Any, assert_same: Any, data: pf.GroupedDataset
) -> None:
    both = pf.GroupedDataset.concatenate([data, make_data(30, seed=1)])
    feed = framework.feed(both, 16, shuffle=True, fields=ALL)
    assert_same(feed, both.batches(16, shuffle=True, fields=ALL))
    scans = np.concatenate([np.asarray(batch["scan_id"]) for batch in feed])
    assert np.bincount(scans).tolist() == [GROUPS, 30]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"batch_size": 8}, 7),
        ({"batch_size": 8, "drop_last": True}, 6),
        ({"batch_size": 8, "pad": True}, 7),
        ({"batch_size": 8, "rank": 1, "world_size": 3}, 2),
        ({"batch_size": 8, "rank": 1, "world_size": 3, "pad": True}, 3),
    ],
)
def test_the_number_of_batches_is_known(
    framework: Any, data: pf.GroupedDataset, options: dict[str, Any], count: int
) -> None:
    feed = framework.feed(data, **options)
    assert framework.length(feed) == count == len(list(feed))


# --- epochs -----------------------------------------------------------------------------------


def test_epochs_differ_and_can_be_repeated(framework: Any, data: pf.GroupedDataset) -> None:
    feed = framework.feed(data, 8, shuffle=True, seed=3)
    first, second = rows(feed), rows(feed)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))
    again = framework.feed(data, 8, shuffle=True, seed=3)
    np.testing.assert_array_equal(rows(again), first)
    np.testing.assert_array_equal(rows(again), second)
    later = framework.feed(data, 8, shuffle=True, seed=3, epoch=1)
    np.testing.assert_array_equal(rows(later), second)
    assert not np.array_equal(rows(framework.feed(data, 8, shuffle=True, seed=4)), first)


def test_without_shuffling_every_epoch_has_the_order_of_the_groups(
    framework: Any, data: pf.GroupedDataset
) -> None:
    feed = framework.feed(data, 8)
    for _ in range(2):
        np.testing.assert_array_equal(rows(feed), data.groups[0].indices)


def test_set_epoch_sets_the_epoch_of_the_next_iteration(
    framework: Any, data: pf.GroupedDataset
) -> None:
    feed = framework.feed(data, 8, shuffle=True)
    epochs = [rows(feed) for _ in range(4)]
    feed.set_epoch(2)
    np.testing.assert_array_equal(rows(feed), epochs[2])
    np.testing.assert_array_equal(rows(feed), epochs[3])
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        feed.set_epoch(-1)


def test_redraw_draws_the_groups_of_each_epoch(
    framework: Any, assert_same: Any, data: pf.GroupedDataset
) -> None:
    feed = framework.feed(data, 8, shuffle=True, redraw=True, epoch=2)
    for epoch in (2, 3):
        assert_same(feed, data.at_epoch(epoch).batches(8, shuffle=True, epoch=epoch))


@pytest.mark.parametrize("pad", [False, True])
def test_ranks_share_the_groups_of_an_epoch(
    framework: Any, data: pf.GroupedDataset, pad: bool
) -> None:
    feeds = [
        framework.feed(data, 8, shuffle=True, rank=rank, world_size=3, pad=pad) for rank in range(3)
    ]
    for epoch in range(2):
        order = rows(data.batches(GROUPS, shuffle=True, epoch=epoch))
        shares = [[np.asarray(batch["nn_indices"]) for batch in feed] for feed in feeds]
        together = np.concatenate([part for turn in zip(*shares, strict=True) for part in turn])
        expected = np.concatenate([order, order[: 3 * 24 - GROUPS]]) if pad else order[: 2 * 24]
        np.testing.assert_array_equal(together, expected)


def test_dropped_groups_are_logged(
    framework: Any, data: pf.GroupedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    feed = framework.feed(data, 4, rank=1, world_size=2)
    caplog.clear()
    with caplog.at_level("INFO", logger="ptycho_fast"):
        list(feed)
    assert "the last 5 of 53 groups make no whole batch of 2 x 4 and are dropped" in caplog.text


# --- threads and faults -----------------------------------------------------------------------


def test_an_abandoned_iterator_leaves_no_thread(
    framework: Any, data: pf.GroupedDataset, threads: Any, assert_no_thread_is_left: Any
) -> None:
    iterator = iter(framework.feed(data, 4))
    next(iterator)
    assert threads()
    del iterator
    assert_no_thread_is_left()
    for _ in framework.feed(data, 4):
        break
    assert_no_thread_is_left()
    iter(framework.feed(data, 4))  # never asked for a batch
    assert_no_thread_is_left()


def test_an_exception_in_the_consumer_leaves_no_thread(
    framework: Any, data: pf.GroupedDataset, assert_no_thread_is_left: Any
) -> None:
    feed = framework.feed(data, 4)

    def consume() -> None:
        for _ in feed:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert_no_thread_is_left()
    assert len(list(feed)) == 14


def test_the_iterator_outlives_its_feed(
    framework: Any, data: pf.GroupedDataset, assert_no_thread_is_left: Any
) -> None:
    iterator = iter(framework.feed(data, 4, fields=("Y",)))
    gc.collect()
    assert len(list(iterator)) == 14
    assert_no_thread_is_left()


class Flaky(Frames):
    """Patterns that can't be read for a while."""

    def __init__(self, patterns: NDArray[Any]) -> None:
        self.patterns, self.broken = patterns, False
        self.shape, self.dtype = patterns.shape, patterns.dtype

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        if self.broken and 7 in rows:
            msg = "Pattern 7 can't be read."
            raise OSError(msg)
        out[...] = self.patterns[rows]


def test_an_error_is_raised_and_the_next_epoch_works(
    framework: Any, assert_same: Any, data: pf.GroupedDataset, assert_no_thread_is_left: Any
) -> None:
    frames = Flaky(data.scans[0].diffraction)
    scan = dataclasses.replace(data.scans[0], diffraction=frames)
    feed = framework.feed(pf.GroupedDataset(scan, data.groups[0]), 4, shuffle=True)
    assert_same(feed, data.batches(4, shuffle=True))

    frames.broken = True
    with pytest.raises(framework.error(), match=r"Pattern 7 can't be read\."):
        list(feed)
    assert_no_thread_is_left()

    frames.broken = False
    assert_same(feed, data.batches(4, shuffle=True, epoch=2))
    assert_no_thread_is_left()


def test_a_file_truncated_while_it_is_read_is_named(
    framework: Any,
    assert_same: Any,
    data: pf.GroupedDataset,
    assert_no_thread_is_left: Any,
    tmp_path: Path,
) -> None:
    path = tmp_path / "patterns.raw"
    opened = pf.GroupedDataset(in_file(path, data.scans[0]), data.groups[0])
    feed = framework.feed(opened, 4)
    assert_same(feed, data.batches(4))
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(framework.error(), match=r"patterns\.raw was "):
        list(feed)
    assert_no_thread_is_left()


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, r"batch_size must be a whole number in 1\.\."),
        ({"fields": ("X",)}, r"fields must be among .* got \['X'\]"),
        ({"fields": ("object",)}, "fields must be among"),
        ({"layout": "NCHW"}, "layout must be one of"),
        ({"epoch": -1, "shuffle": True}, "epoch must be a whole number"),
        ({"seed": -1, "shuffle": True}, "seed must be a whole number"),
        ({"rank": 1}, "Pass both rank and world_size, or neither"),
        ({"rank": 0, "world_size": 2, "drop_last": False}, "hangs distributed training.*pad=True"),
        ({"pad": True, "drop_last": True}, "choose one"),
        ({"batch_size": 54, "drop_last": True}, "53 groups make no whole batch of 1 x 54"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_batch(
    framework: Any,
    data: pf.GroupedDataset,
    assert_no_thread_is_left: Any,
    options: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(ValueError, match=sentence):
        framework.feed(data, **{"batch_size": 8, **options})
    assert_no_thread_is_left()


def test_fields_that_the_scan_lacks_are_refused(framework: Any, data: pf.GroupedDataset) -> None:
    bare = dataclasses.replace(data.scans[0], object=None)
    with pytest.raises(ValueError, match=r"'Y' needs scan\.object, which scan 0 does not have"):
        framework.feed(pf.GroupedDataset(bare, data.groups[0]), 8, fields=("Y",))
