"""Which kind of container a file is; a new kind is added here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.io.hdf5.container import HDF5Container
from ptycho_fast.io.hdf5.links import has_signature
from ptycho_fast.io.npz.container import NPZContainer
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    import os

    from ptycho_fast.io.container import ArrayInfo, Container


def open_container(path: str | os.PathLike[str]) -> Container:
    """Open a file of arrays, whose kind is told from its content.

    Parameters
    ----------
    path : path
        An HDF5 or an NPZ file. That a file is neither is said when something is read from it.

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
    file = open_regular(path)
    try:
        is_hdf5 = has_signature(file)
    except BaseException:
        file.close()
        raise
    if is_hdf5:
        file.close()
        return HDF5Container(path, open_container)
    file.seek(0)
    return NPZContainer(path, open_container, file)


def list_arrays(path: str | os.PathLike[str], most: int | None = None) -> dict[str, ArrayInfo]:
    """Return key -> what is known of each array of a file, or of the first `most`, reading none.

    Raises
    ------
    OSError
        If the file cannot be read, or is neither HDF5 nor NPZ.
    """
    with open_container(path) as container:
        return container.arrays(most)
