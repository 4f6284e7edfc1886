"""The table of a series: for other programs as CSV, and as a page with the pictures."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from ptycho_fast.atomic import replacing
from ptycho_fast.reconstruction.report import PAGE_STYLE
from ptycho_fast.series.entry import DONE, SeriesEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

TABLE, PAGE = "series.csv", "series.html"
"""The files of the table, in the folder of the series."""

COLUMNS = tuple(field.name for field in fields(SeriesEntry) if field.name != "kept")

STYLE = "td img{width:7rem;image-rendering:pixelated;display:block}"


def write_table(series: Path, entries: Iterable[SeriesEntry]) -> None:
    """Write ``series.csv`` and ``series.html``; each appears whole or not at all.

    Parameters
    ----------
    series : Path
        The folder of the series.
    entries : iterable of SeriesEntry
    """
    ordered = sorted(entries, key=_natural)
    for name, content in ((TABLE, _csv(ordered)), (PAGE, _page(ordered))):
        with replacing(series / name) as file:
            file.write(content.encode())


def _natural(entry: SeriesEntry) -> list[tuple[int, int, str]]:
    """Order scan_2 before scan_10."""
    parts = re.split(r"([0-9]+)", entry.folder)  # every second part is a number
    return [(i % 2, int(part) if i % 2 else 0, part) for i, part in enumerate(parts)]


def _csv(entries: Sequence[SeriesEntry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(_cell(getattr(entry, name)) for name in COLUMNS)
    return text.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _page(entries: Sequence[SeriesEntry]) -> str:
    count = sum(entry.status == DONE for entry in entries)
    title = f"{count} of {len(entries)} scans done"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Series: {title}</title><style>{PAGE_STYLE}{STYLE}</style></head><body>",
            f"<h1>Series</h1><p>{title}</p><table>",
            *map(_row, entries),
            "</table></body></html>\n",
        ]
    )


def _row(entry: SeriesEntry) -> str:
    name, picture = escape(entry.folder), ""
    if entry.status == DONE:
        place = quote(entry.folder)
        name = f'<a href="{place}/report.html">{name}</a>'
        picture = f'<img src="{place}/phase.png" alt="phase" loading="lazy">'
    told = "".join(f"<p>{escape(line)}</p>" for line in (entry.text(), *entry.notes))
    file = f'<p class="soft">{escape(entry.file)}</p>'
    return f"<tr><td>{picture}</td><td>{name}{file}</td><td>{told}</td></tr>"
