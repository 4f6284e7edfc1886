"""``ptycho-fast convert``: write a scan of any format as an NPZ file, or for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.outputs import check_output
from ptycho_fast.cli.progress import step
from ptycho_fast.cli.reading import FORMATS, add_reading, reading
from ptycho_fast.io import convert
from ptycho_fast.io.formats import WRITERS
from ptycho_fast.io.writing import files_to_write

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "convert",
        run,
        summary="Write a scan of any format as an uncompressed NPZ file, which is read fastest, or "
        "for another program.",
        example="scan.npz small.npz --bin 2",
        usage="IN OUT [options]",
    )
    parser.add_argument("file", type=Path, metavar="IN", help=f"the scan: {FORMATS}")
    parser.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to", choices=WRITERS, help="format of OUT (default: what its name says: .npz, .cxi, "
        ".ptyd); ptychodus writes the patterns into a second file",
    )  # fmt: skip
    add_reading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    written = files_to_write(arguments.output, arguments.to)
    for file in written:
        check_output(file)
    with step("convert") as running:
        scan = convert(
            arguments.file, arguments.output, to=arguments.to, progress=running.advance,
            **reading(arguments),
        )  # fmt: skip
        names = " and ".join(map(str, written))
        running.done(f"{len(scan)} patterns of {scan.N} x {scan.N} to {names}")
    (left, top), (right, bottom) = scan.positions.min(axis=0), scan.positions.max(axis=0)
    print(f"{'extent':12}x {left:.6g} .. {right:.6g}, y {top:.6g} .. {bottom:.6g} pixels")
