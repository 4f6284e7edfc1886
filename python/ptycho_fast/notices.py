"""Warnings that point at the caller's line, however deep in the package they arise."""

from __future__ import annotations

import inspect
import os
import warnings

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name as the place the line outside this package that called into it.

    Frames of another package may lie between, such as Lightning's in training. Then the warning
    points at the outermost call into this package, since a line of theirs tells a user nothing.

    Parameters
    ----------
    message : str
        A whole sentence with the numbers and the way out.
    category : type of Warning
        The class of the warning.
    """
    level, place = 1, 2
    frame = inspect.currentframe()
    while frame is not None and frame.f_back is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            place = level + 1
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=place)


def sentence_of(error: BaseException) -> str:
    """Return what an exception says, without the decoration that Python adds to it.

    Parameters
    ----------
    error : exception

    Returns
    -------
    str
        A sentence; the name of the exception where it says nothing.

    Examples
    --------
    >>> from ptycho_fast.notices import sentence_of
    >>> sentence_of(KeyError("The file has no probe."))
    'The file has no probe.'
    >>> sentence_of(FileNotFoundError(2, "No such file or directory", "scan.h5"))
    'scan.h5: No such file or directory.'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or f"{type(error).__name__}."
