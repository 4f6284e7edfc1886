"""The work on one scan of a series: read it, reconstruct it, write the image and the record."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptycho_fast.io import list_arrays, read_scan, write_scan
from ptycho_fast.io.container import ALONE
from ptycho_fast.io.writing import check_geometry, path_in
from ptycho_fast.memory import available
from ptycho_fast.notices import sentence_of
from ptycho_fast.reconstruction import reconstruct
from ptycho_fast.reconstruction.reconstruct import INTERRUPTED
from ptycho_fast.reconstruction.result import ARRAYS
from ptycho_fast.series.entry import RECORD, SeriesEntry, Source, write_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger = logging.getLogger("ptycho_fast")

SHARE = 1 / 2
"""Patterns of more than this share of the free memory stay in their file."""


@dataclass(frozen=True)
class Job:
    """A scan to reconstruct. This is what travels to another process: names, and no patterns.

    Parameters
    ----------
    entry : SeriesEntry
        The scan, which waits.
    series : Path
        The folder of the series, an absolute path.
    read, options : mapping of str to Any
        Arguments of `read_scan` and of `reconstruct` that are not the defaults.
    to : str, optional
        The format in which the scan with its image is written for another program, too.
    num_threads : int, optional
        Threads to use.
    command : str
        What is said in the report to have made the image.
    """

    entry: SeriesEntry
    series: Path
    read: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    to: str | None = None
    num_threads: int | None = None
    command: str = ""

    @property
    def folder(self) -> Path:
        """The folder of the image."""
        return self.series / self.entry.folder

    def source(self) -> Source:
        """Return what an image would be made from now.

        Raises
        ------
        OSError
            If a file is missing.
        """
        files = {}
        for path in (self.entry.file, *filter(None, map(file_of, self.read.values()))):
            status = os.stat(path)
            files[path] = [status.st_size, status.st_mtime_ns]
        options = self.options if self.to is None else {**self.options, "to": self.to}
        return Source(self.entry.file, files, _plain(self.read), _plain(options))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they come back from a JSON file."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(options), default=lambda x: x.item()))
    return plain


def file_of(name: object) -> str | None:
    """Return FILE, if an option names ``FILE:KEY`` or ``FILE``, an array in another file."""
    if not isinstance(name, str):
        return None
    # As a container does: names of motors contain colons, too.
    files = [name[:place] for place, character in enumerate(name) if character == ":"]
    if alone := ALONE.fullmatch(name):
        files.append(alone["file"])
    return next((file for file in files if os.path.isfile(file)), None)


def image_scan(
    job: Job, *, sharing: int = 1, stopped: Callable[[], bool] = lambda: False
) -> SeriesEntry:
    """Reconstruct a scan of a series, and write its image and its record.

    Whatever goes wrong with it ends in the entry that is returned, since other scans wait.

    Parameters
    ----------
    job : Job
    sharing : int
        How many processes may be at such work, and share the memory.
    stopped : callable
        Asked after each iteration whether the image is no longer wanted.

    Returns
    -------
    SeriesEntry
        Done or failed.

    Raises
    ------
    KeyboardInterrupt
        If it was interrupted or stopped. Nothing is written then, and there is no record.
    """
    began = time.perf_counter()

    def watch(_: object) -> None:
        if stopped():
            raise KeyboardInterrupt

    try:
        source = job.source()
        job.folder.mkdir(exist_ok=True)
        # Without a record, the scan is done again if this ends here.
        (job.folder / RECORD).unlink(missing_ok=True)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            file = job.entry.file
            scan = read_scan(file, load=_fits(file, SHARE / sharing), **job.read)
            if job.to is not None:
                check_geometry(scan, path_in(job.folder, job.to), job.to)
            made = reconstruct(scan, progress=watch, num_threads=job.num_threads, **job.options)
            if INTERRUPTED in made.notes:
                raise KeyboardInterrupt
            made.save(job.folder, command=job.command)
            if job.to is not None:
                write_scan(made.on(scan), path_in(job.folder, job.to), job.to)
        notes = dict.fromkeys([*(str(warning.message) for warning in said), *made.notes])
        entry = job.entry.done(made, tuple(notes), time.perf_counter() - began)
        write_record(job.folder, source, entry)
    except Exception as error:  # any: other scans wait
        logger.info("%s failed", job.entry.file, exc_info=True)
        return _failed(job, error, time.perf_counter() - began)
    return entry


def _failed(job: Job, error: Exception, seconds: float) -> SeriesEntry:
    sentence = sentence_of(error)
    if (job.folder / ARRAYS).exists():
        sentence += f" {job.entry.folder}/ still holds an image that was made before."
    return job.entry.failed(sentence, seconds)


def _fits(path: str, share: float) -> bool:
    """Tell whether the patterns of a file, as float32, fit into a share of the free memory."""
    largest = max((math.prod(array.shape) for array in list_arrays(path).values()), default=0)
    return 4 * largest <= share * available()
