"""The scan files of a command: which files are meant, and which of them fit into memory."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.progress import step
from ptycho_fast.cli.reading import reading
from ptycho_fast.frames import Frames
from ptycho_fast.io import read_scan

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ptycho_fast.scan import Scan


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


def read_files(files: Sequence[Path], arguments: argparse.Namespace) -> list[Scan]:
    """Read scans, with a line for each; patterns that take much of the memory stay in their file.

    Parameters
    ----------
    files : sequence of Path
    arguments : argparse.Namespace
        What was parsed with the options of `ptycho_fast.cli.reading.add_reading`.

    Returns
    -------
    list of Scan
    """
    scans = []
    for file in files:
        with step("read") as running:
            scan = read_scan(file, **reading(arguments))
            named = f"{file.name}: " if len(files) > 1 else ""
            told = ", in their file" if isinstance(scan.diffraction, Frames) else ""
            running.done(f"{named}n = {len(scan)} positions, patterns of {scan.N} x {scan.N}{told}")
        scans.append(scan)
    return scans
