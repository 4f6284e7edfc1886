"""The memory that batches are written to, used again once nobody refers to it."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Buffers:
    """Arrays to fill: those of the caller, else memory that is reused from batch to batch.

    Page faults on new memory take longer than gathering a batch into it. So memory is kept, and
    given out again once no array refers to it any more: neither the one that was given out, nor a
    view of it, nor a tensor made from it.

    Parameters
    ----------
    out : mapping of str to ndarray, optional
        The caller's arrays, by key of the batch. Each has at least as many rows as a batch.
    """

    MOST = 8
    """Pieces of memory that are kept for each key and shape."""

    def __init__(self, out: Mapping[str, NDArray[Any]] | None = None) -> None:
        self._out = {} if out is None else out
        self._kept: dict[Any, list[NDArray[Any]]] = {}
        # The reference count, as `getrefcount` reports it, of an array that only a list refers to.
        alone = [np.empty(0)]
        self._idle = sys.getrefcount(alone[0])

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array to fill.

        Raises
        ------
        ValueError
            If the caller's array for this key has another shape or dtype.
        """
        if name not in self._out:
            return self._reused(name, shape, np.dtype(dtype))
        out = self._out[name]
        if out.shape[1:] != shape[1:] or len(out) < shape[0] or out.dtype != dtype:
            msg = (
                f"out[{name!r}] has shape {out.shape} and dtype {out.dtype}, but {shape} of "
                f"{np.dtype(dtype)} is needed."
            )
            raise ValueError(msg)
        return out[: shape[0]]

    def put(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Return `values`, or the caller's array for this key with them written to it."""
        if name not in self._out:
            return values
        out = self.take(name, values.shape, values.dtype)
        out[...] = values
        return out

    def _reused(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in memory that is new or no longer in use."""
        kept = self._kept.setdefault((name, shape, dtype), [])
        size = math.prod(shape) * dtype.itemsize
        for i in range(len(kept)):
            # An array that was given out refers to this memory, and so does all made from it.
            if sys.getrefcount(kept[i]) == self._idle:
                memory = kept[i]
                break
        else:
            memory = np.empty(size + 64, np.uint8)
            if len(kept) < self.MOST:
                kept.append(memory)
        start = -memory.ctypes.data % 64  # TensorFlow copies arrays that begin elsewhere
        aligned: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
        return aligned
