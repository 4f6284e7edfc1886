"""``--print-completion``: a script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SHELLS = ("bash", "zsh")


class PrintCompletion(argparse.Action):
    """Prints the script of a shell, and ends.

    The script holds all commands and options, so that completing starts no Python.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print the script."""
        try:
            import shtab  # noqa: PLC0415
        except ImportError as error:
            msg = f'shtab is needed ({error}): pip install "ptycho_fast[completion]"'
            parser.exit(2, f"{parser.prog}: error: {msg}\n")
        for action in _actions(parser):
            if action.type is Path or action.metavar == "FILE":
                folder = str(action.metavar).endswith(("/", "DIR"))
                action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Return the options and arguments of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001  # argparse tells them in no other way
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                if isinstance(command, argparse.ArgumentParser):
                    yield from _actions(command)
