"""Memory for large outputs, reused once no array refers to it.

On these sizes page faults on new memory cost more than the computation that fills it: the system
clears every page, and the host of a virtual machine may have to find it first. So when a large
array is freed, its memory is kept for the next one. Meanwhile it is offered to the system
(``MADV_FREE``), which takes it back if memory is short. Until then it counts as resident memory of
this process. (Batches reuse smaller memory by another way: see ``batches/buffers.py``.)
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
"""Arrays of at least this many bytes are reused; NumPy and the C library reuse smaller ones."""

HUGE_PAGE = 2**21

# A deque needs no lock, since its methods are atomic. A lock could be held by another thread when
# the process forks, and would then never be released in the child.
_left: deque[mmap.mmap] = deque(maxlen=4)


class _Loan:
    """Lends a memory mapping to arrays. It is their base, and is freed after the last of them."""

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
        # The names of this module may be gone when the interpreter exits: hence the defaults.
        if offer is not None:
            self.mapping.madvise(offer)
            left.append(self.mapping)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> NDArray[Any]:
    """Return an array of undefined content, like `numpy.empty`, in reused memory if it is large.

    Parameters
    ----------
    shape : tuple of int
        The shape of the array.
    dtype : dtype
        The type of its elements: numbers.

    Returns
    -------
    ndarray, C-contiguous, writeable

    Raises
    ------
    MemoryError
        If there is not enough memory.

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
    """Return a mapping that was freed, if one is long enough and at most twice as long."""
    for _ in range(len(_left)):
        try:
            mapping = _left.popleft()
        except IndexError:  # another thread took the last one
            return None
        if length <= len(mapping) <= 2 * length:
            return mapping
        _left.append(mapping)
    return None


def _map(length: int) -> mmap.mmap:
    try:
        mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        msg = (
            f"There is not enough memory for an array of {length / 1e9:.1f} GB. Ask for less at "
            "once."
        )
        raise MemoryError(msg) from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def available() -> int:
    """Return how much memory this process can have, in bytes, as far as the system says.

    On Linux this is what is free or can be freed, and at most a container's limit. On other
    systems it is all memory of the machine.
    """
    found = []
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found += [int(line.split()[1]) * 1024 for line in file if line[:12] == "MemAvailable"]
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            found += [int(word) for word in file.read().split() if word.isdigit()]
    except (OSError, ValueError):
        pass  # another system, or another version of Linux: what was found so far counts
    if not found and hasattr(os, "sysconf"):
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(found, default=2**33)
