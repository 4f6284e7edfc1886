"""What is in a batch, in which order the groups come, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from small_scans import C, N, in_file, make_data, make_scan, rows, shuffled

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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
        scan = in_file(tmp_path / "stack.bin", scan)
    data = pf.GroupedDataset(scan, groups, normalize=normalize)
    order = shuffled(47, 5, 2)
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
    np.testing.assert_array_equal(rows(data.batches(10)), data.groups[0].indices)


@settings(deadline=None, max_examples=60)
@given(
    n=st.sampled_from([1, 2, 7, 31, 47]), batch_size=st.integers(1, 12),
    world_size=st.integers(1, 5), mode=st.sampled_from(["default", "pad", "drop"]),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_ranks_share_the_groups_of_an_epoch(
    n: int, batch_size: int, world_size: int, mode: str, epoch: int
) -> None:
    scan = make_scan()
    data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, n, gridsize=1, seed=0))
    order = data.groups[0].indices[shuffled(n, 9, epoch), 0]
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


def test_ranks_of_torch_distributed_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_dropped_groups_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ptycho_fast")
    make_data().batches(10, rank=1, world_size=2)
    told = "the last 7 of 47 groups make no whole batch of 2 x 10 and are dropped"
    assert caplog.text.count(told) == 1


def test_start_batch_continues_in_the_middle_of_an_epoch() -> None:
    data = make_data()
    whole = list(data.batches(10, shuffle=True, seed=1))
    rest = data.batches(10, shuffle=True, seed=1, start_batch=3)
    assert len(rest) == 2
    for one, other in zip(rest, whole[3:], strict=True):
        np.testing.assert_array_equal(one["diffraction"], other["diffraction"])
    assert not list(data.batches(10, start_batch=5))


def test_materialize_returns_all_batches_in_one() -> None:
    data = make_data(normalize=True)
    whole = data.materialize(fields=("Y",))
    assert whole["diffraction"].shape == (47, N, N, C)
    batches = list(data.batches(10, fields=("Y",)))
    for key, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([batch[key] for batch in batches]))


def test_out_is_filled_in_place_and_checked() -> None:
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


def test_uneven_ranks_and_contradictory_arguments_are_refused() -> None:
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
