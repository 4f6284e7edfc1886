"""Scan files in the layouts of other programs, and the scan that each must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

h5py = pytest.importorskip("h5py")

ny, nx, N = 3, 4, 8
n = ny * nx


def frames(n: int = n, height: int = N, width: int = N) -> NDArray[np.uint32]:
    """Counts of which no two frames, rows or columns are alike, with light in the middle."""
    rows, columns = np.mgrid[:height, :width]
    light = 900 * np.exp(-((rows - height // 2) ** 2 + (columns - width // 2) ** 2) / 6)
    drawn = np.random.default_rng(0).poisson(light + 5, (n, height, width))
    return drawn.astype("u4") + np.arange(n, dtype="u4")[:, None, None]


def line() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.random.default_rng(1).uniform(10, 60, (2, n))
    return x, y


def write_h5(**arrays: Any) -> str:
    with h5py.File("scan.h5", "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return "scan.h5"


def write_npz(*, compressed: bool = False, **arrays: Any) -> str:
    (np.savez_compressed if compressed else np.savez)("scan.npz", **arrays)
    return "scan.npz"


def read(path: str, **options: Any) -> pf.Scan:
    names = {"diffraction": "data", "x": "x", "y": "y", "unit": "px", "counts": True}
    return pf.read_scan(path, **{**names, **options})


def is_written(scan: pf.Scan, rows: Any = slice(None)) -> None:
    np.testing.assert_array_equal(scan.diffraction[:], np.sqrt(frames()[rows], dtype="f4"))
    np.testing.assert_array_equal(scan.positions, np.stack(line(), axis=1)[rows])


STACKS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "(n, N, N)": lambda stack: stack,
    "(1, n, N, N)": lambda stack: stack[None],
    "(n, 1, N, N)": lambda stack: stack[:, None],
    "(n, N, N, 1)": lambda stack: stack[..., None],
    "(N, N, n)": lambda stack: np.ascontiguousarray(stack.transpose(1, 2, 0)),
}
