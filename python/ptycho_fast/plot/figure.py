"""A matplotlib figure: made without pyplot, shown by notebooks, and written to a PNG file whole."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ptycho_fast.atomic import replacing

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """Return an empty figure in compressed layout; ImportError says how to install matplotlib."""
    try:
        # pyplot would choose a backend for the whole process.
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        msg = (
            f'Pictures need matplotlib ({error}). Install it with: pip install "ptycho_fast[plot]"'
        )
        raise ImportError(msg) from error

    class Shown(Figure):
        """A figure that notebooks show, though pyplot does not know it."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return Shown(layout="compressed", **options)


def write_png(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a PNG file, which appears whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, format="png")
