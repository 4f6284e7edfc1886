"""Batches in tf.data: those of `GroupedDataset.batches`, epoch after epoch, rank by rank."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from places import ROOT
from ptycho_fast.frames import FileFrames, Frames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

tf = pytest.importorskip("tensorflow")

N = 16
ALL = ("Y", "probe", "scan_id")


def make_data(n_groups: int = 50, seed: int = 0, *, normalize: bool = False) -> pf.GroupedDataset:
    scan = pf.simulate_scan(n_positions=130, N=N, seed=seed)
    groups = pf.group_positions(scan.positions, n_groups, gridsize=2, seed=seed)
    return pf.GroupedDataset(scan, groups, normalize=normalize)


@pytest.fixture(scope="module")
def data() -> pf.GroupedDataset:
    return make_data()


def assert_same(found: Iterable[dict[str, Any]], expected: Iterable[dict[str, Any]]) -> None:
    for tensors, arrays in zip(found, expected, strict=True):
        assert tensors.keys() == arrays.keys()
        for name, array in arrays.items():
            tensor = tensors[name].numpy()
            assert tensor.dtype == array.dtype
            np.testing.assert_array_equal(tensor, array, name)


def rows(feed: Any) -> NDArray[np.int32]:
    """Which groups an epoch of a feed holds, in order."""
    indices: NDArray[np.int32] = np.concatenate([batch["nn_indices"] for batch in feed])
    return indices


def assert_no_thread_is_left() -> None:
    gc.collect()
    waited_until = time.monotonic() + 10
    while any(thread.name == "ptycho_fast-batches" for thread in threading.enumerate()):
        assert time.monotonic() < waited_until, "a thread still makes batches"
        time.sleep(0.01)


# --- what a batch holds -----------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_epoch_after_epoch_holds_the_batches_of_the_data_set(layout: str, normalize: bool) -> None:
    data = make_data(normalize=normalize)
    feed = data.to_tensorflow(8, shuffle=True, seed=5, fields=ALL, layout=layout)
    for epoch in range(3):
        expected = data.batches(8, shuffle=True, seed=5, epoch=epoch, fields=ALL, layout=layout)
        assert_same(feed, expected)


def test_a_batch_follows_the_definitions(data: pf.GroupedDataset) -> None:
    scan, groups = data.scans[0], data.groups[0]
    assert scan.object is not None
    assert scan.probe is not None
    (batch,) = data.to_tensorflow(len(data), fields=("Y", "probe"))
    np.testing.assert_array_equal(
        batch["diffraction"], reference.gather(scan.diffraction, groups.indices)
    )
    coordinates = reference.coordinates(scan.positions, groups.indices)
    np.testing.assert_array_equal(batch["coords_relative"], coordinates["coords_relative"])
    np.testing.assert_array_equal(batch["coords_offsets"], coordinates["coords_offsets"])
    positions = scan.positions[groups.indices].transpose(0, 2, 1)
    patches = reference.extract_patches(scan.object, positions, N)
    np.testing.assert_allclose(batch["Y"], patches, atol=2e-6)
    np.testing.assert_array_equal(batch["probe"], np.broadcast_to(scan.probe, batch["probe"].shape))


def test_several_scans(data: pf.GroupedDataset) -> None:
    both = pf.GroupedDataset.concatenate([data, make_data(30, seed=1)])
    feed = both.to_tensorflow(16, shuffle=True, fields=ALL)
    assert_same(feed, both.batches(16, shuffle=True, fields=ALL))
    scans = np.concatenate([batch["scan_id"] for batch in feed])
    assert np.bincount(scans).tolist() == [50, 30]


def test_patterns_of_counts(data: pf.GroupedDataset) -> None:
    scan = data.scans[0]
    counts = dataclasses.replace(scan, diffraction=scan.diffraction.astype(np.uint16))
    feed = pf.GroupedDataset(counts, data.groups[0]).to_tensorflow(25)
    assert feed.element_spec["diffraction"].dtype == tf.uint16
    assert_same(feed, pf.GroupedDataset(counts, data.groups[0]).batches(25))


# --- shapes and lengths -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "batch", "count"),
    [
        ({"batch_size": 10}, 10, 5),
        ({"batch_size": 8}, None, 7),
        ({"batch_size": 8, "drop_last": True}, 8, 6),
        ({"batch_size": 8, "drop_last": False}, None, 7),
        ({"batch_size": 8, "pad": True}, 8, 7),
        ({"batch_size": 8, "rank": 1, "world_size": 3}, 8, 2),
        ({"batch_size": 8, "rank": 1, "world_size": 3, "pad": True}, 8, 3),
        ({"batch_size": 10, "redraw": True}, None, 5),
        ({"batch_size": 10, "redraw": True, "drop_last": True}, 10, 5),
    ],
)
def test_shapes_are_static_and_the_cardinality_is_known(
    data: pf.GroupedDataset, options: dict[str, Any], batch: int | None, count: int
) -> None:
    feed = data.to_tensorflow(**options, fields=ALL)
    assert {name: tuple(spec.shape) for name, spec in feed.element_spec.items()} == {
        "diffraction": (batch, N, N, 4),
        "coords_relative": (batch, 1, 2, 4),
        "coords_offsets": (batch, 1, 2, 1),
        "nn_indices": (batch, 4),
        "Y": (batch, N, N, 4),
        "probe": (batch, N, N),
        "scan_id": (batch,),
    }
    assert feed.cardinality() == count == len(list(feed))
    first = data.to_tensorflow(**options, layout="channels_first")
    assert first.element_spec["diffraction"].shape == (batch, 4, N, N)


# --- epochs -----------------------------------------------------------------------------------


def test_epochs_differ_and_can_be_repeated(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True, seed=3)
    first, second = rows(feed), rows(feed)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))

    again = data.to_tensorflow(8, shuffle=True, seed=3)
    np.testing.assert_array_equal(rows(again), first)
    np.testing.assert_array_equal(rows(again), second)
    np.testing.assert_array_equal(
        rows(data.to_tensorflow(8, shuffle=True, seed=3, epoch=1)), second
    )
    assert not np.array_equal(rows(data.to_tensorflow(8, shuffle=True, seed=4)), first)
    in_order = data.to_tensorflow(8)
    np.testing.assert_array_equal(rows(in_order), data.groups[0].indices)
    np.testing.assert_array_equal(rows(in_order), data.groups[0].indices)


def test_set_epoch_says_which_epoch_is_next(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True)
    epochs = [rows(feed) for _ in range(4)]
    feed.set_epoch(2)
    np.testing.assert_array_equal(rows(feed), epochs[2])
    np.testing.assert_array_equal(rows(feed), epochs[3])
    feed.set_epoch(1)
    np.testing.assert_array_equal(rows(feed.map(lambda batch: batch)), epochs[1])
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        feed.set_epoch(-1)


def test_an_iterator_that_is_never_used_is_no_epoch(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True)
    iter(feed)  # as Keras makes after an epoch
    assert_same(feed, data.batches(8, shuffle=True))


def test_epochs_that_overlap_are_each_their_own(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True)
    both = tf.data.Dataset.zip((feed, feed))
    pairs = [(first["nn_indices"], second["nn_indices"]) for first, second in both]
    found = {np.concatenate(side).tobytes() for side in zip(*pairs, strict=True)}
    assert found == {rows(data.batches(8, shuffle=True, epoch=e)).tobytes() for e in (0, 1)}


def test_redraw_draws_the_groups_of_each_epoch(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True, redraw=True, epoch=2)
    for epoch in (2, 3):
        assert_same(feed, data.at_epoch(epoch).batches(8, shuffle=True, epoch=epoch))


def test_redraw_gives_epochs_of_one_length() -> None:
    """After a split another draw has more groups on this side, or fewer."""
    training, _ = make_data(100).split(validation=0.3)
    drawn = [training.at_epoch(epoch) for epoch in range(12)]
    assert min(map(len, drawn)) < len(training) < max(map(len, drawn))
    feed = training.to_tensorflow(1, redraw=True)
    for other in drawn:
        expected = np.resize(other.groups[0].indices, (len(training), 4))
        np.testing.assert_array_equal(rows(feed), expected)


# --- ranks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [False, True])
def test_ranks_share_the_groups(pad: bool) -> None:
    data = make_data(101)  # a prime number
    feeds = [
        data.to_tensorflow(8, shuffle=True, rank=rank, world_size=3, pad=pad) for rank in range(3)
    ]
    for epoch in range(2):
        order = rows(data.batches(101, shuffle=True, epoch=epoch))
        shares = [[batch["nn_indices"].numpy() for batch in feed] for feed in feeds]
        together = np.concatenate([part for turn in zip(*shares, strict=True) for part in turn])
        expected = np.concatenate([order, order[: 5 * 24 - 101]]) if pad else order[: 4 * 24]
        np.testing.assert_array_equal(together, expected)


IN_A_FRESH_PROCESS = """
import numpy as np, tensorflow as tf
import ptycho_fast as pf
import ptycho_fast.feeds.tensorflow as feeds

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
scan = pf.simulate_scan(n_positions=130, N=16, seed=0)
groups = pf.group_positions(scan.positions, 50, gridsize=2, seed=0)
data = pf.GroupedDataset(scan, groups, normalize=True)

