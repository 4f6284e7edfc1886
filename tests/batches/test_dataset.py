"""Batches against the reference: which groups, what is in them, what is left behind."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from ptycho_fast.frames import FileFrames

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N, C = 8, 4


def make_scan(n: int = 60, seed: int = 0, **fields: Any) -> pf.Scan:
    scan = pf.simulate_scan(n, N, seed=seed)
    kept = {"probe": scan.probe, "object": scan.object} | fields
    return pf.Scan(scan.positions, scan.diffraction, **kept)


def make_data(n_groups: int = 47, **arguments: Any) -> pf.GroupedDataset:
    scan = make_scan()
    return pf.GroupedDataset(
        scan, pf.group_positions(scan.positions, n_groups, seed=3), **arguments
    )


def stage_6(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """CONTRACT 3: rows by (word, row) of stage 6."""
    words = reference.words(reference.key(seed, epoch), 1, -(-n // 4), 0, 6)[:n]
    return np.lexsort((np.arange(n), words))


def in_file(tmp_path: Path, stack: NDArray[Any]) -> FileFrames:
    path = tmp_path / "stack.bin"
    path.write_bytes(b"head" + stack.tobytes())
    return FileFrames(path, 4, stack.shape, stack.dtype)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_batches_hold_what_the_definition_says(
    tmp_path: Path, layout: str, where: str, normalize: bool, masked: bool
) -> None:
    mask = np.random.default_rng(0).random((N, N)) < 0.8 if masked else None
    scan = make_scan(mask=mask)
    assert scan.object is not None
    image = scan.object
    groups = pf.group_positions(scan.positions, 47, seed=3)
    stack = scan.diffraction if mask is None else np.where(mask, scan.diffraction, 0)
    if where == "file":
        held = in_file(tmp_path, scan.diffraction)
        scan = pf.Scan(scan.positions, held, probe=scan.probe, object=scan.object, mask=mask)
    data = pf.GroupedDataset(scan, groups, normalize=normalize)
    order = stage_6(47, 5, 2)
    seen = 0
    fields = ("Y", "probe", "scan_id")
    batches = data.batches(10, shuffle=True, seed=5, epoch=2, fields=fields, layout=layout)
    assert len(batches) == 5
    for batch in batches:
        rows = order[seen : seen + 10]
        seen += len(rows)
        indices = groups.indices[rows]
        patterns = reference.gather(stack, indices)
        if normalize:
            scale = reference.normalisation_scale(reference.gather(stack, groups.indices), N)
            np.testing.assert_allclose(data.scales, [scale], rtol=2e-7)
            patterns = data.scales[0] * patterns.astype(np.float32)
        coords = reference.coordinates(scan.positions, indices)
        patches = reference.extract_patches(image, coords["coords_nn"], N)
        if layout == "channels_first":
            patterns, patches = patterns.transpose(0, 3, 1, 2), patches.transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(batch["diffraction"], patterns)
        assert batch["diffraction"].dtype == data.dtype == np.float32
        np.testing.assert_array_equal(batch["coords_relative"], coords["coords_relative"])
        np.testing.assert_array_equal(batch["coords_offsets"], coords["coords_offsets"])
        np.testing.assert_array_equal(batch["nn_indices"], indices)
        np.testing.assert_allclose(batch["Y"], patches, atol=1e-5)
        np.testing.assert_array_equal(batch["probe"], [scan.probe] * len(rows))
        np.testing.assert_array_equal(batch["scan_id"], [0] * len(rows))
        assert all(array.flags.c_contiguous for array in batch.values())
    assert seen == 47


def test_without_shuffling_groups_come_in_their_order() -> None:
    data = make_data()
    rows = np.concatenate([batch["nn_indices"] for batch in data.batches(10)])
    np.testing.assert_array_equal(rows, data.groups[0].indices)


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([1, 2, 7, 31, 47]), batch_size=st.integers(1, 12),
    world_size=st.integers(1, 5), mode=st.sampled_from(["default", "pad", "drop"]),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_ranks_share_an_epoch(
    n: int, batch_size: int, world_size: int, mode: str, epoch: int
) -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, n, gridsize=1, seed=0))
    order = data.groups[0].indices[stage_6(n, 9, epoch), 0]
    stride = batch_size * world_size
    dropping = mode == "drop" or (mode == "default" and world_size > 1)
    arguments: dict[str, Any] = {"pad": mode == "pad"}
    if mode == "drop":
        arguments["drop_last"] = True
    if dropping and n < stride:
        with pytest.raises(ValueError, match=f"{n} groups make no whole batch"):
            data.batches(batch_size, rank=0, world_size=world_size, **arguments)
        return
    batches = [
        [
            batch["nn_indices"][:, 0]
            for batch in data.batches(
                batch_size, shuffle=True, seed=9, epoch=epoch, rank=rank, world_size=world_size,
                **arguments,
            )
        ]
        for rank in range(world_size)
    ]  # fmt: skip
    assert len({len(of_rank) for of_rank in batches}) == 1
    together = np.concatenate([part for step in zip(*batches, strict=True) for part in step])
    if mode == "pad":
        expected = np.resize(order, -(-n // stride) * stride)
    else:
        expected = order[: n // stride * stride] if dropping else order
    np.testing.assert_array_equal(together, expected)


def test_uneven_ranks_and_contradictions_are_refused() -> None:
    data = make_data()
    for arguments, words in [
        ({"rank": 0, "world_size": 2, "drop_last": False}, "hangs distributed training"),
        ({"pad": True, "drop_last": True}, "choose one"),
        ({"rank": 0}, "Pass both rank and world_size, or neither: got rank=0"),
        ({"rank": 2, "world_size": 2}, r"rank must be a whole number in 0\.\.1"),
        ({"fields": ("Z",)}, "fields must be among"),
        ({"layout": "NCHW"}, "layout must be one of"),
        ({"start_batch": 9}, r"start_batch must be a whole number in 0\.\.5"),
        ({"shuffle": True, "seed": -1}, "seed must be"),
    ]:
        with pytest.raises(ValueError, match=words):
            data.batches(10, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be"):
        data.batches(0)


def test_what_is_dropped_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ptycho_fast")
    make_data().batches(10, rank=1, world_size=2)
    assert "the last 7 of 47 groups make no whole batch of 2 x 10 and are dropped" in caplog.text


def test_threads_change_nothing() -> None:
    expected = [batch["diffraction"] for batch in make_data(num_threads=1).batches(10)]
    for threads in (2, 8):
        found = [batch["diffraction"] for batch in make_data(num_threads=threads).batches(10)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_resuming_mid_epoch() -> None:
    data = make_data()
    whole = list(data.batches(10, shuffle=True, seed=1))
    rest = data.batches(10, shuffle=True, seed=1, start_batch=3)
    assert len(rest) == 2
    for one, other in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(one["diffraction"], other["diffraction"])
    assert not list(data.batches(10, start_batch=5))


# --- buffers and threads -----------------------------------------------------------------------


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


def test_what_is_made_from_a_batch_keeps_its_buffer() -> None:
    data = make_data()
    slices, copies = [], []
    for batch in data.batches(2):
        slices.append(batch["diffraction"][0, :, :, 1])  # a view of a view
        copies.append(slices[-1].copy())
        del batch
    for view, copy in zip(slices, copies, strict=True):
        np.testing.assert_array_equal(view, copy)


def test_batches_that_are_let_go_are_reused() -> None:
    addresses = {batch["diffraction"].ctypes.data for batch in make_data().batches(2)}
    assert len(addresses) < 10  # of 24 batches


def test_arrays_begin_on_64_bytes() -> None:
    for batch in make_data().batches(3, fields=("Y",)):
        assert batch["diffraction"].ctypes.data % 64 == batch["Y"].ctypes.data % 64 == 0


def our_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "ptycho_fast-batches" in thread.name]


def wait_until_gone() -> None:
    deadline = time.monotonic() + 10
    while our_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not our_threads()


def test_an_abandoned_iterator_leaves_nothing() -> None:
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


def test_a_file_cut_short_is_an_error_where_the_batch_is_asked_for(tmp_path: Path) -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 47, seed=3)

    def opened() -> pf.GroupedDataset:
        return pf.GroupedDataset(
            pf.Scan(scan.positions, in_file(tmp_path, scan.diffraction)), groups
        )

    data = opened()
    expected = [batch["diffraction"] for batch in data.batches(5)]
    os.truncate(tmp_path / "stack.bin", 4000)
    with pytest.raises(OSError, match=r"stack.bin was (cut short|changed)"):
        list(data.batches(5))
    wait_until_gone()
    for one, other in zip(opened().batches(5), expected, strict=True):  # written again
        np.testing.assert_array_equal(one["diffraction"], other)


def test_ctrl_c_arrives(tmp_path: Path) -> None:
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


def _epoch_in_child(data: pf.GroupedDataset, result: Any) -> None:
    result.put(sum(float(batch["diffraction"].sum()) for batch in data.batches(10)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_iterates_too(tmp_path: Path, method: str) -> None:
    scan = make_scan()
    held = in_file(tmp_path, scan.diffraction)
    scan = pf.Scan(scan.positions, held, probe=scan.probe, object=scan.object)
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
    assert "made by a thread of the parent process" in result.get(timeout=60)
    child.join(timeout=60)


def test_out_is_filled_in_place() -> None:
    data = make_data()
    out: dict[str, NDArray[Any]] = {
        "diffraction": np.empty((10, N, N, C), np.float32),
        "coords_relative": np.empty((10, 1, 2, C)),
        "nn_indices": np.empty((10, C), np.int32),
        "Y": np.empty((10, N, N, C), np.complex64),
    }
    expected = list(data.batches(10, fields=("Y",)))
    for batch, other in zip(data.batches(10, fields=("Y",), out=out), expected, strict=True):
        for key, array in batch.items():
            np.testing.assert_array_equal(array, other[key])
            if key in out:
                assert np.shares_memory(array, out[key])
    for key, wrong in [("diffraction", np.empty((10, N, N, C))), ("nn_indices", np.empty((9, C)))]:
        with pytest.raises(ValueError, match=rf"out\['{key}'\] has shape .* is needed"):
            next(data.batches(10, out={key: wrong}))


# --- epochs, splits, several scans ------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{}, {"include_center": True}, {"centers": "sequential"}, {"gridsize": 1}],
)
def test_another_epoch_draws_what_group_positions_draws(arguments: dict[str, Any]) -> None:
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 30, seed=3, **arguments)
    data = pf.GroupedDataset(scan, groups)
    for epoch in (1, 7):
        expected = pf.group_positions(scan.positions, 30, seed=3, epoch=epoch, **arguments)
        found = data.at_epoch(epoch).groups[0]
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.centers, expected.centers)
        assert found.epoch == epoch
    np.testing.assert_array_equal(data.at_epoch(7).at_epoch(0).groups[0].indices, groups.indices)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "oversample", "n_groups": 90},
        {"rule": "quadrant", "max_distance": 40.0},
        {"rule": "overlap", "N": 8, "min_overlap": 0.01},
        {"strategy": "group-then-sample", "n_groups": 30},
        {"min_distance": 4.0, "max_distance": 30.0},
        {"max_distance": 30.0, "groups_per_center": 2},
        {"bounds": ((0.0, 0.5), (0.0, 1.0))},
        {"scan_ids": np.arange(60) % 2},
        {"scan_ids": np.arange(60) % 2, "rule": "quadrant", "max_distance": 60.0},
    ],
    ids="-".join,
)
def test_batches_of_an_epoch_hold_the_groups_of_every_rule(arguments: dict[str, Any]) -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=3, **arguments))
    for epoch in (0, 1):
        expected = pf.group_positions(scan.positions, seed=3, epoch=epoch, **arguments)
        of_epoch = data.at_epoch(epoch)
        with of_epoch.batches(7, fields=("Y",)) as batches:
            made = list(batches)
        found = {key: np.concatenate([batch[key] for batch in made]) for key in made[0]}
        np.testing.assert_array_equal(found["nn_indices"], expected.indices)
        np.testing.assert_array_equal(found["coords_relative"], expected.relative)
        patterns = reference.gather(scan.diffraction, expected.indices)
        np.testing.assert_array_equal(found["diffraction"], patterns)
        assert of_epoch.groups[0].left_out == expected.left_out


def test_legacy_groups_have_no_epochs() -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 9, seed=3, rng="numpy"))
    with pytest.raises(ValueError, match="can't be redrawn"):
        data.at_epoch(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_split_shares_no_pattern(seed: int) -> None:
    scan = pf.simulate_scan(400, 16, seed=seed)
    groups = pf.group_positions(scan.positions, seed=1)
    data = pf.GroupedDataset(scan, groups, normalize=True)
    training, validation = data.split(validation=0.2, margin=5)
    for epoch in (0, 4):
        one, other = training.at_epoch(epoch), validation.at_epoch(epoch)
        used, held = (np.unique(side.groups[0].indices) for side in (one, other))
        assert not np.intersect1d(used, held).size
        long = np.argmax(np.ptp(scan.positions, axis=0))
        gap = scan.positions[held, long].min() - scan.positions[used, long].max()
        assert gap >= 5
        assert len(other) > 30
        assert len(one) > 200
        drawn = data.at_epoch(epoch).groups[0].indices.tolist()
        assert all(group in drawn for group in one.groups[0].indices.tolist())
    np.testing.assert_array_equal(training.scales, data.scales)
    np.testing.assert_array_equal(validation.scales, data.scales)


def test_splits_that_leave_nothing_are_refused() -> None:
    data = make_data()
    with pytest.raises(ValueError, match="leaves 0 groups to train on"):
        data.split(margin=1e6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        data.split(validation=1.5)


def test_several_scans_in_one_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    masks = [None, rng.random((N, N)) < 0.7, rng.random((N, N)) < 0.7]
    scans = [make_scan(50 + i, seed=i, mask=mask) for i, mask in enumerate(masks)]
    held = in_file(tmp_path, scans[1].diffraction)
    scans[1] = pf.Scan(
        scans[1].positions, held, probe=scans[1].probe, object=scans[1].object, mask=masks[1]
    )
    parts = [
        pf.GroupedDataset(scan, pf.group_positions(scan.positions, 20 + i, seed=i), normalize=True)
        for i, scan in enumerate(scans)
    ]
    data = pf.GroupedDataset.concatenate(parts)
    assert len(data) == 63
    np.testing.assert_array_equal(data.scales, [part.scales[0] for part in parts])
    seen: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for layout in ("channels_last", "channels_first"):
        fields = ("Y", "probe", "scan_id")
        for batch in data.batches(10, shuffle=True, seed=2, fields=fields, layout=layout):
            assert len(set(batch["scan_id"].tolist())) > 1  # they are mixed
            for b, i in enumerate(batch["scan_id"]):
                indices = batch["nn_indices"][b : b + 1]
                stack = np.asarray(scans[i].diffraction)
                mask = masks[i]
                stack = stack if mask is None else np.where(mask, stack, 0)
                pattern = parts[i].scales[0] * reference.gather(stack, indices)[0]
                coords = reference.coordinates(scans[i].positions, indices)
                patch = reference.extract_patches(scans[i].object, coords["coords_nn"], N)[0]
                if layout == "channels_first":
                    pattern, patch = pattern.transpose(2, 0, 1), patch.transpose(2, 0, 1)
                np.testing.assert_array_equal(batch["diffraction"][b], pattern)
                np.testing.assert_array_equal(
                    batch["coords_relative"][b], coords["coords_relative"][0]
                )
                np.testing.assert_allclose(batch["Y"][b], patch, atol=1e-5)
                np.testing.assert_array_equal(batch["probe"][b], scans[i].probe)
                if layout == "channels_last":
                    seen[int(i)].append(tuple(indices[0]))
    for i, part in enumerate(parts):
        assert sorted(seen[i]) == sorted(map(tuple, part.groups[0].indices))
    later = data.at_epoch(3)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(later.groups[i].indices, part.at_epoch(3).groups[0].indices)


def test_scans_that_do_not_go_together_are_refused() -> None:
    scan = pf.simulate_scan(50, 16, seed=0)
    other = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=0))
    with pytest.raises(ValueError, match="must have the same N to be concatenated, got 16, 8"):
        pf.GroupedDataset.concatenate([make_data(), other])
    with pytest.raises(ValueError, match="the same normalize"):
        pf.GroupedDataset.concatenate([make_data(), make_data(normalize=True)])
    with pytest.raises(ValueError, match="got none"):
        pf.GroupedDataset.concatenate([])


def test_groups_of_another_scan_and_missing_fields_are_refused() -> None:
    scan = make_scan()
    with pytest.raises(ValueError, match="are not the scan's 60"):
        pf.GroupedDataset(scan, pf.group_positions(scan.positions + 1, seed=0))
    bare = pf.Scan(scan.positions, scan.diffraction)
    data = pf.GroupedDataset(bare, pf.group_positions(scan.positions, seed=0))
    with pytest.raises(ValueError, match=r"'Y' needs scan.object, which scan 0 does not have"):
        data.batches(4, fields=("Y",))
    with pytest.raises(ValueError, match="'probe' needs scan.probe"):
        data.batches(4, fields=("probe",))


def test_stored_energies_are_used_and_a_pass_is_announced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ptycho_fast")
    scan = make_scan()
    groups = pf.group_positions(scan.positions, 47, seed=3)
    computed = pf.GroupedDataset(scan, groups, normalize=True).scales
    assert "one pass over 60 patterns" in caplog.text
    caplog.clear()
    stored = pf.Scan(
        scan.positions, scan.diffraction, energies=(scan.diffraction.astype(float) ** 2).sum((1, 2))
    )
    np.testing.assert_allclose(
        pf.GroupedDataset(stored, groups, normalize=True).scales, computed, rtol=1e-7
    )
    assert "one pass" not in caplog.text


def test_everything_at_once() -> None:
    data = make_data(normalize=True)
    whole = data.materialize(fields=("Y",))
    assert whole["diffraction"].shape == (47, N, N, C)
    batches = list(data.batches(10, fields=("Y",)))
    for key, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([batch[key] for batch in batches]))


def test_a_data_set_pickles() -> None:
    data = make_data(normalize=True)
    again = pickle.loads(pickle.dumps(data))
    for one, other in zip(again.batches(10), data.batches(10), strict=True):
        np.testing.assert_array_equal(one["diffraction"], other["diffraction"])


def test_torchs_ranks_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    data = make_data()
    assert len(data.batches(10)) == 5
    torch.distributed.init_process_group(
        "gloo", init_method="tcp://127.0.0.1:29531", rank=0, world_size=1
    )
    try:
        assert len(data.batches(10)) == 5
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        assert len(data.batches(10)) == 2
    finally:
        monkeypatch.undo()
        torch.distributed.destroy_process_group()


def test_local_world_size_shares_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYCHO_FAST_NUM_THREADS", "6")
    assert make_data().num_threads == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert make_data().num_threads == 1
    assert make_data(num_threads=5).num_threads == 5
