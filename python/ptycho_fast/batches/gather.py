"""The diffraction patterns and object patches of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.batches.plan import shares
from ptycho_fast.frames import Frames
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.patterns import gather_patterns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.batches.buffers import Buffers
    from ptycho_fast.batches.options import BatchOptions
    from ptycho_fast.batches.plan import BatchGroups, Share
    from ptycho_fast.batches.source import BatchSource


class HostGatherer:
    """Collects patterns and patches from memory or files, as arrays.

    Parameters
    ----------
    source : BatchSource
        Whose scans and scales.
    options : BatchOptions
        Layout and fields of a batch.
    buffers : Buffers
        Where the arrays are written.
    num_threads : int
        Threads that copy; the result does not depend on it.
    """

    def __init__(
        self, source: BatchSource, options: BatchOptions, buffers: Buffers, num_threads: int
    ) -> None:
        self.source, self.buffers, self.num_threads = source, buffers, num_threads
        self.scans = source.scans
        self.channels_first, self.with_good = options.channels_first, "good" in options.fields

    def patterns(self, groups: BatchGroups) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Gather patterns directly from a stack in memory, else by way of a staging buffer."""
        each = shares(groups.scan_id, len(self.scans))
        scan = self.scans[each[0][0]]
        scale = self.source.scales[groups.scan_id] if self.source.normalize else None
        stack, columns, mask = scan.diffraction, groups.indices, scan.mask
        measured = None
        if len(each) > 1 or isinstance(stack, Frames) or scan.may_have_bad_pixels:
            stack, measured, columns = self._stage(groups.indices, each)
        if len(each) > 1:
            mask = None  # each scan's own mask was applied when its patterns were staged
        good = self._good(columns, measured, mask) if self.with_good else None
        out = self.buffers.take("diffraction", self._image_shape(len(columns)), self.source.dtype)
        target = out
        if self.channels_first:
            # Seen as groups of one pattern, one after another, channels come first.
            B, C = columns.shape
            columns, target = columns.reshape(-1, 1), out.reshape(B * C, *out.shape[2:], 1)
            scale = None if scale is None else np.repeat(scale, C)
        gather_patterns(
            stack, columns, scale=scale, mask=mask, out=target, num_threads=self.num_threads
        )
        return out, good

    def patches(self, groups: BatchGroups) -> NDArray[np.complex64]:
        """Cut patches of the objects with the Rust kernel."""
        B, _, _, C = groups.coords.shape
        N = self.source.N
        out = self.buffers.take("Y", self._image_shape(B), np.complex64)
        positions, target = groups.coords[:, 0], out
        if self.channels_first:
            positions = positions.transpose(0, 2, 1).reshape(B * C, 2, 1)
            target = out.reshape(B * C, N, N, 1)
        each = shares(groups.scan_id, len(self.scans))
        for scan, own in each:
            image = self.scans[scan].object
            assert image is not None  # BatchOptions.check_scans looked
            if len(each) == 1:
                extract_patches(image, positions, N, out=target, num_threads=self.num_threads)
                break
            mine: Any = np.repeat(np.asarray(own), C) if self.channels_first else own
            target[mine] = extract_patches(image, positions[mine], N, num_threads=self.num_threads)
        return out

    def _image_shape(self, B: int) -> tuple[int, ...]:
        N, C = self.source.N, self.source.group_size
        return (B, C, N, N) if self.channels_first else (B, N, N, C)

    def _stage(
        self, indices: NDArray[np.int32], each: list[Share]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None, NDArray[np.int32]]:
        """Bring each pattern that a batch needs into memory once.

        Returns these patterns, which of their pixels were measured if that was asked for, and the
        groups as indices into them.
        """
        columns = np.empty_like(indices)
        wanted, count = [], 0
        for scan, own in each:
            rows, places = np.unique(indices[own], return_inverse=True)
            columns[own] = count + places.reshape(-1, indices.shape[1])
            wanted.append((self.scans[scan], slice(count, count + len(rows)), rows))
            count += len(rows)
        N, dtype = self.source.N, self.scans[0].diffraction.dtype
        # Sized for a batch in which no pattern comes twice, so that every batch fits the buffer.
        staged = self.buffers.take("staged", (indices.size, N, N), dtype)[:count]
        measured = None
        if self.with_good:
            measured = self.buffers.take("measured", (indices.size, N, N), np.bool_)[:count]
        for its_scan, where, rows in wanted:
            good = its_scan.fill(rows, staged[where])
            # The mask of a single scan is applied when its patterns are gathered.
            mask = its_scan.mask if len(each) > 1 else None
            if mask is not None:
                staged[where][:, ~mask] = 0
            if measured is not None:
                measured[where] = True if good is None else good
                if mask is not None:
                    measured[where] &= mask
        return staged, measured, columns

    def _good(
        self,
        columns: NDArray[np.int32],
        measured: NDArray[np.bool_] | None,
        mask: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Return which pixels were measured: by each staged pattern, and by the detector."""
        good = self.buffers.take("good", self._image_shape(len(columns)), np.bool_)
        channels = good if self.channels_first else good.transpose(0, 3, 1, 2)
        if measured is None:
            channels[...] = True if mask is None else mask
        else:
            channels[...] = measured[columns] if mask is None else measured[columns] & mask
        return good