# Two replicas of one worker.
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
whole = strategy.experimental_distribute_dataset(data.to_tensorflow(8, shuffle=True))
own = strategy.distribute_datasets_from_function(
    lambda context: data.to_tensorflow(
        4,
        shuffle=True,
        drop_last=False,
        rank=context.input_pipeline_id,
        world_size=context.num_input_pipelines,
    )
)
for distributed in (whole, own):
    found = [
        part.numpy()
        for batch in distributed
        for part in strategy.experimental_local_results(batch["nn_indices"])
    ]
    found = np.unique(np.concatenate(found), axis=0)
    np.testing.assert_array_equal(found, np.unique(groups.indices, axis=0))

# The second CPU in the role of a GPU.
on_the_cpu = {}
for gpu in (False, True):
    if gpu:
        feeds.first_gpu = lambda: tf.config.list_logical_devices("CPU")[1].name
    for layout in ("channels_last", "channels_first", "ptychopinn"):
        fields = () if layout == "ptychopinn" else ("Y", "probe")
        feed = data.to_tensorflow(8, shuffle=True, fields=fields, layout=layout)
        if not gpu:
            on_the_cpu[layout] = feed.element_spec, list(feed)
            continue
        spec, expected = on_the_cpu[layout]
        assert feed.element_spec == spec
        for ours, theirs in zip(feed, expected, strict=True):
            tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
                                  ours, theirs)
