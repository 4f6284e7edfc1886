"""What an NPZ file says about itself under ``_metadata``: JSON, or plain values in a pickle."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from ptycho_fast.io.npy import read_header
from ptycho_fast.io.npz import plain_pickle


def read_metadata(file: IO[bytes]) -> Any:
    """Read the metadata from its NPY file: JSON, or a pickle of plain values.

    Parameters
    ----------
    file : binary file
        The NPY file, at its beginning.

    Returns
    -------
    dict, list, str, number, ndarray or None
        Text that is not JSON is returned as it is.

    Raises
    ------
    ValueError
        If a pickle is damaged or holds anything but plain values; the message names it.
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
    """Return plain values as JSON: numbers of NumPy become numbers, its arrays lists.

    Raises
    ------
    ValueError
        If there is anything else among the values.
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
