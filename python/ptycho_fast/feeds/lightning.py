"""Batches for Lightning's ``Trainer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from lightning import LightningDataModule
    from torch.utils.data import DataLoader
except ModuleNotFoundError as error:
    msg = f'Lightning is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

if TYPE_CHECKING:
    from ptycho_fast.dataset import GroupedDataset
    from ptycho_fast.feeds.torch import TorchFeed


class GroupedDataModule(LightningDataModule):
    """Batches of groups for a Lightning ``Trainer``, each rank its own.

    The epochs are the trainer's, also those of a run that goes on from a checkpoint.

    Parameters
    ----------
    train : GroupedDataset
        Shuffled, unless ``shuffle=False``.
    validation : GroupedDataset, optional
        In its own order; `GroupedDataset.split` holds one out.
    batch_size : int
        Groups per batch and rank.
    num_workers : int
        Of the ``DataLoader``: batches are made ahead by a thread without any.
    options
        Of `GroupedDataset.to_torch`.

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
        train: GroupedDataset,
        validation: GroupedDataset | None = None,
        *,
        batch_size: int,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.num_workers = num_workers
        self.train = train.to_torch(batch_size, **{"shuffle": True, **options})
        plain = {**options, "shuffle": False, "redraw": False}
        self.validation = None if validation is None else validation.to_torch(batch_size, **plain)

    def train_dataloader(self) -> Any:
        """Return the loader of the trainer's epoch."""
        if self.trainer is not None:
            # `current_epoch` lags by one where a checkpoint was written at the end of an epoch.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            self.train.set_epoch(progress.processed)
        return self._loader(self.train)

    def val_dataloader(self) -> Any:
        """Return the loader of the validation set; none without one."""
        return [] if self.validation is None else self._loader(self.validation)

    def _loader(self, feed: TorchFeed) -> Any:
        return DataLoader(
            feed,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.num_workers > 0 and feed.pin_memory,
        )