cut = feeds.patch_cutter(scan.object, 16, "Y", feeds.first_gpu(), "channels_last")
spec = data.to_tensorflow(8, drop_last=True).element_spec
graph = tf.function(cut).get_concrete_function(spec).graph.as_graph_def()
placed = [node.device for node in graph.node if node.op.endswith("PartitionedCall")]
assert placed and all(device.endswith("CPU:1") for device in placed), placed
"""


def test_replicas_of_a_strategy_and_patches_on_another_device() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AUTO sharding policy" not in done.stderr


# --- layout="ptychopinn" ----------------------------------------------------------------------


def test_the_layout_of_ptychopinn() -> None:
    data = make_data(normalize=True)
    scan, groups = data.scans[0], data.groups[0]
    assert scan.object is not None
    gathered = reference.gather(scan.diffraction, groups.indices)
    amplitude = 2.5 * reference.normalisation_scale(gathered, N) * gathered
    coordinates = reference.coordinates(scan.positions, groups.indices)
    centers = coordinates["coords_offsets"][:, 0]
    feed = data.to_tensorflow(50, layout="ptychopinn", intensity_scale=2.5)
    ((inputs, targets),) = feed
    np.testing.assert_allclose(inputs[0], amplitude, rtol=1e-6)
    planned = reference.coordinates(scan.positions_start, groups.indices)
    assert np.abs(planned["coords_relative"] - coordinates["coords_relative"]).max() > 0.3
    np.testing.assert_allclose(inputs[1], planned["coords_relative"], rtol=1e-6)
    patches = np.abs(reference.extract_patches(scan.object, centers, N))
    np.testing.assert_allclose(targets[0], patches, atol=2e-6)
    np.testing.assert_array_equal(targets[1], inputs[0])
    np.testing.assert_allclose(targets[2], amplitude**2, rtol=1e-6)
    spec = feed.element_spec
    assert all(tensor.dtype == tf.float32 for pair in spec for tensor in pair)
    assert [tuple(tensor.shape) for pair in spec for tensor in pair] == [
        (None, N, N, 4), (None, 1, 2, 4), (None, N, N, 1), (None, N, N, 4), (None, N, N, 4),
    ]  # fmt: skip


def test_the_layout_of_ptychopinn_feeds_the_planned_positions() -> None:
    both = []
    for seed in (0, 1):
        known = make_data(20, seed, normalize=True)
        scan = known.scans[0]
        rng = np.random.default_rng(seed)
        start = scan.positions + seed * rng.normal(0, 2, scan.positions.shape)
        planned = dataclasses.replace(scan, positions_start=start)
        both.append(pf.GroupedDataset(planned, known.groups[0], normalize=True))
    data = pf.GroupedDataset.concatenate(both)
    ((inputs, targets),) = data.to_tensorflow(40, layout="ptychopinn")
    expected = [
        reference.coordinates(scan.positions_start, groups.indices)["coords_relative"]
        for scan, groups in zip(data.scans, data.groups, strict=True)
    ]
    np.testing.assert_allclose(inputs[1], np.concatenate(expected), rtol=1e-6)
    # Patterns and objects are where the beam was.
    for number, (scan, groups) in enumerate(zip(data.scans, data.groups, strict=True)):
        assert scan.object is not None
        own = slice(20 * number, 20 * number + 20)
        gathered = reference.gather(scan.diffraction, groups.indices)
        amplitude = reference.normalisation_scale(gathered, N) * gathered
        np.testing.assert_allclose(inputs[0][own], amplitude, rtol=1e-6)
        centers = reference.coordinates(scan.positions, groups.indices)["coords_offsets"][:, 0]
        patches = np.abs(reference.extract_patches(scan.object, centers, N))
        np.testing.assert_allclose(targets[0][own], patches, atol=2e-6)


class Folding(tf.keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Each channel becomes a picture of its own, is moved, and they become channels again.

    As in PtychoPINN's model, a length of the batch axis that is known is relied on.
    """

    def call(self, images: Any, relative: Any) -> Any:
        channels = images.shape[-1]
        folded = tf.reshape(tf.transpose(images, [0, 3, 1, 2]), (-1, N, N, 1))
        by_channel = tf.reshape(tf.transpose(relative, [0, 3, 1, 2]), (-1, 2))
        folded *= 1 + 1e-3 * by_channel[:, :1, tf.newaxis, tf.newaxis]
        pictures = -1 if folded.shape[0] is None else folded.shape[0]
        unfolded = tf.reshape(folded, (pictures, channels, N, N))
        return tf.transpose(unfolded, [0, 2, 3, 1])

    def compute_output_shape(self, images_shape: Any, relative_shape: Any) -> Any:
        return images_shape


