"""The picture of a scan: its object, its positions, and how groups cover them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.canvas import span
from ptycho_fast.illumination import illumination
from ptycho_fast.patterns import mean_pattern
from ptycho_fast.plot.figure import new_figure, write_png
from ptycho_fast.quality import (
    LEAST_OVERLAP,
    check_groups,
    coverage,
    group_overlaps,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from ptycho_fast.grouping import Groups
    from ptycho_fast.scan import Scan

COLORS = ("#e41a1c", "#ff9f1c", "#12b886", "#00a6ff", "#c44bff", "#ff5fa2")
"""One for each group shown. They stand out on grey, on white, and against each other."""

POSITION_COLOR = "#2f6fde"

DOTS = 5000
"""Above this number of positions, their density is drawn; single dots would merge."""

OUTLINES = 150
"""At most this many groups are outlined, spread evenly over all of them."""

OUTLINE_COLOR = "#7fd7ff"

WIDE = 30
"""On objects wider than this many windows, an outline would be as small as a dot."""


def plot_scan(scan: Scan, path: str | os.PathLike[str], groups: Groups | None = None) -> None:
    """Draw a scan to a PNG file: object, scan positions, and how groups cover them.

    The panels are:

    - the scan positions on the phase of the object, with six groups, each member joined to the
      centre of its group (above 5000 positions, a density map of the positions);
    - a close-up of one group, with the windows from which its patches are cut;
    - a map of the light that falls on the object in all groups, with the outlines of some;
    - a histogram of the overlap within groups.

    Without groups, only the first panel and a map of the light of the whole scan are drawn. For a
    scan without an object, the mean diffraction pattern is drawn too.

    Parameters
    ----------
    scan : Scan
        The scan to draw.
    path : path-like
        The PNG file. It appears whole or not at all.
    groups : Groups, optional
        Groups that were drawn from this scan.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file can't be written.
    ValueError
        If `groups` is empty, or was drawn from another number of positions.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.plot import plot_scan
    >>> scan = pf.simulate_scan(n_positions=50, N=32, seed=0)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "scan.png"
    >>> plot_scan(scan, path, pf.group_positions(scan.positions, seed=1))
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    figure = new_figure(dpi=120)
    if groups is not None:
        check_groups(scan, groups)
    panels = _panels(scan, groups)
    rows = 1 if groups is None else 2
    columns = -(-len(panels) // rows)
    figure.set_size_inches(6.6 * columns, 6.6 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.axis("off")
    title = f"{len(scan)} positions, patterns of {scan.N} x {scan.N} pixels"
    if groups is not None:
        title += (
            f"\nB = {len(groups)} groups of C = {groups.group_size}, drawn from the "
            f"K = {groups.n_neighbors} nearest neighbours, seed {groups.seed}"
            + (f", epoch {groups.epoch}" if groups.epoch else "")
        )
    figure.suptitle(title)
    write_png(figure, path)


def _panels(scan: Scan, groups: Groups | None) -> list[Callable[[Axes], None]]:
    """Return what draws each panel, in the order in which they are shown."""
    panels: list[Callable[[Axes], None]] = [lambda axes: _overview(axes, scan, groups)]
    if groups is None:
        panels.append(lambda axes: _light_map(axes, scan, None))
    else:
        panels += [
            lambda axes: _close_up(axes, scan, groups),
            lambda axes: _light_map(axes, scan, groups),
        ]
        panels.append(
            (lambda axes: _table(axes, scan, groups))
            if groups.group_size == 1
            else lambda axes: _overlap_histogram(axes, scan, groups)
        )
    if scan.object is None:
        panels.insert(2, lambda axes: _mean_pattern(axes, scan))
        if groups is not None and groups.group_size > 1:
            panels.append(lambda axes: _table(axes, scan, groups))
    return panels


def _shown(groups: Groups, most: int = len(COLORS)) -> NDArray[np.intp]:
    """Return the rows of the groups to draw, spread evenly over all groups."""
    return np.unique(np.linspace(0, len(groups) - 1, most).astype(np.intp))


def _draw_object(axes: Axes, scan: Scan) -> None:
    if scan.object is None:
        return
    height, width = scan.object.shape
    step = max(1, max(height, width) // 2000)  # the panel has no more pixels than that
    axes.imshow(
        np.angle(scan.object[::step, ::step]),
        cmap="gray",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def _label(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="x (pixels)", ylabel="y (pixels)", aspect="equal")


def _overview(axes: Axes, scan: Scan, groups: Groups | None) -> None:
    x, y = scan.positions.T
    left, right, bottom, top = span(scan.positions, scan.N).extent
    many = len(scan) > DOTS
    if many:
        _draw_density(axes, scan)
    else:
        _draw_object(axes, scan)
        # The denser the positions lie in the panel, the smaller the dots, so that the object shows.
        ground = np.ptp(scan.positions, axis=0).max() / max(right - left, bottom - top)
        size = np.clip(25000 * ground**2 / len(scan), 0.5, 14)
        axes.scatter(x, y, s=size, color=POSITION_COLOR, linewidths=0, label="scan positions")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    if groups is not None:
        for row, color in zip(_shown(groups), COLORS, strict=False):
            _draw_group(axes, groups, row, color)
            _draw_window(axes, groups.positions[groups.centers[row]], scan.N, color, "--")
        axes.plot([], [], "o-", color="0.35", mfc="0.35", ms=4, lw=1, label="members of a group")
        axes.plot([], [], "*", color="0.35", mec="black", mew=0.5, ms=9, label="its centre")
        axes.plot([], [], "--", color="0.35", lw=1, label=f"{scan.N} x {scan.N} window of a centre")
    if groups is not None or not many:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    on_object = scan.object is not None and not many
    _label(axes, "Scan on the phase of the object" if on_object else "Scan")


def _draw_density(axes: Axes, scan: Scan) -> None:
    x, y = scan.positions.T
    extent = max(float(np.ptp(x)), float(np.ptp(y)))
    # About 40 positions per cell, so that the map shows density and not counting noise.
    bins = int(np.clip(np.sqrt(len(scan) / 40), 16, 200))
    side = extent / bins
    columns, rows = (
        axis.min() + side * np.arange(max(1, np.ceil(np.ptp(axis) / side)) + 1) for axis in (x, y)
    )
    count = np.histogram2d(y, x, bins=(rows, columns))[0]
    image = axes.imshow(
        np.ma.masked_equal(count / side**2, 0),
        cmap="Blues",
        vmin=0,
        extent=(columns[0], columns[-1], rows[-1], rows[0]),
        interpolation="nearest",
    )
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="positions per square pixel")


def _light_map(axes: Axes, scan: Scan, groups: Groups | None) -> None:
    times = np.ones(len(scan))
    if groups is not None:
        times = np.bincount(groups.indices.ravel(), minlength=len(scan)).astype(np.float64)
    light = illumination(scan, times)

    def draw(axes: Axes) -> AxesImage:
        return axes.imshow(
            light.values,
            cmap="inferno",
            vmin=0,
            # A single bright spot must not darken the rest.
            vmax=np.percentile(light.values, 99.5) or None,
            extent=light.extent,
            interpolation="nearest",
        )

    label = "light, in units of the peak of one probe"
    axes.figure.colorbar(draw(axes), ax=axes, shrink=0.75, extend="max", label=label)
    if groups is None:
        _label(axes, "Light on the object")
        return
    _label(axes, "Light that the groups shed on the object")
    left, right, bottom, top = light.extent
    if max(right - left, bottom - top) <= WIDE * scan.N:
        _draw_outlines(axes, axes, groups, _shown(groups, OUTLINES))
        return
    # Here groups are as small as dots. An inset enlarges those around the middle.
    centers = groups.positions[groups.centers]
    middle = centers[np.abs(centers - np.array([left + right, bottom + top]) / 2).sum(1).argmin()]
    half = WIDE * scan.N / 8
    inset = axes.inset_axes((0.52, 0.52, 0.46, 0.46))
    draw(inset)
    near = np.flatnonzero((np.abs(centers - middle) <= half).all(axis=1))
    _draw_outlines(inset, axes, groups, near[:: -(-len(near) // OUTLINES)])
    inset.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half))
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color="white", linewidth=2)
    axes.indicate_inset_zoom(inset, edgecolor="white", alpha=1)


def _draw_outlines(axes: Axes, beside: Axes, groups: Groups, rows: NDArray[np.intp]) -> None:
    """Outline groups on some axes, and say in a legend under others how many they are."""
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    members = groups.positions[groups.indices[rows]]
    around = members - members.mean(axis=1, keepdims=True)
    # Ordered by their direction from the mean, so that the lines do not cross.
    order = np.argsort(np.arctan2(around[..., 1], around[..., 0]), axis=1)
    order = np.concatenate([order, order[:, :1]], axis=1)
    outlines = np.take_along_axis(members, order[..., np.newaxis], axis=1)
    axes.add_collection(LineCollection(list(outlines), colors=OUTLINE_COLOR, linewidths=0.8))
    which = "all groups" if len(rows) == len(groups) else f"{len(rows)} of {len(groups)} groups"
    beside.plot([], [], color=OUTLINE_COLOR, label=f"outlines of {which}")
    beside.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)


def _overlap_histogram(axes: Axes, scan: Scan, groups: Groups) -> None:
    overlaps = 100 * group_overlaps(scan.positions, groups.indices, scan.N)
    axes.hist(overlaps, bins=50, range=(0, 100), color=POSITION_COLOR)
    typical = f"median {np.median(overlaps):.1f} %, least {overlaps.min():.1f} %"
    axes.axvline(float(np.median(overlaps)), color="black", label=typical)
    least = f"{LEAST_OVERLAP:.0%}, the least by default in the rule 'overlap'"
    axes.axvline(100 * LEAST_OVERLAP, color=COLORS[0], ls="--", label=least)
    axes.set(
        title="Overlap of the two members of a group that share least",
        xlabel="% of a window",
        ylabel="groups",
        xlim=(0, 100),
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)


def _table(axes: Axes, scan: Scan, groups: Groups) -> None:
    axes.axis("off")
    lines = str(coverage(scan, groups)).splitlines()
    wrapped = "\n\n".join(
        textwrap.fill(line, 44, subsequent_indent=" " * 12, drop_whitespace=True) for line in lines
    )
    axes.text(0, 0.95, wrapped, family="monospace", va="top", transform=axes.transAxes)


def _close_up(axes: Axes, scan: Scan, groups: Groups) -> None:
    row, color = _shown(groups)[0], COLORS[0]
    members = groups.positions[groups.indices[row]]
    center = groups.positions[groups.centers[row]]
    around = np.concatenate([members, center[np.newaxis]])
    lowest, highest = around.min(axis=0) - 0.6 * scan.N, around.max(axis=0) + 0.6 * scan.N
    _draw_object(axes, scan)
    x, y = scan.positions[((lowest <= scan.positions) & (scan.positions <= highest)).all(axis=1)].T
    axes.scatter(x, y, s=16, color=POSITION_COLOR, linewidths=0, label="scan positions")
    _draw_group(axes, groups, row, color)
    for channel, member in enumerate(members):
        shade = COLORS[1:][channel % (len(COLORS) - 1)]
        _draw_window(axes, member, scan.N, shade, "-")
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
    axes.plot([], [], "-", color="0.5", lw=1, label="window of each member")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    _label(axes, f"Group {row}, around position {groups.centers[row]}")


def _draw_group(axes: Axes, groups: Groups, row: int, color: str) -> None:
    members = groups.positions[groups.indices[row]]
    center = groups.positions[groups.centers[row]]
    for member in members:
        axes.plot(*np.stack([center, member]).T, "-", color=color, lw=1)
    axes.plot(*members.T, "o", color=color, ms=4)
    axes.plot(*center, "*", color=color, mec="black", mew=0.5, ms=9)


def _draw_window(axes: Axes, position: NDArray[np.float64], N: int, color: str, style: str) -> None:
    x, y = position - N // 2 - 0.5
    axes.plot([x, x + N, x + N, x, x], [y, y, y + N, y + N, y], style, color=color, lw=1)


def _mean_pattern(axes: Axes, scan: Scan) -> None:
    # Pixels that no pattern measured are NaN, which is drawn white.
    image = axes.imshow(np.log10(1 + np.sqrt(mean_pattern(scan))), cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="log10(1 + root of the mean count)")
    _label(axes, "Mean diffraction pattern (the scan has no object)")
    axes.set(xlabel="detector x (pixels)", ylabel="detector y (pixels)")
