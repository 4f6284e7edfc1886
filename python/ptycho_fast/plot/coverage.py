"""The picture of a coverage: which part of the object groups see, and how much they overlap."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ptycho_fast.plot.figure import new_figure
from ptycho_fast.plot.panels import draw_overlaps, label

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ptycho_fast.illumination import Map


def draw_coverage(covered: Map | None, overlaps: NDArray[np.float64] | None, told: str) -> Figure:
    """Draw what `ptycho_fast.quality.Coverage.plot` explains."""
    panels = 1 + (covered is not None) + (overlaps is not None)
    figure = new_figure(dpi=120, figsize=(6.6 * panels, 6.6))
    grid = list(figure.subplots(1, panels, squeeze=False)[0])
    if covered is not None:
        axes = grid.pop(0)
        image = axes.imshow(
            covered.values,
            cmap="viridis",
            vmin=0,
            vmax=1,
            extent=covered.extent,
            interpolation="nearest",
        )
        axes.figure.colorbar(image, ax=axes, shrink=0.75, label="fraction that is covered")
        label(axes, "Illuminated object that the groups cover")
    if overlaps is not None:
        draw_overlaps(grid.pop(0), overlaps)
    axes = grid.pop()
    axes.axis("off")
    wrapped = "\n\n".join(
        textwrap.fill(line, 44, subsequent_indent=" " * 12, drop_whitespace=True)
        for line in told.splitlines()
    )
    axes.text(0, 0.95, wrapped, family="monospace", va="top", transform=axes.transAxes)
    return figure
