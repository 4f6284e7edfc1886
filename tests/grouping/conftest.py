"""Scans that the tests of grouping draw from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

import reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture(scope="session")
def raster() -> NDArray[np.float64]:
    """Return 20 x 20 positions, 1 pixel apart."""
    x, y = np.meshgrid(np.arange(20), np.arange(20))
    positions = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    positions.flags.writeable = False
    return positions


@pytest.fixture(scope="session")
def coarse_raster(raster: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 20 x 20 positions, 8 pixels apart."""
    return raster * 8.0


@pytest.fixture(scope="session")
def jittered() -> Callable[..., NDArray[np.float64]]:
    """Make a raster of n positions, about 8 pixels apart, that are off by up to 2 pixels."""

    def make(n: int = 400) -> NDArray[np.float64]:
        return reference.scan_shapes(n, 0)["jittered_raster"]

    return make


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record what the package logs, from INFO on."""
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    return caplog
