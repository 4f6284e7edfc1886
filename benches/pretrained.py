"""The pretrained network on a scan that it never saw, as it is and after training on it.

``python benches/pretrained.py`` images run1084 as shipped, at 1000 photons a pattern, and its right
half after training on the left one, beside `reconstruct` with both priors (five minutes on one
thread). ``--quick`` takes half a minute, on a simulated scan.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf
from ptycho_fast.canvas import place
from ptycho_fast.metrics import score
from ptycho_fast.models import PtychoModel

if TYPE_CHECKING:
    from collections.abc import Callable

RUN1084 = Path(__file__).parents[2] / "shared" / "data" / "run1084_xpp_simdiff_n64.npz"

DARK = 1e3
"""Photons a pattern of the darker scan."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a simulated scan, in half a minute")
    parser.add_argument("--groups", type=int, default=150, help="that are trained on")
    asked = parser.parse_args()
    if asked.quick or not RUN1084.exists():
        scan = pf.simulate_scan(n_positions=150, N=32, seed=0)
        groups = 4
    else:
        scan, groups = pf.read_scan(RUN1084), asked.groups
    x = scan.positions[:, 0]
    left, right = (np.flatnonzero(side) for side in (x < np.median(x), x >= np.median(x)))
    cases = {
        "as given": (scan, scan),
        f"{DARK:g} photons a pattern": (darker(scan), darker(scan)),
        "right half, trained on the left": (part(scan, right), part(scan, left)),
        f"the same at {DARK:g} photons": (part(darker(scan), right), part(darker(scan), left)),
    }
    print(
        f"Phase RMSE in rad (amplitude correlation); CPU seconds. Trained: {groups} groups of 64."
    )
    print("| scan | pretrained | | trained | | smooth prior | | learned prior | |")
    print("|" + "---|" * 9)
    for name, (seen, other) in cases.items():
        print("| " + " | ".join([name, *row(seen, other, groups)]) + " |", flush=True)


def row(scan: pf.Scan, other: pf.Scan, groups: int) -> list[str]:
    """Return scores and CPU seconds of each image of a scan; training is on another one."""
    model = PtychoModel.pretrained(N=scan.N)
    told = replace(scan, object=None)  # nothing is scored while the clock runs
    cells = []

    def add(make: Callable[[], Any], prepare: Callable[[], Any] | None = None) -> None:
        began = time.process_time()
        if prepare is not None:
            prepare()
        made = make()
        seconds = time.process_time() - began
        assert scan.object is not None
        image = place(made.object, made.origin, scan.object.shape)
        found = score(image, scan.object, scan.positions, scan.N)
        cells.append(f"{found.phase_rmse:.4f} ({found.amplitude_correlation:.3f})")
        cells.append(f"{seconds:.1f}")

    add(lambda: model.infer(told))
    add(
        lambda: model.infer(told),
        lambda: model.train(other, n_groups=groups, max_epochs=1, picture_every=0),
    )
    for prior in ("smooth", "learned"):
        add(lambda prior=prior: pf.reconstruct(told, probe="fixed", prior=prior))  # type: ignore[misc]
    return cells


def darker(scan: pf.Scan) -> pf.Scan:
    """Return a scan with fewer photons, drawn from those that it has."""
    counts = np.rint(np.square(scan.diffraction, dtype=np.float64)).astype(np.int64)
    share = DARK / counts.sum(axis=(1, 2)).mean()
    drawn = np.random.default_rng(0).binomial(counts, share)
    return replace(scan, diffraction=np.sqrt(drawn).astype(np.float32), energies=None)


def part(scan: pf.Scan, rows: Any) -> pf.Scan:
    """Return some of the patterns."""
    return scan.take(rows, scan.diffraction[rows])


if __name__ == "__main__":
    main()
