"""The spectral convolution: against its definition in NumPy, and against neuraloperator's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ptycho_fast.models.architectures.blocks import SpectralConvolution  # noqa: E402

CASES = [(3, 4, 8), (2, 5, 8), (3, 4, 4), (2, 1, 6), (3, 4, 5), (2, 5, 9), (2, 3, 3)]
"""Channels, modes, and the side of the image, even and odd."""


def made(width: int, modes: int, side: int) -> tuple[Any, Any]:
    """A layer and an image, of numbers that no version of PyTorch draws otherwise."""
    random = np.random.default_rng([width, modes, side])
    layer = SpectralConvolution(width, modes)
    shape = layer.weight["tensor"].shape
    weight = random.normal(size=(*shape, 2)) @ [1, 1j]
    state = {"weight.tensor": weight, "bias": random.normal(size=(width, 1, 1))}
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return layer, torch.from_numpy(random.normal(size=(2, width, side, side))).float()


@pytest.mark.parametrize(("width", "modes", "side"), CASES)
def test_each_mode_is_multiplied_by_a_matrix(width: int, modes: int, side: int) -> None:
    layer, image = made(width, modes, side)
    weight, bias = (layer.state_dict()[name].numpy() for name in ("weight.tensor", "bias"))
    spectrum = np.fft.fft2(image.numpy(), norm="forward")
    expected = np.zeros_like(spectrum)
    for row in range(modes):
        frequency = row - modes // 2
        # neuraloperator puts the result one row lower if the side is odd.
        to = frequency - side % 2
        for column in range(modes // 2 + 1):
            mode = np.einsum(
                "bi,io->bo", spectrum[..., frequency % side, column], weight[..., row, column]
            )
            expected[..., to % side, column] += mode
            if 0 < column < side / 2:  # the other half of the plane, for a real image
                expected[..., -to % side, -column] += mode.conj()
    real = np.fft.ifft2(expected, norm="forward").real + bias
    np.testing.assert_allclose(layer(image).detach().numpy(), real, atol=2e-5)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ((3, 4, 8), [-1.4388797283, -0.8273097873, 0.2432551980, -0.1502264142]),
        ((3, 4, 5), [1.3044326305, -1.8475010395, -4.6431822777, 1.6156458855]),
    ],
)
def test_saved_weights_give_what_neuraloperator_gave(
    case: tuple[int, int, int], expected: list[float]
) -> None:
    """The numbers are those of ``SpectralConv`` of neuraloperator 2.0.0."""
    layer, image = made(*case)
    np.testing.assert_allclose(layer(image)[1, 2, 3, :4].tolist(), expected, atol=2e-5)


def test_it_starts_where_neuraloperator_starts() -> None:
    theirs = pytest.importorskip("neuralop.layers.spectral_convolution").SpectralConv
    layers = []
    for make in (lambda: SpectralConvolution(3, 4), lambda: theirs(3, 3, (4, 4))):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers.append(make())
    ours, other = (dict(layer.named_parameters()) for layer in layers)
    assert list(ours) == list(other)
    assert all(torch.equal(ours[name], other[name]) for name in ours)
