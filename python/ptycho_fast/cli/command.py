"""How a command is declared: its parser, and defaults taken from the functions it calls."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Commands(Protocol):
    """What commands are added to: the result of ``ArgumentParser.add_subparsers``."""

    def add_parser(self, name: str, **keywords: Any) -> argparse.ArgumentParser:
        """Return the parser of a new command."""


class Options(Protocol):
    """What options are added to: a parser, or one of its groups of options."""

    def add_mutually_exclusive_group(self) -> Any:
        """Return a group of options, of which a user may give one."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    *,
    summary: str,
    example: str,
    usage: str | None = None,
    renamed: Mapping[str, str] | None = None,
) -> argparse.ArgumentParser:
    """Add a command to the command line.

    Parameters
    ----------
    commands : action of ``argparse.ArgumentParser.add_subparsers``
        What the command is added to.
    name : str
        The word that follows ``ptycho-fast``.
    run : callable
        Carries the command out; it is called with the parsed arguments. It may return an exit code.
    summary : str
        One sentence, shown by ``ptycho-fast --help`` and by the command's own ``--help``.
    example : str
        Arguments of an example, shown below the options.
    usage : str, optional
        Arguments for the usage line, where the list of all options would be too long.
    renamed : mapping of str to str, optional
        Options by the name that messages of the package's functions have for them, where that is
        another one: ``{"max_epochs": "--epochs"}``. `option_names` adds the option to messages.

    Returns
    -------
    argparse.ArgumentParser
        The command's parser, for its options.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  ptycho-fast {name} {example}",
        usage=None if usage is None else f"ptycho-fast {name} {usage}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the log to standard error"
    )
    parser.set_defaults(run=run, renamed=renamed or {})
    return parser


def option_names(sentence: str, renamed: Mapping[str, str]) -> str:
    """Return a message with the options that its names of arguments stand for.

    Parameters
    ----------
    sentence : str
        A message of one of the package's functions.
    renamed : mapping of str to str
        Options by the name of the argument.

    Returns
    -------
    str

    Examples
    --------
    >>> from ptycho_fast.cli.command import option_names
    >>> option_names("max_epochs must be at least 1.", {"max_epochs": "--epochs"})
    'max_epochs must be at least 1. (On the command line max_epochs is --epochs.)'
    """
    found: dict[str, str] = {}
    for name, option in renamed.items():
        if re.search(rf"\b{name}\b", sentence):
            found.setdefault(option, name)
    if not found:
        return sentence
    told = ", ".join(f"{name} is {option}" for option, name in found.items())
    return f"{sentence} (On the command line {told}.)"


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of every argument that has one.

    Options of the command line take their defaults from here, so that each is written only once,
    in the signature of the function that the command calls.

    Parameters
    ----------
    function : callable
        A function or a class.

    Returns
    -------
    dict of str to Any
        Defaults by name of the argument.

    Examples
    --------
    >>> from ptycho_fast import simulate_scan
    >>> from ptycho_fast.cli.command import defaults_of
    >>> defaults_of(simulate_scan)["n_positions"]
    1000
    """
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}
