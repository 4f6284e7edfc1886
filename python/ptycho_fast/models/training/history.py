"""The history of a run (``history.csv``), one row per epoch."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from ptycho_fast.atomic import replacing
from ptycho_fast.models.storage import read_text

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (
    "epoch",
    "loss",
    "validation_loss",
    "image_correlation",
    "variation",
    "learning_rate",
    "seconds",
)
HISTORY = "history.csv"


def write_history(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows to ``history.csv``, which appears whole or not at all.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    rows : list of dict
        One row per epoch, with all of `COLUMNS`.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(folder / HISTORY) as file:
        file.write(text.getvalue().encode())


def read_history(folder: Path, done: int) -> list[dict[str, Any]]:
    """Read the rows that a run has written.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    done : int
        Number of epochs in its checkpoint.

    Returns
    -------
    list of dict
        One row per epoch; empty if there is no file.

    Raises
    ------
    ValueError
        If the file is damaged.
    OSError
        If it is not a regular file, or cannot be read.
    """
    path = folder / HISTORY
    try:
        text = read_text(path)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS or not text.endswith("\n"):
            raise ValueError("it does not begin with the columns of a history, or is cut off")
        rows = [_as_row(row) for row in reader]
        epochs = [row["epoch"] for row in rows]
        # The first epochs are missing if the file was removed before the run was resumed.
        if not rows or epochs != list(range(epochs[0], epochs[0] + len(rows))):
            raise ValueError(f"its epochs are not consecutive, but {epochs!r:.50}")
        if epochs[-1] < done - 1:
            raise ValueError(f"it ends with epoch {epochs[-1]}, but {done} epochs were done")
    except FileNotFoundError:
        return []
    except (csv.Error, ValueError) as error:
        msg = (
            f"{path} is damaged: {error}. Copy it again, or delete it; the history then starts "
            "where the run is resumed."
        )
        raise ValueError(msg) from None
    return rows


def _as_row(text: dict[str, Any]) -> dict[str, Any]:
    if list(text) != list(COLUMNS) or None in text.values():
        raise ValueError(f"one of its rows does not have {len(COLUMNS)} columns")
    numbers = {name: float(value) if value else "" for name, value in text.items()}
    return numbers | {"epoch": int(text["epoch"]), "loss": float(text["loss"])}
