"""Draw docs/rules_*.png, one picture a rule on three scans: ``python docs/rules.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

import ptycho_fast as pf

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Annulus, Circle, Rectangle

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SCANS = {
    "Siemens star, APS": "siemens_star_aps_n128.npz",
    "gold balls, ALS": "goldballs_als_simdiff_n104.npz",
    "run 1084, LCLS XPP": "run1084_xpp_simdiff_n64.npz",
}
SEED, ROUNDS = 1, 3
MEMBERS, GEOMETRY = "tab:orange", "tab:blue"


def rows_of_the_middle(groups: pf.Groups) -> np.ndarray:
    """Return the groups of the centre in the middle of the scan."""
    middle = np.median(groups.positions, axis=0)
    apart = np.square(groups.positions[groups.centers] - middle).sum(axis=1)
    return np.flatnonzero(groups.centers == groups.centers[apart.argmin()])


def draw_group(axes: plt.Axes, groups: pf.Groups, row: int, reach: float) -> np.ndarray:
    """Draw positions, a centre and its group, numbered by channel; return the centre."""
    axes.plot(*groups.positions.T, "o", color="0.7", ms=3, label="scan positions")
    members = groups.positions[groups.indices[row]]
    x, y = center = groups.positions[groups.centers[row]]
    outline = members[np.argsort(np.arctan2(*(members - members.mean(axis=0)).T))]
    axes.fill(*outline.T, color=MEMBERS, alpha=0.2, lw=0)
    axes.plot(*members.T, "o", color=MEMBERS, ms=7, label="members, with their channel")
    axes.plot(x, y, "*", color="black", ms=11, label="centre")
    halo = {"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.7, "lw": 0}
    for channel, member in enumerate(members):
        axes.annotate(
            str(channel), member, (6, 5), textcoords="offset points", weight="bold", bbox=halo
        )
    # y points down, as in an object's rows.
    axes.set(aspect="equal", xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))
    return center


def picture(
    name: str, draw: Callable[[np.ndarray, pf.Scan, float], pf.Groups], rows: int = 1
) -> None:
    """Draw a rule on each of the scans, a column each."""
    size = (13, 4.2 * rows + 0.9)
    figure, panels = plt.subplots(rows, 3, figsize=size, layout="constrained", squeeze=False)
    for column, (title, file) in zip(panels.T, SCANS.items(), strict=True):
        scan = pf.read_scan(DATA / file, load=False)
        near = pf.ScanIndex(scan.positions).neighbors(1)[:, 0]
        spacing = np.median(np.linalg.norm(scan.positions - scan.positions[near], axis=1))
        groups = draw(column, scan, float(spacing))
        left_out = sum(groups.left_out.values())
        counted = f"{len(groups)} groups" + (f", {left_out} centres left out" if left_out else "")
        column[0].set_title(f"{title}\n{counted}", size=11)
        column[-1].set_xlabel("x (pixels)")
    for axes in panels[:, 0]:
        axes.set_ylabel("y (pixels)")
    entries = {}
    for axes in panels[:, 0]:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(), entries, loc="outside lower center", ncols=len(entries), frameon=False
    )
    figure.savefig(HERE / f"rules_{name}.png", dpi=80)


def nearest(column: np.ndarray, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Four of the seven nearest neighbours."""
    groups = pf.group_positions(scan.positions, gridsize=2, n_neighbors=7, seed=SEED)
    (axes,), row = column, rows_of_the_middle(groups)[0]
    index = pf.ScanIndex(scan.positions)
    slots = scan.positions[index.neighbors(7, centers=groups.centers[[row]])[0]]
    reach = 2 * np.abs(slots - scan.positions[groups.centers[row]]).max()
    draw_group(axes, groups, row, reach)
    axes.plot(*slots.T, "o", color=GEOMETRY, fillstyle="none", ms=13, label="its K = 7 slots")
    return groups


