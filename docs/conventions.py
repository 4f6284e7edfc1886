"""Draw docs/conventions.png: ``python docs/conventions.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

import ptycho_fast as pf

mpl.use("Agg")
import matplotlib.pyplot as plt

N = 16
scan = pf.simulate_scan(n_positions=36, N=N, spacing=5, seed=4)
groups = pf.group_positions(scan.positions, gridsize=2, n_neighbors=7, seed=3)
group = 14
members = groups.positions[groups.indices[group]]
mean = groups.offsets[group, 0, :, 0]

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")

x, y = scan.positions[groups.centers[group]]
left.imshow(np.angle(scan.object), cmap="gray", alpha=0.8)
corner = (np.floor(x) - N // 2 - 0.5, np.floor(y) - N // 2 - 0.5)
left.add_patch(Rectangle(corner, N, N, fill=False, edgecolor="tab:orange", linewidth=2))
left.plot(*scan.positions.T, ".", color="tab:blue", markersize=4)
left.plot(x, y, "o", color="tab:orange")
left.annotate(
    f"position (x, y) = pixel [N//2, N//2]\nof its patch of N = {N} pixels",
    (x, y),
    (0.97, 0.03),
    textcoords="axes fraction",
    ha="right",
    va="bottom",
    arrowprops={"arrowstyle": "->", "color": "tab:orange"},
    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9},
)
left.set_title("object[row = y, column = x], in pixels")
left.set_xlabel("x (columns)")
left.set_ylabel("y (rows)")

span = 9
right.plot(*scan.positions.T, ".", color="tab:blue", label="scan positions")
right.plot(x, y, "s", color="black", fillstyle="none", markersize=11, label="centre")
right.plot(*members.T, "o", color="tab:orange", label="group: C = 4 of its K = 7 neighbours")
right.plot(*mean, "+", color="tab:red", markersize=14, mew=2, label="offset: the group's mean")
for channel, (member, relative) in enumerate(
    zip(members, groups.relative[group, 0].T, strict=True)
):
    arrow = FancyArrowPatch(
        member, member + relative, arrowstyle="->", mutation_scale=14, color="tab:green"
    )
    right.add_patch(arrow)
    right.annotate(f"c = {channel}", member, (6, 5), textcoords="offset points")
right.plot([], [], color="tab:green", label="relative = -(position - offset)")
right.set_xlim(mean[0] - span, mean[0] + span)
right.set_ylim(mean[1] + span, mean[1] - 2 * span)
right.set_aspect("equal")
right.legend(loc="upper center", fontsize=9, ncols=1)
right.set_title("a group and its coordinates")
right.set_xlabel("x (pixels)")
right.set_ylabel("y (pixels)")

figure.savefig(Path(__file__).with_name("conventions.png"), dpi=110)
