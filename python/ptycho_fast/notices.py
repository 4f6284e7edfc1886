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
