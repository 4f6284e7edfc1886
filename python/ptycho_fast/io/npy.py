"""NPY: headers, and stacks of patterns that are read and written some at a time."""

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
    """What the header of an NPY file tells."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def read_header(file: IO[bytes]) -> Header:
    """Read the header; the file stands at the first number afterwards.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        header = Header(*read(file))
    # What Python's parser raises on a header that somebody made up.
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError) as error:
        msg = f"its header is none: {error}"
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
    """Write patterns that come some at a time as one array of that shape and dtype."""
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
        If the file is missing, cut short or no NPY file.
    ValueError
        If its array is another.

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
            msg = f"{path} is no NPY file, or it is damaged ({error}). Write it again."
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
