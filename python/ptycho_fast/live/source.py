"""Where a scan that is still being measured comes from: what a source of it has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.io.recipe import Recipe
    from ptycho_fast.scan import Scan


def _none() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_numbers() -> NDArray[np.float64]:
    return np.empty(0, np.float64)


@dataclass(frozen=True, eq=False)
class News:
    """What has arrived since the source was last asked.

    Parameters
    ----------
    frames : ndarray, (k,), int64
        Numbers of frames, counted from 0, in any order.
    patterns : ndarray, (k, H, W), real, optional
        These frames as the detector recorded them.
    places : ndarray, (m,), int64
        Numbers of positions. A position belongs to the frame of the same number.
    x, y : ndarray, (m,), float64
        These positions, in the unit of the source's recipe.
    probe : ndarray, (N, N) or (modes, N, N), optional
        The probe, when it becomes known.
    mask : ndarray, (H, W), bool, optional
        True for good pixels, when it becomes known: with the first frames at the latest.
    waits_for : str
        A sentence about what is late, which users are told if it stays so; "" if nothing is.
    ended : str
        A sentence that says why nothing more will come; "" as long as something may.
    """

    frames: NDArray[np.int64] = field(default_factory=_none)
    patterns: NDArray[Any] | None = None
    places: NDArray[np.int64] = field(default_factory=_none)
    x: NDArray[np.float64] = field(default_factory=_no_numbers)
    y: NDArray[np.float64] = field(default_factory=_no_numbers)
    probe: NDArray[Any] | None = None
    mask: NDArray[np.bool_] | None = None
    waits_for: str = ""
    ended: str = ""


class ScanSource(ABC):
    """A scan that is still being measured. Another kind of source is one file with such a class.

    `ptycho_fast.follow` asks a source over and over what has arrived (`poll`). It joins frames and
    positions, makes the pictures, and gives up if nothing has come for long. So a source does
    three things only:

    - It hands over each frame and each position once, with its number. Numbers may come in any
      order, frames before positions or after them, and some never.
    - It never blocks. What is late or can't be read yet is named in `News.waits_for` and tried
      again the next time. An exception ends everything: raise one only for what waiting can't cure.
    - It says when the scan has ended (`News.ended`), if it knows, and keeps saying so.

    Attributes
    ----------
    name : str
        What users call the source, for messages.
    recipe : Recipe
        What the numbers mean (`ptycho_fast.io.recipe.as_recipe` makes it): `intensity` and `unit`
        must be set. The options `crop`, `centre`, `bin`, `fftshift`, `bad_value`, `swap_xy`,
        `flip_x`, `flip_y`, `energy_eV` and so on are applied to what arrives, not by the source.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.io.recipe import as_recipe
    >>> from ptycho_fast.live import News, ScanSource
    >>> class Replayed(ScanSource):
    ...     '''A scan in memory, 50 frames at a time.'''
    ...
    ...     name, recipe = "replayed", as_recipe(counts=False, unit="px")
    ...
    ...     def __init__(self, scan):
    ...         self.scan, self.sent = scan, 0
    ...
    ...     def poll(self):
    ...         rows = np.arange(self.sent, min(self.sent + 50, len(self.scan)))
    ...         self.sent += len(rows)
    ...         x, y = self.scan.positions[rows].T
    ...         return News(
    ...             rows, self.scan.diffraction[rows], rows, x, y,
    ...             probe=self.scan.probe, ended="" if len(rows) else "All has been replayed.",
    ...         )
    >>> scan = pf.simulate_scan(n_positions=100, N=16, seed=0)
    >>> [len(update.scan) for update in pf.follow(Replayed(scan))]
    [50, 100, 100]
    """

    name: str
    recipe: Recipe

    @abstractmethod
    def poll(self) -> News:
        """Return what has arrived since the last call, without waiting for more.

        Raises
        ------
        Exception
            If something is wrong that waiting can't cure, such as a wrong shape.
        """

    def reread(self) -> Scan | None:
        """Read the whole scan once more, from what it was written to; None if that can't be.

        It is called once, at the end. What was overwritten meanwhile is then right.

        Raises
        ------
        Exception
            As `ptycho_fast.read_scan`.
        """
        return None

    def close(self) -> None:  # noqa: B027  # most sources hold nothing open
        """Close what is open."""
