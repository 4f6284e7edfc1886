"""``ptycho-fast follow``: image a scan while it is measured."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.atomic import replacing
from ptycho_fast.cli.command import add_command, defaults_of
from ptycho_fast.cli.outputs import check_output_folder, output_folder
from ptycho_fast.cli.progress import duration, step
from ptycho_fast.cli.reading import add_reading, reading
from ptycho_fast.io import write_scan
from ptycho_fast.live import follow
from ptycho_fast.live.follow import STOPPED
from ptycho_fast.notices import sentence_of
from ptycho_fast.reconstruction import reconstruct
from ptycho_fast.reconstruction.pictures import amplitude_picture, phase_picture
from ptycho_fast.reconstruction.report import Figure, page

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.live import Update

logger = logging.getLogger("ptycho_fast")

REFRESH = 1
"""Seconds after which a browser loads the report again."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    final, default = defaults_of(reconstruct), defaults_of(follow)
    parser = add_command(
        commands,
        "follow",
        run,
        summary="Image a scan while it is measured.",
        example="scan.h5 --diffraction /entry/data --x /entry/x --y /entry/y --unit px --counts "
        "-o OUT/",
        usage="SOURCE -o OUT/ [options]",
        renamed={"num_threads": "--threads", "probe_diameter": "--probe-diameter"},
    )
    parser.add_argument(
        "source", metavar="SOURCE",
        help="an HDF5 file that is being written, a folder that fills with files, or "
        "tcp://HOST:PORT (ZMQ messages)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT/",
        help="folder for report.html, phase.png and amplitude.png, which are updated while the "
        "scan grows, and for all that reconstruct writes at the end",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=default["patience"], metavar="S",
        help="seconds without a new frame or position after which the scan is taken to have ended "
        "(default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--probe-diameter", type=float, default=final["probe_diameter"], metavar="D",
        help="diameter of the probe in pixels of the object, if no --probe is given (default: "
        "estimated from the patterns)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=final["num_threads"], metavar="T",
        help="number of threads (default: all that the process may use)",
    )  # fmt: skip
    add_reading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    folder: Path = arguments.output
    check_output_folder(folder)
    options = {"num_threads": arguments.threads, "probe_diameter": arguments.probe_diameter}
    updates = follow(
        arguments.source, patience=arguments.patience, final=options, **reading(arguments)
    )
    with output_folder(folder):
        began, last = time.monotonic(), None
        failure: Exception | None = None
        try:
            for update in updates:
                last = update
                if not update.final:
                    _show(update, folder, arguments.command_line)
                    print(_line(update, time.monotonic() - began), flush=True)
        except KeyboardInterrupt:  # between two pictures; `follow` answers others itself
            if last is None:
                raise
            last = _ended(last, STOPPED)
        except Exception as error:  # any: what has arrived may exist nowhere else
            if last is None or last.final:
                raise
            failure = error
            last = _ended(last, f"An error ended it: {sentence_of(error)}")
        assert last is not None
        _finish(last, folder, arguments.command_line)
    if STOPPED in last.image.notes:
        print(f"{'stopped':12}The image is that of what had arrived.")
        raise KeyboardInterrupt
    if failure is not None:
        raise failure


def _ended(last: Update, note: str) -> Update:
    """Return an update as the last one, with a note that says why."""
    image = replace(last.image, notes=(note, *last.image.notes))
    return replace(last, image=image, stored=False)


def _line(update: Update, seconds: float) -> str:
    waiting = update.frames - update.n
    told = f"n = {update.n} positions, deviance {update.image.deviance:.4g}"
    told += f", {waiting} frames without a position" if waiting > 0 else ""
    return f"{'picture':12}{told:64} {duration(seconds):>9}"


def _show(update: Update, folder: Path, command: str) -> None:
    """Write the picture so far, and a report that a browser loads again and again."""
    image = update.image
    figures = {
        "phase": Figure(
            "Phase", phase_picture(image.object, image.coverage), "rad", pixel_size=image.pixel_size
        ),
        "amplitude": Figure(
            "Amplitude", amplitude_picture(image.object, image.coverage),
            pixel_size=image.pixel_size,
        ),
    }  # fmt: skip
    made = page(
        title=f"Still being measured: {update.n} positions so far.",
        figures=list(figures.values()),
        charts=[],
        numbers={
            "Frames": f"{update.frames}, of which {update.n} have a position",
            "Deviance": f"{image.deviance:.4g} of the newest patterns (1 is noise alone)",
            "Time": duration(image.seconds),
        },
        notes=image.notes,
        command=command,
        refresh=REFRESH,
    )
    files = {f"{name}.png": figure.picture.png for name, figure in figures.items()}
    for name, content in {**files, "report.html": made.encode()}.items():
        # A picture that can't be written now is no reason to stop; the next one may be.
        try:
            with replacing(folder / name) as file:
                file.write(content)
        except OSError as error:
            logger.info("%s was not written: %s", folder / name, error)


def _finish(update: Update, folder: Path, command: str) -> None:
    """Write the last image, and the scan if it is nowhere else; say what was odd."""
    image = update.image
    with step("write") as running:
        image.save(folder, command=command)
        if not update.stored:
            write_scan(update.scan, folder / "scan.npz")
        # Only now: nobody may read the output any more, which ends the command.
        height, width = image.object.shape
        told = f"{width} x {height} pixels, deviance {image.deviance:.4g} (1 is noise alone)"
        print(f"{'image':12}{told:64} {duration(image.seconds):>9}")
        for note in image.notes:
            print(f"{'note':12}{note}")
        running.done(f"{folder}" if update.stored else f"{folder}, with what arrived in scan.npz")
