"""Draw docs/rules_*.png, one picture a rule on three scans: ``python docs/rules.py``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

import ptycho_fast as pf

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Circle, Rectangle

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SCANS = {
    "Siemens star, APS": "siemens_star_aps_n128.npz",
    "gold balls, ALS": "goldballs_als_simdiff_n104.npz",
    "run 1084, LCLS XPP": "run1084_xpp_simdiff_n64.npz",
}
COLORS = ("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink")
SEED = 1


def draw_group(axes: plt.Axes, groups: pf.Groups, row: int, color: str, shrink: float) -> None:
    """Join the members of a group in the order of their angle, a little inwards."""
    members = groups.positions[groups.indices[row]]
    mean = members.mean(axis=0)
    loop = np.argsort(np.arctan2(*(members - mean).T))
    inwards = mean + shrink * (members - mean)
    axes.plot(*inwards[np.append(loop, loop[0])].T, "-", color=color, lw=1.5)
    axes.plot(*members.T, "o", color="tab:orange", ms=6)


def panel(axes: plt.Axes, scan: pf.Scan, groups: pf.Groups, *, shown: int = 1) -> np.ndarray:
    """Draw positions, a centre in the middle of the scan, and its first groups."""
    centers = groups.positions[groups.centers]
    middle = np.median(scan.positions, axis=0)
    center = groups.centers[np.square(centers - middle).sum(axis=1).argmin()]
    rows = np.flatnonzero(groups.centers == center)[:shown]
    x, y = scan.positions[center]
    axes.plot(*scan.positions.T, ".", color="0.6", ms=4, label="scan positions")
    for place, (row, color) in enumerate(zip(rows, COLORS, strict=False)):
        draw_group(axes, groups, row, color, 1 - 0.05 * place)
    if shown == 1:
        for channel, member in enumerate(groups.positions[groups.indices[rows[0]]]):
            axes.annotate(str(channel), member, (5, 4), textcoords="offset points", weight="bold")
    axes.plot([], [], "o-", color=COLORS[0], label="members, with their channel")
    axes.plot(x, y, "*", color="black", ms=12, label="centre")
    reach = 1.35 * np.abs(groups.positions[groups.indices[rows]] - (x, y)).max()
    view(axes, (x, y), reach)
    axes.set(aspect="equal", xlabel="x (pixels)")
    return np.array((x, y))


def view(axes: plt.Axes, center: tuple[float, float] | np.ndarray, reach: float) -> None:
    """Show what lies around a centre; y points down."""
    x, y = center
    axes.set(xlim=(x - reach, x + reach), ylim=(y + reach, y - reach))


def picture(name: str, draw: Callable[..., pf.Groups]) -> None:
    """Draw a rule on each of the scans."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.9), layout="constrained")
    for axes, (title, file) in zip(panels, SCANS.items(), strict=True):
        scan = pf.read_scan(DATA / file, load=False)
        near = pf.ScanIndex(scan.positions).neighbors(1)[:, 0]
        spacing = np.median(np.linalg.norm(scan.positions - scan.positions[near], axis=1))
        groups = draw(axes, scan, float(spacing))
        axes.set_title(f"{title}: {len(groups)} groups, {sum(groups.left_out.values())} left out")
    panels[0].set_ylabel("y (pixels)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(HERE / f"rules_{name}.png", dpi=80)


def nearest(axes: plt.Axes, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Four of the seven nearest neighbours."""
    groups = pf.group_positions(scan.positions, gridsize=2, n_neighbors=7, seed=SEED)
    center = panel(axes, scan, groups)
    index = np.flatnonzero((scan.positions == center).all(axis=1))[:1]
    slots = scan.positions[pf.ScanIndex(scan.positions).neighbors(7, centers=index)[0]]
    axes.plot(*slots.T, "o", color="tab:blue", fillstyle="none", ms=13, label="its K = 7 slots")
    return groups


def distances(axes: plt.Axes, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Only neighbours in a ring."""
    limits = {"min_distance": 2 * spacing, "max_distance": 4 * spacing}
    groups = pf.group_positions(scan.positions, gridsize=2, n_neighbors=30, seed=SEED, **limits)
    center = panel(axes, scan, groups)
    for name, radius in limits.items():
        style = "--" if name == "max_distance" else ":"
        axes.add_patch(Circle(center, radius, fill=False, color="tab:blue", ls=style, label=name))
    view(axes, center, 1.2 * limits["max_distance"])
    return groups


def oversample(axes: plt.Axes, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Six groups a centre, no two of one set."""
    groups = pf.group_positions(
        scan.positions, 6 * len(scan), gridsize=2, n_neighbors=7, rule="oversample", seed=SEED
    )
    panel(axes, scan, groups, shown=6)
    return groups


def quadrant(axes: plt.Axes, scan: pf.Scan, spacing: float) -> pf.Groups:
    """One member from each quadrant."""
    limit = 4 * spacing
    groups = pf.group_positions(
        scan.positions, gridsize=2, n_neighbors=4, rule="quadrant", max_distance=limit, seed=SEED
    )
    x, y = center = panel(axes, scan, groups)
    axes.axhline(y, color="tab:blue", lw=1)
    axes.axvline(x, color="tab:blue", lw=1)
    axes.add_patch(
        Circle(center, limit, fill=False, color="tab:blue", ls="--", label="max_distance")
    )
    view(axes, center, 1.2 * limit)
    return groups


def overlap(axes: plt.Axes, scan: pf.Scan, spacing: float) -> pf.Groups:
    """Eight members grown from the centre, and their windows."""
    groups = pf.group_positions(
        scan.positions, group_size=8, rule="overlap", N=scan.N, n_neighbors=30, seed=SEED
    )
    center = panel(axes, scan, groups)
    row = np.flatnonzero((groups.positions[groups.centers] == center).all(axis=1))[0]
    for x, y in groups.positions[groups.indices[row]] - scan.N // 2 - 0.5:
        axes.add_patch(Rectangle((x, y), scan.N, scan.N, fill=False, color="tab:blue", alpha=0.5))
    view(axes, center, 0.75 * scan.N)
    axes.plot([], [], color="tab:blue", alpha=0.5, label="N x N windows of the members")
    return groups


for rule in (nearest, distances, oversample, quadrant, overlap):
    picture(rule.__name__, rule)
