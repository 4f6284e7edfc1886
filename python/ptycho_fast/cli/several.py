"""Commands that take several scan files: which files are meant, and which fit into memory."""

from __future__ import annotations

import glob
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.io import list_arrays
from ptycho_fast.memory import available

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARE = 1 / 2
"""Patterns of more than this share of the free memory stay in their file."""


def find_files(names: Sequence[str]) -> list[Path]:
    """Return the files that names and patterns stand for.

    Most shells replace patterns before a command sees them; others, and quotes, do not.

    Parameters
    ----------
    names : sequence of str
        Names of files, or patterns such as ``scans/*.h5``, whose files come in alphabetical order.

    Raises
    ------
    FileNotFoundError
        If no file matches a pattern.
    """
    found: list[Path] = []
    for name in names:
        matches = [name] if Path(name).exists() or not glob.has_magic(name) else []
        matches = matches or sorted(glob.glob(name))
        if not matches:
            msg = f"No file matches {name}."
            raise FileNotFoundError(msg)
        found += [Path(match) for match in matches]
    return found


def fits(path: Path) -> bool:
    """Tell whether the patterns of a file, as float32, fit into the memory that is free now.

    Parameters
    ----------
    path : Path
    """
    largest = max((math.prod(array.shape) for array in list_arrays(path).values()), default=0)
    return 4 * largest <= SHARE * available()
