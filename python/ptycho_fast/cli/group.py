"""``ptycho-fast group``: draw groups of overlapping positions from a scan file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.cli.command import add_command, defaults_of
from ptycho_fast.cli.group_count import add_group_count, group_count
from ptycho_fast.cli.numbers import numbers
from ptycho_fast.cli.outputs import check_outputs
from ptycho_fast.cli.progress import step
from ptycho_fast.cli.reading import FORMATS, add_reading, reading
from ptycho_fast.grouping import ENGINES, RNGS, RULES, STRATEGIES, group_positions
from ptycho_fast.grouping.arguments import GRIDSIZE
from ptycho_fast.io import read_scan
from ptycho_fast.io.writing import format_to_write
from ptycho_fast.plot import write_png
from ptycho_fast.plot.figure import new_figure
from ptycho_fast.quality import coverage
from ptycho_fast.spacing import LEAST_OVERLAP

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands
    from ptycho_fast.grouping import Groups
    from ptycho_fast.scan import Scan


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    default = defaults_of(group_positions)
    parser = add_command(
        commands,
        "group",
        run,
        summary="Draw groups of neighbouring scan positions, on which networks train, into a file.",
        example="scan.npz --gridsize 2 --neighbors 7 --groups 512 --seed 42 -o groups.npz "
        "--plot groups.png",
        usage="FILE -o OUT.npz [options]",
        renamed={"n_neighbors": "--neighbors", "K": "--neighbors", "num_threads": "--threads"},
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=f"the scan: {FORMATS}")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.npz", help="the file to write"
    )
    parser.add_argument(
        "--gridsize", type=int, default=GRIDSIZE, metavar="G",
        help="draw groups of C = G² positions (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--neighbors", type=int, default=default["n_neighbors"], metavar="K",
        help="draw from the K nearest neighbours of a centre (default: "
        f"C + {RULES['nearest'].default_neighbors(0)}, or {RULES['overlap'].default_neighbors(0)} "
        "with --rule overlap)",
    )  # fmt: skip
    _add_amount(parser)
    parser.add_argument(
        "--seed", type=int, default=default["seed"], metavar="S",
        help="seed of the draw (default: a new one, which the file records)",
    )  # fmt: skip
    parser.add_argument(
        "--epoch", type=int, default=default["epoch"], metavar="E",
        help="each epoch draws other groups from the same seed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rng", choices=RNGS, default=default["rng"],
        help="numpy draws the groups that PtychoPINN drew with this seed (default: %(default)s)",
    )  # fmt: skip
    _add_rules(parser, default)
    parser.add_argument(
        "--threads", type=int, default=default["num_threads"], metavar="T",
        help="number of threads (default: all that the process may use)",
    )  # fmt: skip
    add_reading(parser)
    parser.add_argument(
        "--plot", type=Path, metavar="PNG",
        help="draw the scan positions, the groups, and the part of the object that they cover",
    )  # fmt: skip


def _add_amount(command: argparse.ArgumentParser) -> None:
    """Add the options that say how much of a scan is used."""
    options = command.add_argument_group("how much of the scan")
    add_group_count(options)
    options.add_argument(
        "--n-subsample", type=int, metavar="n",
        help="keep only n scan positions, drawn at random, before any group is drawn; the groups "
        "are those of read_scan(FILE).subsample(n, seed)",
    )  # fmt: skip
    options.add_argument(
        "--subsample-seed", type=int, metavar="S",
        help="seed of --n-subsample (default: a new one, which is printed)",
    )  # fmt: skip


def _add_rules(command: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    """Add the options that say what a group is."""
    options = command.add_argument_group("what a group is")
    options.add_argument(
        "--rule", choices=tuple(RULES), default=default["rule"],
        help="nearest: C of the K nearest neighbours; oversample: the same, and there may be more "
        "groups than positions; quadrant: one position of each quadrant around the centre; "
        "overlap: the windows of all positions of a group overlap (default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--strategy", choices=STRATEGIES, default=default["strategy"],
        help="sample the centres and draw a group around each, or list the groups of all positions "
        "and sample from that list (default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--include-center", action="store_true", help="the centre is in its group, as channel 0"
    )
    options.add_argument(
        "--min-distance", type=float, default=default["min_distance"], metavar="D",
        help="smallest distance from the centre to its neighbours in pixels",
    )  # fmt: skip
    options.add_argument(
        "--max-distance", type=float, default=default["max_distance"], metavar="D",
        help="largest distance from the centre to its neighbours in pixels; --rule quadrant needs "
        "it",
    )  # fmt: skip
    options.add_argument(
        "--min-overlap", type=float, default=default["min_overlap"], metavar="S",
        help="with --rule overlap: smallest overlap of the windows of two patterns of a group, "
        f"as a fraction of a window (default: {LEAST_OVERLAP})",
    )  # fmt: skip
    options.add_argument(
        "--bounds", type=_bounds, metavar="X0,X1,Y0,Y1",
        help="centres lie in this part of the scan, as fractions (0..1) of its extent",
    )  # fmt: skip
    options.add_argument(
        "--engine", choices=ENGINES, default=default["engine"],
        help="index that finds the neighbours; the groups do not depend on it "
        "(default: %(default)s)",
    )  # fmt: skip
    options.add_argument(
        "--cache", action="store_true",
        help="with --strategy group-then-sample, keep the list of groups beside the scan, as "
        "FILE.gGkK.groups_cache.npz",
    )  # fmt: skip
    options.add_argument(
        "--compress", action="store_true",
        help="compress the file of --cache, which makes it smaller and slower to read",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    format_to_write(arguments.output, "npz")
    check_outputs(arguments.file, arguments.output, arguments.plot)
    if arguments.plot is not None:
        new_figure()  # which says now, not after the work, that matplotlib is missing
    if arguments.compress and not arguments.cache:
        msg = "--compress is for the file of --cache, which is not given. Pass --cache too."
        raise ValueError(msg)
    with step("read") as running:
        scan = read_scan(arguments.file, load=False, **reading(arguments))
        running.done(f"n = {len(scan)} positions, patterns of {scan.N} x {scan.N}")
    scan = _subsampled(scan, arguments)
    with step("group") as running:
        groups = _draw(scan, arguments)
        running.done(
            f"B = {len(groups)} groups of C = {groups.group_size}, K = {groups.n_neighbors}, "
            f"seed {groups.seed}, epoch {groups.epoch}"
        )
    _print_summary(scan, groups)
    with step("write") as running:
        groups.save(arguments.output)
        running.done(str(arguments.output))
    if arguments.plot is not None:
        with step("picture") as running:
            write_png(groups.plot(scan), arguments.plot)
            running.done(str(arguments.plot))


def _subsampled(scan: Scan, arguments: argparse.Namespace) -> Scan:
    """Return the scan, thinned if that was asked for."""
    if arguments.n_subsample is None:
        if arguments.subsample_seed is not None:
            msg = (
                "--subsample-seed is for --n-subsample, which is not given. Pass --n-subsample too."
            )
            raise ValueError(msg)
        return scan
    with step("subsample") as running:
        thinned = scan.subsample(arguments.n_subsample, arguments.subsample_seed)
        seed = thinned.metadata["subsample_seed"]
        running.done(f"{len(thinned)} of {len(scan)} positions, subsample seed {seed}")
    return thinned


def _draw(scan: Scan, arguments: argparse.Namespace) -> Groups:
    return group_positions(
        scan.positions,
        group_count(arguments, arguments.gridsize),
        gridsize=arguments.gridsize,
        n_neighbors=arguments.neighbors,
        seed=arguments.seed,
        epoch=arguments.epoch,
        rng=arguments.rng,
        rule=arguments.rule,
        strategy=arguments.strategy,
        include_center=arguments.include_center,
        min_distance=arguments.min_distance,
        max_distance=arguments.max_distance,
        N=scan.N if arguments.rule == "overlap" else None,
        min_overlap=arguments.min_overlap,
        bounds=arguments.bounds,
        engine=arguments.engine,
        num_threads=arguments.threads,
        cache=arguments.file if arguments.cache else None,
        compress=arguments.compress,
    )


def _print_summary(scan: Scan, groups: Groups) -> None:
    """Print how many patterns the groups hold, how far they spread and what they cover."""
    print(f"{'patterns':12}{groups.indices.size}, {groups.group_size} a group")
    for reason, count in groups.left_out.items():
        print(f"{'left out':12}{count} centres, by {reason}")
    spread = np.sqrt(np.square(groups.relative[:, 0]).sum(axis=1).max(axis=1))
    print(
        f"{'spread':12}median {np.median(spread):.4g}, largest {spread.max():.4g} pixels from a "
        "group's mean to its farthest member"
    )
    print(coverage(scan, groups))


def _bounds(text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    x0, x1, y0, y1 = numbers(text, 4)
    return (x0, x1), (y0, y1)
