"""Follow a scan while it is measured: pictures of what has arrived, and the image at the end."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ptycho_fast.io.examination import loaded, warn_of_oddities, without_dark
from ptycho_fast.live.imaging import LiveImage
from ptycho_fast.live.joining import Joined
from ptycho_fast.live.opening import open_source
from ptycho_fast.live.source import ScanSource
from ptycho_fast.notices import warn
from ptycho_fast.reconstruction import Reconstruction, reconstruct

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from ptycho_fast.scan import Scan

PATIENCE = 60.0
"""Seconds without news after which a scan is taken to have ended."""

PAUSE = 0.05
"""Seconds until a source that had nothing new is asked again."""

TELL = 5.0
"""Seconds after which users are told what is late, or half of their patience if that is less."""

STOPPED = "Interrupted: this is the image as it was then."


@dataclass(frozen=True, eq=False)
class Update:
    """A picture of a scan that is being followed.

    Parameters
    ----------
    image : Reconstruction
        The image of what has arrived. Its notes say what was odd.
    n : int
        Number of frames that have arrived together with their positions.
    frames : int
        Number of frames that have arrived.
    final : bool
        Whether this is the last picture: the scan has ended, and `image` is what
        `ptycho_fast.reconstruct` makes of it.
    stored : bool
        Whether the scan was read once more from its finished file. If not, what has arrived may
        exist nowhere else; ``ptycho_fast.write_scan(update.scan, path)`` keeps it.
    read : callable
        Returns the scan.
    """

    image: Reconstruction
    n: int
    frames: int
    final: bool
    stored: bool
    read: Callable[[], Scan]

    @cached_property
    def scan(self) -> Scan:
        """The scan so far, in memory, for whatever takes a scan."""
        return self.read()

    def __repr__(self) -> str:
        kind = "final" if self.final else "so far"
        return f"Update({kind}: {self.n} positions, {self.image!r})"


def follow(
    source: str | os.PathLike[str] | ScanSource,
    *,
    patience: float = PATIENCE,
    final: Mapping[str, Any] | None = None,
    **reading: Any,
) -> Iterator[Update]:
    """Follow a scan while it is measured.

    Frames and positions are read as they arrive and joined by their numbers. After each batch of
    them there is a picture of all that has arrived. When the scan has ended, it is reconstructed
    as if it had been read from its finished file.

    Parameters
    ----------
    source : path, str or ScanSource
        What is followed:

        - an HDF5 file that is being written, in SWMR mode or in one that is closed from time to
          time;
        - a folder that fills with files, each with one frame or some of them, whose names are
          numbered;
        - ``tcp://HOST:PORT``, from which ZMQ messages come (`ptycho_fast.live.zmq` has their form);
        - any other source (`ptycho_fast.live.ScanSource`).
    patience : float
        Seconds to wait for the next frame or position, before the scan is taken to have ended.
    final : mapping, optional
        Arguments of `ptycho_fast.reconstruct` for the image at the end. Its `device`,
        `num_threads` and `probe_diameter` hold for the pictures before, too.
    **reading
        Arguments of `ptycho_fast.read_scan` that say what the file holds. `unit` and `counts` must
        be given, and the names of the arrays: `diffraction`, `x` and `y`. With `first`, the scan
        ends when so many frames and positions are there. `index` numbers the frame of each
        position.

    Yields
    ------
    Update
        After each batch of frames that came with their positions; the last one is `Update.final`.
        If interrupted (Ctrl-C), the last one has the image so far, with a note that says so.

    Raises
    ------
    OSError
        If nothing to be imaged arrived within `patience`.
    ValueError
        If an argument is wrong, or what arrives does not fit together.
    KeyError
        If the file has no array of a name.
    KeyboardInterrupt
        If interrupted before there was any image.

    Warns
    -----
    UserWarning
        If something is late for more than a few seconds: the sentence says what.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for number in range(0, 100, 50):
    ...     np.save(folder / f"frames_{number // 50}.npy", scan.diffraction[number : number + 50])
    >>> np.savetxt(folder / "positions.csv", scan.positions, delimiter=",")
    >>> positions = f"{folder / 'positions.csv'}"
    >>> for update in pf.follow(
    ...     folder, x=f"{positions}:0", y=f"{positions}:1", unit="px", counts=False, first=100
    ... ):
    ...     print(update.n, update.final)
    100 False
    100 True
    """
    if not (isinstance(patience, int | float) and 0 < patience < math.inf):
        msg = f"patience must be a positive number of seconds, got {patience!r}."
        raise ValueError(msg)
    if isinstance(source, ScanSource):
        if reading:
            msg = f"{source.name} says itself what it holds; leave out {', '.join(reading)}."
            raise ValueError(msg)
    else:
        source = open_source(source, **reading)
    for name, way in (("intensity", "counts=True or counts=False"), ("unit", "unit=")):
        if getattr(source.recipe, name) is None:
            source.close()
            msg = f"{source.name}: pass {way}, which says what its numbers mean. It isn't guessed."
            raise ValueError(msg)
    return _Course(source, patience, dict(final or {})).updates()


class _Course:
    """The course of following one source."""

    def __init__(self, source: ScanSource, patience: float, final: dict[str, Any]) -> None:
        self._source, self._patience, self._final = source, patience, final
        names = ("device", "num_threads", "probe_diameter")
        self._live = LiveImage(**{name: final[name] for name in names if name in final})
        self._joined = Joined(source.recipe, source.name)
        self._image: Reconstruction | None = None
        self._told: set[str] = set()
        self._late, self._late_since = "", time.monotonic()

    def updates(self) -> Iterator[Update]:
        try:
            yield from self._until_the_end()
        except KeyboardInterrupt:
            if self._image is None:
                raise
            yield self._update(self._noted(self._image, [STOPPED]), final=True)
        finally:
            self._source.close()

    def _until_the_end(self) -> Iterator[Update]:
        last = time.monotonic()
        while True:
            news = self._source.poll()
            came = self._joined.add(news)
            made = None
            if len(self._joined):
                made = self._live.add(self._joined.scan(), self._joined.numbers)
            if made is not None:
                self._image = made
                yield self._update(made, final=False)
            if came or made is not None:
                last = time.monotonic()
                continue
            if news.ended:
                yield self._finished([news.ended])
                return
            waiting = time.monotonic() - last
            if waiting > self._patience:
                yield self._finished(self._given_up(waiting, news.waits_for))
                return
            self._tell(news.waits_for or self._joined.waits_for())
            time.sleep(PAUSE)

    def _tell(self, late: str) -> None:
        """Warn of what is late, once, if it has been for some time."""
        now = time.monotonic()
        if late != self._late:
            self._late, self._late_since = late, now
        elif late and late not in self._told and now - self._late_since > self._telling:
            self._told.add(late)
            warn(f"{self._source.name}: {late}")

    @property
    def _telling(self) -> float:
        return min(TELL, self._patience / 2)

    def _given_up(self, waited: float, waits_for: str) -> list[str]:
        said = f"Nothing new came for {waited:.3g} s, so the scan was taken to have ended."
        return [f"{said} {waits_for}".strip()]

    def _finished(self, notes: list[str]) -> Update:
        """Return the last update, of the whole scan."""
        joined = self._joined
        if not len(joined):
            told = [*notes, *(joined.gaps() if joined.frames else [])]
            msg = (
                f"Nothing that could be imaged came from {self._source.name}: {joined.frames} "
                f"frames, of which none has a position. {' '.join(told)}"
            )
            raise OSError(msg)
        try:
            scan = self._source.reread()
        except (OSError, KeyError, ValueError, MemoryError) as error:
            scan = None
            why = error.args[0] if isinstance(error, KeyError) and error.args else error
            notes.append(f"The image is that of what arrived, for the file can't be read: {why}")
        stored = scan is not None
        if scan is None:
            notes += joined.gaps()
            scan = self._arrived()
        try:
            made = reconstruct(scan, **self._final)
        except ValueError as error:
            if self._image is None:
                raise
            # Too little of the scan: what there is, is better than nothing.
            made, notes = self._image, [*notes, f"It could not be reconstructed anew: {error}"]
        whole = scan
        return Update(
            image=self._noted(made, notes),
            n=len(whole),
            frames=joined.frames,
            final=True,
            stored=stored,
            read=lambda: whole,
        )

    def _update(self, image: Reconstruction, *, final: bool) -> Update:
        held, n = self._joined.scan(), len(self._joined)
        return Update(image, n, self._joined.frames, final, False, lambda: loaded(held)[0])

    def _arrived(self) -> Scan:
        """Return the scan that has arrived, in memory."""
        scan, survey = loaded(self._joined.scan(quiet=False))
        recipe = self._source.recipe
        warn_of_oddities(self._source.name, scan, recipe, survey)
        return without_dark(scan, survey, self._source.name) if recipe.drop_dark else scan

    @staticmethod
    def _noted(image: Reconstruction, notes: list[str]) -> Reconstruction:
        return replace(image, notes=(*notes, *image.notes))
