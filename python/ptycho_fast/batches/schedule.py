"""Which groups each batch of an epoch holds."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.batches.options import BatchOptions

logger = logging.getLogger("ptycho_fast")


class Schedule:
    """The groups of each batch of one rank, in one epoch.

    Its length is the number of batches, which is the same for all ranks.

    Parameters
    ----------
    n_groups : int
        Groups in the data set.
    options : BatchOptions
        How they are divided.
    num_threads : int, optional
        Threads that draw the shuffled order, which does not depend on their number.

    Raises
    ------
    ValueError
        If there would be no batch, or the ranks would get different numbers of batches.

    Examples
    --------
    >>> from ptycho_fast.batches.options import BatchOptions
    >>> from ptycho_fast.batches.schedule import Schedule
    >>> schedule = Schedule(10, BatchOptions(4))
    >>> len(schedule), schedule.rows(2)
    (3, array([8, 9]))
    """

    def __init__(
        self, n_groups: int, options: BatchOptions, *, num_threads: int | None = None
    ) -> None:
        options = options.of_this_process()
        rank, world_size, batch_size = options.rank, options.world_size, options.batch_size
        assert rank is not None  # of_this_process() said
        assert world_size is not None
        drop_last = options.drop_last
        if drop_last is None:
            drop_last = world_size > 1 and not options.pad
        if world_size > 1 and not options.pad and not drop_last:
            msg = (
                f"drop_last=False would give {world_size} ranks different numbers of batches, "
                "which hangs distributed training. Use pad=True to keep every group."
            )
            raise ValueError(msg)
        self.n_groups, self.options, self.num_threads = n_groups, options, num_threads
        self.stride, self.offset = world_size * batch_size, rank * batch_size
        self.count = n_groups // self.stride if drop_last else -(-n_groups // self.stride)
        rest = n_groups % self.stride
        self.always_whole = bool(options.pad or drop_last)
        """Whether every batch holds `batch_size` groups, however many groups there are."""
        if not self.count:
            msg = (
                f"{n_groups} groups make no whole batch of {world_size} x {batch_size}. Use a "
                "smaller batch_size, drop_last=False or pad=True."
            )
            raise ValueError(msg)
        if drop_last and rest:
            logger.info(
                "batches: the last %d of %d groups make no whole batch of %d x %d and are "
                "dropped this epoch",
                rest,
                n_groups,
                world_size,
                batch_size,
            )

    def __len__(self) -> int:
        return self.count

    @cached_property
    def order(self) -> NDArray[np.int32] | None:
        """The shuffled order of the groups, drawn when the first batch needs it."""
        if not self.options.shuffle:
            return None
        key = _core.philox_key(self.options.seed, self.options.epoch)
        return _core.draw_order(self.n_groups, key, self.num_threads)

    def rows(self, batch: int) -> NDArray[np.integer[Any]]:
        """Return which groups the batch of this number holds."""
        first = batch * self.stride + self.offset
        places = np.arange(first, first + self.options.batch_size)
        places = places % self.n_groups if self.options.pad else places[places < self.n_groups]
        return places if self.order is None else self.order[places]
