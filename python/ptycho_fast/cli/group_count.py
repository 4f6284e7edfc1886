"""The two ways to say how many groups are drawn: ``--groups`` and ``--n-images``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.subsampling import count_groups

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Options


def add_group_count(options: Options) -> None:
    """Add ``--groups`` and ``--n-images``, of which a user may give one.

    Parameters
    ----------
    options : argparse.ArgumentParser or one of its groups of options
    """
    count = options.add_mutually_exclusive_group()
    count.add_argument(
        "--groups", "--n-groups", type=int, metavar="B",
        help="number of groups (default: one around every scan position)",
    )  # fmt: skip
    count.add_argument(
        "--n-images", type=int, metavar="B",
        help="PtychoPINN's name for --groups: images at gridsize 1, groups above it (512 at "
        "gridsize 2 are 512 groups of 4, so 2048 patterns)",
    )  # fmt: skip


def group_count(arguments: argparse.Namespace, gridsize: int) -> int | None:
    """Return how many groups the user asked for.

    Parameters
    ----------
    arguments : argparse.Namespace
        What was parsed.
    gridsize : int
        A group has gridsize² patterns.

    Returns
    -------
    int or None
        None for one group around every position.

    Raises
    ------
    ValueError
        If the number is not a whole number from 1.
    """
    return count_groups(gridsize, n_images=arguments.n_images, n_groups=arguments.groups)
