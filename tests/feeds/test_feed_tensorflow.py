"""What is particular to ``tf.data``: static shapes, iterators, replicas, training with Keras."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from places import ROOT
from small_scans import rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import ptycho_fast as pf

tf = pytest.importorskip("tensorflow")

N = 16
ALL = ("Y", "probe", "scan_id")


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


def test_an_unused_iterator_does_not_count_as_an_epoch(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True)
    iter(feed)  # as Keras makes after an epoch
    np.testing.assert_array_equal(rows(feed), rows(data.batches(8, shuffle=True)))


def test_epochs_that_overlap_are_each_their_own(data: pf.GroupedDataset) -> None:
    feed = data.to_tensorflow(8, shuffle=True)
    both = tf.data.Dataset.zip((feed, feed))
    pairs = [(first["nn_indices"], second["nn_indices"]) for first, second in both]
    found = {np.concatenate(side).tobytes() for side in zip(*pairs, strict=True)}
    assert found == {rows(data.batches(8, shuffle=True, epoch=e)).tobytes() for e in (0, 1)}


def test_redrawn_epochs_have_the_same_number_of_batches(make_data: Any) -> None:
    """After a split another draw has more groups on this side, or fewer."""
    training, _ = make_data(100).split(validation=0.3)
    drawn = [training.at_epoch(epoch) for epoch in range(12)]
    assert min(map(len, drawn)) < len(training) < max(map(len, drawn))
    feed = training.to_tensorflow(1, redraw=True)
    for other in drawn:
        expected = np.resize(other.groups[0].indices, (len(training), 4))
        np.testing.assert_array_equal(rows(feed), expected)


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


def test_replicas_share_the_groups_and_patches_are_cut_on_another_device() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "AUTO sharding policy" not in done.stderr


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
