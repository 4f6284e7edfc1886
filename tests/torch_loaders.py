"""PyTorch's loaders of a feed, and the groups that their epochs should have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from small_scans import shuffled

if TYPE_CHECKING:
    from collections.abc import Iterable

    import ptycho_fast as pf

GROUPS, SEED = 53, 5
"""A prime number of groups, so that the last batch is never whole; the seed of their order."""


def loader_of(feed: Any, workers: int, method: str = "fork", **options: Any) -> Any:
    """A ``DataLoader`` of whole batches, with workers that are started by this method."""
    from torch.utils.data import DataLoader  # noqa: PLC0415

    if workers:
        options |= {"num_workers": workers, "multiprocessing_context": method}
    return DataLoader(feed, batch_size=None, **options)


def expected(data: pf.GroupedDataset, epoch: int, batch_size: int = 4) -> list[list[list[int]]]:
    """The groups of each batch of a shuffled epoch."""
    order = data.groups[0].indices[shuffled(len(data), SEED, epoch)]
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]


def groups_of(batches: Iterable[dict[str, Any]]) -> list[list[list[int]]]:
    """The groups of each batch that was made."""
    return [batch["nn_indices"].tolist() for batch in batches]
