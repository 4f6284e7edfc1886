"""``ptycho-fast inspect``: show what a scan file holds and what is odd about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.cli.command import add_command
from ptycho_fast.cli.outputs import check_outputs
from ptycho_fast.cli.progress import bar, step
from ptycho_fast.cli.reading import FORMATS, KEYS, add_reading, reading
from ptycho_fast.grouping import ScanIndex, group_positions
from ptycho_fast.io import examine, list_arrays
from ptycho_fast.io.suggest import proposal
from ptycho_fast.notices import sentence_of
from ptycho_fast.plot import write_png
from ptycho_fast.plot.figure import new_figure
from ptycho_fast.quality import coverage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.io.survey import Survey
    from ptycho_fast.scan import Scan

NEIGHBORS = 7
"""Groups are tried with this many neighbours, the default at gridsize 2. Ties are counted there:
which neighbour comes first at equal distances decides what can be in a group."""

PROPOSED = 1
"""The exit code if the layout is not known, and a command that may read the file is proposed."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "inspect",
        run,
        summary="Show what a scan file holds and what is odd about it or, if its layout is not "
        "known, a command that reads it.",
        example="scan.npz",
        usage="FILE [options]",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"the scan: {FORMATS}")
    add_reading(parser)
    parser.add_argument(
        "--plot", type=Path, metavar="PNG",
        help="draw the scan positions and how brightly they illuminate the object",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out; 1 says that a command is proposed that may read the file."""
    check_outputs(arguments.file, arguments.plot)
    if arguments.plot is not None:
        new_figure()  # which says now, not after the work, that matplotlib is missing
    members = list_arrays(arguments.file)
    _print_members(members)
    try:
        with bar("inspect") as advance:
            scan, survey = examine(arguments.file, progress=advance, **reading(arguments))
    except KeyError as error:
        # The names of the data sets are not known, or not all of them were given.
        if any(getattr(arguments, key) is not None for key in KEYS):
            print(proposal(arguments.file, members), flush=True)
            raise
        print(f"{sentence_of(error)}\n\n{proposal(arguments.file, members)}", end="")
        return PROPOSED
    index = ScanIndex(scan.positions)
    memory = sum(np.prod(m.shape, dtype=float) * m.dtype.itemsize for m in members.values())
    for name, value in {
        "positions": str(len(scan)),
        "N": f"{scan.N} pixels",
        **_of_patterns(scan, survey, told=arguments.intensity is not None),
        **_of_positions(index),
        "probe": _presence(scan.probe),
        "object": _presence(scan.object),
        "memory": f"{memory / 2**20:.1f} MiB",
    }.items():
        print(f"{name:<12}{value}")
    if len(scan) > NEIGHBORS:
        groups = group_positions(index, gridsize=2, n_neighbors=NEIGHBORS, seed=0)
        print(f"\nGroups of 4 of the {NEIGHBORS} neighbours of every position, seed 0:")
        print(coverage(scan, groups))
    if arguments.plot is not None:
        with step("picture") as running:
            write_png(scan.plot(), arguments.plot)
            running.done(str(arguments.plot))
    return 0


def _print_members(members: Mapping[str, Any]) -> None:
    """List the data sets of the file."""
    width = max((len(key) for key in members), default=0)
    for key, member in members.items():
        chunks = "" if member.chunks is None else f"  chunks {member.chunks}"
        print(f"{key:{width}}  {member.dtype!s:10}  {member.shape}{chunks}")
    print()


def _of_patterns(scan: Scan, survey: Survey, *, told: bool) -> dict[str, str]:
    """Describe the diffraction patterns; `told` says that the user named them counts or not."""
    kind = "counts" if survey.intensity else "amplitudes"
    stored = f"{kind} as {survey.stored}, {survey.lowest:.10g} .. {survey.highest:.10g}"
    if survey.may_be_counts and not told:
        stored += "; all are whole numbers: pass --counts if they are counts, --amplitude if not"
    light = "none: the mean pattern has no centre"
    if survey.centre is not None:
        (row, column), middle = survey.centre, len(survey.light) // 2
        light = (
            f"about row {row:.1f}, column {column:.1f}; zero frequency belongs at {middle}, "
            f"{middle}"
        )
    return {
        "stored": stored,
        "amplitude": f"{0 if survey.intensity else survey.lowest:g} .. {survey.brightest:g}",
        "light": light,
        "bad pixels": _bad_pixels(scan.mask, survey),
        "dark": f"{len(survey.dark)} of {survey.n} patterns are all zero or have no good pixel",
    }


def _bad_pixels(mask: NDArray[np.bool_] | None, survey: Survey) -> str:
    always = "0" if mask is None else f"{np.count_nonzero(~mask)} of {mask.size}"
    if survey.bad is None:
        return f"{always} in every pattern, no others"
    some = np.count_nonzero(np.diff(survey.bad.starts))
    return f"{always} in every pattern, {len(survey.bad.pixels)} more in {some} patterns"


def _of_positions(index: ScanIndex) -> dict[str, str]:
    """Describe the scan positions: extent, spacing, duplicates, ties."""
    positions, n = index.positions, len(index)
    (left, top), (right, bottom) = positions.min(axis=0), positions.max(axis=0)
    spacing, duplicates, ties = "none: there is one position", "none", "none"
    if n > 1:
        nearest = _distances(positions, index.neighbors(1))[:, 0]
        spacing = (
            f"median {np.median(nearest):.4g}, {nearest.min():.4g} .. {nearest.max():.4g} "
            "pixels to the nearest neighbour"
        )
        same = np.count_nonzero(nearest == 0)
        duplicates = f"{same} of {n} positions coincide with another"
    if n > NEIGHBORS + 1:
        last, next_ = _distances(positions, index.neighbors(NEIGHBORS + 1)[:, -2:]).T
        ties = (
            f"{np.count_nonzero(last == next_) / n:.1%} of positions have neighbours "
            f"{NEIGHBORS} and {NEIGHBORS + 1} at the same distance"
        )
    return {
        "extent": f"x {left:.6g} .. {right:.6g}, y {top:.6g} .. {bottom:.6g} pixels",
        "spacing": spacing,
        "duplicates": duplicates,
        "ties": ties,
    }


def _distances(positions: NDArray[np.float64], neighbors: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the distances of neighbours, (n, k)."""
    difference = positions[neighbors] - positions[:, np.newaxis]
    squares: NDArray[np.float64] = np.square(difference, out=difference)
    return np.sqrt(squares[..., 0] + squares[..., 1])


def _presence(array: NDArray[Any] | None) -> str:
    return "absent" if array is None else f"{array.shape} {array.dtype}"
