"""NPY files: their headers, and stacks of patterns that are not held in memory."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptycho_fast.frames import FileFrames
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Header(NamedTuple):
    """What the header of an NPY file says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_header(file: IO[bytes]) -> Header:
    """Read the header, and leave the file at the first number of the array.

    Raises
    ------
    ValueError
        If the file does not begin with a valid header.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        header = Header(*read(file))
    # Python's parser raises these on headers that no program writes.
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError) as error:
        msg = f"its header is not valid: {error}"
        raise ValueError(msg) from error
    shape, _, dtype = header
    if min(shape, default=0) < 0 or (dtype.itemsize == 0 and not dtype.hasobject):
        msg = f"its header says shape {shape} of {dtype}, which has no size"
        raise ValueError(msg)
    return header


def write_stack(
    file: IO[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    blocks: Iterable[NDArray[Any]],
) -> None:
    """Write blocks of patterns as one array of a shape and dtype that are known before."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": tuple(int(length) for length in shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype).data)


def open_npy(path: str | os.PathLike[str]) -> FileFrames:
    """Open the patterns in an NPY file; they stay there.

    Parameters
    ----------
    path : path
        A file with one real array (n, N, N) in C order.

    Returns
    -------
    FileFrames

    Raises
    ------
    OSError
        If the file is missing, cut short or not an NPY file.
    ValueError
        If it holds another kind of array.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from ptycho_fast.io.npy import open_npy
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "patterns.npy"
    >>> np.save(path, np.ones((3, 2, 2), np.float32))
    >>> open_npy(path)[2]
    array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    with open_regular(path) as file:
        try:
            shape, fortran_order, dtype = read_header(file)
        except ValueError as error:
            msg = f"{path} is not an NPY file, or it is damaged ({error}). Write it again."
            raise OSError(msg) from error
        offset = file.tell()
    if len(shape) != 3 or shape[1] != shape[2] or fortran_order or dtype.kind not in "fiub":
        order = "Fortran" if fortran_order else "C"
        msg = (
            f"{path} holds {shape} of {dtype} in {order} order; patterns must be (n, N, N) real "
            "numbers in C order."
        )
        raise ValueError(msg)
    return FileFrames(path, offset, (shape[0], shape[1], shape[2]), dtype)
