"""Tables of numbers in text files, CSV for example, whose columns give positions or indices."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from ptycho_fast.io.container import ArrayInfo, Container
from ptycho_fast.io.listing import listed
from ptycho_fast.io.regular import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe

DELIMITERS = (";", "\t", ",")
"""What separates columns, in the order in which it is looked for; else it is blanks."""


class _Table(NamedTuple):
    """The cells of a text file."""

    names: list[str]
    """Of the columns: those of the first line, if it holds no number."""
    rows: list[list[str]]
    lines: list[int]
    """The number of the line of each row."""


class TextContainer(Container):
    """A text file of columns, named by the first line or by their numbers, counted from 0.

    A single column needs no name: ``FILE:``, or ``FILE`` alone, means it, too.

    Columns are separated by semicolons, tabs, commas or blanks. Lines that begin with ``#`` or
    ``%`` are comments.
    """

    def content(self) -> bytes:
        """Return what the file holds."""
        with open_regular(self.path) as file:
            return file.read()

    @cached_property
    def _table(self) -> _Table:
        content = self.content()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            msg = (
                f"{self.path} is no table of text in UTF-8 (byte {error.start}: {error.reason}). "
                "Write it again in UTF-8."
            )
            raise OSError(msg) from error
        numbered = [
            (number, line.strip())
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip() and not line.lstrip().startswith(("#", "%"))
        ]
        if not numbered:
            msg = f"{self.path} holds no table: all of its lines are empty, or comments."
            raise OSError(msg)
        mark = next((mark for mark in DELIMITERS if mark in numbered[0][1]), None)
        rows = [[cell.strip().strip('"') for cell in line.split(mark)] for _, line in numbered]
        lines = [number for number, _ in numbered]
        for row, number in zip(rows, lines, strict=True):
            if len(row) != len(rows[0]):
                msg = (
                    f"{self.path} holds no table: line {lines[0]} has {len(rows[0])} columns, but "
                    f"line {number} has {len(row)}."
                )
                raise OSError(msg)
        names: list[str] = []
        if not any(_is_number(cell) for cell in rows[0]):
            names = rows.pop(0)
            lines.pop(0)
            if not rows:
                msg = (
                    f"{self.path} has no rows: line {numbered[0][0]} names its columns, and none "
                    "follows."
                )
                raise OSError(msg)
        return _Table(names, rows, lines)

    def arrays(self, most: int | None = None) -> dict[str, ArrayInfo]:
        """Return the columns: by their names, if they have any, else by their numbers."""
        del most
        names, rows, _ = self._table
        width = len(names) or len(rows[0])
        keys = [str(number) for number in range(width)]
        for number, name in enumerate(names):
            if names.count(name) == 1:
                keys[number] = name
        return {key: ArrayInfo((len(rows),), np.dtype(np.float64)) for key in keys}

    def __contains__(self, key: str) -> bool:
        return self._column(key) is not None

    def _column(self, key: str) -> int | None:
        names, rows, _ = self._table
        if key in names:
            return names.index(key)
        width = len(names) or len(rows[0])
        if not key and width == 1:
            return 0
        return int(key) if re.fullmatch(r"\d+", key) and int(key) < width else None

    def info(self, key: str) -> ArrayInfo:
        """Return what is known of a column."""
        if not key and self._column(key) is None:
            msg = (
                f"{self.path} has several columns: {listed(self.arrays())}. Name one, by its name "
                f"or by its number, counted from 0: {self.path}:0."
            )
            raise KeyError(msg)
        if self._column(key) is None:
            msg = (
                f"{self.path} has no column {key!r}. Its columns: {listed(self.arrays())}. Those "
                "of FILE:0, FILE:1, ... are counted from 0."
            )
            raise KeyError(msg)
        if (times := self._table.names.count(key)) > 1:
            numbers = [str(i) for i, name in enumerate(self._table.names) if name == key]
            msg = (
                f"{self.path} has {times} columns that are called {key!r}. Name one by its number, "
                f"counted from 0: FILE:{' or FILE:'.join(numbers)}."
            )
            raise ValueError(msg)
        return ArrayInfo((len(self._table.rows),), np.dtype(np.float64))

    def read(self, key: str) -> NDArray[Any]:
        """Read a column."""
        self.info(key)
        column = self._column(key)
        assert column is not None
        cells = [row[column] for row in self._table.rows]
        try:
            return np.array(cells, np.float64)
        except ValueError:
            for cell, line in zip(cells, self._table.lines, strict=True):
                if not _is_number(cell):
                    msg = f"{self.path}: {cell!r} in line {line}, column {key!r}, is no number."
                    raise ValueError(msg) from None
            raise

    def frames(
        self, key: str, recipe: Recipe, n: int | None = None, grid: tuple[int, ...] = ()
    ) -> NoReturn:
        """Refuse: a table holds no frames."""
        del recipe, n, grid
        msg = f"{self.path} is text: its column {key!r} is no stack of frames."
        raise ValueError(msg)

    def numbers(self, keys: Iterable[str]) -> dict[str, float]:
        """Read columns of one number each."""
        return {key: float(self.read(key)[0]) for key in keys}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
