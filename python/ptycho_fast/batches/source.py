"""What a feed may ask of a data set: a protocol, so that feeds need not import the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.batches.maker import Gatherer, Maker
    from ptycho_fast.batches.options import BatchOptions
    from ptycho_fast.batches.schedule import Schedule
    from ptycho_fast.scan import Scan


class BatchSource(Protocol):
    """Groups of scans that can be made into batches; `ptycho_fast.GroupedDataset` is one."""

    normalize: bool
    """Whether patterns are scaled, by `scales`."""

    def __len__(self) -> int:
        """Return the number of groups."""

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern."""

    @property
    def group_size(self) -> int:
        """Channels per group (C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the patterns in a batch."""

    @property
    def scans(self) -> tuple[Scan, ...]:
        """The scans, by ``scan_id``."""

    @property
    def scales(self) -> NDArray[np.float32]:
        """What the patterns of each scan are multiplied by, (scans,)."""

    def at_epoch(self, epoch: int) -> BatchSource:
        """Return the same scans with the groups of another epoch."""

    def schedule(self, options: BatchOptions) -> Schedule:
        """Return which groups each batch holds; makes none, but refuses options that don't fit."""

    def maker(
        self,
        options: BatchOptions,
        *,
        gatherer: Gatherer | None = None,
        processes: int = 1,
        step: int = 1,
    ) -> Maker:
        """Return what makes the batches of these options.

        `gatherer` may collect patterns and patches elsewhere than in the memory of the process;
        `processes` share the threads of the data set; every `step`-th batch will be asked for.
        """

    def makers(self, options: BatchOptions) -> list[Maker]:
        """Return what makes the batches of these options in turn, in a thread each."""
