"""Memory of large outputs, used again once nothing refers to it.

Fresh memory costs more than what is computed into it: the system clears every page, and the host of
a virtual machine may have to find it first. So what a large array leaves is kept for the next one,
and offered to the system (``MADV_FREE``), which takes it when anybody is short of memory. Until
then it counts as resident.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE = 2**25
"""Bytes from which on memory is kept: NumPy and the C library keep smaller pieces themselves."""

HUGE_PAGE = 2**21

# Its methods are atomic. A lock might be held by another thread at the moment of a fork.
_left: deque[mmap.mmap] = deque(maxlen=4)


class _Loan:
    """Lends a mapping to arrays: it is the base of each, and goes after the last."""

    def __init__(self, mapping: mmap.mmap, size: int) -> None:
        self.mapping = mapping
        begin = np.frombuffer(mapping, np.uint8).ctypes.data
        begin += -begin % HUGE_PAGE
        self.__array_interface__ = {
            "data": (begin, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(
        self, offer: int | None = getattr(mmap, "MADV_FREE", None), left: deque[Any] = _left
    ) -> None:
        # The names of a module may be gone when the interpreter ends.
        if offer is not None:
            self.mapping.madvise(offer)
            left.append(self.mapping)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> NDArray[Any]:
    """Return an array of undefined content, like `numpy.empty`.

    Parameters
    ----------
    shape : tuple of int
        Its shape.
    dtype : dtype
        Of its elements: numbers.

    Returns
    -------
    ndarray, C-contiguous, writeable

    Raises
    ------
    MemoryError
        If there is not as much memory.

    Examples
    --------
    >>> from ptycho_fast.memory import empty
    >>> empty((1000, 64, 64, 4), "f4").shape
    (1000, 64, 64, 4)
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not hasattr(mmap, "MADV_FREE"):  # Windows has none
        return np.empty(shape, dtype)
    mapping = _again(size + HUGE_PAGE) or _map(size + HUGE_PAGE)
    return np.asarray(_Loan(mapping, size)).view(dtype).reshape(shape)


def _again(length: int) -> mmap.mmap | None:
    """Return a mapping that was left, if one is long enough and not twice as long."""
    for _ in range(len(_left)):
        try:
            mapping = _left.popleft()
        except IndexError:  # another thread took it
            return None
        if length <= len(mapping) <= 2 * length:
            return mapping
        _left.append(mapping)
    return None


def _map(length: int) -> mmap.mmap:
    try:
        mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        msg = f"There is no memory for an array of {length / 1e9:.1f} GB. Ask for less at once."
        raise MemoryError(msg) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def available() -> int:
    """Return how much memory a process can have, in bytes, as far as the system says.

    On Linux what is free or can be freed, and no more than a container's limit; else all that the
    machine has.
    """
    found = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found += [int(line.split()[1]) * 1024 for line in file if line[:12] == "MemAvailable"]
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            found += [int(word) for word in file.read().split() if word.isdigit()]
    except (OSError, ValueError):
        pass  # another system, or another version of it: what was found counts
    if not found and hasattr(os, "sysconf"):
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(found, default=2**33)