@pytest.mark.parametrize("batch_size", [10, 8])  # 50 groups: whole batches, and a rest of 2
def test_a_model_that_folds_channels_is_fitted(batch_size: int) -> None:
    data = make_data(normalize=True)
    images = tf.keras.Input((N, N, 4))
    relative = tf.keras.Input((1, 2, 4))
    moved = Folding()(images, relative)
    patch = tf.keras.layers.Conv2D(1, 3, padding="same", name="object")(moved)
    amplitude = tf.keras.layers.Conv2D(4, 3, padding="same", name="amplitude")(moved)
    intensity = tf.keras.layers.Lambda(tf.square, name="intensity")(amplitude)
    model = tf.keras.Model([images, relative], [patch, amplitude, intensity])
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss=["mae", "mae", "mse"])
    feed = data.to_tensorflow(batch_size, layout="ptychopinn", shuffle=True)
    history = model.fit(feed, epochs=2, verbose=0, shuffle=False, validation_data=feed)
    losses = history.history["loss"]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_the_object_channel_is_zero_where_a_scan_has_no_object() -> None:
    seen = make_data(20, normalize=True)
    unseen = pf.GroupedDataset(
        dataclasses.replace(seen.scans[0], object=None), seen.groups[0], normalize=True
    )
    both = pf.GroupedDataset.concatenate([unseen, seen])
    ((_, (patches, _, _)),) = both.to_tensorflow(40, layout="ptychopinn")
    ((_, (alone, _, _)),) = seen.to_tensorflow(20, layout="ptychopinn")
    assert not np.any(patches[:20])
    np.testing.assert_array_equal(patches[20:], alone)
    assert np.all(alone.numpy()[:, N // 2, N // 2] > 0.5)


@pytest.mark.parametrize(
    ("normalize", "options", "sentence"),
    [
        (False, {"layout": "ptychopinn"}, "normalize=True"),
        (True, {"layout": "ptychopinn", "fields": ("Y",)}, "no place for fields=.'Y',."),
        (True, {"layout": "ptychopinn", "intensity_scale": 0.0}, "must be positive and finite"),
        (True, {"layout": "ptychopinn", "intensity_scale": np.nan}, "must be positive and finite"),
        (True, {"intensity_scale": 2.0}, "is only used with layout='ptychopinn'"),
        (True, {"layout": "rows"}, "layout must be one of"),
        (True, {"fields": ("object",)}, "fields must be among"),
        (True, {"batch_size": 0}, "batch_size must be a whole number"),
        (True, {"epoch": -1, "shuffle": True}, "epoch must be a whole number"),
        (True, {"batch_size": 51, "drop_last": True}, "no whole batch"),
        (True, {"pad": True, "drop_last": True}, "choose one"),
        (True, {"rank": 0, "world_size": 2, "drop_last": False}, "pad=True"),
    ],
)
def test_what_is_wrong_is_refused_before_the_first_batch(
    normalize: bool, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_data(normalize=normalize).to_tensorflow(**{"batch_size": 8, **options})
    assert_no_thread_is_left()


# --- training ---------------------------------------------------------------------------------


def test_model_fit_sees_every_group_of_every_epoch(data: pf.GroupedDataset) -> None:
    seen: list[NDArray[np.int32]] = []

    class Model(tf.keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = tf.keras.layers.Conv2D(4, 3, padding="same")

        def call(self, batch: dict[str, Any]) -> Any:
            return self.layer(batch["diffraction"])

        def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
            seen.append(batch["nn_indices"].numpy())
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(batch) - batch["diffraction"]))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    feed = data.to_tensorflow(8, shuffle=True)
    model = Model()
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    at_begin = tf.keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: feed.set_epoch(e))
    model.fit(feed, epochs=2, verbose=0, shuffle=False, callbacks=[at_begin])
    expected = [rows(data.batches(8, shuffle=True, epoch=epoch)) for epoch in range(2)]
    np.testing.assert_array_equal(np.concatenate(seen), np.concatenate(expected))


def test_the_example_learns(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / "train_keras.py"
    if not path.exists():
        pytest.skip("the examples are not here")
    spec = importlib.util.spec_from_file_location("train_keras", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    losses = example.main()
    # To say the mean of all patches to every pattern costs 0.067.
    assert losses["loss"][0] > 0.08
    assert losses["loss"][-1] < 0.055
    assert losses["val_loss"][-1] < 0.06


# --- faults -----------------------------------------------------------------------------------


def test_an_abandoned_iterator_leaves_no_thread(data: pf.GroupedDataset) -> None:
    iterator = iter(data.to_tensorflow(4))
    next(iterator)
    assert any(thread.name == "ptycho_fast-batches" for thread in threading.enumerate())
    del iterator
    assert_no_thread_is_left()
    for _ in data.to_tensorflow(4).take(1):
        pass
    assert_no_thread_is_left()


def test_an_exception_in_the_consumer_leaves_no_thread(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(4)

    def consume() -> None:
        for _ in feed:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert_no_thread_is_left()
    assert len(list(feed)) == 13


def test_the_iterator_outlives_its_feed(data: pf.GroupedDataset) -> None:
    iterator = iter(data.to_tensorflow(4, fields=("Y",)))
    gc.collect()
    assert len(list(iterator)) == 13
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


def test_a_failure_is_said_and_the_next_epoch_works(data: pf.GroupedDataset) -> None:
    frames = Flaky(data.scans[0].diffraction)
    scan = dataclasses.replace(data.scans[0], diffraction=frames)
    feed = pf.GroupedDataset(scan, data.groups[0]).to_tensorflow(4, shuffle=True)
    assert_same(feed, data.batches(4, shuffle=True))

    frames.broken = True
    with pytest.raises(tf.errors.OpError, match=r"Pattern 7 can't be read\."):
        list(feed)
    assert_no_thread_is_left()

    frames.broken = False
    assert_same(feed, data.batches(4, shuffle=True, epoch=2))
    assert_no_thread_is_left()


def test_a_file_cut_short_while_it_is_read_is_named(
    data: pf.GroupedDataset, tmp_path: Path
) -> None:
    patterns, path = data.scans[0].diffraction, tmp_path / "patterns.raw"
    path.write_bytes(patterns.tobytes())
    frames = FileFrames(path, 0, patterns.shape, patterns.dtype)
    scan = dataclasses.replace(data.scans[0], diffraction=frames)
    feed = pf.GroupedDataset(scan, data.groups[0]).to_tensorflow(4)
    assert_same(feed, data.batches(4))
    os.truncate(path, patterns.nbytes // 3)
    with pytest.raises(tf.errors.OpError, match=r"OSError: .*patterns\.raw was "):
        list(feed)
    assert_no_thread_is_left()
