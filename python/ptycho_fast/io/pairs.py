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
    base, extension = os.path.splitext(path)
    for mine, other in (ENDINGS, ENDINGS[::-1]):
        beside = f"{base.removesuffix(mine)}{other}{extension}"
        if base.endswith(mine) and os.path.exists(beside):
            return beside
    return None