def distances(column: np.ndarray, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Only neighbours in a ring."""
    least, most = 2 * spacing, 4 * spacing
    groups = pf.group_positions(
        scan.positions, n_neighbors=30, min_distance=least, max_distance=most, seed=SEED
    )
    (axes,) = column
    center = draw_group(axes, groups, rows_of_the_middle(groups)[0], 1.25 * most)
    ring = Annulus(
        tuple(center), most, most - least, color=GEOMETRY, alpha=0.12, lw=0, zorder=0,
        label="from min_distance to max_distance",
    )  # fmt: skip
    axes.add_patch(ring)
    return groups


def oversample(column: np.ndarray, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Draw the groups of a centre in the first rounds."""
    groups = pf.group_positions(
        scan.positions, ROUNDS * len(scan), n_neighbors=7, rule="oversample", seed=SEED
    )
    rows = rows_of_the_middle(groups)
    apart = scan.positions[groups.indices[rows]] - scan.positions[groups.centers[rows[0]]]
    for number, (axes, row) in enumerate(zip(column, rows, strict=True), start=1):
        draw_group(axes, groups, row, 1.8 * np.abs(apart).max())
        axes.text(0.03, 0.95, f"round {number}", transform=axes.transAxes, va="top", size=12)
    return groups


def quadrant(column: np.ndarray, scan: pf.Scan, spacing: float) -> pf.Groups:
    """One member from each quadrant."""
    reach = 4 * spacing
    groups = pf.group_positions(
        scan.positions, n_neighbors=4, rule="quadrant", max_distance=reach, seed=SEED
    )
    (axes,) = column
    x, y = center = draw_group(axes, groups, rows_of_the_middle(groups)[0], 1.3 * reach)
    axes.axhline(y, color=GEOMETRY, lw=1, zorder=0)
    axes.axvline(x, color=GEOMETRY, lw=1, zorder=0)
    axes.add_patch(Circle(center, reach, fill=False, color=GEOMETRY, ls="--", label="max_distance"))
    for channel, (right, down) in enumerate([(0, 1), (1, 1), (0, 0), (1, 0)]):
        text = f"{channel}: dx{'<>'[right]}0, dy{'<>'[down]}0"
        place = (0.02 + 0.96 * right, 0.98 - 0.96 * down)
        axes.text(
            *place, text, transform=axes.transAxes, color=GEOMETRY, size=9,
            ha=("left", "right")[right], va=("top", "bottom")[down],
        )  # fmt: skip
    return groups


def overlap(column: np.ndarray, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Eight members grown from the centre, and how many of their windows cover each place."""
    groups = pf.group_positions(
        scan.positions, group_size=8, rule="overlap", N=scan.N, n_neighbors=30, seed=SEED
    )
    (near, far), row = column, rows_of_the_middle(groups)[0]
    index = pf.ScanIndex(scan.positions)
    slots = scan.positions[index.neighbors(30, centers=groups.centers[[row]])[0]]
    x, y = scan.positions[groups.centers[row]]
    draw_group(near, groups, row, 1.25 * np.abs(slots - (x, y)).max())
    near.plot(*slots.T, "o", color=GEOMETRY, fillstyle="none", ms=11, label="its K = 30 slots")

    members = scan.positions[groups.indices[row]]
    shared = np.maximum(0, scan.N - np.abs(members[:, np.newaxis] - members)).prod(axis=2)
    least = shared.min() / scan.N**2
    corners = members - scan.N // 2 - 0.5
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0) + scan.N
    across, down = np.linspace(left, right, 600), np.linspace(top, bottom, 600)
    inside = [
        ((across >= a) & (across < a + scan.N)) & ((down >= b) & (down < b + scan.N))[:, np.newaxis]
        for a, b in corners
    ]
    image = far.imshow(
        np.sum(inside, axis=0),
        extent=(left, right, bottom, top),
        cmap=plt.get_cmap("Blues", 9),
        vmin=-0.5,
        vmax=8.5,
    )
    if far.get_subplotspec().is_last_col():
        lower = [axes for axes in far.figure.axes if axes.get_subplotspec().is_last_row()]
        far.figure.colorbar(image, ax=lower, label="windows that cover a place", ticks=range(9))
    for corner in corners:
        far.add_patch(Rectangle(tuple(corner), scan.N, scan.N, fill=False, color="0.3", lw=0.6))
    far.plot(*members.T, "o", color=MEMBERS, ms=3)
    far.set_title(f"N = {scan.N}: any two windows share {least:.0%} or more", size=10)
    return groups


for rule, rows in ((nearest, 1), (distances, 1), (oversample, ROUNDS), (quadrant, 1), (overlap, 2)):
    picture(rule.__name__, rule, rows)
