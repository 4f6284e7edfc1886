"""Only regular files are opened: a pipe might never deliver, and a device may do anything."""

from __future__ import annotations

import os
import stat
from typing import IO

KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise an error for what is not a regular file, nor a link to one.

    Parameters
    ----------
    path : path
        The file that is about to be opened.

    Raises
    ------
    OSError
        If it is missing, or a folder, a pipe, a socket or a device.

    Examples
    --------
    >>> from ptycho_fast.io.regular import check_regular
    >>> check_regular("/dev/null")
    Traceback (most recent call last):
    OSError: /dev/null is a device, not a file. Copy its content to a file, and open that file.
    """
    _check(path, os.stat(path))


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file for reading bytes.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    binary file

    Raises
    ------
    OSError
        As `check_regular`.
    """
    check_regular(path)
    # Should it have become a pipe in the meantime, O_NONBLOCK keeps this from waiting for it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def _check(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        msg = f"{os.fspath(path)} is a folder. Name a file in it."
        raise IsADirectoryError(msg)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in KINDS if test(status.st_mode)), "something else")
        msg = (
            f"{os.fspath(path)} is {kind}, not a file. Copy its content to a file, and open that "
            "file."
        )
        raise OSError(msg)
