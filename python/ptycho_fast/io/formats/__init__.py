"""The formats of scan files.

A new one is a module here and a line in `FORMATS`, and one in `WRITERS` if it can be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ptycho_fast.io.formats import (
    cxi,
    fold_slice,
    named,
    npz_scan,
    ptychodus,
    ptychoshelves,
    ptylab,
    ptypy,
    slac,
    stack,
    tike,
)

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from ptycho_fast.io.container import Container
    from ptycho_fast.io.hdf5.writing import Outgoing
    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan


class Format(Protocol):
    """What the module of a format provides."""

    def recognises(self, container: Container) -> bool:
        """Tell from its keys whether an open file is of this format."""

    def read(self, container: Container, recipe: Recipe) -> Scan:
        """Read a scan, whose patterns stay in the file as `PreparedFrames`."""


FORMATS: tuple[Format, ...] = (
    ptychodus,  # before fold_slice: a product may hold dp, too
    tike,
    stack,
    slac,
    npz_scan,
    cxi,
    ptypy,
    ptylab,
    ptychoshelves,
    fold_slice,
    named,
)
"""The formats in the order in which they are asked.

`npz_scan` recognises every NPZ file that comes to it, and `named` every file.
"""


class Writer(Protocol):
    """What the module of a format provides that can be written."""

    suffix: str
    """How the names of such files end, if that tells the format; else empty."""

    def files(self, path: Path) -> list[Path]:
        """Return the files that are written if the first has this name."""

    def write(self, out: Outgoing, path: str | os.PathLike[str]) -> None:
        """Write a scan; each file appears whole or not at all."""


WRITERS: dict[str, Writer] = {
    "npz": npz_scan,
    "cxi": cxi,
    "ptychodus": ptychodus,
    "ptypy": ptypy,
}
"""The formats that `ptycho_fast.write_scan` writes, by the name that it has for them."""


def format_of(container: Container, recipe: Recipe) -> Format:
    """Return the format of an open file.

    A file of which the caller names the patterns and both coordinates is read by these names,
    whatever its format.
    """
    if recipe.names_everything:
        return named
    return next(form for form in FORMATS if form.recognises(container))
