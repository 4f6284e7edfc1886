"""Batches as a ``tf.data.Dataset``: `GroupedDataset.to_tensorflow` explains the arguments.

Training with Keras
-------------------
Before training, Keras takes one batch to build a model, which counts as an iteration. This
callback makes the epochs of Keras those of the data set, also with ``initial_epoch=``::

    keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: feed.set_epoch(epoch))

Several workers
---------------
With ``tf.distribute``, make one data set for each worker. Its batches go to the worker's replicas
in turn; automatic sharding is switched off. ::

    strategy.distribute_datasets_from_function(
        lambda context: data.to_tensorflow(
            batch_size,
            rank=context.input_pipeline_id,
            world_size=context.num_input_pipelines,
        )
    )

Examples
--------
>>> import ptycho_fast as pf
>>> scan = pf.simulate_scan(n_positions=60, N=16, seed=0)
>>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, 50, seed=1))
>>> feed = data.to_tensorflow(batch_size=20, shuffle=True, drop_last=True)
>>> feed.element_spec["diffraction"].shape, int(feed.cardinality())
(TensorShape([20, 16, 16, 4]), 2)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batches.ahead import AHEAD, Batches
from ptycho_fast.batches.options import BatchOptions
from ptycho_fast.checks import as_count, as_object
from ptycho_fast.grouping import group_coordinates, relative_coordinates
from ptycho_fast.patches import cpu
from ptycho_fast.patches.tensorflow import extract_patches  # an ImportError says what to install

# isort: split
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from ptycho_fast.batches.options import BatchArguments
    from ptycho_fast.batches.source import BatchSource

    Batch = dict[str, NDArray[Any]]

PREFETCHED = 2
"""Batches that wait as tensors, besides those that threads have made ahead as arrays."""


def to_tensorflow(
    source: BatchSource,
    batch_size: int,
    *,
    layout: str,
    redraw: bool,
    intensity_scale: float,
    **options: Unpack[BatchArguments],
) -> Any:
    """Return batches as a ``tf.data.Dataset``; see `GroupedDataset.to_tensorflow`."""
    pinn = layout == "ptychopinn"
    chosen = BatchOptions(batch_size, layout="channels_last" if pinn else layout, **options)
    if pinn:
        _check_ptychopinn(source, chosen.fields, intensity_scale)
    elif intensity_scale != 1:
        msg = (
            f"intensity_scale={intensity_scale!r} is only used with layout='ptychopinn', and the "
            f"layout is {layout!r}. Leave one of them out."
        )
        raise ValueError(msg)
    schedule = source.schedule(chosen)  # refuses wrong options now, not at the first batch
    whole = schedule.always_whole or (len(source) % batch_size == 0 and not redraw)

    # tf.data works on the CPU. If there is a GPU, patches are cut there instead, from an object
    # that is copied to it once.
    image = source.scans[0].object if len(source.scans) == 1 else None
    device = "" if image is None else first_gpu()
    wanted = ("object",) if pinn else tuple(chosen.fields)
    made = tuple(name for name in wanted if not device or name not in ("object", "Y"))
    epochs = _EpochGenerator(source, chosen, made, count=len(schedule), redraw=redraw, pinn=pinn)
    # A step of `model.fit` takes 1.03 times as long as with one constant batch (26 ms at N = 64,
    # 92 ms at N = 128, two busy cores). With a Keras PyDataset of the same batches it took 1.03
    # and 1.10 times as long: benches/feed_tensorflow.py.
    dataset = tf.data.Dataset.from_generator(
        epochs,
        # PtychoPINN's model folds the channels into the batch axis; if it knows the length of
        # that, it takes it for the number of groups.
        output_signature=_signature(
            source, batch_size if whole and not pinn else None, made, chosen
        ),
    )
    if image is not None and made != wanted:
        name = "object" if pinn else "Y"
        dataset = dataset.map(patch_cutter(image, source.N, name, device, layout))
    if pinn:
        dataset = dataset.map(lambda batch: _as_ptychopinn(batch, intensity_scale))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(schedule)))
    behaviour = tf.data.Options()
    # rank and world_size say what each worker gets.
    behaviour.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.prefetch(PREFETCHED).with_options(behaviour)
    dataset.set_epoch = epochs.set_epoch
    return dataset


class _EpochGenerator:
    """Each call returns an iterator over one epoch; the next call, over the next epoch."""

    def __init__(
        self,
        source: BatchSource,
        options: BatchOptions,
        made: tuple[str, ...],
        *,
        count: int,
        redraw: bool,
        pinn: bool,
    ) -> None:
        self.source, self.options, self.made = source, options, made
        self.count, self.epoch, self.redraw = count, options.epoch, redraw
        self.planned = pinn and any(
            not np.array_equal(scan.positions_start, scan.positions) for scan in source.scans
        )
        fields = [name for name in made if name != "object"]
        if "object" in made or self.planned:
            fields.append("scan_id")
        self.fields = tuple(fields)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = as_count("epoch", epoch, least=0, most=2**32 - 1)

    def __call__(self) -> Iterator[Batch]:
        # Runs when the first batch is asked for: an iterator that is never used is no epoch.
        epoch = self.epoch
        self.epoch += 1
        source = self.source.at_epoch(epoch) if self.redraw else self.source
        options = replace(self.options, epoch=epoch, fields=self.fields)
        left = self.count
        while left:  # more than once if this epoch has fewer groups than the first one had
            makers = source.makers(options)
            # TensorFlow closes this generator when it forgets the iterator; that ends the threads.
            with Batches(makers, makers[0].numbers(), ahead=AHEAD) as batches:
                for batch in itertools.islice(batches, left):
                    left -= 1
                    if "object" in self.made:
                        batch["object"] = _cut_at_centers(source, batch)
                    if self.planned:
                        batch["coords_relative"] = _planned_coordinates(source, batch)
                    if "scan_id" not in self.made:
                        batch.pop("scan_id", None)
                    yield batch


def _signature(
    source: BatchSource, batch_size: int | None, made: tuple[str, ...], options: BatchOptions
) -> dict[str, Any]:
    """Return shape and dtype of every array that is made."""
    N, C = source.N, source.group_size
    image = (C, N, N) if options.channels_first else (N, N, C)
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "diffraction": (image, source.dtype),
        "coords_relative": ((1, 2, C), np.float64),
        "coords_offsets": ((1, 2, 1), np.float64),
        "nn_indices": ((C,), np.int32),
    }
    if "Y" in made:
        kinds["Y"] = (image, np.complex64)
    if "object" in made:
        kinds["object"] = ((N, N, 1), np.complex64)
    if "probe" in made:
        probes = [scan.probe for scan in source.scans if scan.probe is not None]
        kinds["probe"] = (probes[0].shape, np.result_type(*probes))
    if "scan_id" in made:
        kinds["scan_id"] = ((), np.int32)
    if "good" in made:
        kinds["good"] = (image, np.bool_)
    return {
        name: tf.TensorSpec((batch_size, *shape), dtype) for name, (shape, dtype) in kinds.items()
    }


# --- patches ----------------------------------------------------------------------------------


def first_gpu() -> str:
    """Return the name of the first GPU that TensorFlow sees, "" if there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    return str(gpus[0].name) if gpus else ""


