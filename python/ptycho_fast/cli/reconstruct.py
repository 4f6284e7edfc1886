"""``ptycho-fast reconstruct``: image scans without a network, and say how good the images are."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_fast.atomic import replacing
from ptycho_fast.cli.command import add_command, defaults_of
from ptycho_fast.cli.outputs import check_output_folder, check_outputs, output_folder
from ptycho_fast.cli.progress import duration, step
from ptycho_fast.cli.reading import FORMATS, add_reading, reading
from ptycho_fast.cli.scan_files import find_files, read_files
from ptycho_fast.devices import DEVICES
from ptycho_fast.io import write_scan
from ptycho_fast.io.conversion import files_read
from ptycho_fast.io.formats import WRITERS
from ptycho_fast.io.writing import check_geometry, files_to_write, path_in
from ptycho_fast.reconstruction import reconstruct
from ptycho_fast.reconstruction.pictures import phase_picture
from ptycho_fast.reconstruction.reconstruct import PRIORS
from ptycho_fast.reconstruction.resolution import FIXED, HALF_BIT
from ptycho_fast.series import reconstruct_series
from ptycho_fast.series.entry import FAILED
from ptycho_fast.series.table import PAGE, TABLE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.reconstruction import Progress, Reconstruction
    from ptycho_fast.series import SeriesEntry

logger = logging.getLogger("ptycho_fast")

SAMPLES = 8
"""Of the posterior, where `--uncertainty` does not say how many."""

LISTED = 10
"""At most so many scans that failed are listed at the end."""

PICTURE_EVERY, LINE_EVERY = 2.0, 0.1
"""Seconds after which the picture and the line of progress are renewed, at the earliest."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    default = defaults_of(reconstruct)
    parser = add_command(
        commands,
        "reconstruct",
        run,
        summary="Image scans without a network: object, probe, resolution and a report of each.",
        example="scan.npz -o OUT/\n  ptycho-fast reconstruct scans/*.h5 -o OUT/ --workers 4",
        usage="FILE [FILE ...] -o OUT/ [options]",
        renamed={"probe_diameter": "--probe-diameter", "num_threads": "--threads"},
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE",
        help=f"the scan, or a series of scans: {FORMATS}; 'scans/*.h5' stands for all such files",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT/",
        help="folder for reconstruction.npz, object.h5 (CXI), pictures and report.html; in a "
        "series, each scan gets a folder in it, and series.csv and series.html list them",
    )  # fmt: skip
    parser.add_argument(
        "--iterations", type=int, default=default["iterations"], metavar="I",
        help="largest number of iterations (default: until the image no longer improves)",
    )  # fmt: skip
    parser.add_argument(
        "--modes", type=int, default=default["modes"], metavar="M",
        help="incoherent modes of the probe (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--prior", choices=PRIORS, default=default["prior"],
        help="what is known of the object beforehand: smooth, learned by a network (which needs "
        "PyTorch), auto for whichever of the two explains held-out counts better, or none "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--refine-positions", action="store_true",
        help="correct the scan positions along with the image",
    )  # fmt: skip
    parser.add_argument(
        "--probe-diameter", type=float, default=default["probe_diameter"], metavar="D",
        help="diameter of the probe in pixels of the object, where the file has no probe "
        "(default: estimated from the patterns)",
    )  # fmt: skip
    parser.add_argument(
        "--uncertainty", type=int, nargs="?", const=SAMPLES, default=default["uncertainty"],
        metavar="SAMPLES",
        help=f"estimate the uncertainty of every pixel from this many samples ({SAMPLES} without a "
        "number; default: no estimate)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=DEVICES, default=default["device"],
        help="auto is a GPU where there is one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=default["seed"], metavar="S",
        help="seed of the random split of the counts and of the samples (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=default["num_threads"], metavar="T",
        help="number of threads (default: all that the process may use)",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=WRITERS,
        help="also write the scan with its image, probe and positions as a file of another program",
    )  # fmt: skip
    _add_series(parser)
    add_reading(parser)


