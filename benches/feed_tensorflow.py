"""What feeding costs a Keras model: time per step, time to the first batch, peak memory.

    python benches/feed_tensorflow.py

The training step of a small model (`--width` makes it longer) on all cores is fed by turns: one
constant batch from memory, `to_tensorflow`, a Keras `PyDataset` over the same batches, and the
materialised dictionary in `from_tensor_slices`. A turn is an epoch; its median step counts, less
the first few. The table has medians of `--rounds` turns, and of their ratios to the constant
batch just before and after. Time to the first batch (groups known, patterns in memory) and peak
memory beyond that of the scan and TensorFlow are of a process each. All feeds yield the same
batches, which is checked first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from measure import measure, peak, run_apart
from tensorflow import keras

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH, C = 32, 4
SETTLE = 8
"""First steps of an epoch that don't count: they eat what was made while nobody looked."""


def make_data(N: int, n_groups: int) -> pf.GroupedDataset:
    """Return groups of a jittered raster, as many as patterns, without passing over more memory."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n_groups)))
    raster = np.stack(np.divmod(np.arange(n_groups), side), axis=1) * 8.0
    patterns = np.empty((n_groups, N, N), np.float32)
    for pattern in patterns:
        rng.random(out=pattern, dtype=np.float32)
    scan = pf.Scan(positions=raster + rng.uniform(-2, 2, raster.shape), diffraction=patterns)
    return pf.GroupedDataset(scan, pf.group_positions(scan.positions, group_size=C, seed=0))


class Sequence(keras.utils.PyDataset):  # type: ignore[misc]
    """The same batches, asked for one by one; those ahead are made by the data set's thread."""

    def __init__(self, data: pf.GroupedDataset) -> None:
        super().__init__()
        self.data = data
        self.batches: Iterator[dict[str, Any]]

    def __len__(self) -> int:
        return math.ceil(len(self.data) / BATCH)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if number == 0:
            self.batches = self.data.batches(BATCH)
        return next(self.batches)


def constant(data: pf.GroupedDataset) -> Any:
    batch = next(iter(data.to_tensorflow(BATCH)))
    return tf.data.Dataset.from_tensors(batch).repeat(-(-len(data) // BATCH))


def sliced(data: pf.GroupedDataset) -> Any:
    slices = tf.data.Dataset.from_tensor_slices(data.materialize())
    return slices.batch(BATCH).prefetch(tf.data.AUTOTUNE)


FEEDS: dict[str, Callable[[pf.GroupedDataset], Any]] = {
    "one constant batch": constant,
    "to_tensorflow": lambda data: data.to_tensorflow(BATCH),
    "PyDataset": Sequence,
    "materialize + from_tensor_slices": sliced,
}


def make_model(width: int) -> Any:
    """Return an autoencoder of patterns that takes batches as they are."""

    class Model(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = keras.Sequential(
                [
                    keras.layers.Conv2D(width, 5, 2, "same", activation="relu"),
                    keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
                    keras.layers.Conv2DTranspose(C, 5, 2, "same"),
                ]
            )

        def call(self, batch: dict[str, Any]) -> Any:
            error = self.inner(batch["diffraction"]) - batch["diffraction"]
            self.add_loss(tf.reduce_mean(tf.square(error)))
            return error

    model = Model()
    model.compile(optimizer="sgd")
    return model


def steps(N: int, n_groups: int, width: int, rounds: int) -> dict[str, Any]:
    """Time the feeds by turns; the constant batch is first and last of each round."""
    data = make_data(N, n_groups)
    feeds = {name: make(data) for name, make in FEEDS.items()}
    _, ours, sequence, rival = feeds.values()
    for i, (batch, same) in enumerate(zip(ours, rival, strict=True)):
        for name, array in sequence[i].items():
            np.testing.assert_array_equal(array, batch[name].numpy())
            np.testing.assert_array_equal(array, same[name].numpy())
    model = make_model(width)
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )

    def step(name: str) -> float:
        ends.clear()
        model.fit(feeds[name], epochs=1, verbose=0, callbacks=[clock], shuffle=False)
        return float(np.median(np.diff(ends[SETTLE:])))

    for name in feeds:
        step(name)  # compiles
    times: dict[str, list[float]] = {name: [] for name in feeds}
    ratios: dict[str, list[float]] = {name: [] for name in feeds}
    before = step("one constant batch")
    for _ in range(rounds):
        for name in feeds:
            fed = step(name)
            after = step("one constant batch")
            times[name].append(fed)
            ratios[name].append(2 * fed / (before + after))
            before = after
    return {
        name: [statistics.median(times[name]), statistics.median(ratios[name])] for name in feeds
    }


def first_batch(N: int, n_groups: int, name: str) -> dict[str, float]:
    """Time from the data set to a batch in hand; then look at the peak after an epoch."""
    data = make_data(N, n_groups)
    next(iter(make_data(N, BATCH).to_tensorflow(BATCH)))  # what TensorFlow loads once
    at_rest = peak()

    def one() -> Any:
        feed = FEEDS[name](data)
        return feed, next(iter(feed))

    found, (feed, _) = measure(one, 1)
    for _ in feed:
        pass
    return {"first": found["first"], "bytes": peak() - at_rest}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--groups", type=int, default=2000)
    parser.add_argument("--N", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--width", type=int, default=40, help="channels of the model")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.here:
        kind, *job = json.loads(arguments.here)
        print(json.dumps(steps(*job) if kind == "steps" else first_batch(*job)))
        return
    print("| N | feed | step (ms) | of constant | first batch (ms) | peak (MB) |")
    print("|---|---|---|---|---|---|")
    for N in arguments.N:
        n_groups = arguments.groups * 64 // N
        found: dict[str, Any] = run_apart(
            __file__, ["steps", N, n_groups, arguments.width, arguments.rounds]
        )
        for name, (seconds, ratio) in found.items():
            row = f"| {N} | {name} | {1e3 * seconds:.1f} | {ratio:.3f} "
            if name in ("to_tensorflow", "materialize + from_tensor_slices"):
                apart = run_apart(__file__, ["first", N, n_groups, name])
                row += f"| {1e3 * apart['first']:.0f} | {apart['bytes'] / 1e6:.0f} |"
            else:
                row += "| | |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
