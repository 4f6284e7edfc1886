"""Which kind of source a name stands for; a new kind is added here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.live.folder import FolderSource
from ptycho_fast.live.hdf5 import HDF5Source
from ptycho_fast.live.zmq import ZMQSource

if TYPE_CHECKING:
    from ptycho_fast.live.source import ScanSource


def open_source(name: str | os.PathLike[str], **reading: Any) -> ScanSource:
    """Return the source of a name.

    Parameters
    ----------
    name : path or str
        ``tcp://...`` or ``ipc://...`` for ZMQ messages, a folder, or an HDF5 file, which need not
        exist yet.
    **reading
        Arguments of `ptycho_fast.read_scan`.
    """
    text = os.fspath(name)
    if text.startswith(("tcp://", "ipc://")):
        return ZMQSource(text, **reading)
    # What does not exist yet, and does not look like a file, will be a folder.
    if Path(text).is_dir() or text.endswith(("/", os.sep)):
        return FolderSource(text, **reading)
    return HDF5Source(text, **reading)
