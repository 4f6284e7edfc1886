"""The arrays of a file, listed in an error message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 24
"""How many arrays a message names."""


def listed(arrays: Mapping[str, Any]) -> str:
    """Return names and shapes of arrays as text, of the first `MOST` at most.

    Parameters
    ----------
    arrays : mapping of str to anything with a shape
        The arrays of a file.

    Returns
    -------
    str
        ``"none"`` if there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.io.listing import listed
    >>> listed({"x": np.zeros(3), "probe": np.zeros((2, 2))})
    'x (3,), probe (2, 2)'
    >>> listed({str(i): np.zeros(1) for i in range(100)}).rpartition(", ")[2]
    '23 (1,) and more'
    """
    names = [f"{name} {array.shape}" for name, array in arrays.items()]
    rest = " and more" if len(names) > MOST else ""
    return (", ".join(names[:MOST]) or "none") + rest
