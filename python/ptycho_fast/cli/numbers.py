"""Option values that are several numbers with commas between them."""

from __future__ import annotations

import argparse


def numbers(text: str, count: int) -> list[float]:
    """Read numbers that are separated by commas.

    Parameters
    ----------
    text : str
        What the user wrote.
    count : int
        How many numbers there must be.

    Returns
    -------
    list of float

    Raises
    ------
    argparse.ArgumentTypeError
        If the text is anything else. argparse adds the name of the option.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        msg = f"{count} numbers with commas between them are needed, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return found
