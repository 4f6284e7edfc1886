"""Batches as a ``tf.data.Dataset``; `GroupedDataset.to_tensorflow` says what there is to ask for.

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
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batching import rank_and_world
from ptycho_fast.checks import as_count, as_object
from ptycho_fast.grouping import group_coordinates, relative_coordinates
from ptycho_fast.patches import cpu
from ptycho_fast.patches.tensorflow import extract_patches  # says what to install

# isort: split
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ptycho_fast.dataset import GroupedDataset

    Batch = dict[str, NDArray[Any]]

AHEAD = 2
"""Batches that wait as tensors, beside those that the data set has made ahead."""


def to_tensorflow(
    data: GroupedDataset,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    redraw: bool = False,
    drop_last: bool | None = None,
    pad: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    fields: Sequence[str] = (),
    layout: str = "channels_last",
    intensity_scale: float = 1.0,
) -> Any:
    """Return the batches of a data set: this is `GroupedDataset.to_tensorflow`."""
    pinn = layout == "ptychopinn"
    if pinn:
        _check_ptychopinn(data, fields, intensity_scale)
    elif intensity_scale != 1:
        msg = f"intensity_scale={intensity_scale!r} belongs to layout='ptychopinn'."
        raise ValueError(msg)
    options = {
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "drop_last": drop_last,
        "pad": pad,
        "rank": rank,
        "world_size": world_size,
        "layout": "channels_last" if pinn else layout,
    }
    # Refused here what is wrong, not at the first batch. With `out` no thread begins to make any.
    count = len(data.batches(**options, epoch=epoch, fields=fields, out={}))  # type: ignore[arg-type]
    drop_last = rank_and_world(rank, world_size)[1] > 1 if drop_last is None else drop_last
    whole = pad or drop_last or (len(data) % batch_size == 0 and not redraw)

    # tf.data works on the CPU. Where there is a GPU, patches are cut there, from an object that
    # stays there.
    image = data.scans[0].object if len(data.scans) == 1 else None
    device = "" if image is None else _gpu()
    wanted = ("object",) if pinn else tuple(fields)
    made = tuple(name for name in wanted if not device or name not in ("object", "Y"))
    planned = pinn and any(
        not np.array_equal(scan.positions_start, scan.positions) for scan in data.scans
    )
    epochs = _Epochs(data, made, options, count=count, epoch=epoch, redraw=redraw, planned=planned)
    # A step of `model.fit` takes 1.03 times as long as with one constant batch (26 ms at N = 64,
    # 92 ms at N = 128, two busy cores). From a Keras PyDataset over the same batches it took 1.03
    # and 1.10 times as long: benches/feed_tensorflow.py.
    dataset = tf.data.Dataset.from_generator(
        epochs,
        # PtychoPINN's model folds channels into the batch axis, and takes the length of that for
        # the number of groups where it is known.
        output_signature=_signature(data, batch_size if whole and not pinn else None, made, layout),
    )
    if image is not None and made != wanted:
        name = "object" if pinn else "Y"
        dataset = dataset.map(_cutter(image, data.N, name, device, layout))
    if pinn:
        dataset = dataset.map(lambda batch: _as_ptychopinn(batch, intensity_scale))
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    behaviour = tf.data.Options()
    # What a replica gets is said by rank and world_size.
    behaviour.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    dataset = dataset.prefetch(AHEAD).with_options(behaviour)
    dataset.set_epoch = epochs.set_epoch
    return dataset


class _Epochs:
    """Each call is an epoch's iterator; the next call, the next epoch's."""

    def __init__(
        self,
        data: GroupedDataset,
        made: tuple[str, ...],
        options: dict[str, Any],
        *,
        count: int,
        epoch: int,
        redraw: bool,
        planned: bool,
    ) -> None:
        self.data, self.made, self.options = data, made, options
        self.count, self.epoch, self.redraw = count, epoch, redraw
        self.planned = planned

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = as_count("epoch", epoch, least=0, most=2**32 - 1)

    def __call__(self) -> Iterator[Batch]:
        # Runs when the first batch is asked for: an iterator that is never used is no epoch.
        epoch = self.epoch
        self.epoch += 1
        data = self.data.at_epoch(epoch) if self.redraw else self.data
        fields = [name for name in self.made if name != "object"]
        if "object" in self.made or self.planned:
            fields.append("scan_id")
        left = self.count
        while left:  # once, unless fewer groups were drawn than for the first epoch
            # TensorFlow closes this generator when it forgets the iterator; that ends the thread.
            with data.batches(**self.options, epoch=epoch, fields=fields) as batches:
                for batch in itertools.islice(batches, left):
                    left -= 1
                    if "object" in self.made:
                        batch["object"] = _cut_at_centers(data, batch)
                    if self.planned:
                        batch["coords_relative"] = _planned(data, batch)
                    if "scan_id" not in self.made:
                        batch.pop("scan_id", None)
                    yield batch


def _signature(
    data: GroupedDataset, batch_size: int | None, made: tuple[str, ...], layout: str
) -> dict[str, Any]:
    """Return shape and dtype of every array that is made."""
    N, C = data.N, data.group_size
    image = (C, N, N) if layout == "channels_first" else (N, N, C)
    kinds: dict[str, tuple[tuple[int, ...], Any]] = {
        "diffraction": (image, data.dtype),
        "coords_relative": ((1, 2, C), np.float64),
        "coords_offsets": ((1, 2, 1), np.float64),
        "nn_indices": ((C,), np.int32),
    }
    if "Y" in made:
        kinds["Y"] = (image, np.complex64)
    if "object" in made:
        kinds["object"] = ((N, N, 1), np.complex64)
    if "probe" in made:
        probes = [scan.probe for scan in data.scans if scan.probe is not None]
        kinds["probe"] = (probes[0].shape, np.result_type(*probes))
    if "scan_id" in made:
        kinds["scan_id"] = ((), np.int32)
    if "good" in made:
        kinds["good"] = (image, np.bool_)
    return {
        name: tf.TensorSpec((batch_size, *shape), dtype) for name, (shape, dtype) in kinds.items()
    }


# --- patches ----------------------------------------------------------------------------------


def _gpu() -> str:
    """Return the name of the first GPU, or nothing."""
    gpus = tf.config.list_logical_devices("GPU")
    return str(gpus[0].name) if gpus else ""


def _cutter(
    image: NDArray[Any], N: int, name: str, device: str, layout: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that adds the patches `name` to a batch, on a device."""
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


