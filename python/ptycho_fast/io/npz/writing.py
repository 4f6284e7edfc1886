"""NPZ files are written uncompressed, some patterns at a time, and appear whole or not at all."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.atomic import replacing
from ptycho_fast.frames import Frames
from ptycho_fast.io.npy import write_stack
from ptycho_fast.io.npz.metadata import as_json
from ptycho_fast.io.npz.scan_keys import METADATA_KEY, SCAN_KEYS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


class Writer:
    """An NPZ file that is being written.

    Parameters
    ----------
    archive : ZipFile
        Open for writing.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip = archive

    def add(self, key: str, array: NDArray[Any] | Frames) -> None:
        """Write an array; frames are copied some at a time."""
        with self._zip.open(f"{key}.npy", "w", force_zip64=True) as member:
            if isinstance(array, Frames):
                blocks = (block for _, block in array.blocks())
                write_stack(member, array.shape, array.dtype, blocks)
            else:
                np.lib.format.write_array(member, array, allow_pickle=False)

    def checksums(self) -> dict[str, tuple[int, int]]:
        """Return CRC and size of each array that was written."""
        return {
            name.removesuffix(".npy"): (entry.CRC, entry.file_size)
            for name, entry in self._zip.NameToInfo.items()
        }


def write_arrays(
    path: str | os.PathLike[str],
    fields: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    *,
    finish: Callable[[Writer], None] | None = None,
) -> None:
    """Write named arrays to an uncompressed NPZ file, which appears whole or not at all.

    Parameters
    ----------
    path : path
        The file.
    fields : mapping of str to array_like or Frames
        The arrays; what is None is left out. Frames are copied some at a time.
    metadata : mapping of str to array_like, optional
        Further arrays. What is under ``_metadata`` is written as JSON.
    finish : callable, optional
        Called when all of these are written, to add arrays that were not known before.

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If a value would need pickling, or an entry of `metadata` has a name that is taken.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from ptycho_fast.io.npz import read_array, write_arrays
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "arrays.npz"
    >>> write_arrays(path, {"x": np.arange(3)})
    >>> read_array(path, "x")
    array([0, 1, 2])
    """
    # np.savez, with which others write such files again, has arguments of the last two names.
    taken = {*fields, *SCAN_KEYS, "file", "allow_pickle"}
    arrays: dict[str, NDArray[Any] | Frames] = {
        key: value if isinstance(value, Frames) else np.asarray(value)
        for key, value in fields.items()
        if value is not None
    }
    for key, value in (metadata or {}).items():
        if key in taken:
            msg = f"metadata[{key!r}] can't be written: the name is taken. Rename it."
            raise ValueError(msg)
        arrays[key] = np.asarray(_json_text(value) if key == METADATA_KEY else value)
    for key, array in arrays.items():
        if array.dtype.hasobject:
            msg = (
                f"{key!r} can't be written: it would need pickling. Use an array of numbers, text, "
                "or a dict of such under '_metadata'."
            )
            raise ValueError(msg)
    # np.savez would hold all of the patterns in memory.
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        writer = Writer(archive)
        for key, array in arrays.items():
            writer.add(key, array)
        if finish is not None:
            finish(writer)


def _json_text(value: Any) -> str:
    try:
        return value if isinstance(value, str) else as_json(value)
    except ValueError as error:
        msg = (
            f"'_metadata' can't be written as JSON: {error}. Use numbers, text, lists and dicts of "
            "them."
        )
        raise ValueError(msg) from error
