"""Write the gallery: ``python docs/gallery.py RUNS/ NETWORKS/``.

``RUNS/`` is made by ``benches/reconstruct.py``, ``NETWORKS/`` by ``benches/reconstruction.py``. The
text is that of ``docs/gallery.txt``, with the tables of the runs. Scans are only drawn if their
licence allows it: that of run1084 is not stated, so only its numbers are shown.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benches"))

import reconstruct  # noqa: E402

from ptycho_fast.canvas import canvas, place  # noqa: E402
from ptycho_fast.metrics import align, scan_mask  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Values = dict[str, Any]

OURS, CHI, DEFAULTS = "reconstruct", "pty-chi, best", "pty-chi, defaults"
LEARNED, CHOSEN = "reconstruct, learned prior", "reconstruct, prior chosen"
EPIE = ("ePIE, 30 passes", "ePIE, 100 passes")
BAR = 50
"""Length of the scale bar, in pixels of the object."""


@dataclass(frozen=True)
class Trained:
    """The networks that image a case of ``benches/reconstruct.py``."""

    names: tuple[str, ...]
    """Trainings of ``benches/reconstruction.py``, of whose scores the median is shown."""
    part: str = ""
    """Which of the scans that they image."""
    earlier: str = ""
    """Score at commit dae8681, shown unless they are trained again."""


NETWORKS = {
    "run1084, as shipped": Trained(
        tuple(f"5 min, seed {seed}" for seed in range(3)), earlier="0.046 (0.995)"
    ),
    "right half, 1e3 photons": Trained(("half, thinned",), "1e3 photons", "0.293 (0.874)"),
    "right half, 1 position in 32": Trained(("half, 5 min",), "1 in 32", "0.125 (0.932)"),
    "gold balls, as shipped": Trained(("gold balls",), earlier="0.084 (0.395)"),
    "Siemens star": Trained(("star",), earlier="0.974"),
}


@dataclass(frozen=True)
class Results:
    """All results that exist."""

    runs: Path
    networks: Path

    def rival(self, case: str, *rivals: str) -> list[Values]:
        """Return the results of a case by a rival; of several, those of the best."""
        found = [reconstruct.read_results(self.runs, case, rival) for rival in rivals]
        found = [results for results in found if results]
        key = "deviance" if case.startswith("Siemens") else "phase_rmse"
        return min(found, key=lambda results: middle(results, key), default=[])

    def network(self, case: str, image: str) -> list[Values]:
        """Return the scores of a case by networks: of their "network" or "refined" image."""
        trained = NETWORKS.get(case, Trained(()))
        folders = [self.networks / reconstruct.folder_name(name) for name in trained.names]
        found = [path / "result.json" for path in folders if (path / "result.json").exists()]
        results = [json.loads(path.read_text()) for path in found]
        return [(r[trained.part] if trained.part else r)[image] for r in results]


def middle(results: list[Values], key: str) -> float:
    """Return the median of a number."""
    return median(float(result[key]) for result in results)


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a table without the columns that are empty."""
    kept = [number for number in range(len(head)) if any(row[number] for row in rows)]
    lines = [[row[number] for number in kept] for row in (list(head), *rows)]
    lines.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def errors(results: Results) -> str:
    """Return the table of all scans whose object is known."""
    rows = []
    for case in reconstruct.CASES:
        name = case.name
        if case.file == reconstruct.STAR:
            continue
        columns = [
            results.rival(name, OURS),
            results.rival(name, LEARNED),
            results.rival(name, CHOSEN),
            results.rival(name, CHI),
            results.rival(name, DEFAULTS),
            results.rival(name, *EPIE),
            results.network(name, "network"),
            results.network(name, "refined"),
        ]
        least = min((middle(found, "phase_rmse") for found in columns if found), default=0)
        cells = [error(found, least) for found in columns]
        cells[6] = cells[6] or NETWORKS.get(name, Trained(())).earlier
        rows.append([name, *cells])
    rivals = ("`reconstruct`", "`prior=\"learned\"`", "`prior=\"auto\"`", "pty-chi",
              "pty-chi, default options", "ePIE")  # fmt: skip
    return table(("scan", *rivals, "network", "network, refined"), rows)


def error(results: list[Values], least: float) -> str:
    """Return phase error and correlation of the modulus, bold if the error is the least."""
    if not results:
        return ""
    phase = middle(results, "phase_rmse")
    shown = f"{phase:.4f}" if phase < 0.1 else f"{phase:.3f}"
    shown = f"**{shown}**" if phase == least else shown
    return f"{shown} ({middle(results, 'amplitude_correlation'):.3f})"


