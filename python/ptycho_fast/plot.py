"""Pictures of a scan and its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.frames import Frames
from ptycho_fast.io.atomic import replacing

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ptycho_fast.grouping import Groups
    from ptycho_fast.scan import Scan

COLORS = ("#e41a1c", "#ff9f1c", "#12b886", "#00a6ff", "#c44bff", "#ff5fa2")
"""One a group shown: told apart on grey, on white, and on each other."""

POSITION_COLOR = "#2f6fde"


def plot_scan(scan: Scan, path: str | os.PathLike[str], groups: Groups | None = None) -> None:
    """Draw a scan to a PNG file: object, scan positions and some of the groups.

    The left panel shows the whole scan on the phase of the object, and six of the groups, each
    position joined to its group's centre. Beside it are a close-up of one group with the windows
    its patches are cut from, and, for a scan without an object, the mean diffraction pattern.

    Parameters
    ----------
    scan : Scan
        What to draw.
    path : path
        The PNG file. It appears whole or not at all.
    groups : Groups, optional
        Groups of this scan.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file can't be written.
    ValueError
        If the groups were drawn from another number of positions.

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
    try:
        # Not pyplot: that would pick a backend for the whole process.
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        msg = (
            f'Pictures need matplotlib ({error}). Install it with: pip install "ptycho_fast[plot]"'
        )
        raise ImportError(msg) from error
    if groups is not None and len(groups.positions) != len(scan):
        msg = (
            f"The groups were drawn from {len(groups.positions)} positions, but the scan has "
            f"{len(scan)}. Draw the groups of this scan."
        )
        raise ValueError(msg)

    n_panels = 1 + (groups is not None) + (scan.object is None)
    figure = Figure(figsize=(6.6 * n_panels, 7.0), dpi=120, layout="compressed")
    panels = list(figure.subplots(1, n_panels, squeeze=False)[0])
    title = f"{len(scan)} positions, patterns of {scan.N} x {scan.N} pixels"
    if groups is not None:
        title += (
            f"\nB = {len(groups)} groups of C = {groups.group_size}, drawn from the "
            f"K = {groups.n_neighbors} nearest neighbours, seed {groups.seed}"
            + (f", epoch {groups.epoch}" if groups.epoch else "")
        )
    figure.suptitle(title)

    _overview(panels.pop(0), scan, groups)
    if groups is not None:
        _close_up(panels.pop(0), scan, groups)
    if panels:
        _mean_pattern(panels.pop(), scan)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _shown(groups: Groups) -> NDArray[np.intp]:
    """Return the rows of the groups to draw: some, spread over all."""
    return np.unique(np.linspace(0, len(groups) - 1, len(COLORS)).astype(np.intp))


def _draw_object(axes: Axes, scan: Scan) -> None:
    if scan.object is None:
        return
    height, width = scan.object.shape
    step = max(1, max(height, width) // 2000)  # the picture has no more pixels than that
    axes.imshow(
        np.angle(scan.object[::step, ::step]),
        cmap="gray",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )


def _label(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="x (pixels)", ylabel="y (pixels)", aspect="equal")


def _overview(axes: Axes, scan: Scan, groups: Groups | None) -> None:
    _draw_object(axes, scan)
    x, y = scan.positions.T
    # Many dots are small dots, or they would hide what is under them.
    size = np.clip(8000 / len(scan), 0.3, 14)
    axes.scatter(x, y, s=size, color=POSITION_COLOR, linewidths=0, label="scan positions")
    half = scan.N // 2
    axes.set_xlim(min(x.min() - half, -0.5), x.max() + half)
    axes.set_ylim(y.max() + half, min(y.min() - half, -0.5))
    if scan.object is not None:
        axes.set(xlim=(-0.5, scan.object.shape[1] - 0.5), ylim=(scan.object.shape[0] - 0.5, -0.5))
    if groups is not None:
        for row, color in zip(_shown(groups), COLORS, strict=False):
            _draw_group(axes, groups, row, color)
            _draw_window(axes, groups.positions[groups.centers[row]], scan.N, color, "--")
        axes.plot([], [], "o-", color="0.35", mfc="0.35", ms=4, lw=1, label="members of a group")
        axes.plot([], [], "*", color="0.35", mec="black", mew=0.5, ms=9, label="its centre")
        axes.plot([], [], "--", color="0.35", lw=1, label=f"{scan.N} x {scan.N} window of a centre")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    _label(axes, "Scan" if scan.object is None else "Scan on the phase of the object")


def _close_up(axes: Axes, scan: Scan, groups: Groups) -> None:
    row, color = _shown(groups)[0], COLORS[0]
    members = groups.positions[groups.indices[row]]
    center = groups.positions[groups.centers[row]]
    around = np.concatenate([members, center[np.newaxis]])
    lowest, highest = around.min(axis=0) - 0.6 * scan.N, around.max(axis=0) + 0.6 * scan.N
    _draw_object(axes, scan)
    x, y = scan.positions.T
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
            xytext=(outwards[0], -outwards[1]),  # y points down in the picture, up in points
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
    if isinstance(scan.diffraction, Frames):
        total = np.zeros((scan.N, scan.N))
        for _, patterns in scan.diffraction.blocks():
            total += patterns.sum(axis=0, dtype=np.float64)
        mean = total / len(scan)
    else:
        mean = scan.diffraction.mean(axis=0, dtype=np.float64)
    image = axes.imshow(np.log10(1 + np.maximum(mean, 0)), cmap="viridis")
    axes.figure.colorbar(image, ax=axes, shrink=0.75, label="log10(1 + amplitude)")
    _label(axes, "Mean diffraction pattern (the scan has no object)")
    axes.set(xlabel="detector x (pixels)", ylabel="detector y (pixels)")
