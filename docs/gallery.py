"""Draw the gallery: ``python docs/gallery.py RUNS/``, after ``reconstruction.py -o RUNS/``.

Writes ``docs/gallery.md`` from the text in ``docs/gallery.txt`` and the tables of the runs, and the
pictures of those scans whose licence allows it. The licence of run1084 is not stated, so only its
numbers are shown.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benches"))

import reconstruction  # noqa: E402
from ptycho_fast.metrics import align, scan_mask  # noqa: E402


def picture(folder: Path, case: reconstruction.Case, truth: str, path: Path) -> None:
    """Draw phase and modulus of the network's image, the refined image and the reference."""
    scan = reconstruction.read(case, quick=False)
    known: Any = scan.object
    mask = scan_mask(known.shape, scan.positions, scan.N)
    images = np.load(folder / reconstruction.folder_name(case) / "images.npz")
    shown = {
        "network": align(images["network"], known, mask).image,
        "network, then 10 iterations": align(images["refined"], known, mask).image,
        truth: known,
    }
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    view = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    turn = np.exp(-1j * np.angle(known[mask].mean()))
    phases, moduli = np.angle(known[mask] * turn), np.abs(known[mask])
    limits = {"Phase, rad": np.percentile(phases, (0.5, 99.5)), "Modulus": (0, moduli.max())}
    figure = Figure(figsize=(12, 8), dpi=80, layout="compressed")
    for row, (name, (least, most)) in enumerate(limits.items()):
        for column, (title, image) in enumerate(shown.items()):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            seen = np.where(mask, image * turn, np.nan)[view]
            values = np.angle(seen) if row == 0 else np.abs(seen)
            drawn = axes.imshow(values, cmap="gray", vmin=least, vmax=most)
            axes.set_title(title if row == 0 else "")
            axes.set_axis_off()
        figure.colorbar(drawn, ax=axes, label=name)
    figure.savefig(path)


def main() -> None:
    """Write the page and its pictures."""
    folder = Path(sys.argv[1])
    by_name = {case.name: case for case in reconstruction.cases()}
    picture(folder, by_name["star"], "classical ePIE, 30 iterations", HERE / "gallery_star.png")
    picture(folder, by_name["gold balls"], "the true object", HERE / "gallery_balls.png")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        reconstruction.table(folder)
    runs, images = printed.getvalue().strip().split("\n\n")
    text = (HERE / "gallery.txt").read_text()
    (HERE / "gallery.md").write_text(text.replace("{runs}", runs).replace("{images}", images))


if __name__ == "__main__":
    main()
