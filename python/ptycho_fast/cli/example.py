"""``ptycho-fast example``: write a small simulated scan as a file of another program."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.outputs import check_output
from ptycho_fast.cli.progress import step
from ptycho_fast.io import write_scan
from ptycho_fast.io.formats import WRITERS
from ptycho_fast.io.writing import files_to_write
from ptycho_fast.simulate import simulate_scan

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.scan import Scan

POSITIONS, PIXELS, PHOTONS, SEED = 300, 64, 1e5, 7

GEOMETRY = {"energy_eV": 8800.0, "distance_m": 2.0, "detector_pixel_m": 150e-6}
"""An X-ray beamline, at which a pixel of the object is 29 nm."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "example",
        run,
        summary="Write a small simulated scan as a file of another program, to try things with.",
        example="ptychodus -o product.h5",
        usage="[FORMAT] -o FILE",
    )
    parser.add_argument(
        "format", nargs="?", choices=WRITERS, metavar="FORMAT",
        help=f"one of {', '.join(WRITERS)} (default: what the name of FILE says)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write"
    )


def example_scan() -> Scan:
    """Return the scan: a Fermat spiral with photon noise, and what all formats can hold of it."""
    scan = simulate_scan(POSITIONS, PIXELS, trajectory="spiral", photons=PHOTONS, seed=SEED)
    return replace(scan, positions_start=scan.positions, metadata={})


def _tells_no_format(path: Path) -> bool:
    return path.suffix.lower() not in {writer.suffix for writer in WRITERS.values()} - {""}


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    if arguments.format is None and _tells_no_format(arguments.output):
        msg = (
            f"{arguments.output} does not say its format by its name. Name one of "
            f"{', '.join(WRITERS)} before -o."
        )
        raise ValueError(msg)
    written = files_to_write(arguments.output, arguments.format)
    for file in written:
        check_output(file)
    with step("simulate") as running:
        scan = example_scan()
        running.done(f"{len(scan)} patterns of {scan.N} x {scan.N}, Fermat spiral, photon noise")
    with step("write") as running:
        write_scan(scan, arguments.output, arguments.format, **GEOMETRY)
        running.done(" and ".join(map(str, written)))
    file = written[0]
    name, folder = (shlex.quote(str(path)) for path in (file, file.with_name(f"{file.stem}_image")))
    print("\nGo on with:")
    print(f"  ptycho-fast inspect {name}")
    print(f"  ptycho-fast reconstruct {name} -o {folder}/")
