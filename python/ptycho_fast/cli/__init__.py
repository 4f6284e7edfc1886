"""The command line, ``ptycho-fast``.

Each command has a file of its own with two functions: ``add(commands)`` declares the command and
its options, ``run(arguments)`` carries it out. `main` puts them together.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast import __version__
from ptycho_fast.cli import (
    cache,
    clean_cache,
    compare,
    convert,
    demo,
    example,
    follow,
    group,
    infer,
    inspect,
    reconstruct,
    simulate,
    train,
)
from ptycho_fast.cli.command import option_names
from ptycho_fast.cli.completion import SHELLS, PrintCompletion
from ptycho_fast.notices import sentence_of

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("ptycho_fast")

COMMANDS = (
    demo, example, simulate, inspect, convert, reconstruct, follow, compare, group, train, infer,
    cache,
    clean_cache,
)  # fmt: skip
"""One module for each command, in the order in which ``--help`` lists them."""

CLOSED = 141
"""The exit code of a command whose output nobody reads any more: 128 + SIGPIPE, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Errors that the user can put right, such as a missing file or an option out of range, are
    printed to standard error as one sentence, without a traceback. So are warnings.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 if all went well, 1 if ``inspect`` does not know a file's layout and proposes a command,
        2 after an error that the user can put right, 130 if interrupted, 141 if nobody reads the
        output any more, as after ``| head``.

    Raises
    ------
    SystemExit
        With code 2 if the arguments do not parse, with code 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> from ptycho_fast.cli import main
    >>> main(["simulate", "-o", "scan.npz", "--positions", "100"])  # doctest: +SKIP
    0
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads of PyTorch wait for each other in a loop. If another job needs a core, each wait
        # lasts as long as that job's turn, which makes training several times slower. libgomp reads
        # this when PyTorch is loaded.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    code = 0
    try:
        try:
            code = _run(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)
    except OSError as error:
        # Python would write what is left, and complain, when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return CLOSED
        if not code:
            _print_notice("error", sentence_of(error))
        return 2
    return code


def _run(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    arguments.command_line = shlex.join(["ptycho-fast", *argv])
    if arguments.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        logger.setLevel(logging.INFO)
    logger.info("%s, Python %s, NumPy %s", __version__, sys.version.split()[0], np.__version__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: _print_notice("warning", str(message))
        try:
            code: int | None = arguments.run(arguments)
        except BrokenPipeError:
            raise
        except (OSError, KeyError, ValueError, ArithmeticError, ImportError, MemoryError) as error:
            _print_notice("error", option_names(sentence_of(error), arguments.renamed))
            return 2
        except KeyboardInterrupt:
            _print_notice("error", "Interrupted.")
            return 130
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ptycho-fast",
        description="From a ptychography scan to an image, and to the batches a network trains on.",
    )
    parser.add_argument("--version", action="version", version=f"ptycho-fast {__version__}")
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=SHELLS, metavar="{bash,zsh}",
        help="print the script by which the shell completes commands and options with Tab",
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _print_notice(kind: str, sentence: str) -> None:
    print(f"ptycho-fast: {kind}: {sentence}", file=sys.stderr)
