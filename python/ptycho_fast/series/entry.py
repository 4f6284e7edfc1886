"""What became of one scan of a series, and the record of it in the folder of its image."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ptycho_fast._core import __version__
from ptycho_fast.atomic import replacing
from ptycho_fast.reconstruction.resolution import length_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ptycho_fast.reconstruction import Reconstruction

RECORD = "made_from.json"
"""In the folder of each image: its file, the options, and what came of it."""

FORMAT = 1

WAITING, DONE, FAILED = "waiting", "done", "failed"


@dataclass(frozen=True)
class SeriesEntry:
    """What became of one scan of a series.

    Parameters
    ----------
    file : str
        The scan file.
    folder : str
        The folder of its image, below that of the series.
    status : {"waiting", "done", "failed"}
        A scan waits until it is done or has failed.
    patterns, N, width, height : int, optional
        Number of patterns, their side in pixels, and the size of the object in pixels.
    deviance : float, optional
        Poisson deviance, divided by what noise alone would give.
    resolution_px, resolution_nm : float, optional
        Half-bit resolution in pixels of the object; in nanometres, if the file says how large a
        pixel is. Infinite if the two halves of the counts do not agree.
    seconds : float, optional
        From opening the file until the image was written.
    notes : tuple of str
        What was odd, or had to be assumed: one sentence each.
    error : str
        Why it failed.
    kept : bool
        Whether it was done before, from the same file with the same options, so that there was
        nothing to do.

    Examples
    --------
    >>> from ptycho_fast.series import SeriesEntry
    >>> entry = SeriesEntry("scan.h5", "scan", "done", width=96, height=88, deviance=1.017)
    >>> entry.text()
    '96 x 88 pixels, deviance 1.017'
    """

    file: str
    folder: str
    status: str = WAITING
    patterns: int | None = None
    N: int | None = None
    width: int | None = None
    height: int | None = None
    deviance: float | None = None
    resolution_px: float | None = None
    resolution_nm: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str = ""
    kept: bool = False

    def text(self) -> str:
        """Return its image in a few words, or why there is none."""
        if self.status == FAILED:
            return f"failed: {self.error}"
        if self.status != DONE:
            return self.status
        parts = [f"{self.width} x {self.height} pixels", f"deviance {self.deviance:.4g}"]
        return ", ".join(parts + ([f"resolution {told}"] if (told := self.resolution()) else []))

    def resolution(self) -> str:
        """Return its resolution with the units; an empty text if it is not known."""
        if self.resolution_px is None:
            return ""
        if math.isinf(self.resolution_px):
            return "none"
        metres = self.resolution_nm
        length = "" if metres is None else f" = {length_text(metres * 1e-9)}"
        number = f"{self.resolution_px:.3g}"
        return f"{number} pixel{'s' * (number != '1')}{length}"

    def done(self, made: Reconstruction, notes: tuple[str, ...], seconds: float) -> SeriesEntry:
        """Return this entry with an image."""
        height, width = made.object.shape
        pixels = metres = None
        if made.resolution is not None:
            pixels, metres = made.resolution.pixels(), made.resolution.metres()
        return replace(
            self,
            status=DONE,
            patterns=len(made.positions),
            N=made.probe.shape[-1],
            width=width,
            height=height,
            deviance=float(made.deviance),
            resolution_px=pixels,
            resolution_nm=None if metres is None else metres * 1e9,
            seconds=seconds,
            notes=notes,
        )

    def failed(self, error: str, seconds: float | None = None) -> SeriesEntry:
        """Return this entry with the reason why there is no image."""
        return replace(self, status=FAILED, error=error, seconds=seconds)


@dataclass(frozen=True)
class Source:
    """What an image is made from: another file or another option would make another image.

    Parameters
    ----------
    file : str
        The scan file, an absolute path.
    files : mapping of str to [int, int]
        Size in bytes and time of modification in nanoseconds of the scan file, and of those that
        the options name. Files that the scan file itself refers to are not among them.
    read, options : mapping of str to Any
        Arguments of `read_scan` and of `reconstruct` that are not the defaults.
    """

    file: str
    files: Mapping[str, list[int]]
    read: Mapping[str, Any]
    options: Mapping[str, Any]


def write_record(folder: Path, source: Source, entry: SeriesEntry) -> None:
    """Write the record of a scan into the folder of its image."""
    held = {
        "format": FORMAT,
        "ptycho_fast": __version__,
        "source": asdict(source),
        "entry": asdict(entry),
    }
    with replacing(folder / RECORD) as file:
        file.write(json.dumps(held, indent=1).encode())


def read_record(folder: Path) -> tuple[Source, SeriesEntry] | None:
    """Return the record of a scan; None if there is none, or another version has written it."""
    try:
        held = json.loads((folder / RECORD).read_bytes())
        if held["format"] != FORMAT:
            return None
        entry = SeriesEntry(**held["entry"])
        # The folder may have got another name.
        entry = replace(entry, folder=folder.name, notes=tuple(entry.notes))
        return Source(**held["source"]), entry
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_records(series: Path) -> Iterator[tuple[Source, SeriesEntry]]:
    """Return the records of all scans of a series."""
    for folder in sorted(path for path in series.iterdir() if path.is_dir()):
        if (found := read_record(folder)) is not None:
            yield found
