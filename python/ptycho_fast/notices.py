"""Warnings that point at the caller's line, however deep in the package they arise."""

from __future__ import annotations

import os
import sys
import warnings

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, and name the line outside this package that called into it as the place.

    Where another package's frames lie between, as Lightning's do in training, it is the line that
    called first: theirs tells a user nothing.

    Parameters
    ----------
    message : str
        A sentence with the numbers in it and the way out.
    category : type of Warning
    """
    level = place = 2
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            place = level + 1
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=place)
