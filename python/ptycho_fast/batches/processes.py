"""Which of several processes this one is, and how many threads it may use."""

from __future__ import annotations

import os
import sys

from ptycho_fast import _core


def ranks_of_torch() -> tuple[int, int]:
    """Return rank and world size of ``torch.distributed``, 0 and 1 where that is not in use."""
    # Where nobody imported PyTorch there is no process group either.
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share_of_threads() -> int:
    """Return how many threads this process may use.

    All that the machine offers, divided by the ``LOCAL_WORLD_SIZE`` processes that ``torchrun``
    started on it.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    processes = int(local) if local.isdigit() and int(local) else 1
    return max(1, _core.count_threads(None) // processes)


def processes_of_torchrun() -> tuple[int, int]:
    """Return how many processes ``torchrun`` started on this machine, and in all.

    Returns
    -------
    local, world : int
        1 and 1 where this process was started by something else.

    Examples
    --------
    >>> from ptycho_fast.batches.processes import processes_of_torchrun
    >>> processes_of_torchrun()
    (1, 1)
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, 1
    return int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