def _add_series(command: argparse.ArgumentParser) -> None:
    """Add the options of a series."""
    options = command.add_argument_group(
        "a series of scans",
        "Run the same command again to image the scans that are missing or failed, and those\n"
        "whose file or options have changed. A scan that fails does not stop the others.",
    ).add_mutually_exclusive_group()
    options.add_argument(
        "--workers", type=int, metavar="W",
        help="reconstruct W scans at a time, in processes that share the processors (default: one "
        "after another)",
    )  # fmt: skip
    options.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="reconstruct on the workers of this scheduler of dask.distributed, such as "
        "tcp://host:8786, also on other machines that see the same files",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    check_output_folder(arguments.output)
    files = find_files(arguments.files)
    apart = arguments.workers is not None or arguments.scheduler is not None
    if len(files) > 1 or apart or (arguments.output / TABLE).exists():
        _run_series(files, arguments)
    else:
        _run_one(files[0], arguments)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `reconstruct` that decide what the image is."""
    return {
        "modes": arguments.modes,
        "prior": arguments.prior,
        "positions": "refine" if arguments.refine_positions else "fixed",
        "iterations": arguments.iterations,
        "uncertainty": arguments.uncertainty,
        "probe_diameter": arguments.probe_diameter,
        "seed": arguments.seed,
        "device": arguments.device,
    }


def _run_one(file: Path, arguments: argparse.Namespace) -> None:
    folder: Path = arguments.output
    [scan] = read_files([file], arguments)
    if arguments.to is not None:
        target = path_in(folder, arguments.to)
        check_geometry(scan, target, arguments.to)
    with output_folder(folder):
        if arguments.to is not None:
            for read in files_read(file, **reading(arguments)):
                check_outputs(read, *files_to_write(target, arguments.to))
        with _watched(folder) as watch, _noticed() as interrupts:
            made = reconstruct(
                scan,
                **_options(arguments),
                progress=watch,
                num_threads=arguments.threads,
            )
        _print_result(made)
        with step("write") as running:
            made.save(folder, command=arguments.command_line)
            if arguments.to is not None:
                write_scan(made.on(scan), target, arguments.to)
            running.done(str(folder))
    if interrupts:
        print(f"{'stopped':12}The image is the best so far.")
        raise KeyboardInterrupt


def _run_series(files: Sequence[Path], arguments: argparse.Namespace) -> None:
    began = time.perf_counter()
    kept: list[str] = []

    def tell(entry: SeriesEntry) -> None:
        if entry.kept:
            kept.append(entry.folder)
            return
        took = "" if entry.status == FAILED else f" {duration(entry.seconds or 0):>9}"
        print(f"{entry.folder:24}{entry.text():64}{took}", flush=True)
        for note in entry.notes:
            print(f"{'':24}note: {note}", flush=True)

    try:
        entries = reconstruct_series(
            files,
            arguments.output,
            read=reading(arguments),
            to=arguments.to,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            progress=tell,
            num_threads=arguments.threads,
            command=arguments.command_line,
            **_options(arguments),
        )
    except KeyboardInterrupt:
        print(f"{'stopped':24}Scans that are done are kept: the same command again goes on.")
        raise
    failed = [entry.folder for entry in entries if entry.status == FAILED]
    if kept:
        print(f"{'kept':24}{len(kept)} that were done before, with the same file and options")
    counts = f"{len(entries) - len(failed)} of {len(entries)} scans done"
    print(f"{'series':24}{counts:64} {duration(time.perf_counter() - began):>9}")
    print(f"{'written':24}{arguments.output / PAGE}, {arguments.output / TABLE}")
    if failed:
        more = ", ..." if len(failed) > LISTED else ""
        msg = (
            f"{len(failed)} of {len(entries)} scans failed: {', '.join(failed[:LISTED])}{more}. "
            f"{arguments.output / TABLE} says why. The same command again repeats only these."
        )
        raise ValueError(msg)


def _print_result(made: Reconstruction) -> None:
    height, width = made.object.shape
    image = f"{width} x {height} pixels, deviance {made.deviance:.4g} (1 is noise alone)"
    print(f"{'image':12}{image:64} {duration(made.seconds):>9}")
    if made.resolution is not None:
        for criterion in (HALF_BIT, FIXED):
            print(f"{'resolution':12}{made.resolution.text(criterion)} ({criterion})")
    for note in made.notes:
        print(f"{'note':12}{note}")


class _Watch:
    """Shows progress in a line of the terminal, and renews the picture as the image improves."""

    def __init__(self, folder: Path) -> None:
        self._picture = folder / "phase.png"
        self._terminal = sys.stderr.isatty()
        self._drawn = self._shown = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown >= LINE_EVERY:
            self._show(progress_line(progress))
            self._shown = now
        if now - self._drawn >= PICTURE_EVERY:
            # A picture that can't be written now is no reason to stop; the next one may be.
            try:
                with replacing(self._picture) as file:
                    file.write(phase_picture(progress.object, progress.coverage).png)
            except OSError as error:
                logger.info("%s was not written: %s", self._picture, error)
            self._drawn = time.monotonic()

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            self._show("")

    @staticmethod
    def _show(line: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r{line[:width]}\x1b[K")
        sys.stderr.flush()


def progress_line(progress: Progress) -> str:
    """Return what is shown while the image is made.

    Parameters
    ----------
    progress : Progress

    Returns
    -------
    str
    """
    left = "" if progress.remaining is None else f", {duration(progress.remaining)} left"
    return (
        f"{'image':12}{progress.fraction:4.0%}, iteration {progress.iteration}, deviance "
        f"{progress.deviance:.4g} (1 is noise alone){left}"
    )


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[_Watch]:
    watch = _Watch(folder)
    try:
        yield watch
    finally:
        watch.end()


@contextlib.contextmanager
def _noticed() -> Iterator[list[int]]:
    """Notice interrupts, which `reconstruct` answers with the best image so far."""
    noticed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noticed  # only the main thread is interrupted
        return

    def handler(number: int, _: FrameType | None) -> None:
        noticed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, before)
