"""Scan files: read, examined, converted and written.

A file is a container of arrays (`ptycho_fast.io.container`), HDF5 or NPZ, which is opened once; a
format (`ptycho_fast.io.formats`) says which of its arrays is what.
"""

from ptycho_fast.io.conversion import convert
from ptycho_fast.io.examination import examine
from ptycho_fast.io.opening import list_arrays
from ptycho_fast.io.scan_files import read_scan, write_scan

__all__ = ["convert", "examine", "list_arrays", "read_scan", "write_scan"]
