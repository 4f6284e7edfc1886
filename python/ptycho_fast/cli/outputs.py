"""Files and folders that a command is to write: refused before any work if they cannot be."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_output(path: Path) -> None:
    """Refuse an output file that cannot be written.

    Parameters
    ----------
    path : Path
        The file to write.

    Raises
    ------
    OSError
        If its folder does not exist or is a file, or it is a folder itself.
    """
    if path.parent.exists() and not path.parent.is_dir():
        msg = f"{path} can't be written: {path.parent} is a file. Name a folder."
        raise OSError(msg)
    if not path.parent.is_dir():
        msg = f"{path} can't be written: there is no folder {path.parent}. Create it first."
        raise OSError(msg)
    if path.is_dir():
        msg = f"{path} can't be written: it is a folder. Give the name of a file in it."
        raise OSError(msg)


def check_output_folder(path: Path) -> None:
    """Refuse an output folder that is a file.

    Parameters
    ----------
    path : Path
        The folder to write files into. It is made if it is missing.

    Raises
    ------
    OSError
        If it is a file.
    """
    if path.exists() and not path.is_dir():
        msg = f"{path} can't be the folder for the results: it is a file. Name a folder."
        raise OSError(msg)


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Make the folder for what is done here; leave none if nothing came of it.

    Parameters
    ----------
    path : Path
        The folder. It, and the folders that it is in, are made if they are missing.

    Raises
    ------
    OSError
        If it is a file, or cannot be made.
    """
    check_output_folder(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def check_outputs(scan: Path, *outputs: Path | None) -> None:
    """Refuse output files that cannot be written, or that would overwrite the scan.

    Parameters
    ----------
    scan : Path
        The scan file that is read.
    *outputs : Path or None
        The files to write; None for those that were not asked for.

    Raises
    ------
    OSError
        As `check_output`.
    ValueError
        If an output is the scan file.
    """
    for path in outputs:
        if path is not None:
            check_output(path)
            if path.exists() and scan.exists() and path.samefile(scan):
                msg = f"{path} is the scan itself, which would be overwritten. Name another file."
                raise ValueError(msg)
