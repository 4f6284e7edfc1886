"""The folder of each scan of a series."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


def name_folders(
    files: Sequence[str], known: Mapping[str, str], occupied: Collection[str]
) -> dict[str, str]:
    """Return a folder for each scan file, named after it.

    ``scan_1.h5`` gets ``scan_1``. Files of the same name in several folders, such as
    ``S1/data.h5`` and ``S2/data.h5``, get ``S1_data`` and ``S2_data``.

    Parameters
    ----------
    files : sequence of str
        Absolute paths, none of them twice.
    known : mapping of str to str
        Folders by file that were named before, and keep their names.
    occupied : collection of str
        Other names that no folder may have.

    Raises
    ------
    ValueError
        If two files cannot be told apart.

    Examples
    --------
    >>> from ptycho_fast.series.names import name_folders
    >>> name_folders(["/S1/data.h5", "/S2/data.h5", "/last.npz"], {}, [])
    {'/S1/data.h5': 'S1_data', '/S2/data.h5': 'S2_data', '/last.npz': 'last'}
    """
    candidates = {file: list(_names(file)) for file in {*files, *known}}
    forbidden = {os.path.normcase(name) for name in (*occupied, *known.values())}
    found = {file: known[file] for file in files if file in known}
    open_ = [file for file in files if file not in known]
    level = 0
    while open_:
        said = Counter(
            os.path.normcase(names[level]) for names in candidates.values() if level < len(names)
        )
        again = []
        for file in open_:
            if level == len(candidates[file]):
                msg = (
                    f"No folder can be named after {file}: another scan or file has each of the "
                    "names. Reconstruct it into a folder of its own."
                )
                raise ValueError(msg)
            name = os.path.normcase(candidates[file][level])
            if said[name] > 1 or name in forbidden:
                again.append(file)
            else:
                found[file] = candidates[file][level]
                forbidden.add(name)
        open_, level = again, level + 1
    return {file: found[file] for file in files}


def _names(file: str) -> Iterator[str]:
    """Return what a folder may be called: the file, then more and more of the folders above."""
    path = PurePath(file)
    above = [part for part in path.parent.parts if part != path.anchor]
    for levels in range(len(above) + 1):
        parents = above[len(above) - levels :]
        yield "_".join([*parents, path.stem])
        yield "_".join([*parents, path.name])
