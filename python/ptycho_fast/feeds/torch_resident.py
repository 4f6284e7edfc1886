"""Patterns that stay on a device: batches are gathered there, and only indices travel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batches.plan import shares
from ptycho_fast.frames import BLOCK_BYTES
from ptycho_fast.patches.torch import extract_patches  # an ImportError says what to install

# isort: split
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ptycho_fast.batches.options import BatchOptions
    from ptycho_fast.batches.plan import BatchGroups
    from ptycho_fast.batches.source import BatchSource

logger = logging.getLogger("ptycho_fast")

SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""PyTorch can do little with unsigned numbers; copied as signed ones they keep their bits."""


class ResidentScans:
    """The patterns and objects of a data set on a device, copied there at first use.

    Parameters
    ----------
    source : BatchSource
        Whose scans.
    device : torch.device
        Where they are held.
    with_good : bool
        Hold also which pixels were measured.
    """

    def __init__(self, source: BatchSource, device: torch.device, *, with_good: bool) -> None:
        self.device, self.scans, self.with_good = device, source.scans, with_good
        self.first_row = np.cumsum([0, *(len(scan) for scan in self.scans)])
        self._patterns: Tensor | None = None
        self._good: Tensor | None = None
        self._objects: dict[int, Tensor] = {}

    def patterns(self, rows: NDArray[np.integer[Any]]) -> Tensor:
        """Return patterns by their rows in all scans, one after another: (rows, N, N)."""
        held = self._bring()
        words = held.view(SIGNED[held.dtype]) if held.dtype in SIGNED else held
        taken = words.index_select(0, torch.from_numpy(rows).to(self.device))
        return taken.view(held.dtype)

    def good(self, rows: NDArray[np.integer[Any]]) -> Tensor:
        """Return which of their pixels were measured: (rows, N, N), bool."""
        self._bring()
        assert self._good is not None  # with_good
        return self._good.index_select(0, torch.from_numpy(rows).to(self.device))

    def object(self, scan: int) -> Tensor:
        """Return the object of a scan, (H, W), complex64."""
        if scan not in self._objects:
            image = np.array(self.scans[scan].object, np.complex64)
            self._objects[scan] = torch.from_numpy(image).to(self.device)
        return self._objects[scan]

    def _bring(self) -> Tensor:
        """Copy all patterns to the device, once, in blocks."""
        if self._patterns is not None:
            return self._patterns
        N, dtype = self.scans[0].N, self.scans[0].diffraction.dtype.newbyteorder("=")
        shape = (int(self.first_row[-1]), N, N)
        logger.info(
            "to_torch: bringing %d patterns (%.0f MB) to %s",
            shape[0],
            np.prod(shape) * dtype.itemsize / 1e6,
            self.device,
        )
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        held = torch.empty(shape, dtype=kind, device=self.device)
        if self.with_good:
            self._good = torch.ones(shape, dtype=torch.bool, device=self.device)
        each = max(1, BLOCK_BYTES // max(1, N * N * dtype.itemsize))
        for scan, first in zip(self.scans, self.first_row, strict=False):
            for start in range(0, len(scan), each):
                rows = np.arange(start, min(start + each, len(scan)))
                block, good = scan.measured(rows)
                there = slice(first + start, first + start + len(rows))
                held[there] = torch.from_numpy(block.astype(dtype, copy=False))
                if self._good is not None and good is not None:
                    self._good[there] = torch.from_numpy(good).to(self.device)
        self._patterns = held
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_patterns": None, "_good": None, "_objects": {}}


class ResidentGatherer:
    """Collects patterns and patches on the device where the scans are held, as tensors.

    Parameters
    ----------
    source : BatchSource
        Whose scales.
    options : BatchOptions
        Layout and fields of a batch.
    resident : ResidentScans
        The patterns and objects.
    """

    def __init__(self, source: BatchSource, options: BatchOptions, resident: ResidentScans) -> None:
        self.source, self.options, self.resident = source, options, resident

    def patterns(self, groups: BatchGroups) -> tuple[Tensor, Tensor | None]:
        """Gather patterns, and which of their pixels were measured."""
        N, (B, C) = self.source.N, groups.indices.shape
        scan_id = groups.scan_id
        rows = (groups.indices + self.resident.first_row[scan_id][:, np.newaxis]).ravel()
        good = None
        if "good" in self.options.fields:
            good = self._in_layout(self.resident.good(rows).reshape(B, C, N, N))
        patterns = self.resident.patterns(rows).reshape(B, C, N, N)
        if self.source.normalize:
            scales = torch.from_numpy(self.source.scales[scan_id]).to(patterns.device)
            patterns = patterns.to(torch.float32) * scales[:, None, None, None]
        return self._in_layout(patterns), good

    def patches(self, groups: BatchGroups) -> Tensor:
        """Cut patches of the objects."""
        N, (B, C) = self.source.N, groups.indices.shape
        # Seen as groups of one patch, channels come first.
        positions = groups.coords[:, 0].transpose(0, 2, 1).reshape(B * C, 2, 1)
        each = shares(groups.scan_id, len(self.resident.scans))
        if len(each) == 1:
            patches = self._cut(each[0][0], positions)
        else:
            patches = torch.empty((B * C, N, N), dtype=torch.complex64, device=self.resident.device)
            for scan, own in each:
                mine = np.flatnonzero(np.repeat(np.asarray(own), C))
                where = torch.from_numpy(mine).to(patches.device)
                patches[where] = self._cut(scan, positions[mine])
        return self._in_layout(patches.reshape(B, C, N, N))

    def _cut(self, scan: int, positions: NDArray[np.float64]) -> Tensor:
        return extract_patches(self.resident.object(scan), positions, self.source.N)[..., 0]

    def _in_layout(self, images: Tensor) -> Tensor:
        """Return ``(B, C, N, N)`` in the layout that was asked for."""
        return images if self.options.channels_first else images.permute(0, 2, 3, 1).contiguous()
