"""Options that say what a scan file holds: the arguments of `ptycho_fast.read_scan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptycho_fast.cli.command import defaults_of
from ptycho_fast.cli.numbers import numbers
from ptycho_fast.io import read_scan
from ptycho_fast.io.recipe import UNITS

if TYPE_CHECKING:
    import argparse

FORMATS = "NPZ, CXI, the file of another program, or any HDF5, NPY or TIFF"

KEYS = {
    "diffraction": "diffraction patterns, (n, rows, columns)",
    "x": "scan positions: x, to the right in the image",
    "y": "scan positions: y, downwards in the image",
    "probe": "probe: the wave that falls on the sample",
    "mask": "detector mask; its name says whether it marks good or bad pixels (good_pixels, "
    "bad_pixels); if not, True (boolean) or 0 (number) is a good pixel",
    "index": "frame number of each position, or position number of each frame",
}
"""Options that name a data set, and what they name."""

NOT_OPTIONS = ("load", "allow_pickle", "counts")
"""Arguments of `read_scan` that are not the user's to set here; ``counts`` is ``intensity``."""


def add_reading(command: argparse.ArgumentParser) -> None:
    """Add the options that say what a scan file holds, and how it is read.

    Parameters
    ----------
    command : argparse.ArgumentParser
    """
    options = command.add_argument_group(
        "what the file holds",
        "A file of no known format needs --diffraction, --x, --y, --unit, and --counts or\n"
        "--amplitude; inspect says which. KEY is the name of a data set, KEY[:,0] a column of\n"
        "it, FILE:KEY a data set in another file, FILE.npy the array of an NPY file, and\n"
        "FILE:0 the first column of a text file.",
    )
    kind = options.add_mutually_exclusive_group()
    kind.add_argument(
        "--counts", "--intensity", action="store_true", default=None, dest="intensity",
        help="the patterns are photon counts",
    )  # fmt: skip
    kind.add_argument(
        "--amplitude", action="store_false", dest="intensity",
        help="the patterns are amplitudes, the square roots of counts",
    )  # fmt: skip
    for name, summary in KEYS.items():
        options.add_argument(f"--{name}", metavar="KEY", help=summary)
    options.add_argument("--unit", choices=UNITS, help="unit of x and y")
    options.add_argument("--energy-eV", type=float, metavar="E", help="photon energy in eV")
    options.add_argument(
        "--distance-m", type=float, metavar="Z", help="distance from sample to detector in metres"
    )
    options.add_argument(
        "--detector-pixel-m", type=float, metavar="P", help="side of a detector pixel in metres"
    )
    options.add_argument(
        "--swap-xy",
        action="store_true",
        help="exchange x and y of the positions; the patterns stay as they are",
    )
    for axis in "xy":
        summary = f"mirror {axis} of the positions (after --swap-xy)"
        options.add_argument(f"--flip-{axis}", action="store_true", help=summary)
    options.add_argument(
        "--crop", type=int, metavar="N", help="keep N by N pixels of each diffraction pattern"
    )
    options.add_argument(
        "--centre", type=_row_column, metavar="ROW,COL",
        help="centre of the pixels to keep (default: the middle of the pattern)",
    )  # fmt: skip
    options.add_argument(
        "--bin", type=int, metavar="M", help="sum the counts of M by M detector pixels"
    )
    options.add_argument(
        "--fftshift", action="store_true",
        help="zero frequency is in the corner of the patterns: move it to the middle",
    )  # fmt: skip
    options.add_argument(
        "--invert-mask",
        action="store_true",
        help="swap the good and the bad pixels of the mask",
    )
    options.add_argument(
        "--bad-value", type=float, metavar="V", help="the stored value V marks a bad pixel"
    )
    options.add_argument(
        "--drop-dark", action="store_true",
        help="leave out patterns that are all zero or have no good pixel",
    )  # fmt: skip
    options.add_argument(
        "--frames-axis", type=int, choices=(0, 2),
        help="axis of the stack that counts the patterns, if two axes could",
    )  # fmt: skip
    options.add_argument(
        "--reshape", action="store_true",
        help="frames and positions are grids (ny, nx), which are read row by row",
    )  # fmt: skip
    options.add_argument(
        "--first", type=int, metavar="n", help="read only the first n frames and positions"
    )
    options.add_argument(
        "--index-base", type=int, choices=(0, 1),
        help="number of the first frame or position in --index (default: 0)",
    )  # fmt: skip
    options.add_argument(
        "--average-positions", action="store_true",
        help="use the mean where several positions belong to one frame",
    )  # fmt: skip


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments for `read_scan`.

    Parameters
    ----------
    arguments : argparse.Namespace
        What was parsed with the options of `add_reading`.

    Returns
    -------
    dict of str to Any
    """
    names = [name for name in defaults_of(read_scan) if name not in NOT_OPTIONS]
    return {name: getattr(arguments, name) for name in names}


def _row_column(text: str) -> tuple[float, float]:
    row, column = numbers(text, 2)
    return row, column
