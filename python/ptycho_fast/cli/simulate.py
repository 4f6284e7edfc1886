"""``ptycho-fast simulate``: write a simulated scan to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command, defaults_of
from ptycho_fast.cli.outputs import check_output
from ptycho_fast.cli.progress import step
from ptycho_fast.io import write_scan
from ptycho_fast.io.writing import format_to_write
from ptycho_fast.simulate import TRAJECTORIES, simulate_scan

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    default = defaults_of(simulate_scan)
    parser = add_command(
        commands,
        "simulate",
        run,
        summary="Write a simulated scan to an NPZ file.",
        example="-o scan.npz --positions 2000 --pixels 64 --trajectory spiral --seed 0",
        renamed={"n_positions": "--positions", "N": "--pixels"},
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.npz", help="the file to write"
    )
    parser.add_argument(
        "--positions", type=int, default=default["n_positions"], metavar="n",
        help="number of scan positions (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--pixels", type=int, default=default["N"], metavar="N",
        help="pixels per side of a diffraction pattern (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--trajectory", choices=TRAJECTORIES, default=default["trajectory"],
        help="scan in rows, or along a Fermat spiral (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--photons", type=float, default=default["photons"], metavar="P",
        help="mean number of photons per pattern (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=default["seed"], metavar="S",
        help="seed of all random numbers (default: a new one, which the file records)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    format_to_write(arguments.output, "npz")
    check_output(arguments.output)
    with step("simulate") as running:
        scan = simulate_scan(
            arguments.positions,
            arguments.pixels,
            trajectory=arguments.trajectory,
            photons=arguments.photons,
            seed=arguments.seed,
            progress=running.advance,
        )
        running.done(
            f"{len(scan)} patterns of {scan.N} x {scan.N}, {arguments.trajectory}, "
            f"seed {scan.metadata['seed']}"
        )
    with step("write") as running:
        write_scan(scan, arguments.output, "npz")
        running.done(str(arguments.output))
