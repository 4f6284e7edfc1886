"""The checkpoint of a run (``last.ckpt``): find it, and check that the run can be resumed."""

from __future__ import annotations

import os
import zipfile
from typing import IO, TYPE_CHECKING, Any

import torch

from ptycho_fast.checks import as_count
from ptycho_fast.io.regular import open_regular
from ptycho_fast.models.storage import CONFIG, check_weights

if TYPE_CHECKING:
    from pathlib import Path

    from ptycho_fast.models.network import ScanNetwork

CHECKPOINT = "last.ckpt"

PARTS = ("epoch", "global_step", "state_dict", "loops", "optimizer_states", "lr_schedulers")
"""The entries of a checkpoint that are needed to resume."""


def find_checkpoint(folder: Path | None, *, resume: bool) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run.

    Parameters
    ----------
    folder : Path, optional
        The folder of the run.
    resume : bool
        Whether to resume.

    Raises
    ------
    ValueError
        If there is no checkpoint to resume from, or a new run would overwrite an old one.
    """
    if folder is None:
        if resume:
            msg = "resume=True needs the folder of the run: pass output=."
            raise ValueError(msg)
        return None
    found = folder / CHECKPOINT
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file. Name a folder for the run."
        raise ValueError(msg)
    if resume and not found.exists():
        msg = f"There is no run to resume: {found} is missing. Train without resume to start one."
        raise ValueError(msg)
    if not resume and (found.exists() or (folder / CONFIG).exists()):
        msg = f"{folder} contains a run already. Resume it, or name another folder."
        raise ValueError(msg)
    return found if resume else None


def count_epochs(checkpoint: Path, network: ScanNetwork) -> int:
    """Return the number of epochs in a checkpoint, after checking that a run can resume from it.

    No code in the file is executed.

    Parameters
    ----------
    checkpoint : Path
    network : ScanNetwork
        The network of the run.

    Raises
    ------
    ValueError
        If the file is damaged, or belongs to another network.
    OSError
        If it is not a regular file, or cannot be read.
    """
    with open_regular(checkpoint) as file:
        try:
            _check_archive(file)
            file.seek(0)
            return _check_content(torch.load(file, map_location="cpu", weights_only=True), network)
        except Exception as error:  # damage shows in many kinds of errors
            raise damaged(checkpoint, error) from error


def check_optimizer(adam: torch.optim.Optimizer) -> None:
    """Raise an error if an optimiser, restored from a checkpoint, is not the one of training.

    Adam's fused step does not check shapes; with a wrong one it would read beyond the array.

    Parameters
    ----------
    adam : torch.optim.Optimizer

    Raises
    ------
    ValueError
        If options, names, shapes or dtypes differ from those of Adam in training, or numbers are
        not finite.
    """
    for group in adam.param_groups:
        its = {name: group.get(name) for name in adam.defaults if name != "lr"}
        rate = group.get("lr")
        if any(its[name] != adam.defaults[name] for name in its) or not isinstance(rate, float):
            raise ValueError("its optimizer is not the one of training")
        for p in group["params"]:
            state = adam.state.get(p, {})
            check_weights(state, {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p})
            for name, tensor in state.items():
                # Copied, so that it has its own memory in the layout of the weight.
                state[name] = torch.empty_like(p if tensor.ndim else tensor).copy_(tensor)


def damaged(checkpoint: Path, error: Exception) -> ValueError:
    """Return the error that says that a checkpoint is damaged, and what can be done.

    Parameters
    ----------
    checkpoint : Path
    error : Exception
        What went wrong when it was read.
    """
    why = f"it lacks {error}" if isinstance(error, KeyError) else repr(error)
    if type(error) is ValueError:
        why = str(error)
    return ValueError(
        f"{checkpoint} is damaged: {why:.300}. The model in the same folder may be intact: load it "
        "with PtychoModel.load, and continue training with another output."
    )


def _check_archive(file: IO[bytes]) -> None:
    """Raise an error if the checksums in the archive are wrong. PyTorch does not check them."""
    with zipfile.ZipFile(file) as archive:
        pieces = archive.infolist()
        size = sum(piece.file_size for piece in pieces)
        packed = any(piece.compress_type != zipfile.ZIP_STORED for piece in pieces)
        if packed or size > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries are compressed, which PyTorch never does")
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"the checksum of its entry {bad!r} is wrong")


def _check_content(held: Any, network: ScanNetwork) -> int:
    """Return the number of epochs, or raise an error that says what is wrong."""
    if not isinstance(held, dict):
        raise ValueError(f"it contains a {type(held).__name__}, not a run")
    missing = [name for name in PARTS if name not in held]
    if missing:
        raise ValueError(f"it lacks {', '.join(map(repr, missing))}")
    check_weights(
        held["state_dict"],
        {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
    )
    done = 1 + as_count("its epoch", held["epoch"], least=0)
    as_count("its global_step", held["global_step"], least=0)
    processed = held["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if processed != done:
        raise ValueError(f"its loops have done {processed!r:.50} epochs, not {done}")
    return done
