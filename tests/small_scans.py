"""Small scans and data sets, and the order in which an epoch visits their groups."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf
import reference
from ptycho_fast.frames import FileFrames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

N, C = 8, 4


def make_scan(n: int = 60, seed: int = 0, *, dtype: Any = np.float32, **fields: Any) -> pf.Scan:
    """A simulated scan of patterns of this dtype, with probe and object."""
    scan = pf.simulate_scan(n, N, seed=seed)
    stack = scan.diffraction if dtype == np.float32 else (4 * scan.diffraction).astype(dtype)
    kept = {"probe": scan.probe, "object": scan.object} | fields
    return pf.Scan(scan.positions, stack, **kept)


def make_data(n_groups: int = 47, seed: int = 0, **options: Any) -> pf.GroupedDataset:
    """Groups of four of such a scan."""
    scan = make_scan(seed=seed)
    return pf.GroupedDataset(scan, pf.group_positions(scan.positions, n_groups, seed=3), **options)


def in_file(path: Path, scan: pf.Scan) -> pf.Scan:
    """The same scan with its patterns left in a file, after a header of 4 bytes."""
    stack = scan.diffraction
    path.write_bytes(b"head" + stack.tobytes())
    return dataclasses.replace(
        scan, diffraction=FileFrames(path, 4, stack.shape, stack.dtype), energies=None
    )


def shuffled(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of n groups in an epoch (docs/contract.md, section 3): by (word, row), stage 6."""
    words = reference.words(reference.key(seed, epoch), 1, -(-n // 4), 0, 6)[:n]
    return np.lexsort((np.arange(n), words))


def rows(batches: Iterable[Any]) -> NDArray[np.int32]:
    """The groups of some batches, one after another."""
    indices: NDArray[np.int32] = np.concatenate([np.asarray(b["nn_indices"]) for b in batches])
    return indices
