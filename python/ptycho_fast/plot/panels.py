"""Panels that several pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.canvas import span
from ptycho_fast.illumination import illumination
from ptycho_fast.spacing import LEAST_OVERLAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from ptycho_fast.protocols import GroupsLike, ScanLike

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


def some_rows(groups: GroupsLike, most: int) -> NDArray[np.intp]:
    """Return the rows of the groups to draw, spread evenly over all groups."""
    return np.unique(np.linspace(0, len(groups) - 1, most).astype(np.intp))


def draw_object(axes: Axes, image: NDArray[np.complexfloating] | None) -> None:
    """Draw the phase of an object, if there is one."""
    if image is None:
        return
    height, width = image.shape
    step = max(1, max(height, width) // 2000)  # the panel has no more pixels than that
    axes.imshow(
        np.angle(image[::step, ::step]),
        cmap="gray",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def label(axes: Axes, title: str) -> None:
    """Name a panel and its axes, in pixels of the object."""
    axes.set(title=title, xlabel="x (pixels)", ylabel="y (pixels)", aspect="equal")


def draw_positions(
    axes: Axes,
    positions: NDArray[np.float64],
    N: int,
    image: NDArray[np.complexfloating] | None,
    groups: GroupsLike | None = None,
) -> None:
    """Draw positions on the object, with some groups; N is 0 where windows are not known."""
    x, y = positions.T
    left, right, bottom, top = span(positions, max(N, 1)).extent
    many = len(positions) > DOTS
    if many:
        _draw_density(axes, positions)
    else:
        draw_object(axes, image)
        # The denser the positions lie in the panel, the smaller the dots, so that the object shows.
        ground = np.ptp(positions, axis=0).max() / max(right - left, bottom - top)
        size = np.clip(25000 * ground**2 / len(positions), 0.5, 14)
        axes.scatter(x, y, s=size, color=POSITION_COLOR, linewidths=0, label="scan positions")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    if groups is not None:
        for row, color in zip(some_rows(groups, len(COLORS)), COLORS, strict=False):
            draw_group(axes, groups, row, color)
            draw_window(axes, positions[groups.centers[row]], N, color, "--")
        axes.plot([], [], "o-", color="0.35", mfc="0.35", ms=4, lw=1, label="members of a group")
        axes.plot([], [], "*", color="0.35", mec="black", mew=0.5, ms=9, label="its centre")
        if N:
            axes.plot([], [], "--", color="0.35", lw=1, label=f"{N} x {N} window of a centre")
    if groups is not None or not many:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    label(axes, "Scan on the phase of the object" if image is not None and not many else "Scan")


def _draw_density(axes: Axes, positions: NDArray[np.float64]) -> None:
    x, y = positions.T
    extent = max(float(np.ptp(x)), float(np.ptp(y)))
    # About 40 positions per cell, so that the map shows density and not counting noise.
    bins = int(np.clip(np.sqrt(len(positions) / 40), 16, 200))
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


def draw_light(axes: Axes, scan: ScanLike, groups: GroupsLike | None = None) -> None:
    """Draw the light of the whole scan on the object, or that of groups, with their outlines."""
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

    unit = "light, in units of the peak of one probe"
    axes.figure.colorbar(draw(axes), ax=axes, shrink=0.75, extend="max", label=unit)
    if groups is None:
        label(axes, "Light on the object")
        return
    label(axes, "Light that the groups shed on the object")
    left, right, bottom, top = light.extent
    if max(right - left, bottom - top) <= WIDE * scan.N:
        _draw_outlines(axes, axes, groups, some_rows(groups, OUTLINES))
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


def _draw_outlines(axes: Axes, beside: Axes, groups: GroupsLike, rows: NDArray[np.intp]) -> None:
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


def draw_overlaps(axes: Axes, fractions: NDArray[np.float64]) -> None:
    """Draw a histogram of `ptycho_fast.spacing.group_overlaps`."""
    overlaps = 100 * fractions
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


def draw_group(axes: Axes, groups: GroupsLike, row: int, color: str) -> None:
    """Join the members of a group to its centre."""
    members = groups.positions[groups.indices[row]]
    center = groups.positions[groups.centers[row]]
    for member in members:
        axes.plot(*np.stack([center, member]).T, "-", color=color, lw=1)
    axes.plot(*members.T, "o", color=color, ms=4)
    axes.plot(*center, "*", color=color, mec="black", mew=0.5, ms=9)


def draw_window(axes: Axes, position: NDArray[np.float64], N: int, color: str, style: str) -> None:
    """Draw the edge of the window of a position; none if N is 0."""
    if N:
        x, y = position - N // 2 - 0.5
        axes.plot([x, x + N, x + N, x, x], [y, y, y + N, y + N, y], style, color=color, lw=1)
