"""Scan files of a beamline, written by the rules of their formats, and the scan they must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")

n, N = 12, 8
ENERGY, DISTANCE, PIXEL = 8800.0, 1.9, 75e-6
# h c / (e E), with the SI's exact constants.
WAVELENGTH = 6.62607015e-34 * 299792458 / (ENERGY * 1.602176634e-19)
GEOMETRY: dict[str, Any] = {"energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL}
KEYS: dict[str, Any] = {"diffraction": "/entry/data", "x": "/motors/x", "y": "/motors/y"}
METRES: dict[str, Any] = {**KEYS, **GEOMETRY, "unit": "m", "counts": True}


def object_pixel(N: int = N, pixel: float = PIXEL) -> float:
    return WAVELENGTH * DISTANCE / (N * pixel)


def counts(dtype: Any = "u2", shape: tuple[int, ...] = (n, N, N)) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def motors() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.random.default_rng(1).uniform(-2e-6, 3e-6, (2, n))
    return x, y


def expected(x: NDArray[np.float64], y: NDArray[np.float64], N: int = N) -> NDArray[np.float64]:
    """Positions in object pixels, the smallest at N // 2."""
    pixel = object_pixel(N)
    return np.stack([(x - x.min()) / pixel, (y - y.min()) / pixel], axis=1) + N // 2


def beamline(path: Path, stack: NDArray[Any] | None = None, **storage: Any) -> Path:
    """Write a file of a beamline: counts, motors in metres."""
    x, y = motors()
    with h5py.File(path, "w", **storage.pop("file", {})) as file:
        file.create_dataset("entry/data", data=counts() if stack is None else stack, **storage)
        file["motors/x"], file["motors/y"] = x, y
    return path
