"""Images of the shared scans by networks; ``reconstruct.py`` makes those without a network.

``python benches/reconstruction.py -o RUNS/`` trains every case in turn (an hour and a half on two
otherwise idle cores) and prints the tables. Finished cases are not trained again, and interrupted
ones are resumed from their checkpoints. ``--case NAME`` runs single cases, ``--quick`` runs all of
them on a small simulated scan, and ``--table`` only prints the results that exist.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from reconstruct import folder_name

import ptycho_fast as pf

DATA = Path(__file__).parents[2] / "shared" / "data"
RUN1084, STAR, BALLS = (
    "run1084_xpp_simdiff_n64.npz",
    "siemens_star_aps_n128.npz",
    "goldballs_als_simdiff_n104.npz",
)
REFERENCE = "siemens_star_epie_reference.npz"
APART = 12.0
"""Pixels between the half that is trained on and the part of the other half that is imaged."""
DARK = 1e3
"""Photons per pattern of a dark scan."""


@dataclass(frozen=True)
class Case:
    """One training, and how its scan is chosen."""

    name: str
    epochs: int
    file: str = RUN1084
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    half: bool = False
    dark: bool = False


def cases() -> list[Case]:
    """Return all cases. "1 min" and "5 min" are about what two cores take for their epochs."""
    minute = {"n_groups": 543}  # half an epoch
    return [
        *(Case(f"1 min, seed {s}", 5, model={"seed": s}, training=minute) for s in range(3)),
        *(Case(f"5 min, seed {s}", 13, model={"seed": s}) for s in range(3)),
        Case("half, 1 min", 5, half=True),
        Case("half, 5 min", 26, half=True),
        Case("half, thinned", 26, half=True, model={"least_exposure": 1e-3}),
        Case("half, 1e3 photons", 13, half=True, dark=True),
        Case("star", 7, file=STAR, training={"refine_probe": 20}),
        Case("gridsize 2", 4, model={"gridsize": 2}),
        Case("fno", 2, model={"architecture": "fno"}),
        Case("hybrid", 3, model={"architecture": "hybrid"}),
        Case("hybrid_resnet", 5, model={"architecture": "hybrid_resnet"}),
        Case("amplitude loss", 4, model={"loss": "amplitude"}),
        Case("gold balls", 2, file=BALLS),
    ]


def read(case: Case, *, quick: bool) -> pf.Scan:
    """Return the scan of a case. Its object is only used for scores."""
    if quick:
        return pf.simulate_scan(n_positions=400, N=32, seed=0)
    scan = pf.read_scan(DATA / case.file)
    if case.file == STAR:
        known = np.load(DATA / REFERENCE)["object"].astype(np.complex64)
        scan = replace(scan, object=known)
    if case.dark:
        scan = dark(scan, seed=0)
    return scan


def part(scan: pf.Scan, rows: Any) -> pf.Scan:
    """Return the part of a scan with the given positions."""
    return pf.Scan(
        scan.positions[rows], scan.diffraction[rows], probe=scan.probe, object=scan.object
    )


def dark(scan: pf.Scan, seed: int) -> pf.Scan:
    """Return a scan as it would be measured with `DARK` photons per pattern."""
    rng = np.random.default_rng(seed)
    counts = np.square(scan.diffraction, dtype=np.float64)
    counts *= DARK / counts.sum(axis=(1, 2)).mean()
    return replace(scan, diffraction=np.sqrt(rng.poisson(counts)).astype(np.float32))


@dataclass(frozen=True)
class Judge:
    """Makes images of a scan with the network, and scores them."""

    scan: pf.Scan
    positions: Any
    model: Any

    def scores(self, image: Any) -> dict[str, Any]:
        """Return the scores of an image on the grid of the object."""
        from ptycho_fast.metrics import score  # noqa: PLC0415

        assert self.scan.object is not None
        return score(image, self.scan.object, self.positions, self.scan.N).as_dict()

    def on_object(self, image: Any, origin: tuple[int, int]) -> Any:
        """Return an image on the grid of the object."""
        from ptycho_fast.canvas import place  # noqa: PLC0415

        assert self.scan.object is not None
        return place(image, origin, (self.scan.object.shape[0], self.scan.object.shape[1]))

    def image(self, seen: pf.Scan, iterations: int = 0) -> tuple[float, Any]:
        """Return the seconds that imaging by the network takes without scores, and the image."""
        began = time.perf_counter()
        made = self.model.infer(replace(seen, object=None, metadata={}), refine=iterations)
        seconds = time.perf_counter() - began
        return seconds, self.on_object(made.object, made.origin)


def run(case: Case, folder: Path, *, quick: bool) -> None:
    """Train the model of a case, image its scan, score the images, and write the results."""
    import torch  # noqa: PLC0415

    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    scan = read(case, quick=quick)
    x = scan.positions[:, 0]
    right = x > np.median(x) + APART
    known = part(scan, x < np.median(x)) if case.half else scan
    imaged = part(scan, right) if case.half else scan
    model = PtychoModel(N=scan.N, **case.model)
    history = model.train(
        known,
        max_epochs=2 if quick else case.epochs,
        output=folder,
        resume=(folder / "last.ckpt").exists(),
        picture_every=0,
        **case.training,
    )
    judge = Judge(scan, imaged.positions, model)
    judge.image(imaged)  # the first call also initialises the libraries
    network_seconds, network = judge.image(imaged)
    refined_seconds, refined = judge.image(imaged, 10)
    result: dict[str, Any] = {
        "case": case.name,
        "parameters": model.n_parameters,
        "epochs": len(history),
        "seconds": sum(float(row["seconds"]) for row in history),
        "patterns": case.training.get("n_groups", len(known)) * 4,
        "loss": float(history[-1]["loss"]),
        "threads": torch.get_num_threads(),
        "imaging_seconds": network_seconds,
        "refined_seconds": refined_seconds,
        "network": judge.scores(network),
        "refined": judge.scores(refined),
    }
    np.savez(folder / "images.npz", network=network, refined=refined)
    if case.half:
        thin = part(scan, np.flatnonzero(right)[::32])
        for name, seen in (("1 in 32", thin), ("1e3 photons", dark(imaged, seed=1))):
            result[name] = {
                "network": judge.scores(judge.image(seen)[1]),
                "refined": judge.scores(judge.image(seen, 30)[1]),
            }
    result["peak_GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def row(name: str, scored: dict[str, Any]) -> str:
    """Return a line of the second table."""
    cells = (
        f"{scored['phase_rmse']:.3f}",
        f"{scored['phase_correlation']:.3f}",
        f"{scored['amplitude_correlation']:.3f}",
        f"{scored['complex_error']:.3f}",
        f"{scored['frc']:.2f}",
        f"{scored['twin']['phase_rmse']:.2f}" if scored["twin"] else "",
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def table(folder: Path) -> None:
    """Print the tables of all results that exist."""
    found = [folder / folder_name(case.name) / "result.json" for case in cases()]
    results = [json.loads(path.read_text()) for path in found if path.exists()]
    print(
        "| case | parameters | epochs | training, s | ms a pattern | loss | imaging, s | "
        "and 10 iterations, s | peak, GB |\n|---|---|---|---|---|---|---|---|---|"
    )
    for r in results:
        per = 1e3 * r["seconds"] / (r["patterns"] * r["epochs"])
        print(
            f"| {r['case']} | {r['parameters'] / 1e6:.2f} M | {r['epochs']} | {r['seconds']:.0f} | "
            f"{per:.1f} | {r['loss']:.2f} | {r['imaging_seconds']:.2f} | "
            f"{r['refined_seconds']:.2f} | {r['peak_GB']:.2f} |"
        )
    print(
        "\n| image | phase RMSE, rad | phase corr. | amplitude corr. | complex error | FRC | "
        "twin's RMSE |\n|---|---|---|---|---|---|---|"
    )
    for r in results:
        print(row(r["case"], r["network"]))
        print(row(f"{r['case']}, and 10 iterations", r["refined"]))
        for name in ("1 in 32", "1e3 photons"):
            if name in r:
                print(row(f"{r['case']}, {name}", r[name]["network"]))
                print(row(f"{r['case']}, {name}, and 30 iterations", r[name]["refined"]))


def main() -> None:
    """Train the cases that were asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--case", action="append")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    by_name = {case.name: case for case in cases()}
    if arguments.one:
        case = by_name[arguments.one]
        run(case, arguments.output / folder_name(case.name), quick=arguments.quick)
        return
    chosen = arguments.case or list(by_name)
    if not arguments.table:
        arguments.output.mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.table else chosen:
        if (arguments.output / folder_name(name) / "result.json").exists():
            continue
        command = [sys.executable, __file__, "-o", str(arguments.output), "--one", name]
        # Each case runs in its own process, so that its peak memory is measured.
        subprocess.run(command + ["--quick"] * arguments.quick, check=True)
    table(arguments.output)


if __name__ == "__main__":
    main()
