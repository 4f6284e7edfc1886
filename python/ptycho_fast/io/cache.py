"""Patterns that cannot be read where they lie are unpacked once, into a folder of their own.

The folder is `$PTYCHO_FAST_CACHE`, else `$XDG_CACHE_HOME/ptycho_fast`, else
`~/.cache/ptycho_fast`. It may be cleared at any time: what is missing is unpacked again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import math
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.atomic import replacing
from ptycho_fast.io.npy import open_npy, write_stack

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.frames import FileFrames

logger = logging.getLogger("ptycho_fast")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# An entry, its lock, or what `replacing` writes beside it. A user may keep other files in the same
# folder, so the names must be unmistakable.
NAMES = re.compile(r"\.?(?P<entry>.+\.unpacked\.npy)(?P<lock>\.lock)?(\..+)?")


def cache_folder() -> Path:
    """Return the folder into which patterns are unpacked; it need not exist.

    Returns
    -------
    Path

    Examples
    --------
    >>> import os
    >>> from ptycho_fast.io.cache import cache_folder
    >>> os.environ["PTYCHO_FAST_CACHE"] = "/scratch/unpacked"
    >>> cache_folder().as_posix()
    '/scratch/unpacked'
    >>> del os.environ["PTYCHO_FAST_CACHE"]
    """
    if chosen := os.environ.get("PTYCHO_FAST_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "ptycho_fast"
    return Path.home() / ".cache" / "ptycho_fast"


def cached_files() -> list[tuple[Path, int]]:
    """Return the files in the cache.

    Returns
    -------
    list of (Path, int)
        Files and their bytes, sorted by name, including what a killed process left unfinished.
    """
    found = []
    for path, match in _ours():
        with contextlib.suppress(FileNotFoundError):  # cleared or finished meanwhile
            if not match["lock"]:
                found.append((path, path.stat().st_size))
    return found


def clear_cache() -> int:
    """Remove the files in the cache, except those that are being unpacked right now.

    Scans that are open can still be read.

    Returns
    -------
    int
        How many bytes were freed.
    """
    freed = 0
    for path, match in _ours():
        with (
            contextlib.suppress(BlockingIOError, FileNotFoundError),
            locked(path.with_name(match["entry"]), wait=False),
        ):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def _ours() -> list[tuple[Path, re.Match[str]]]:
    folder = cache_folder()
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [(folder / name, match) for name in names if (match := NAMES.fullmatch(name))]


def make_folder() -> Path:
    """Return the folder, after making it if it does not exist.

    Raises
    ------
    OSError
        If it cannot be made, or not be written to.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        msg = (
            f"The folder for unpacked patterns, {folder}, can't be written to ({error.strerror}). "
            "Set PTYCHO_FAST_CACHE to one that can be."
        )
        raise OSError(msg) from error
    return folder


def unpacked(
    path: str | os.PathLike[str],
    key: str,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    blocks: Callable[[], Iterable[NDArray[Any]]],
    *,
    checksum: tuple[int, int] | None = None,
    scratch: int = 0,
) -> FileFrames:
    """Return patterns that were unpacked from a file, now or by an earlier call.

    Of several processes that want the same patterns, one unpacks and the others wait for it.

    Parameters
    ----------
    path : path
        The file. When its modification time or size has changed, it is unpacked again.
    key : str
        The array in the file.
    shape : tuple of int, (n, N, N)
        The shape of the patterns.
    dtype : dtype
        The dtype as which they are unpacked.
    blocks : callable
        Returns all patterns in order, some at a time. Only called if they must be unpacked.
    checksum : tuple of int, optional
        Tells the file from another of the same time and size.
    scratch : int
        Bytes that `blocks` needs in the same folder while it runs.

    Returns
    -------
    FileFrames

    Raises
    ------
    OSError
        If there is too little room for them, or as `blocks` raises. No unfinished file is left.
    """
    entry = cache_folder() / _name(path, key, checksum)
    frames = _cached(entry, shape, dtype)
    if frames is not None:
        return frames
    make_folder()
    with locked(entry) as alone:
        frames = _cached(entry, shape, dtype)
        if frames is None:
            if alone:  # then a process that was killed has left what is unfinished
                for rest in entry.parent.glob(f".{entry.name}.*"):
                    rest.unlink()
            size = math.prod(shape) * dtype.itemsize
            if shutil.disk_usage(entry.parent).free < size + scratch:
                raise _no_room(path, key, entry, size + scratch)
            logger.info(
                "%s: %r is unpacked, this once, to %s (%s).", path, key, entry, _mebibytes(size)
            )
            shown = _with_bar(blocks(), f"Unpack {Path(path).name}", size)
            try:
                with replacing(entry) as file:
                    write_stack(file, shape, dtype, shown)
            except OSError as error:
                if error.errno in FULL:
                    raise _no_room(path, key, entry, size + scratch) from error
                raise
            frames = open_npy(entry)
    return frames


def _name(path: str | os.PathLike[str], key: str, checksum: tuple[int, int] | None) -> str:
    """Return a name that shows people where it is from, and that changes with the file."""
    path = os.path.realpath(path)
    status = os.stat(path)
    source = repr((path, status.st_mtime_ns, status.st_size, key, checksum))
    digest = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", f"{Path(path).stem[:64]}-{key}")
    return f"{readable}-{digest}.unpacked.npy"


def _cached(entry: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FileFrames | None:
    """Open an entry; None if it is missing or damaged."""
    try:
        frames = open_npy(entry)
    except (OSError, ValueError):
        return None
    return frames if (frames.shape, frames.dtype) == (shape, dtype) else None


def _no_room(path: str | os.PathLike[str], key: str, entry: Path, needed: int) -> OSError:
    free = shutil.disk_usage(entry.parent).free
    return OSError(
        f"{os.fspath(path)}: {key!r} must be unpacked before patterns of it can be read, which "
        f"needs {_mebibytes(needed)} in {entry.parent}, where {_mebibytes(free)} are free (or a "
        "limit on files is lower). Make room, or set PTYCHO_FAST_CACHE to another folder."
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _with_bar(blocks: Iterable[NDArray[Any]], name: str, size: int) -> Iterator[NDArray[Any]]:
    """Show a progress bar, if unpacking takes longer than a second and stderr is a terminal."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ImportError:
        yield from blocks
        return
    # disable=None: off where stderr is no terminal.
    with tqdm(
        total=size, desc=name, unit="B", unit_scale=True, leave=False, delay=1, disable=None
    ) as bar:
        for block in blocks:
            yield block
            bar.update(block.nbytes)


@contextlib.contextmanager
def locked(entry: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock an entry against other processes and threads; a process that dies gives up its lock.

    Yields whether the lock was had. Windows and some network file systems have no such locks;
    there, several processes may unpack the same patterns, each into a file of its own, which is
    slower but equally correct.
    """
    lock = entry.with_name(f"{entry.name}.lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            alone = _lock(handle, wait=wait, entry=entry)
            # Whoever had the lock before removes its file. Then this lock is one nobody sees.
            if not alone or _is_at(handle, lock):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    try:
        yield alone
    finally:
        with contextlib.suppress(OSError):  # in use by another on Windows; clear_cache removes it
            lock.unlink()
        if alone:
            # A forked child may hold a copy of the handle, so closing it may not unlock.
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _lock(handle: int, *, wait: bool, entry: Path) -> bool:
    if fcntl is None:
        return False
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            logger.info("Waiting for another process that unpacks %s.", entry)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
