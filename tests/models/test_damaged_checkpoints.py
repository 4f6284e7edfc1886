"""Damaged checkpoints are refused with their cause."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
lightning = pytest.importorskip("lightning")

from ptycho_fast.models import PtychoModel  # noqa: E402
from small_runs import STEM, contents, make_model, resume, train  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


LIST = object()


def edit_checkpoint(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        held = torch.load(run / "last.ckpt", weights_only=True)
        made = change(held)
        torch.save([1] if made is LIST else held, run / "last.ckpt")

    return damage


def spoil(held: Any, *path: Any, value: Any) -> None:
    *before, last = path
    for name in before:
        held = held[name]
    held[last] = value


LOOPS = ("loops", "fit_loop", "epoch_progress", "current")


ADAM = ("optimizer_states", 0)


WEIGHT = "network." + STEM


CHECKPOINTS: list[tuple[str, Callable[[Path], None]]] = [
    *((name, edit_checkpoint(lambda c, name=name: c.pop(name)))  # type: ignore[misc]
      for name in ("loops", "epoch", "global_step", "state_dict", "optimizer_states",
                   "lr_schedulers")),
    ("not a run", edit_checkpoint(lambda c: LIST)),
    ("lacks", edit_checkpoint(lambda c: c["state_dict"].pop(WEIGHT))),
    (r"shape \(3,\)", edit_checkpoint(
        lambda c: spoil(c, "state_dict", WEIGHT, value=torch.zeros(3)))),
    ("NaN", edit_checkpoint(lambda c: c["state_dict"][WEIGHT].fill_(torch.nan))),
    ("'much'", edit_checkpoint(lambda c: spoil(c, "state_dict", WEIGHT, value="much"))),
    ("shape", edit_checkpoint(lambda c: spoil(
        c, "state_dict", WEIGHT, value=torch.zeros(1).expand(2**40)))),
    ("its epoch", edit_checkpoint(lambda c: spoil(c, "epoch", value="two"))),
    ("its epoch", edit_checkpoint(lambda c: spoil(c, "epoch", value=-5))),
    ("loops have done 2 epochs, not 11", edit_checkpoint(lambda c: spoil(c, "epoch", value=10))),
    ("epochs", edit_checkpoint(lambda c: spoil(c, *LOOPS, "processed", value=None))),
    ("lacks 'epoch_progress'", edit_checkpoint(lambda c: spoil(c, *LOOPS[:2], value={}))),
    ("indices", edit_checkpoint(lambda c: spoil(c, *LOOPS[:1], value=[]))),
    ("lacks 'exp_avg'", edit_checkpoint(lambda c: spoil(c, "optimizer_states", value=[]))),
    ("lacks 'param_groups'", edit_checkpoint(lambda c: spoil(c, *ADAM, value={}))),
    ("parameter groups", edit_checkpoint(lambda c: spoil(c, *ADAM, "param_groups", value=[]))),
    (r"'exp_avg' is .* \(5,\)", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "state", 1, "exp_avg", value=torch.zeros(5)))),
    ("lacks 'exp_avg'", edit_checkpoint(lambda c: spoil(c, *ADAM, "state", 1, value={}))),
    ("'exp_avg_sq' contains NaN", edit_checkpoint(
        lambda c: c["optimizer_states"][0]["state"][1]["exp_avg_sq"].fill_(torch.nan))),
    ("not the one of training", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "param_groups", 0, "betas", value=(2.0, 3.0)))),
    ("not the one of training", edit_checkpoint(lambda c: spoil(
        c, *ADAM, "param_groups", 0, "lr", value="fast"))),
    ("TypeError", edit_checkpoint(lambda c: spoil(
        c, "lr_schedulers", 0, "last_epoch", value="x"))),
    ("lacks 'lr_lambdas'", edit_checkpoint(
        lambda c: spoil(c, "lr_schedulers", value=[{"last_epoch": "x"}]))),
    ("not iterable", edit_checkpoint(lambda c: spoil(c, "lr_schedulers", value=7))),
]  # fmt: skip


@pytest.mark.parametrize(("message", "damage"), CHECKPOINTS)
def test_a_damaged_checkpoint_is_refused_with_its_cause(
    run: Path, filed_scan: Any, message: str, damage: Callable[[Path], None]
) -> None:
    damage(run)
    before = contents(run)
    with pytest.raises(ValueError, match=rf"last\.ckpt is damaged: .*{message}") as refused:
        resume(run, filed_scan)
    assert "load it with PtychoModel.load" in str(refused.value)
    assert len(str(refused.value)) < 800
    assert contents(run) == before
    PtychoModel.load(run)


def test_a_checkpoint_of_another_network_is_refused(
    run: Path, filed_scan: Any, tmp_path: Path
) -> None:
    train(make_model(width=3), filed_scan, output=tmp_path / "other")
    shutil.copy(tmp_path / "other" / "last.ckpt", run / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged: 'network.* but this network has"):
        resume(run, filed_scan)


def test_a_flipped_bit_in_a_checkpoint_is_found(run: Path, filed_scan: Any) -> None:
    """The bit is in the weights, where every value would be valid."""
    path = run / "last.ckpt"
    with zipfile.ZipFile(path) as archive:
        piece = max(
            archive.infolist(), key=lambda piece: piece.file_size * ("data/" in piece.filename)
        )
        held = archive.read(piece)
    content = bytearray(path.read_bytes())
    content[content.find(held) + len(held) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"last\.ckpt is damaged: the checksum of its entry .* is wrong"
    ):
        resume(run, filed_scan)
