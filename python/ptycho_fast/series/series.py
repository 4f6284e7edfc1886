"""Reconstruct many scans, one after another or on several processes, with a table of results."""

from __future__ import annotations

import contextlib
import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.checks import as_count, as_threads, one_of
from ptycho_fast.devices import DEVICES
from ptycho_fast.io import read_scan
from ptycho_fast.io.formats import WRITERS
from ptycho_fast.io.recipe import as_recipe
from ptycho_fast.reconstruction import reconstruct
from ptycho_fast.reconstruction.reconstruct import check_options
from ptycho_fast.reconstruction.result import ARRAYS
from ptycho_fast.series.cluster import connect, distributed, spread, start_workers
from ptycho_fast.series.entry import SeriesEntry, read_records
from ptycho_fast.series.names import name_folders
from ptycho_fast.series.table import PAGE, TABLE, write_table
from ptycho_fast.series.work import Job, file_of, image_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

MOST_WORKERS = 4096


def reconstruct_series(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    read: Mapping[str, Any] | None = None,
    to: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[SeriesEntry], None] | None = None,
    num_threads: int | None = None,
    command: str = "",
    **options: Any,
) -> list[SeriesEntry]:
    """Reconstruct many scans, each into a folder of its own.

    A scan that fails does not stop the others. Scans that were done before, from the same file
    with the same options, are not done again: so the same call goes on where an earlier one was
    stopped, repeats what failed, and does what is new.

    Parameters
    ----------
    paths : sequence of path-like
        The scan files.
    folder : path-like
        For the images, created if it does not exist. ``folder/scan_1`` holds that of
        ``scan_1.h5``, as `Reconstruction.save` writes it. Where names clash, those of the folders
        of the files are added: ``S1_data`` for ``S1/data.h5``. ``folder/series.csv`` and
        ``folder/series.html`` are the table of all scans whose images are here; it is renewed
        after each scan.
    read : mapping of str to Any, optional
        Arguments of `ptycho_fast.read_scan`, where the files do not say all that is needed.
    to : {"npz", "cxi", "ptychodus", "ptypy"}, optional
        Also write each scan with its image, probe and positions for another program, into the
        folder of the image (`ptycho_fast.write_scan`).
    workers : int, optional
        Reconstruct in so many processes on this machine, which share its processors. A script must
        then have its body under ``if __name__ == "__main__":``.
    scheduler : str, optional
        Reconstruct on the workers of this scheduler of dask.distributed, ``tcp://host:port``. They
        must see the files and the folder under the same names.
    progress : callable, optional
        Called with each scan as soon as it is done or has failed; first with those that were done
        before (`SeriesEntry.kept`).
    num_threads : int, optional
        Threads for each scan. By default all that the process may use; a worker uses as many as it
        was started with. Images do not depend on it.
    command : str
        What made the images, for their reports.
    **options
        Of `ptycho_fast.reconstruct`: probe, modes, prior, positions, iterations, uncertainty,
        probe_diameter, seed, device.

    Returns
    -------
    list of SeriesEntry
        One for each file, in the order of `paths`. A file that is named twice has one entry.

    Raises
    ------
    ValueError
        If no scan could be reconstructed with these arguments.
    TypeError
        If an option has another name.
    OSError
        If the folder or the table cannot be written, or no scheduler answers.
    ImportError
        If `workers` or `scheduler` is given and dask.distributed is not installed.
    KeyboardInterrupt
        If interrupted. Scans that were done are kept.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.series import reconstruct_series
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for seed in (1, 2):
    ...     scan = pf.simulate_scan(n_positions=60, N=16, seed=seed)
    ...     pf.write_scan(scan, folder / f"scan_{seed}.npz")
    >>> files = sorted(folder.glob("*.npz"))
    >>> [entry.status for entry in reconstruct_series(files, folder / "OUT", iterations=3)]
    ['done', 'done']
    >>> pf.Reconstruction.load(folder / "OUT" / "scan_2").positions.shape
    (60, 2)
    """
    read, options = _checked(read or {}, options, several=len(paths) > 1)
    num_threads = as_threads(num_threads)
    if to is not None:
        one_of("to", to, WRITERS)
    if workers is not None and scheduler is not None:
        msg = "workers and scheduler exclude each other: a scheduler has its own workers."
        raise ValueError(msg)
    if workers is not None:
        workers = as_count("workers", workers, most=MOST_WORKERS)
        distributed()
    with contextlib.ExitStack() as stack:
        # First, since nothing is written if it does not answer.
        client = None if scheduler is None else connect(scheduler, stack)
        folder = Path(os.path.abspath(folder))
        folder.mkdir(parents=True, exist_ok=True)
        table = _Table(folder, list(dict.fromkeys(map(os.path.abspath, paths))), progress)
        jobs = [
            Job(entry, folder, read, options, to, num_threads, command)
            for entry in table.entries.values()
        ]
        left = [job for job in jobs if not table.keep(job)]
        table.write()
        if workers is not None and left:
            client = connect(start_workers(min(workers, len(left)), stack), stack)
        found = _here(left) if client is None else spread(client, left)
        # Workers are stopped if the table can't be written.
        stack.enter_context(contextlib.closing(found))
        for entry in found:
            table.set(entry)
            table.write()
    table.others = table.find_others()
    table.write()
    return list(table.entries.values())


