"""``ptycho-fast convert``: write a scan of any format as an NPZ file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.outputs import check_output
from ptycho_fast.cli.progress import step
from ptycho_fast.cli.reading import FORMATS, add_reading, reading
from ptycho_fast.io import convert

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "convert",
        run,
        summary="Write a scan of any format as an uncompressed NPZ file, which is read fastest.",
        example="scan.npz small.npz --bin 2",
        usage="IN OUT.npz [options]",
    )
    parser.add_argument("file", type=Path, metavar="IN", help=f"the scan: {FORMATS}")
    parser.add_argument("output", type=Path, metavar="OUT.npz", help="the file to write")
    add_reading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    check_output(arguments.output)
    with step("convert") as running:
        scan = convert(
            arguments.file, arguments.output, progress=running.advance, **reading(arguments)
        )
        running.done(f"{len(scan)} patterns of {scan.N} x {scan.N} to {arguments.output}")
    (left, top), (right, bottom) = scan.positions.min(axis=0), scan.positions.max(axis=0)
    print(f"{'extent':12}x {left:.6g} .. {right:.6g}, y {top:.6g} .. {bottom:.6g} pixels")