def _cut_at_centers(data: GroupedDataset, batch: Batch) -> NDArray[np.complex64]:
    """Cut one patch a group, around its centre; zeros of a scan without an object."""
    patches = np.zeros((len(batch["scan_id"]), data.N, data.N, 1), np.complex64)
    for number in np.unique(batch["scan_id"]):
        image, own = data.scans[number].object, batch["scan_id"] == number
        if image is not None:
            patches[own] = cpu.extract_patches(image, batch["coords_offsets"][own], data.N)
    return patches


# --- layout="ptychopinn" ----------------------------------------------------------------------


def _planned(data: GroupedDataset, batch: Batch) -> NDArray[np.float64]:
    """Return the relative coordinates of the planned positions."""
    relative = np.empty_like(batch["coords_relative"])
    for number in np.unique(batch["scan_id"]):
        start, own = data.scans[number].positions_start, batch["scan_id"] == number
        relative[own] = relative_coordinates(group_coordinates(start, batch["nn_indices"][own]))[1]
    return relative


def _check_ptychopinn(data: GroupedDataset, fields: Sequence[str], intensity_scale: float) -> None:
    if not data.normalize:
        msg = (
            "layout='ptychopinn' feeds normalised amplitudes. Make the data set by "
            "GroupedDataset(scan, groups, normalize=True)."
        )
        raise ValueError(msg)
    if fields:
        msg = (
            f"layout='ptychopinn' has no place for fields={tuple(fields)!r}: its batches are "
            "(inputs, targets). Ask for another layout."
        )
        raise ValueError(msg)
    if not (math.isfinite(intensity_scale) and intensity_scale > 0):
        msg = f"intensity_scale must be positive and finite, got {intensity_scale!r}."
        raise ValueError(msg)


def _as_ptychopinn(batch: dict[str, Any], intensity_scale: float) -> tuple[Any, Any]:
    amplitude = batch["diffraction"]
    if intensity_scale != 1:
        amplitude *= intensity_scale
    relative = tf.cast(batch["coords_relative"], tf.float32)
    return (amplitude, relative), (tf.abs(batch["object"]), amplitude, tf.square(amplitude))
