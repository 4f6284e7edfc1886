"""``to_tensorflow(layout="ptychopinn")``: what PtychoPINN's ``model.fit`` takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference

tf = pytest.importorskip("tensorflow")

N = 16


def test_inputs_and_targets_follow_the_definition(make_data: Any) -> None:
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


def test_coordinates_are_those_of_the_planned_positions(make_data: Any) -> None:
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


def test_the_object_channel_is_zero_where_a_scan_has_no_object(make_data: Any) -> None:
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
def test_a_model_that_folds_channels_is_fitted(make_data: Any, batch_size: int) -> None:
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


@pytest.mark.parametrize(
    ("normalize", "options", "sentence"),
    [
        (False, {"layout": "ptychopinn"}, "normalize=True"),
        (True, {"layout": "ptychopinn", "fields": ("Y",)}, "no place for fields=.'Y',."),
        (True, {"layout": "ptychopinn", "intensity_scale": 0.0}, "must be positive and finite"),
        (True, {"layout": "ptychopinn", "intensity_scale": np.nan}, "must be positive and finite"),
        (True, {"intensity_scale": 2.0}, "is only used with layout='ptychopinn'"),
    ],
)
def test_wrong_arguments_are_refused_before_the_first_batch(
    assert_no_thread_is_left: Any,
    make_data: Any,
    normalize: bool,
    options: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_data(normalize=normalize).to_tensorflow(**{"batch_size": 8, **options})
    assert_no_thread_is_left()
