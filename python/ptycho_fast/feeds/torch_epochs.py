"""The epoch of an iteration, agreed upon by the workers of PyTorch's ``DataLoader``."""

from __future__ import annotations

from typing import Any

import torch

MOST_WORKERS = 1024
"""Workers that a ``DataLoader`` may have: each has a place in memory that all share."""


class SharedEpochs:
    """Which epoch an iteration is, in processes that cannot talk to each other.

    A ``DataLoader`` does not tell its workers about epochs, nor the feed it was made with about
    its workers. But every worker can identify the iteration that it begins, by three numbers: the
    seed that the loader drew for its workers, how often `set` had been called when the workers
    were made, and how often this worker has begun. A hash of them marks the iteration.

    A worker that finds no entry with this mark in the memory that all share is the first to begin.
    It takes the epoch that follows, and writes mark and epoch in a place of its own. The other
    workers read the epoch there, even one so late that the next iteration has begun already; a
    loader lets none be later than that. There is no lock, because a worker that is killed would
    keep it.
    """

    def __init__(self) -> None:
        # Rows 0 and 1: for each worker, mark and epoch of its latest two iterations. Row 2: the
        # epoch after them. Row 3: the epoch and first batch that were set.
        self._shared = torch.zeros((4, MOST_WORKERS), dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call, unused-ignore]
        # How often `set` and `begin` were called in this process, or before it was forked.
        self._set = self._begun = 0

    def set(self, epoch: int, start_batch: int) -> None:
        """Set the next iteration, for this process and for all workers."""
        _, _, following, asked = self._shared.numpy()
        self._set += 1
        asked[:2] = epoch, start_batch
        following[:] = epoch

    def following(self) -> tuple[int, int]:
        """Return epoch and first batch of the next iteration."""
        epoch = int(self._shared[2].max())
        return epoch, self._start(epoch)

    def _start(self, epoch: int) -> int:
        asked = self._shared[3]
        return int(asked[1]) if epoch == asked[0] else 0

    def begin(self, worker: Any) -> tuple[int, int]:
        """Begin an iteration in this process, and return its epoch and first batch.

        Parameters
        ----------
        worker : object or None
            What ``torch.utils.data.get_worker_info()`` returns.

        Returns
        -------
        epoch, start_batch : int

        Raises
        ------
        ValueError
            If the loader has more than 1024 workers.
        """
        epoch, start = self.following()
        if worker is None:
            self.set(epoch + 1, 0)
            return epoch, start
        if worker.num_workers > MOST_WORKERS:
            msg = (
                f"num_workers={worker.num_workers} is more than {MOST_WORKERS}, the most that can "
                "agree on an epoch. Use fewer."
            )
            raise ValueError(msg)
        words = self._shared.numpy()
        mark = hash((worker.seed - worker.id, self._set, self._begun)) % 2**31
        written = words[:2][words[:2] >> 32 == mark]
        if len(written):
            epoch = int(written[0] % 2**32)
        else:
            # Two that are first at once write the same epoch: both read what follows before they
            # looked for marks, and write it after their own.
            words[self._begun % 2, worker.id] = mark << 32 | epoch
            words[2, worker.id] = epoch + 1
        self._begun += 1
        return epoch, self._start(epoch)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copy gets shared memory of its own; memory that is shared already stays as it is.
        self._shared.share_memory_()  # type: ignore[no-untyped-call, unused-ignore]
