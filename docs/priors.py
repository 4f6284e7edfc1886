"""Draw the pictures of the page of the learned prior: ``python docs/priors.py``.

The curves are those of the training (``training/learned_prior.csv``); the images are of simulated
scans that were held out of it.
"""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "training"))

import ptycho_fast as pf  # noqa: E402
from learned_prior import kind_of  # noqa: E402
from ptycho_fast.canvas import place  # noqa: E402
from scans import random_scan  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LOG = HERE.parent / "training" / "learned_prior.csv"

SHOWN = {100_043: "dim", 100_009: "little overlap", 100_021: "very dim"}
"""Scans of which images are shown: two that become better, and one that does not."""


def curves(axes: Axes) -> None:
    """Draw how the errors fell."""
    with LOG.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = np.array([int(row["iteration"]) for row in rows])
    # The second training begins at 0 again.
    restarts = np.flatnonzero(np.diff(steps) < 0) + 1
    for start in restarts:
        steps[start:] += steps[start - 1]
        axes.axvline(steps[start - 1], color="0.7", lw=0.8)
    names = {
        "loss": ("training", 0.5),
        "error": ("held out", 1.0),
        "phase": ("held out, phase", 1.0),
    }
    for name, (label, power) in names.items():
        values = np.exp(power * np.array([float(row[name]) for row in rows]))
        axes.plot(steps, values, label=label)
    axes.set(xlabel="iteration", ylabel="error after / before", ylim=(0.75, 1))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def images(number: int) -> tuple[pf.Scan, dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return a scan, its object by each prior, and where there is light."""
    scan = random_scan(number, kind_of(number))
    assert scan.object is not None
    made = {
        prior: pf.reconstruct(scan, probe="fixed", prior=prior, seed=number)
        for prior in ("smooth", "learned")
    }
    first = made["smooth"]
    x, y = first.origin
    found = {"true object": place(scan.object, (-x, -y), first.object.shape)}
    found |= {f"{name} prior": one.object for name, one in made.items()}
    return scan, found, first.coverage > 0.1 * np.quantile(first.coverage, 0.98)


def main() -> None:
    """Draw both pictures."""
    warnings.simplefilter("ignore")  # that patterns hardly overlap is meant
    figure = Figure(figsize=(5, 2.8), layout="constrained")
    curves(figure.subplots())
    figure.savefig(HERE / "learned_prior_training.png", dpi=130)

    figure = Figure(figsize=(8, 2.7 * len(SHOWN)), layout="constrained")
    for row, (number, name) in zip(figure.subplots(len(SHOWN), 3), SHOWN.items(), strict=True):
        scan, found, lit = images(number)
        truth = np.ma.masked_where(~lit, np.angle(found["true object"]))
        for axes, (title, image) in zip(row, found.items(), strict=True):
            turned = (image * found["true object"].conj())[lit].sum()
            phase = np.angle(image * np.exp(-1j * np.angle(turned)))
            off = np.angle(np.exp(1j * (phase - np.angle(found["true object"]))))[lit]
            told = "" if title == "true object" else f", {np.sqrt(np.mean(off**2)):.3f} rad"
            axes.imshow(
                np.ma.masked_where(~lit, phase), cmap="gray", vmin=truth.min(), vmax=truth.max(),
                interpolation="nearest",
            )  # fmt: skip
            axes.set_title(f"{title}{told}", fontsize=9)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(
            f"{name}: {scan.metadata['photons']:.0f} photons,\n"
            f"overlap {scan.metadata['overlap']:.0%}",
            fontsize=9,
        )
    figure.savefig(HERE / "learned_prior_images.png", dpi=130)


if __name__ == "__main__":
    main()
