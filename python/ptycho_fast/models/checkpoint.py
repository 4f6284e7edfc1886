"""The checkpoint of a run: where it is, and whether a run can go on from it."""

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

    from ptycho_fast.models.network import PatchNetwork

CHECKPOINT = "last.ckpt"

PARTS = ("epoch", "global_step", "state_dict", "loops", "optimizer_states", "lr_schedulers")
"""Of a checkpoint, what it takes to go on."""


def find_checkpoint(folder: Path | None, *, resume: bool) -> Path | None:
    """Return where to go on from, if anywhere.

    Parameters
    ----------
    folder : Path, optional
        Of the run.
    resume : bool
        Whether to go on.

    Raises
    ------
    ValueError
        If there is nothing to go on from, or a run would be written over.
    """
    if folder is None:
        if resume:
            msg = "resume=True goes on from a folder: pass output=."
            raise ValueError(msg)
        return None
    found = folder / CHECKPOINT
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file. Name a folder for the run."
        raise ValueError(msg)
    if resume and not found.exists():
        msg = f"There is nothing to go on from: {found} is missing. Leave resume out."
        raise ValueError(msg)
    if not resume and (found.exists() or (folder / CONFIG).exists()):
        msg = f"{folder} holds a run already. Go on with it (resume), or name another folder."
        raise ValueError(msg)
    return found if resume else None


def count_epochs(checkpoint: Path, network: PatchNetwork) -> int:
    """Return how many epochs a run has done, if it can go on. No code in the file is run.

    Parameters
    ----------
    checkpoint : Path
    network : PatchNetwork
        That of the run.

    Raises
    ------
    ValueError
        If the file is damaged, or of another network.
    OSError
        If it is no regular file or cannot be read.
    """
    with open_regular(checkpoint) as file:
        try:
            _check_archive(file)
            file.seek(0)
            return _look_at(torch.load(file, map_location="cpu", weights_only=True), network)
        except Exception as error:  # there are many ways, each with its own
            raise damaged(checkpoint, error) from error


def damaged(checkpoint: Path, error: Exception) -> ValueError:
    """Say that a run can't go on, and what can be done.

    Parameters
    ----------
    checkpoint : Path
    error : Exception
        What came of it.
    """
    why = f"it lacks {error}" if isinstance(error, KeyError) else repr(error)
    if type(error) is ValueError:
        why = str(error)
    return ValueError(
        f"{checkpoint} is damaged: {why:.300}. The model beside it may be whole: "
        "PtychoModel.load reads it, and train goes on from there with another output."
    )


def _check_archive(file: IO[bytes]) -> None:
    """Refuse an archive whose pieces are not those that were written: PyTorch does not look."""
    with zipfile.ZipFile(file) as archive:
        pieces = archive.infolist()
        size = sum(piece.file_size for piece in pieces)
        packed = any(piece.compress_type != zipfile.ZIP_STORED for piece in pieces)
        if packed or size > os.fstat(file.fileno()).st_size:
            raise ValueError("its pieces are packed, which PyTorch does not do")
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"{bad!r} in it is not what was written")


def _look_at(held: Any, network: PatchNetwork) -> int:
    if not isinstance(held, dict):
        raise ValueError(f"it holds a {type(held).__name__}, no run")
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
        raise ValueError(f"its loops have {processed!r:.50} epochs, not {done}")
    return done
