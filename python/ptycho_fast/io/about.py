"""What an NPZ file tells about itself under ``_metadata``: JSON, or plain values in a pickle."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from ptycho_fast.io import plain_pickle
from ptycho_fast.io.npy import read_header

KEY = "_metadata"


def read(file: IO[bytes]) -> Any:
    """Read it from its NPY file: JSON, or a pickle of plain values.

    Parameters
    ----------
    file : file
        Stands at the beginning.

    Returns
    -------
    dict, list, str, number, ndarray or None
        Text that is no JSON stays text.

    Raises
    ------
    ValueError
        If a pickle holds anything but plain values, or is damaged; what it names is told.
    """
    _, _, dtype = read_header(file)
    if not dtype.hasobject:
        file.seek(0)
        value = np.lib.format.read_array(file, allow_pickle=False)
    else:
        value = plain_pickle.loads(file.read(plain_pickle.MOST_BYTES + 1))
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item() if value.dtype.hasobject else value.reshape(-1)[0]
    if isinstance(value, str | bytes):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_json(value: Any) -> str:
    """Return plain values as JSON; NumPy's numbers become numbers, its arrays lists.

    Raises
    ------
    ValueError
        If there is anything else in it.
    """

    def plain(other: Any) -> Any:
        if isinstance(other, np.ndarray | np.generic) and other.dtype.kind in "biufU":
            return other.tolist()
        msg = f"{type(other).__name__} has no place in JSON"
        raise TypeError(msg)

    try:
        return json.dumps(value, default=plain)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
