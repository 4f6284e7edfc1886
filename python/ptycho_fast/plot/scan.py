"""The picture of a scan: its positions on the object, the light, and the mean pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.patterns import mean_pattern
from ptycho_fast.plot.figure import new_figure
from ptycho_fast.plot.panels import draw_light, draw_positions, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ptycho_fast.protocols import ScanLike


def draw_scan(scan: ScanLike) -> Figure:
    """Draw what `ptycho_fast.Scan.plot` explains."""
    panels = 2 if scan.object is not None else 3
    figure = new_figure(dpi=120, figsize=(6.6 * panels, 7))
    axes = figure.subplots(1, panels)
    draw_positions(axes[0], scan.positions, scan.N, scan.object)
    draw_light(axes[1], scan)
    if scan.object is None:
        draw_mean_pattern(axes[2], scan)
    figure.suptitle(f"{len(scan)} positions, patterns of {scan.N} x {scan.N} pixels")
    return figure


def draw_mean_pattern(axes: Axes, scan: ScanLike) -> None:
    """Draw the mean of all patterns."""
    # Pixels that no pattern measured are NaN, which is drawn white.
    image = axes.imshow(np.log10(1 + np.sqrt(mean_pattern(scan))), cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="log10(1 + root of the mean count)")
    label(axes, "Mean diffraction pattern (the scan has no object)")
    axes.set(xlabel="detector x (pixels)", ylabel="detector y (pixels)")
