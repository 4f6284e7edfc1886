"""Which kind of container a file is; a new kind is added here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ptycho_fast.io.foreign import HEAD_BYTES, is_text
from ptycho_fast.io.hdf5.container import HDF5Container
from ptycho_fast.io.hdf5.links import has_signature
from ptycho_fast.io.matlab import MATLABContainer
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.regular import open_regular
from ptycho_fast.io.single import NPYContainer
from ptycho_fast.io.text import TextContainer
from ptycho_fast.io.tiff import TIFFContainer

if TYPE_CHECKING:
    from ptycho_fast.io.container import ArrayInfo, Container


NPY = b"\x93NUMPY"
ZIP = b"PK"
MATLAB = b"MATLAB 5.0"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of such files."""

TABLES = (".csv", ".tsv", ".txt", ".dat")
"""How the names of tables end, which are read as such whatever is in them."""


def open_container(path: str | os.PathLike[str]) -> Container:
    """Open a file of arrays, whose kind is told from its content.

    Parameters
    ----------
    path : path
        An HDF5, NPZ, NPY, TIFF or MATLAB file. That a file is none of them is said when something
        is read from it.

    Returns
    -------
    Container
        Close it, or use it in a ``with`` statement.

    Raises
    ------
    OSError
        If the file is missing, or no regular file (`ptycho_fast.io.regular`).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from ptycho_fast.io.opening import open_container
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "motors.npz"
    >>> np.savez(path, motors=np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> with open_container(path) as container:
    ...     container.info("motors").shape, container.read_named("motors[:,0]")
    ((2, 2), array([1., 3.]))
    """
    return _open(path, tables=False)


def _open_other(path: str | os.PathLike[str]) -> Container:
    """Open a file that is named beside a scan, which may also be a table of text."""
    return _open(path, tables=True)


def _open(path: str | os.PathLike[str], *, tables: bool) -> Container:
    file = open_regular(path)
    try:
        is_hdf5 = has_signature(file)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    if head.startswith(NPY):
        return NPYContainer(path, _open_other, file)
    kinds: tuple[tuple[bool, type[Container]], ...] = (
        (is_hdf5, HDF5Container),
        (head.startswith(MATLAB), MATLABContainer),
        (head.startswith(TIFF), TIFFContainer),
        (tables and _may_be_table(path, head), TextContainer),
    )
    kind = next((kind for fits, kind in kinds if fits), None)
    if kind is None:
        return NPZContainer(path, _open_other, file)
    file.close()
    return kind(path, _open_other)


def _may_be_table(path: str | os.PathLike[str], head: bytes) -> bool:
    """Tell whether a file is text, of one line at least, or is called as tables are."""
    if head.startswith(ZIP):
        return False
    return is_text(head + b"\n") or os.fspath(path).lower().endswith(TABLES)


def list_arrays(path: str | os.PathLike[str], most: int | None = None) -> dict[str, ArrayInfo]:
    """Return key -> what is known of each array of a file, or of the first `most`, reading none.

    Raises
    ------
    OSError
        If the file cannot be read, or is of no known kind.
    """
    with open_container(path) as container:
        return container.arrays(most)
