"""The picture of groups: how they lie on a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import check_groups
from ptycho_fast.plot.figure import new_figure
from ptycho_fast.plot.panels import (
    COLORS,
    POSITION_COLOR,
    draw_group,
    draw_light,
    draw_object,
    draw_overlaps,
    draw_positions,
    draw_window,
    label,
    some_rows,
)
from ptycho_fast.plot.scan import draw_mean_pattern
from ptycho_fast.spacing import group_overlaps

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ptycho_fast.protocols import GroupsLike, ScanLike


def draw_groups(groups: GroupsLike, scan: ScanLike | None) -> Figure:
    """Draw what `ptycho_fast.Groups.plot` explains."""
    figure = new_figure(dpi=120)
    check_groups(len(groups.positions) if scan is None else len(scan), groups)
    panels = _panels(groups, scan)
    rows = 1 if scan is None else 2
    columns = -(-len(panels) // rows)
    figure.set_size_inches(6.6 * columns, 6.6 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    title = f"{len(groups.positions)} positions"
    if scan is not None:
        title += f", patterns of {scan.N} x {scan.N} pixels"
    figure.suptitle(
        f"{title}\nB = {len(groups)} groups of C = {groups.group_size}, drawn from the "
        f"K = {groups.n_neighbors} nearest neighbours, seed {groups.seed}"
        + (f", epoch {groups.epoch}" if groups.epoch else "")
    )
    return figure


def _panels(groups: GroupsLike, scan: ScanLike | None) -> list[Callable[[Axes], None]]:
    """Return what draws each panel, in the order in which they are shown."""
    positions = groups.positions
    if scan is None:
        return [
            lambda axes: draw_positions(axes, positions, 0, None, groups),
            lambda axes: _close_up(axes, positions, 0, None, groups),
        ]
    panels: list[Callable[[Axes], None]] = [
        lambda axes: draw_positions(axes, positions, scan.N, scan.object, groups),
        lambda axes: _close_up(axes, positions, scan.N, scan.object, groups),
        lambda axes: draw_light(axes, scan, groups),
    ]
    if scan.object is None:
        panels.insert(2, lambda axes: draw_mean_pattern(axes, scan))
    if groups.group_size > 1:
        overlaps = group_overlaps(positions, groups.indices, scan.N)
        panels.append(lambda axes: draw_overlaps(axes, overlaps))
    return panels


def _close_up(
    axes: Axes,
    positions: NDArray[np.float64],
    N: int,
    image: NDArray[np.complexfloating] | None,
    groups: GroupsLike,
) -> None:
    row, color = some_rows(groups, len(COLORS))[0], COLORS[0]
    members, center = positions[groups.indices[row]], positions[groups.centers[row]]
    around = np.concatenate([members, center[np.newaxis]])
    beyond = 0.6 * N if N else max(float(np.ptp(around, axis=0).max()), 1.0)
    lowest, highest = around.min(axis=0) - beyond, around.max(axis=0) + beyond
    draw_object(axes, image)
    x, y = positions[((lowest <= positions) & (positions <= highest)).all(axis=1)].T
    axes.scatter(x, y, s=16, color=POSITION_COLOR, linewidths=0, label="scan positions")
    draw_group(axes, groups, row, color)
    for channel, member in enumerate(members):
        shade = COLORS[1:][channel % (len(COLORS) - 1)]
        draw_window(axes, member, N, shade, "-")
        axes.plot(*member, "o", color=shade, mec="black", mew=0.5, ms=6)
        outwards = 13 * (member - center) / max(float(np.linalg.norm(member - center)), 1e-9)
        axes.annotate(
            str(channel),
            member,
            # On these axes y points down, in points it points up.
            xytext=(outwards[0], -outwards[1]),
            textcoords="offset points",
            ha="center",
            va="center",
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": shade, "boxstyle": "round,pad=0.15"},
        )
    axes.set(xlim=(lowest[0], highest[0]), ylim=(highest[1], lowest[1]))
    axes.plot([], [], "o", color="0.5", mec="black", ms=6, label="members, with their channel")
    axes.plot([], [], "*", color=color, mec="black", mew=0.5, ms=10, label="the centre")
    if N:
        axes.plot([], [], "-", color="0.5", lw=1, label="window of each member")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    label(axes, f"Group {row}, around position {groups.centers[row]}")
