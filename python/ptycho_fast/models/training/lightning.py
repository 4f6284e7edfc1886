"""What training uses of Lightning, which is an optional package."""

from __future__ import annotations

try:
    from lightning import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
except ModuleNotFoundError as error:
    msg = f'Lightning is needed ({error}). Install it with: pip install "ptycho_fast[torch]"'
    raise ImportError(msg) from None

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "ModelCheckpoint",
    "TQDMProgressBar",
    "Trainer",
]