def star(results: Results) -> str:
    """Return the table of the measured star, whose object is not known."""
    case = "Siemens star"
    found = {
        "`reconstruct`": results.rival(case, OURS),
        "`reconstruct`, learned prior": results.rival(case, LEARNED),
        "`reconstruct`, prior chosen": results.rival(case, CHOSEN),
        "`reconstruct`, probe withheld": results.rival(f"{case}, no probe", OURS),
        "pty-chi": results.rival(case, CHI),
        "pty-chi, default options": results.rival(case, DEFAULTS),
        "ePIE": results.rival(case, *EPIE),
        "the shipped reference": results.rival(case, "the shipped reference"),
        "network": results.network(case, "network"),
        "network, refined": results.network(case, "refined"),
    }
    forms = {"deviance": "{:.4f}", "frc": "{:.3f}", "phase_correlation": "{:.3f}"}
    rows = []
    for name, scores in found.items():
        # The ring correlation of a network's image is that with the reference.
        own = [{k: v for k, v in s.items() if k != "frc" or "deviance" in s} for s in scores]
        cells = [
            form.format(middle(own, key)) if own and key in own[0] else ""
            for key, form in forms.items()
        ]
        if name == "network" and not scores:
            cells[2] = NETWORKS[case].earlier
        if any(cells):
            rows.append([name, *cells])
    head = ("image", "deviance of held-out counts", "halves agree up to", "correlation")
    return table(head, rows)


def costs(results: Results) -> str:
    """Return the table of seconds."""
    names = (
        "run1084, as shipped",
        "right half, 1e3 photons",
        "right half, 1 position in 32",
        "gold balls, as shipped",
        "Siemens star",
    )
    rows = []
    for name in names:
        columns = [results.rival(name, *rivals) for rivals in ((OURS,), (LEARNED,), (CHI,), EPIE)]
        rows.append([name, *(f"{middle(r, 'cpu'):.0f}" if r else "" for r in columns)])
    head = ("CPU seconds", "`reconstruct`", "with the learned prior", "pty-chi", "ePIE")
    return table(head, rows)


def images(results: Results, case: reconstruct.Case) -> Values:
    """Return the scan of a case, and its images on the grid of the object."""
    truth = reconstruct.read(case, reconstruct.DATA, 0, quick=False)
    known: Any = truth.scan.object
    origin = canvas(truth.positions, truth.scan.N).origin
    folder = results.runs / reconstruct.folder_name(case.name)
    shown: Values = {}
    for title, rivals in ((OURS, (OURS,)), ("pty-chi", (CHI,)), ("ePIE", EPIE)):
        for found in results.rival(case.name, *rivals)[:1]:
            path = folder / f"0 {case.parts[0]} {found['rival']}.npz"
            with np.load(path) as held:
                shown[title] = place(held["object"].astype(np.complex64), origin, known.shape)
    for name in NETWORKS[case.name].names:
        path = results.networks / reconstruct.folder_name(name) / "images.npz"
        if path.exists():
            with np.load(path) as held:
                shown |= {"network": held["network"], "network, refined": held["refined"]}
    return {"scan": truth.scan, "images": shown}


def picture(results: Results, case: reconstruct.Case, truth: str, path: Path) -> None:
    """Draw phase and modulus of all images of a scan, on one scale of grey each."""
    found = images(results, case)
    scan, known = found["scan"], found["scan"].object
    mask = scan_mask(known.shape, scan.positions, scan.N)
    shown = {name: align(image, known, mask).image for name, image in found["images"].items()}
    shown[truth] = known
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    view = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    turn = np.exp(-1j * np.angle(known[mask].mean()))
    phases, moduli = np.angle(known[mask] * turn), np.abs(known[mask])
    limits = {
        "phase, rad": np.percentile(phases, (0.5, 99.5)),
        "modulus": np.percentile(moduli, (0.5, 99.5)),
    }
    figure = Figure(figsize=(2.5 * len(shown) + 0.8, 5), dpi=110, layout="compressed")
    grid = figure.subplots(2, len(shown))
    for row, (label, (least, most)) in enumerate(limits.items()):
        for axes, (title, image) in zip(grid[row], shown.items(), strict=True):
            seen = np.where(mask, image * turn, np.nan)[view]
            values = np.angle(seen) if row == 0 else np.abs(seen)
            drawn = axes.imshow(values, cmap="gray", vmin=least, vmax=most)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
        figure.colorbar(drawn, ax=grid[row], label=label, pad=0.01)
    scale_bar(grid[0, 0], view)
    figure.savefig(path, bbox_inches="tight")


def scale_bar(axes: Axes, view: tuple[slice, slice]) -> None:
    """Draw a bar into the lower left corner of an image."""
    height = view[0].stop - view[0].start
    left, low = 0.07 * height, 0.94 * height
    axes.autoscale(enable=False)
    for color, width in (("black", 5), ("white", 3)):
        axes.plot([left, left + BAR], [low, low], color=color, linewidth=width)
    label = axes.text(left, 0.92 * height, f"{BAR} pixels", color="white", fontsize=9)
    label.set_path_effects([withStroke(linewidth=2, foreground="black")])


def main() -> None:
    """Write the page and its pictures."""
    results = Results(Path(sys.argv[1]), Path(sys.argv[2]))
    by_name = {case.name: case for case in reconstruct.CASES}
    picture(results, by_name["Siemens star"], "shipped reference", HERE / "gallery_star.png")
    picture(results, by_name["gold balls, as shipped"], "true object", HERE / "gallery_balls.png")
    text = (HERE / "gallery.txt").read_text()
    for made in (errors, star, costs):
        text = text.replace(f"{{{made.__name__}}}", made(results))
    (HERE / "gallery.md").write_text(text)


if __name__ == "__main__":
    main()
