"""The report of a reconstruction: one HTML page with everything in it."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from ptycho_fast._core import __version__
from ptycho_fast.png import colour_table
from ptycho_fast.reconstruction.resolution import length_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ptycho_fast.png import Picture
    from ptycho_fast.reconstruction.charts import Chart

PAGE_STYLE = """
:root{
color-scheme:light dark;--ink:#1c1c1c;--soft:#666;--paper:#fff;--panel:#f4f4f2;--rule:#ddd}
@media (prefers-color-scheme:dark){:root{
--ink:#e6e6e6;--soft:#9a9a9a;--paper:#151515;--panel:#202020;--rule:#383838}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:68rem;background:var(--paper);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.4rem;line-height:1.3;margin:0 0 .3rem}p{margin:.3rem 0}
h2{font-size:1.05rem;margin:2rem 0 .6rem}
.soft{color:var(--soft);font-size:.9rem;margin:.2rem 0}
.figures,.charts{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(15rem,100%),1fr))}
.charts{grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr))}
figure{margin:0;padding:.8rem;background:var(--panel);border-radius:.4rem}
figure img{display:block;width:100%;image-rendering:pixelated}
figure svg{display:block;width:100%;height:auto}
figcaption{font-size:.9rem}
.scale{display:flex;align-items:center;gap:.5rem;margin:.5rem 0 .2rem;font-size:.85rem}
.scale i{flex:1;height:.7rem;border-radius:.15rem}
.bar{margin-top:.4rem;font-size:.85rem}.bar i{display:block;height:.2rem;background:var(--ink)}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;font-weight:400;padding:.35rem .8rem .35rem 0;vertical-align:top;
border-bottom:1px solid var(--rule)}
th{color:var(--soft);width:14rem}
ul{padding-left:1.2rem;margin:.3rem 0}
pre{background:var(--panel);padding:.8rem;border-radius:.4rem;font-size:.85rem;
white-space:pre-wrap;overflow-wrap:anywhere}
@media (max-width:34rem){th{width:9rem}}
"""


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Parameters
    ----------
    title : str
        What it shows.
    picture : Picture
    unit : str
        Of the colours' values.
    note : str
        A sentence below it.
    pixel_size : float, optional
        Side of a pixel in metres; with it there is a scale bar.
    """

    title: str
    picture: Picture
    unit: str = ""
    note: str = ""
    pixel_size: float | None = None


def page(
    *,
    title: str,
    figures: Sequence[Figure],
    charts: Sequence[Chart],
    numbers: Mapping[str, str],
    notes: Sequence[str],
    command: str = "",
    refresh: int | None = None,
) -> str:
    """Return the report as one HTML file, which needs no other.

    Parameters
    ----------
    title : str
        What the headline says of the reconstruction.
    figures : sequence of Figure
    charts : sequence of Chart
    numbers : mapping of str to str
        The rows of the table.
    notes : sequence of str
        Sentences.
    command : str
        What made the reconstruction; left out if empty.
    refresh : int, optional
        Seconds after which a browser loads the page again, while the image is still changing.

    Returns
    -------
    str

    Examples
    --------
    >>> from ptycho_fast.reconstruction.report import page
    >>> made = page(title="A & B", figures=[], charts=[], numbers={"mu": "20"}, notes=[])
    >>> "<p>A &amp; B</p>" in made
    True
    """
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        *([] if refresh is None else [f'<meta http-equiv="refresh" content="{refresh}">']),
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Reconstruction: {escape(title)}</title><style>{PAGE_STYLE}</style></head><body>",
        f"<h1>Reconstruction</h1><p>{escape(title)}</p>",
        f'<p class="soft">{now}, ptycho_fast {escape(__version__)}</p>',
    ]
    if notes:
        listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Notes</h2><ul>{listed}</ul>")
    if figures:
        drawn = "".join(map(_figure, figures))
        parts.append(f'<h2>Image</h2><div class="figures">{drawn}</div>')
    if charts:
        drawn = "".join(
            f"<figure>{chart.svg}<figcaption><b>{escape(chart.title)}</b> {escape(chart.note)}"
            "</figcaption></figure>"
            for chart in charts
        )
        parts.append(f'<h2>Quality</h2><div class="charts">{drawn}</div>')
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in numbers.items()
    )
    parts.append(f"<h2>Numbers</h2><table>{rows}</table>")
    if command:
        parts.append(f"<h2>Command</h2><pre>{escape(command)}</pre>")
    return "\n".join([*parts, "</body></html>\n"])


def _figure(figure: Figure) -> str:
    picture = figure.picture
    source = base64.b64encode(picture.png).decode()
    title = escape(figure.title)
    width, height = picture.size
    parts = [
        f'<figure><img alt="{title}" width="{width}" height="{height}" '
        f'style="aspect-ratio:{width}/{height};height:auto" src="data:image/png;base64,{source}">'
    ]
    if figure.pixel_size is not None:
        pixels, text = scale_bar(width, figure.pixel_size)
        parts.append(
            f'<div class="bar"><i style="width:{100 * pixels / width:.2f}%"></i>{text}</div>'
        )
    parts.append("<figcaption>")
    if picture.colours:
        stops = ",".join(
            "#" + bytes(colour).hex() for colour in colour_table(picture.colours)[::16]
        )
        unit = f" {figure.unit}" if figure.unit else ""
        low, high = (
            f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in (picture.low, picture.high)
        )
        parts.append(
            f'<div class="scale">{low}<i style="background:linear-gradient(to right,{stops})"></i>'
            f"{high}{escape(unit)}</div>"
        )
    parts.append(f"<b>{title}</b> {escape(figure.note)}</figcaption></figure>")
    return "".join(parts)


def scale_bar(width: int, pixel_size: float) -> tuple[float, str]:
    """Return the length of a scale bar in pixels, at most a third of the width, and its text.

    Examples
    --------
    >>> from ptycho_fast.reconstruction.report import scale_bar
    >>> scale_bar(100, 10e-9)
    (20.0, '200 nm')
    """
    most = width * pixel_size / 3 * (1 + 1e-9)  # so that rounding makes no bar shorter
    decade = 10.0 ** math.floor(math.log10(most))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= most)
    return round(length / pixel_size, 6), length_text(length)
