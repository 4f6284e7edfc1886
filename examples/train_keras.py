"""Train a small Keras network to reconstruct patches of the object from diffraction patterns.

    python examples/train_keras.py

The scan is simulated, new groups of four are drawn for each epoch, and a block of the scan is held
out for validation. From each normalised amplitude the network predicts the real and the imaginary
part of the object, weighted with the illumination. It takes about a minute on one core.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from tensorflow import keras

import ptycho_fast as pf

N = 32


def make_network() -> keras.Model:
    """Return an encoder and decoder: every pixel of a pattern depends on the whole patch."""
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((N, N, 1)),
            layers.Conv2D(16, 3, 2, "same", activation="relu"),
            layers.Conv2D(32, 3, 2, "same", activation="relu"),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(8 * 8 * 32, activation="relu"),
            layers.Reshape((8, 8, 32)),
            layers.Conv2DTranspose(16, 3, 2, "same", activation="relu"),
            layers.Conv2DTranspose(2, 3, 2, "same"),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return network


def main(epochs: int = 10) -> dict[str, list[float]]:
    """Train, and return the losses of all epochs."""
    keras.utils.set_random_seed(0)
    scan = pf.simulate_scan(n_positions=1600, N=N, seed=0)
    groups = pf.group_positions(scan.positions, n_groups=800, gridsize=2, seed=0)
    training, validation = pf.GroupedDataset(scan, groups, normalize=True).split(validation=0.1)

    assert scan.probe is not None
    light = np.abs(scan.probe)[..., np.newaxis]
    light /= np.sqrt(np.mean(light**2))

    def one_by_one(batch: dict[str, Any]) -> tuple[Any, Any]:
        """Return the patterns of all groups one by one, and what the network should predict."""
        patterns, patches = (tf.reshape(batch[key], (-1, N, N, 1)) for key in ("diffraction", "Y"))
        target = light * tf.concat([tf.math.real(patches), tf.math.imag(patches)], axis=-1)
        return tf.sqrt(patterns), target

    feed = training.to_tensorflow(
        8, shuffle=True, redraw=True, fields=["Y"], layout="channels_first"
    )
    held_out = validation.to_tensorflow(8, fields=["Y"], layout="channels_first")
    fitted = make_network().fit(
        feed.map(one_by_one),
        validation_data=held_out.map(one_by_one),
        epochs=epochs,
        # Keras may look at a batch between epochs, so the epoch of the feed is set explicitly.
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: feed.set_epoch(e))],
        shuffle=False,  # the feed has done so
        verbose=2,
    )
    losses: dict[str, list[float]] = fitted.history
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"loss {losses['loss'][0]:.4f} -> {losses['loss'][-1]:.4f}, ", end="")
    print(f"held out {losses['val_loss'][0]:.4f} -> {losses['val_loss'][-1]:.4f}")
