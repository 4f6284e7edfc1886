"""Every way to cut patches, under one interface."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Way:
    """A framework and a method of it; a new one is a line in `WAYS`."""

    framework: str
    method: str = ""
    slow: bool = False
    """2 milliseconds a patch: tried on few."""

    def __call__(self, image: Any, positions: Any, N: int) -> Any:
        """Cut patches of arrays, as the framework's tensor."""
        module = importlib.import_module(f"ptycho_fast.patches.{self.framework}")
        options = {"method": self.method} if self.method else {}
        return module.extract_patches(image, positions, N, **options)

    def gradient(self, image: NDArray[Any], positions: Any, target: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient of the sum of ``|patches - target|**2`` by the object.

        In both frameworks it is dL/d(real) + i dL/d(imaginary).
        """
        N = target.shape[1]
        if self.framework == "torch":
            torch = importlib.import_module("torch")
            x = torch.from_numpy(image).requires_grad_()
            difference = self(x, positions, N) - torch.from_numpy(target)
            (found,) = torch.autograd.grad(difference.abs().pow(2).sum(), x)
            return np.asarray(found)
        tf = importlib.import_module("tensorflow")
        x = tf.constant(image)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.abs(self(x, positions, N) - target) ** 2)
        gradient: NDArray[Any] = tape.gradient(loss, x).numpy()
        return gradient


WAYS = [
    Way("cpu"),
    Way("tensorflow", "auto"),
    Way("tensorflow", "xla"),
    Way("tensorflow", "iterative", slow=True),
    Way("torch", "auto"),
    Way("torch", "torch"),
]


def _found(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    if way.framework != "cpu":
        pytest.importorskip(way.framework)
    return way


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.framework}-{way.method}".rstrip("-"))
def extract(request: pytest.FixtureRequest) -> Way:
    """Every way to cut patches."""
    return _found(request)


@pytest.fixture(params=WAYS[1:], ids=lambda way: f"{way.framework}-{way.method}")
def differentiable(request: pytest.FixtureRequest) -> Way:
    """Every way that has a gradient."""
    return _found(request)
