"""Positions of a wrong scale are noticed, and those of a right one are not."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from explained import DISTANCE, ENERGY, PIXEL, N, n, truth
from ptycho_fast.io.scale import odd_scale

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def raster(step: float, rows: int = 9, columns: int = 11) -> NDArray[np.float64]:
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * step
    return np.stack([x, y], axis=1) + 500


def shuffled(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.random.default_rng(1).permutation(positions)


@pytest.mark.parametrize(
    "positions",
    [
        raster(4),
        # Without any overlap, but of no wrong unit.
        raster(100),
        # In any order, neighbours in the list are not neighbours on the sample.
        shuffled(raster(4, 60, 70)),
        shuffled(raster(15, 60, 70)),
        # Bursts at places that do not overlap.
        np.repeat(raster(300), 5, axis=0),
        shuffled(np.repeat(raster(300), 5, axis=0)),
        np.full((1, 2), 7.0),
        np.full((40, 2), 1e9),
        raster(0.2),
    ],
)
def test_nothing_is_said_of_scales_that_may_be_right(positions: NDArray[np.float64]) -> None:
    assert odd_scale(positions, N) is None


@pytest.mark.parametrize("order", ["as scanned", "shuffled"])
def test_positions_that_are_too_close_or_too_far_apart_are_noticed(order: str) -> None:
    positions = shuffled(raster(1)) if order == "shuffled" else raster(1)
    assert "99 positions span 1e-06 x 8e-07 pixels" in str(odd_scale((positions - 500) * 1e-7, N))
    said = str(odd_scale(positions * 1000, N))
    assert "99 positions span 1e+04 x 8000 pixels" in said
    assert "most lie farther from any other than 10 windows of 32 x 32 pixels" in said


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, None),
        (
            {"energy_eV": ENERGY * 1e3},
            "32 x 32 pixels. Check the unit of the positions, the energy",
        ),
        ({"energy_eV": ENERGY / 1e3}, "less than one pixel. Check"),
        ({"distance_m": DISTANCE * 1e3}, "less than one pixel. Check"),
        ({"unit": "mm"}, "less than one pixel. Check"),
        ({"unit": "px"}, "less than one pixel. Check"),
    ],
)
def test_a_wrong_scale_is_noticed_once(
    tmp_path: Path, wrong: dict[str, Any], sentence: str | None
) -> None:
    of = truth()
    path = tmp_path / "a.npz"
    np.savez(path, frames=of.counts, px=of.x, py=of.y)
    options: dict[str, Any] = {
        "unit": "m", "energy_eV": ENERGY, "distance_m": DISTANCE, "detector_pixel_m": PIXEL,
        **wrong,
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pf.read_scan(path, diffraction="frames", x="px", y="py", counts=True, **options)
    found = [str(w.message) for w in caught if "positions span" in str(w.message)]
    assert len(found) == (sentence is not None)
    if sentence is not None:
        assert sentence in found[0]
        assert f"The {n} positions span" in found[0]


def test_positions_that_become_infinite_are_refused(tmp_path: Path) -> None:
    of = truth()
    path = tmp_path / "a.npz"
    np.savez(path, frames=of.counts, px=of.x * 1e300, py=of.y)
    with pytest.raises(ValueError, match="60 positions are no finite numbers in pixels of the obj"):
        pf.read_scan(
            path, diffraction="frames", x="px", y="py", counts=True, unit="m", energy_eV=ENERGY,
            distance_m=DISTANCE * 1e-9, detector_pixel_m=PIXEL,
        )  # fmt: skip
