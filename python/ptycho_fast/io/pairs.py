"""Two files that are one scan, ``<name>_dp.hdf5`` and ``<name>_para.hdf5``."""

from __future__ import annotations

import os

ENDINGS = ("_dp", "_para")
"""How the names of the files of patterns and of positions end, before their extension."""


def partner(path: str) -> str | None:
    """Return the other file of a pair; None if there is none.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from ptycho_fast.io.pairs import partner
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> (folder / "scan_para.hdf5").touch()
    >>> pathlib.Path(partner(str(folder / "scan_dp.hdf5"))).name
    'scan_para.hdf5'
    >>> partner(str(folder / "scan.hdf5"))
    """
    beside = name_of_partner(path)
    return beside if beside is not None and os.path.exists(beside) else None


def name_of_partner(path: str) -> str | None:
    """Return how the other file of a pair is called; None if this is the name of neither.

    Examples
    --------
    >>> from ptycho_fast.io.pairs import name_of_partner
    >>> name_of_partner("scan_para.hdf5")
    'scan_dp.hdf5'
    """
    base, extension = os.path.splitext(path)
    for mine, other in (ENDINGS, ENDINGS[::-1]):
        if base.endswith(mine):
            return f"{base.removesuffix(mine)}{other}{extension}"
    return None
