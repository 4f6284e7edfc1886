"""What a notebook shows of an object: its numbers, and small pictures, with NumPy alone."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.png import Picture, averaged, scaled, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ptycho_fast.protocols import ScanLike

SIDE = 80
"""Pixels per side of a picture, at most. Three of them take less than 30 kB in any case."""

WIDTH = 160
"""Pixels of the screen per side of a picture."""

SHOWN = 16
"""Patterns of a scan whose mean is shown, at most."""

LONGEST = 500
"""Letters of a text that are shown."""


def card(title: str, rows: Mapping[str, str], pictures: Mapping[str, Picture | None]) -> str:
    """Return numbers and small pictures as HTML.

    Parameters
    ----------
    title : str
    rows : mapping of str to str
        Name and value of each row of the table.
    pictures : mapping of str to Picture
        Each with its caption. Those that are None are left out.

    Returns
    -------
    str
        All texts are escaped.

    Examples
    --------
    >>> from ptycho_fast.cards import card
    >>> "<b>A &amp; B</b>" in card("A & B", {"positions": "7"}, {})
    True
    """
    table = "".join(
        f'<tr><td style="text-align:left">{_text(name)}</td>'
        f'<td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in rows.items()
    )
    drawn = "".join(
        _figure(caption, picture) for caption, picture in pictures.items() if picture is not None
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f"<div><b>{_text(title)}</b><table>{table}</table></div>{drawn}</div>"
    )


def _text(text: str) -> str:
    return escape(text if len(text) <= LONGEST else text[:LONGEST] + "…")


def _figure(caption: str, picture: Picture) -> str:
    width, height = picture.size
    larger = WIDTH / max(width, height)
    source = base64.b64encode(picture.png).decode()
    return (
        f'<figure style="margin:0;width:{WIDTH}px"><img alt="{_text(caption)}" '
        f'width="{width * larger:.0f}" height="{height * larger:.0f}" '
        f'style="image-rendering:pixelated" src="data:image/png;base64,{source}">'
        f'<figcaption style="font-size:smaller">{_text(caption)}</figcaption></figure>'
    )


def dots(
    positions: NDArray[np.float64], weights: NDArray[np.floating] | None = None
) -> Picture | None:
    """Draw where positions lie: the more in a pixel, or the larger their mean weight, the lighter.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        x, to the right, and y, downwards. Those that are not finite are left out.
    weights : ndarray, (n,), optional
        What the colours show instead of the number of positions.

    Returns
    -------
    Picture or None
        None if there are no positions.
    """
    finite = np.isfinite(positions).all(axis=1) & (np.abs(positions) < 1e150).all(axis=1)
    x, y = positions[finite].T
    if not len(x):
        return None
    step = max(float(np.ptp(x)), float(np.ptp(y)), 1e-300) / (SIDE - 1)
    column, row = (((axis - axis.min()) / step).astype(np.intp) for axis in (x, y))
    width, height = int(column.max()) + 1, int(row.max()) + 1
    place = row * width + column
    count = np.bincount(place, minlength=width * height).reshape(height, width)
    values = count.astype(np.float64)
    if weights is not None:
        total = np.bincount(place, weights[finite], width * height).reshape(height, width)
        values = total / np.maximum(count, 1)
    return small(np.where(count > 0, values, np.nan))


def small(values: NDArray[Any], colours: str = "perceptual") -> Picture | None:
    """Draw a map in few pixels; those that are not finite are transparent.

    Parameters
    ----------
    values : ndarray, (H, W), real
    colours : str
        One of `ptycho_fast.png.COLOURS`.

    Returns
    -------
    Picture or None
        None if there are no pixels.
    """
    if not values.size:
        return None
    with np.errstate(all="ignore"):
        values = averaged(np.asarray(values, np.float64), SIDE)
    seen = np.isfinite(values)
    return scaled(values, seen, colours, spread(values[seen]))


def scan_card(scan: ScanLike) -> str:
    """Return the card of a scan. Of patterns in a file, none is read."""
    patterns, in_file = scan.diffraction, isinstance(scan.diffraction, Frames)
    size = f"{scan.N} x {scan.N} {patterns.dtype}, {patterns.nbytes / 1e6:.3g} MB"
    rows = {"positions": str(len(scan)), "patterns": size + " in a file" * in_file}
    for name, array in (("probe", scan.probe), ("object", scan.object)):
        if array is not None:
            rows[name] = " x ".join(map(str, array.shape))
    if "object_pixel_m" in scan.metadata:
        rows["pixel of the object"] = f"{scan.metadata['object_pixel_m']} m"
    if scan.mask is not None:
        rows["bad pixels"] = f"{np.count_nonzero(~scan.mask)} in all patterns"
    pictures = {"positions": dots(scan.positions)}
    if not in_file and len(scan):
        few = np.unique(np.linspace(0, len(scan) - 1, SHOWN).astype(np.intp))
        pictures[f"mean of {len(few)} patterns, 4th root"] = _mean(scan, few)
    if scan.object is not None:
        pictures["object, phase"] = small(np.angle(averaged(scan.object, SIDE)), "grey")
    return card("Scan", rows, pictures)


def _mean(scan: ScanLike, rows: NDArray[np.intp]) -> Picture | None:
    """Draw the mean counts of some patterns, as a root that shows faint ones too."""
    patterns, good = scan.measured(rows)
    times: Any = len(rows)
    if good is not None:
        times = np.broadcast_to(good, patterns.shape).sum(axis=0)
    with np.errstate(all="ignore"):
        return small((np.square(patterns, dtype=np.float64).sum(axis=0) / times) ** 0.25)
