"""Scans that are followed while they are measured: `follow`, and the sources they come from."""

from ptycho_fast.live.folder import FolderSource
from ptycho_fast.live.follow import Update, follow
from ptycho_fast.live.hdf5 import HDF5Source
from ptycho_fast.live.source import News, ScanSource
from ptycho_fast.live.zmq import ZMQSource

__all__ = ["FolderSource", "HDF5Source", "News", "ScanSource", "Update", "ZMQSource", "follow"]
