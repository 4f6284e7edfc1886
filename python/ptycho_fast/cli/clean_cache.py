"""``ptycho-fast clean-cache``: remove cache files of groups, those of older code included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_fast.cli.command import add_command
from ptycho_fast.groups_cache import find

if TYPE_CHECKING:
    import argparse

    from ptycho_fast.cli.command import Commands


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "clean-cache",
        run,
        summary="Remove the lists of groups (*.groups_cache.npz) that group --cache or PtychoPINN "
        "left in a folder and the folders in it.",
        example="scans --dry-run",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to search")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the files without removing them"
    )


def run(arguments: argparse.Namespace) -> None:
    """Carry the command out."""
    found = find(arguments.folder)
    for path, size in found:
        print(f"{size / 2**20:10.1f} MiB  {path}")
        if not arguments.dry_run:
            path.unlink(missing_ok=True)
    did = "Would remove" if arguments.dry_run else "Removed"
    total = sum(size for _, size in found) / 2**20
    print(f"{did} {len(found)} files, {total:.1f} MiB, from {arguments.folder.absolute()}.")
