"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` for writing, and give it that name at the end.

    After an error in the ``with`` block the temporary file is removed, and a file that was at
    `path` before is unchanged.

    Parameters
    ----------
    path : path
        The file to write.

    Yields
    ------
    binary file

    Raises
    ------
    OSError
        If the folder is missing or the disk is full.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from ptycho_fast.atomic import replacing
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as file:
    ...     size = file.write(b"whole")
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # h5py reads back what it has written.
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # The files of mkstemp are private; this one should have the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        Path(beside).chmod(0o666 & ~umask)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
