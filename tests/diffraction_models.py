"""Every model of the diffraction, under one interface: arrays in and out."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from likelihood_cases import Case

ALL = ("object", "probe", "positions", "exposure")
"""What the likelihood is differentiated with respect to."""


@dataclass(frozen=True)
class Way:
    """A model of the diffraction; a new one is a line in `WAYS`."""

    module: str
    name: str
    device: str = ""

    def model(self, case: Case, **change: Any) -> Any:
        """Make a model of a case."""
        arguments: dict[str, Any] = {
            "positions": case.experiment.positions,
            "shape": case.object.shape,
            "N": case.counts.shape[-1],
            "exposure": case.experiment.exposure,
            "background": case.experiment.background,
        }
        if self.device:
            arguments["device"] = self.device
        module = importlib.import_module(f"ptycho_fast.reconstruction.{self.module}")
        return getattr(module, self.name)(**arguments | change)

    def gradient(
        self,
        case: Case,
        wrt: tuple[str, ...] = ALL,
        rows: Any = None,
        model: Any = None,
    ) -> dict[str, Any]:
        """Return the loss and the gradients as arrays."""
        model = model or self.model(case)
        image, probe = given_to(model, case.object), given_to(model, case.probe)
        found = model.gradient(case.counts, case.good, image, probe, wrt=wrt, rows=rows)
        arrays = {name: taken_from(model, getattr(found, name)) for name in ALL}
        return {"loss": found.loss, **arrays}

    def curvature(self, case: Case, change: NDArray[Any], rows: Any = None) -> NDArray[Any]:
        """Return the Fisher information times a change."""
        model = self.model(case)
        image, probe, direction = (
            given_to(model, array) for array in (case.object, case.probe, change)
        )
        found = model.curvature(image, probe, direction, good=case.good, rows=rows)
        product: NDArray[Any] = taken_from(model, found)
        return product


def given_to(model: Any, array: NDArray[Any]) -> Any:
    """Return an array as the model takes it."""
    return model.asarray(array) if hasattr(model, "asarray") else array


def taken_from(model: Any, array: Any) -> Any:
    """Return what a model returned as an array."""
    if array is None or isinstance(array, np.ndarray):
        return array
    return model.to_numpy(array)


CPU = Way("cpu", "CpuModel")
TORCH = Way("torch", "TorchModel", "cpu")
WAYS = [CPU, TORCH, Way("torch", "TorchModel", "cuda")]


def assert_close(found: Any, expected: NDArray[Any], tolerance: float, more: float = 0) -> None:
    """Norms of arrays agree within a fraction of the norm, and `more`."""
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected)
    assert error <= tolerance * np.linalg.norm(expected) + more, error
