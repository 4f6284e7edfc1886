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
            if isinstance(action.choices, dict) and not _commands(action):
                action.choices = list(action.choices)  # shtab takes each mapping for commands
        print(shtab.complete(parser, shell=values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Return the options and arguments of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001  # argparse tells them in no other way
        yield action
        for command in _commands(action):
            yield from _actions(command)


def _commands(action: argparse.Action) -> list[argparse.ArgumentParser]:
    """Return the parsers of the commands that an argument chooses from."""
    found = action.choices.values() if isinstance(action.choices, dict) else ()
    return [each for each in found if isinstance(each, argparse.ArgumentParser)]
