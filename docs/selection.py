"""Draw docs/selection.jpg and the table in docs/selection.md: ``python docs/selection.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import ptycho_fast as pf
from ptycho_fast.illumination import illumination

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
SCANS = {
    "Siemens star, APS": "siemens_star_aps_n128.npz",
    "gold balls, ALS": "goldballs_als_simdiff_n104.npz",
    "run 1084, LCLS XPP": "run1084_xpp_simdiff_n64.npz",
}
C, K, SEEDS = 4, 7, 20


def draw(how: str, positions: np.ndarray, n_groups: int, seed: int) -> pf.Groups:
    """Draw groups in one of the three ways."""
    way = {"strategy": how} if how == "group-then-sample" else {"centers": how}
    return pf.group_positions(positions, n_groups, group_size=C, n_neighbors=K, seed=seed, **way)


lines = [
    "| scan | groups | drawn | positions used | object covered | discrepancy "
    "| median overlap | least overlap | repeated |",
    "|---|---|---|---|---|---|---|---|---|",
]
strategies = ("sequential", "random", "group-then-sample")
figure, panels = plt.subplots(3, 3, figsize=(12, 12.5), layout="constrained")
for row, (name, file) in zip(panels, SCANS.items(), strict=True):
    scan = pf.read_scan(DATA / file, load=False)
    n_groups = len(scan) // 8
    whole = illumination(scan, np.ones(len(scan)))
    for axes, strategy in zip(row, strategies, strict=True):
        drawn = [draw(strategy, scan.positions, n_groups, seed) for seed in range(SEEDS)]
        found = [pf.coverage(scan, groups) for groups in drawn]
        table = {field: [getattr(one, field) for one in found] for field in vars(found[0])}
        mean = {field: np.mean(values) for field, values in table.items()}
        least, most = min(table["area_covered"]), max(table["area_covered"])
        lines.append(
            f"| {name} | {n_groups} of {len(scan)} | {strategy} | {mean['positions_used']:.1%} "
            f"| **{mean['area_covered']:.1%}** ({least:.1%} .. {most:.1%}) "
            f"| {mean['discrepancy']:.3f} | {mean['overlap_median']:.1%} "
            f"| {mean['overlap_min']:.1%} | {mean['duplicates']:.2g} |"
        )
        groups = drawn[0]
        times = np.bincount(groups.indices.ravel(), minlength=len(scan))
        light = illumination(scan, times)
        axes.imshow(
            light.values,
            cmap="inferno",
            vmin=0,
            vmax=np.percentile(light.values, 99),
            extent=light.extent,
        )
        # Where the whole scan sheds a tenth of its light or more.
        level = 0.1 * np.percentile(whole.values, 99)
        axes.contour(
            whole.values,
            levels=[level],
            colors="white",
            linestyles="dashed",
            linewidths=1,
            extent=whole.extent,
            origin="upper",
        )
        axes.plot(*groups.positions[groups.centers].T, ".", color="#7fd7ff", ms=3)
        lit = np.argwhere(whole.values > level / 10)
        (top, left), (bottom, right) = lit.min(axis=0), lit.max(axis=0)
        axes.set(
            xlim=(whole.extent[0] + left, whole.extent[0] + right),
            ylim=(whole.extent[3] + bottom, whole.extent[3] + top),
            title=f"{strategy}: {found[0].area_covered:.1%}",
        )
    row[0].set_ylabel(f"{name}, {n_groups} groups\ny (pixels)")
for axes in panels[-1]:
    axes.set_xlabel("x (pixels)")
figure.savefig(HERE / "selection.jpg", dpi=80)

page = (HERE / "selection.md").read_text()
before, start, rest = page.partition("<!-- python docs/selection.py -->\n")
after = rest[rest.index("<!-- end -->") :]
(HERE / "selection.md").write_text(before + start + "\n".join(lines) + "\n" + after)
