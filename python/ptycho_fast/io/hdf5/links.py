"""Links of HDF5 files, which are followed one by one so that only regular files are opened."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path
from typing import IO, Any

from ptycho_fast.io.regular import check_regular

SIGNATURE = b"\x89HDF\r\n\x1a\n"

MOST_LINKS = 64
"""A path that leads through more links than this is taken to lead in a circle."""


def has_signature(file: IO[bytes]) -> bool:
    """Tell from its content whether an open file is HDF5; a user block may precede the data."""
    size = file.seek(0, os.SEEK_END)
    start = 0
    while start < size:
        file.seek(start)
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return True
        start = max(512, 2 * start)
    return False


def import_h5py() -> Any:
    """Import h5py, and what it needs to read the compression of detectors.

    Raises
    ------
    ImportError
        If h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415
    except ImportError as error:
        msg = f'HDF5 files need h5py ({error}): pip install "ptycho_fast[hdf5]"'
        raise ImportError(msg) from error
    # If it is installed, it registers the filters of detectors (bitshuffle, LZ4, Blosc, ...).
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401, PLC0415
    return h5py


def open_file(path: str | os.PathLike[str], **cache: Any) -> Any:
    """Open an HDF5 file for reading.

    Raises
    ------
    OSError
        If it is missing, damaged, cut short, open for writing or not an HDF5 file.
    ImportError
        If h5py is not installed.
    """
    h5py = import_h5py()
    check_regular(path)
    try:
        return h5py.File(path, "r", **cache)
    except (OSError, RuntimeError) as error:
        name, reason = os.fspath(path), str(error)
        if "already open for" in reason or "lock file" in reason:
            msg = (
                f"{name} is an HDF5 file that is open for writing ({reason}). Wait until the "
                "program that writes it has closed it. If that program was killed, h5clear -s "
                f"{name} (of the HDF5 tools) makes the file readable."
            )
        else:
            msg = f"{name} is not an HDF5 file, or it is damaged or cut short ({reason})."
        raise OSError(msg) from error


def _parts_of(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def follow(item: Any, key: str) -> Any:
    """Return the object at a path, following links; None if there is none.

    HDF5 itself would open any file that an external link names, even a pipe.

    Raises
    ------
    OSError
        If a link leads to a file that cannot be opened, or links lead in a circle.
    """
    h5py = import_h5py()
    parts, links = _parts_of(key), 0
    if key.startswith("/"):
        item = item.file["/"]
    while parts:
        name = parts.pop(0).encode(errors="surrogateescape")
        if not isinstance(item, h5py.Group):
            return None
        try:
            kind = item.id.links.get_info(name).type
        except (KeyError, RuntimeError, ValueError):
            return None
        if kind == h5py.h5l.TYPE_HARD:
            item = item[name]
            continue
        links += 1
        if links > MOST_LINKS:
            msg = f"{item.file.filename}: {key!r} leads through more than {MOST_LINKS} links."
            raise OSError(msg)
        target = item.id.links.get_val(name)
        if kind == h5py.h5l.TYPE_SOFT:
            path = target.decode(errors="surrogateescape")
            if path.startswith("/"):
                item = item.file["/"]
        elif kind == h5py.h5l.TYPE_EXTERNAL:
            other, path = (part.decode(errors="surrogateescape") for part in target)
            found = beside(item.file.filename, other, "HDF5_EXT_PREFIX")
            if found is None:
                return None
            item = open_file(found)["/"]
        else:
            return None
        parts = _parts_of(path) + parts
    return item


def beside(path: str | os.PathLike[str], name: str, prefix: str) -> Path | None:
    """Return the file that an HDF5 file names; None if it does not exist.

    Parameters
    ----------
    path : path
        The HDF5 file.
    name : str
        The name in it, absolute or relative to its folder or to the current one.
    prefix : str
        The environment variable that says where HDF5 looks first.
    """
    folder = Path(path).parent
    elsewhere = [place for place in os.environ.get(prefix, "").split(":") if place]
    tried = [*(Path(place) / name for place in elsewhere), folder / name, Path(name)]
    tried += [folder.resolve() / name, folder / Path(name).name]
    return next((path for path in tried if path.exists()), None)


def virtual_sources(item: Any) -> list[tuple[str, Path | None]]:
    """Return the name of the file of each mapping of a virtual data set, and where it is.

    The place is None for a file that is missing. A name with ``%b`` stands for all files that
    match it.

    Raises
    ------
    OSError
        If one of them is not a file, but a pipe or a device.
    """
    properties = item.id.get_create_plist()
    if properties.get_layout() != import_h5py().h5d.VIRTUAL:
        return []
    home = item.file.filename
    found: dict[str, Path | None] = {}
    names = [properties.get_virtual_filename(i) for i in range(properties.get_virtual_count())]
    for name in names:
        if name in found:
            continue
        if "%b" in name:
            pattern = glob.escape(os.path.join(Path(home).parent, name)).replace("%b", "*")
            for path in glob.iglob(pattern):
                check_regular(path)
            found[name] = Path(home)
        else:
            place = Path(home) if name == "." else beside(home, name, "HDF5_VDS_PREFIX")
            if place is not None:
                check_regular(place)
            found[name] = place
    return [(name, found[name]) for name in names]


def external_files(item: Any) -> list[tuple[Path, int, int]]:
    """Return the raw files of a data set: their place, the first byte, and how many bytes at most.

    Raises
    ------
    OSError
        If one of them is not a file, but a pipe or a device.
    """
    properties = item.id.get_create_plist()
    found = []
    for number in range(properties.get_external_count()):
        name, first, most = properties.get_external(number)
        prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
        prefix = prefix.replace("${ORIGIN}", str(Path(item.file.filename).resolve().parent))
        path = Path(prefix) / os.fsdecode(name)
        if path.exists():
            check_regular(path)
        found.append((path, int(first), int(most)))
    return found


def check_sources(item: Any) -> None:
    """Refuse a data set that is made of pipes or devices, before HDF5 opens them.

    Raises
    ------
    OSError
        As `virtual_sources`.
    """
    virtual_sources(item)
    external_files(item)
