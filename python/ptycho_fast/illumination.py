"""How much light falls on each part of the object: a map of it, and the grid it is drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptycho_fast.canvas import span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.protocols import ScanLike

SIDE = 1024
"""Maps have at most about this many cells per side; on larger objects a cell is several pixels."""


class Map(NamedTuple):
    """A map of the object."""

    values: NDArray[np.float64]
    """(rows, columns)"""
    extent: tuple[float, float, float, float]
    """Left, right, bottom and top edge in pixels of the object, in matplotlib's order."""


def illumination(scan: ScanLike, times: NDArray[np.generic]) -> Map:
    """Map the light on the object.

    Parameters
    ----------
    scan : Scan
        The scan. Without a probe, windows of N x N pixels are taken as evenly lit.
    times : ndarray, (n,), real
        How often each position counts.

    Returns
    -------
    Map
        In units of the light that one position sheds where it is brightest.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.illumination import illumination
    >>> scan = pf.simulate_scan(n_positions=4, N=32, seed=0)
    >>> bool(illumination(scan, np.ones(4)).values.max() > 1)
    True
    """
    grid = ObjectGrid(scan)
    light = probe_intensity(scan)
    kernel = grid.kernel(np.ones((scan.N, scan.N)) if light is None else light)
    values = grid.spread(times, kernel / kernel.max())
    return Map(np.maximum(values, 0), grid.extent)


def probe_intensity(scan: ScanLike) -> NDArray[np.float64] | None:
    """Return the probe's intensity summed over its modes, (N, N).

    None where there is no probe, or where it is 0 or not finite.
    """
    if scan.probe is None:
        return None
    modes = np.asarray(scan.probe, np.complex128).reshape(-1, scan.N, scan.N)
    light: NDArray[np.float64] = (modes.real**2 + modes.imag**2).sum(axis=0)
    total = light.sum()
    return light if np.isfinite(total) and total > 0 else None


class ObjectGrid:
    """Cells that hold every window of a scan: pixels of the object, or several of them a side.

    Parameters
    ----------
    scan : Scan
        The scan. Its patterns are not read.
    """

    def __init__(self, scan: ScanLike) -> None:
        self.N = scan.N
        pixels = np.rint(scan.positions)
        # The cells begin where the canvas does.
        lowest = np.array(span(scan.positions, scan.N).origin, np.float64) + scan.N // 2
        # A cell may be so many pixels wide that only a float holds the number.
        self.step = max(1.0, float(np.ceil((pixels.max(axis=0) - lowest).max() / SIDE)))
        self.x, self.y = ((pixels - lowest) // self.step).astype(np.intp).T
        # The cell of each pixel of a window, counted from the window's first. The position lies in
        # the middle of its own cell, at pixel N // 2 of the window.
        away = np.floor((np.arange(self.N) - self.N // 2) / self.step + 0.5).astype(np.intp)
        self.cell = away - away[0]
        size = self.cell[-1] + 1
        self.shape = (int(self.y.max()) + size, int(self.x.max()) + size)
        left, top = lowest + away[0] * self.step - 0.5
        height, width = (length * self.step for length in self.shape)
        self.extent = (left, left + width, top + height, top)

    def kernel(self, window: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the sums of a window, (N, N), over its cells."""
        size = self.cell[-1] + 1
        cells = np.zeros((size, size))
        np.add.at(cells, np.ix_(self.cell, self.cell), window)
        return cells

    def spread(
        self, times: NDArray[np.generic], kernel: NDArray[np.generic]
    ) -> NDArray[np.float64]:
        """Return the sum of a kernel at every position, each as often as the position counts."""
        height, width = self.shape
        columns = width - len(kernel) + 1
        places = (height - len(kernel) + 1) * columns
        count = np.bincount(self.y * columns + self.x, times, places).reshape(-1, columns)
        # Fourier transforms are fastest for lengths with small factors alone.
        size = tuple(-(-length // 64) * 64 for length in self.shape)
        spectrum = np.fft.rfft2(count, size) * np.fft.rfft2(kernel, size)
        return np.fft.irfft2(spectrum, size)[:height, :width]
