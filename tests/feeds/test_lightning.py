"""Batches for Lightning's ``Trainer``."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from places import ROOT
from small_scans import N, make_data
from torch_loaders import GROUPS, SEED, expected, groups_of

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.mark.filterwarnings("ignore")
def test_epochs_are_those_of_the_trainer(tmp_path: Path) -> None:
    """Also where a run goes on from a checkpoint."""
    lightning = pytest.importorskip("lightning")
    from ptycho_fast.feeds.lightning import GroupedDataModule  # noqa: PLC0415

    training, validation = make_data(GROUPS).split(0.3, margin=0)
    seen: dict[int, list[Any]] = {}
    looked_at = []

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(N, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            seen.setdefault(self.current_epoch, []).append(batch["nn_indices"].tolist())
            return self.layer(batch["diffraction"]).sum()

        def validation_step(self, batch: Any, _: int) -> None:
            looked_at.append(batch["nn_indices"].tolist())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-6)

    def fit(epochs: int, checkpoint: str | None) -> Any:
        module = GroupedDataModule(training, validation, batch_size=4, seed=SEED)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
        )  # fmt: skip
        trainer.fit(Model(), module, ckpt_path=checkpoint)
        return trainer

    fit(2, None).save_checkpoint(tmp_path / "run.ckpt")
    assert set(seen) == {0, 1}
    fit(4, str(tmp_path / "run.ckpt"))
    assert seen == {epoch: expected(training, epoch) for epoch in range(4)}
    first = validation.groups[0].indices[:4].tolist()
    assert [batch for batch in looked_at if batch == first]

    module = GroupedDataModule(training, batch_size=4, num_workers=1)
    assert groups_of(module.train_dataloader())
    assert module.val_dataloader() == []
    assert isinstance(pickle.loads(pickle.dumps(module)), GroupedDataModule)


def test_the_example_trains_on_two_ranks() -> None:
    pytest.importorskip("lightning")
    script = ROOT / "examples" / "train_lightning.py"
    command = [sys.executable, str(script), "--epochs", "2", "--groups", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = [float(value) for value in re.findall(r"epoch \d+: loss ([\d.]+)", done.stdout)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert "the loss fell" in done.stdout
    (ranks,) = re.findall(r"batches of each rank: \[(\d+), (\d+)\]", done.stdout)
    assert ranks[0] == ranks[1] != "0"
