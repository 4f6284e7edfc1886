"""``ptycho-fast cache``: show or clear the cache of unpacked diffraction patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command
from ptycho_fast.io.cache import cache_folder, cached_files, clear_cache

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "cache",
        run,
        summary="List the unpacked copies of compressed scan files, from which patterns are read "
        "in batches, or remove them.",
        example="--clear",
    )
    parser.add_argument(
        "--clear", action="store_true",
        help="remove all of them; they are unpacked again when they are needed",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    found = cached_files()
    for path, size in found:
        print(f"{size / 2**20:10.1f} MiB  {path}")
    if arguments.clear:
        print(f"Freed {clear_cache() / 2**20:.1f} MiB in {cache_folder()}.")
    else:
        total = sum(size for _, size in found) / 2**20
        print(f"{len(found)} files, {total:.1f} MiB, in {cache_folder()}.")
