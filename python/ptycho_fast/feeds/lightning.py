"""Batches for Lightning's ``Trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from lightning import LightningDataModule
    from torch.utils.data import DataLoader
except ModuleNotFoundError as error:
    msg = f'Lightning is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

from ptycho_fast.feeds.torch import TorchFeed

if TYPE_CHECKING:
    from ptycho_fast.batches.source import BatchSource


class GroupedDataModule(LightningDataModule):
    """Batches of groups for a Lightning ``Trainer``, on one device or several.

    Each rank gets its own share of the groups. The epochs are those of the trainer, also when it
    continues from a checkpoint.

    Parameters
    ----------
    train : GroupedDataset
        The groups to train on, shuffled unless ``shuffle=False``.
    validation : GroupedDataset, optional
        The groups to validate on, in their own order; `GroupedDataset.split` holds some out.
    batch_size : int
        Groups per batch and rank.
    num_workers : int
        Workers of the ``DataLoader``. None are needed: threads make batches ahead.
    **options
        Further arguments of `GroupedDataset.to_torch`.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.feeds.lightning import GroupedDataModule
    >>> scan = pf.simulate_scan(n_positions=200, N=16, seed=0)
    >>> data = pf.GroupedDataset(scan, pf.group_positions(scan.positions, seed=1))
    >>> module = GroupedDataModule(*data.split(0.2), batch_size=8, fields=("Y",))
    >>> next(iter(module.val_dataloader()))["Y"].shape
    torch.Size([8, 4, 16, 16])
    """

    def __init__(
        self,
        train: BatchSource,
        validation: BatchSource | None = None,
        *,
        batch_size: int,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.train = TorchFeed(train, batch_size, **{"shuffle": True, **options})
        self.validation = None
        if validation is not None:
            in_order = {**options, "shuffle": False, "redraw": False}
            self.validation = TorchFeed(validation, batch_size, **in_order)

    def train_dataloader(self) -> Any:
        """Return a loader of the trainer's epoch."""
        if self.trainer is not None:
            # `current_epoch` lags by one where a checkpoint was written at the end of an epoch.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            self.train.set_epoch(progress.processed)
        return self._loader(self.train)

    def val_dataloader(self) -> Any:
        """Return a loader of the validation set, or nothing if there is none."""
        return [] if self.validation is None else self._loader(self.validation)

    def _loader(self, feed: TorchFeed) -> Any:
        return DataLoader(
            feed,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.num_workers > 0 and feed.pin_memory,
        )