def patch_cutter(
    image: NDArray[Any], N: int, name: str, device: str, layout: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that adds the patches `name` ("Y" or "object") to a batch, on a device."""
    with tf.device(device):
        there = tf.Variable(as_object(image), trainable=False)

    def cut(batch: dict[str, Any]) -> dict[str, Any]:
        with tf.device(device):
            positions = batch["coords_offsets"]
            if name == "Y":
                positions -= batch["coords_relative"]
            patches = extract_patches(there, positions, N, method="xla")
            if layout == "channels_first":
                patches = tf.transpose(patches, [0, 3, 1, 2])
        return {**batch, name: patches}

    return cut


def _cut_at_centers(source: BatchSource, batch: Batch) -> NDArray[np.complex64]:
    """Cut one patch a group, around its centre; zeros where a scan has no object."""
    patches = np.zeros((len(batch["scan_id"]), source.N, source.N, 1), np.complex64)
    for number in np.unique(batch["scan_id"]):
        image, own = source.scans[number].object, batch["scan_id"] == number
        if image is not None:
            patches[own] = cpu.extract_patches(image, batch["coords_offsets"][own], source.N)
    return patches


# --- layout="ptychopinn" ----------------------------------------------------------------------


def _planned_coordinates(source: BatchSource, batch: Batch) -> NDArray[np.float64]:
    """Return the relative coordinates of the planned positions."""
    relative = np.empty_like(batch["coords_relative"])
    for number in np.unique(batch["scan_id"]):
        start, own = source.scans[number].positions_start, batch["scan_id"] == number
        relative[own] = relative_coordinates(group_coordinates(start, batch["nn_indices"][own]))[1]
    return relative


def _check_ptychopinn(source: BatchSource, fields: Sequence[str], intensity_scale: float) -> None:
    if not source.normalize:
        msg = (
            "layout='ptychopinn' needs normalised amplitudes. Make the data set with "
            "GroupedDataset(scan, groups, normalize=True)."
        )
        raise ValueError(msg)
    if fields:
        msg = (
            f"layout='ptychopinn' has no place for fields={tuple(fields)!r}: its batches are "
            "pairs (inputs, targets). Leave fields out, or choose another layout."
        )
        raise ValueError(msg)
    if not (math.isfinite(intensity_scale) and intensity_scale > 0):
        msg = f"intensity_scale must be positive and finite, got {intensity_scale!r}."
        raise ValueError(msg)


def _as_ptychopinn(batch: dict[str, Any], intensity_scale: float) -> tuple[Any, Any]:
    """Turn a batch into the inputs and targets of PtychoPINN's model."""
    amplitude = batch["diffraction"]
    if intensity_scale != 1:
        amplitude *= intensity_scale
    relative = tf.cast(batch["coords_relative"], tf.float32)
    return (amplitude, relative), (tf.abs(batch["object"]), amplitude, tf.square(amplitude))