def _here(jobs: Sequence[Job]) -> Generator[SeriesEntry]:
    for job in jobs:
        yield image_scan(job)


class _Table:
    """The scans of a series by file, those of this call and those that were here before."""

    def __init__(
        self, folder: Path, files: list[str], progress: Callable[[SeriesEntry], None] | None
    ) -> None:
        self.folder = folder
        self._progress = progress
        self.entries: dict[str, SeriesEntry] = {}
        self._records = {entry.folder: (source, entry) for source, entry in read_records(folder)}
        known = {source.file: name for name, (source, _) in self._records.items()}
        occupied = [path.name for path in folder.iterdir() if not path.is_dir()]
        names = name_folders(files, known, [*occupied, TABLE, PAGE])
        self.entries = {file: SeriesEntry(file, name) for file, name in names.items()}
        self.others = self.find_others()

    def find_others(self) -> list[SeriesEntry]:
        """Return the scans here that this call does not name."""
        return [
            entry for source, entry in read_records(self.folder) if source.file not in self.entries
        ]

    def keep(self, job: Job) -> bool:
        """Tell whether a scan was done before, from the same file with the same options."""
        source, entry = self._records.get(job.entry.folder, (None, None))
        try:
            same = source == job.source()
        except OSError:  # the file is missing: then it fails, and says so
            return False
        if not same or entry is None or not (job.folder / ARRAYS).exists():
            return False
        self.set(replace(entry, kept=True))
        return True

    def set(self, entry: SeriesEntry) -> None:
        """Enter a scan that has ended."""
        self.entries[entry.file] = entry
        if self._progress is not None:
            self._progress(entry)

    def write(self) -> None:
        """Write the table."""
        write_table(self.folder, [*self.entries.values(), *self.others])


def _checked(
    read: Mapping[str, Any], options: Mapping[str, Any], *, several: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return those arguments that are not the defaults; refuse what would fail for every scan."""
    read = _given("read_scan", read, inspect.signature(read_scan), ("path", "load"))
    as_recipe(**read)
    named = read.get("diffraction")
    if several and (file := file_of(named)) is not None:
        msg = (
            f"diffraction={named!r} names the patterns of one file, {file}, for all scans. Name "
            "an array of each file, or reconstruct these scans one by one."
        )
        raise ValueError(msg)
    # The working directory of a worker may be another one.
    read = {
        name: f"{os.path.abspath(file)}{value[len(file) :]}" if (file := file_of(value)) else value
        for name, value in read.items()
    }
    signature = inspect.signature(reconstruct)
    options = _given(
        "reconstruct", options, signature, ("scan", "object", "progress", "num_threads")
    )
    every = {name: each.default for name, each in signature.parameters.items()} | options
    one_of("device", every["device"], DEVICES)
    check_options(**{name: every[name] for name in inspect.signature(check_options).parameters})
    return read, options


def _given(
    function: str, arguments: Mapping[str, Any], signature: inspect.Signature, no: tuple[str, ...]
) -> dict[str, Any]:
    """Return arguments of a function that are not the defaults."""
    defaults = {name: each.default for name, each in signature.parameters.items() if name not in no}
    for name in arguments:
        if name not in defaults:
            msg = f"A series has no option {name!r} of {function}; it has {', '.join(defaults)}."
            raise TypeError(msg)
    return {name: each for name, each in arguments.items() if each != defaults[name]}
