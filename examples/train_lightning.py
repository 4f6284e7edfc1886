"""Train a small network with Lightning on two processes, each with its own share of the groups.

    python examples/train_lightning.py

The scan is simulated, a block of it is held out for validation, and two CPU processes train
together (DDP, gloo). From each pattern the network predicts the object under it. The script prints
the loss of each epoch and how many batches each rank saw. It takes half a minute on two cores.

To train on a scan of your own, use ``pf.read_scan("scan.npz", load=False)``, which leaves the
patterns in the file.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

import ptycho_fast as pf
from ptycho_fast.feeds.lightning import GroupedDataModule

N = 32


class PatchNetwork(LightningModule):
    """Predicts the object under each pattern, where it is illuminated: real and imaginary part."""

    def __init__(self, probe: Tensor) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (N // 4) ** 2, 256),
            nn.ReLU(),
            nn.Linear(256, 64 * (N // 4) ** 2),
            nn.ReLU(),
            nn.Unflatten(1, (64, N // 4, N // 4)),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 2, 4, stride=2, padding=1),
        )
        light = probe.abs() / probe.abs().square().mean().sqrt()
        self.light: Tensor
        self.register_buffer("light", light[..., None])
        self.batches = 0

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean square error of the object, weighted with the illumination."""
        patterns = batch["diffraction"].reshape(-1, 1, N, N).sqrt()
        patches = torch.view_as_real(batch["Y"]).reshape(-1, N, N, 2)
        found = self.network(patterns).movedim(1, -1)
        return nn.functional.mse_loss(found, self.light * patches)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Log the loss, averaged over batches and ranks."""
        self.batches += 1
        loss = self.loss(batch)
        self.log("loss", loss, on_epoch=True, on_step=False, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        """Log the loss on groups that share no pattern with those of the training set."""
        self.log("held out", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Losses(Callback):
    """Print and keep the loss of each epoch."""

    def __init__(self) -> None:
        self.of_epochs: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Keep the loss that was logged, and print it in one process."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.of_epochs.append(found["loss"])
        if trainer.is_global_zero:
            print(
                f"epoch {trainer.current_epoch}: loss {found['loss']:.4f}, "
                f"held out {found['held out']:.4f}",
                flush=True,
            )


def main() -> None:
    """Train, and print whether the loss fell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--groups", type=int, default=1499)
    parser.add_argument("--devices", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    # A thread makes the batches ahead, so the workers that Lightning recommends are not needed.
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    torch.set_num_threads(1)  # of each process
    torch.manual_seed(0)

    # Every process runs this script. Groups depend only on their seed, so all draw the same ones.
    scan = pf.simulate_scan(n_positions=arguments.groups, N=N, seed=0)
    groups = pf.group_positions(scan.positions, gridsize=2, seed=0)
    train, held_out = pf.GroupedDataset(scan, groups, normalize=True).split(0.1)
    data = GroupedDataModule(train, held_out, batch_size=16, fields=("Y",), redraw=True)

    model, losses = PatchNetwork(torch.from_numpy(scan.probe)), Losses()
    trainer = Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        devices=arguments.devices,
        strategy="ddp",
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, data)
    batches: Any = model.all_gather(torch.tensor(model.batches))
    if trainer.is_global_zero:
        print(f"batches of each rank: {batches.reshape(-1).tolist()}")
        fell = losses.of_epochs[-1] < losses.of_epochs[0]
        print(f"the loss {'fell' if fell else 'did not fall'}")


if __name__ == "__main__":
    main()
