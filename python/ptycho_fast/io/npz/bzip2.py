"""NPZ files that are compressed once more, ``.npz.bz2``, as tike's examples are."""

from __future__ import annotations

import bz2
import os
import tempfile
from typing import IO

MAGIC, ZIP = b"BZh", b"PK"

MOST, MOST_RATIO = 2**30, 100
"""More bytes than `MOST` are refused if they are more than `MOST_RATIO` times those of the file."""

PIECE = 2**20


def decompressed(file: IO[bytes], path: str | os.PathLike[str]) -> IO[bytes] | None:
    """Return the zip archive that a bzip2 file holds, as a temporary file without a name.

    Parameters
    ----------
    file : binary file
        The file.
    path : path
        Its name, for messages.

    Returns
    -------
    binary file or None
        None, and the file at its beginning, if it is not compressed or holds no zip archive.

    Raises
    ------
    OSError
        If the file is damaged or cut short, or there is too little room.
    ValueError
        If it would decompress to far more than it holds.
    """
    begins = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    if not begins:
        return None
    most = max(MOST, MOST_RATIO * os.fstat(file.fileno()).st_size)
    whole = tempfile.TemporaryFile()  # noqa: SIM115  # the archive closes it
    try:
        with bz2.BZ2File(file) as packed:
            while piece := packed.read(PIECE):
                if not whole.tell() and not piece.startswith(ZIP):
                    whole.close()
                    file.seek(0)
                    return None
                whole.write(piece)
                if whole.tell() > most:
                    msg = (
                        f"{os.fspath(path)} would decompress to more than {most / 2**30:.3g} GiB, "
                        "and was not read. Decompress it first if that is right: bunzip2."
                    )
                    raise ValueError(msg)
    except (EOFError, OSError) as error:
        whole.close()
        if isinstance(error, OSError) and error.errno is not None:  # no room, or no reading
            raise
        msg = f"{os.fspath(path)} can't be decompressed ({error}). Copy or write it again."
        raise OSError(msg) from error
    except ValueError:
        whole.close()
        raise
    whole.seek(0)
    file.seek(0)
    return whole
