"""``pf.reconstruct`` beside other engines, on scans whose true object only scores the images.

``python benches/reconstruct.py -o RUNS/`` makes the images of every case by every rival, each in a
process of its own, and prints a table. Small scans are reconstructed with three seeds (of noise and
order), of which the table shows the medians; rivals use one. Results that exist are not made again.
``--case NAME`` and ``--rival NAME`` choose some, ``--table`` prints what exists, ``--quick`` runs
one case on a small simulated scan. pty-chi (``pip install ptychi``, best into an environment of its
own) is used if the interpreter that ``--pty-chi`` names can import it. ``docs/gallery.py`` shows
the results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from rivals_reconstruct import Found, load
from scores_reconstruct import deviance, expected_total, score_found

import ptycho_fast as pf
from ptycho_fast.canvas import canvas, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = Path(__file__).parents[2] / "shared" / "data"
RUN1084, STAR, BALLS = (
    "run1084_xpp_simdiff_n64.npz",
    "siemens_star_aps_n128.npz",
    "goldballs_als_simdiff_n104.npz",
)
REFERENCE = "siemens_star_epie_reference.npz"

SHIPPED = 1e6
"""Mean number of photons in a pattern of the simulated scans, as they are shipped."""

APART = 12.0
"""The right half begins that many pixels right of the median, as in ``reconstruction.py``."""

HELD_OUT, HALF, THIN, MOVE, WHOLE = 7, 8, 20, 21, 22
"""Second words of the keys of random numbers; the first word is the seed."""


@dataclass(frozen=True)
class Case:
    """A scan, and what of it the rivals are given."""

    name: str
    file: str = RUN1084
    photons: float = SHIPPED
    half: bool = False
    every: int = 1
    withheld: bool = False
    """Whether the probe is not given."""
    refine_probe: bool = False
    moved: float = 0.0
    """Root mean square of the errors of the positions, in pixels."""
    whole: bool = False
    """Whether the counts are simulated anew at whole pixels, where nothing is interpolated."""
    seeds: int = 1
    chi: dict[str, Any] = field(default_factory=dict)
    """Options of pty-chi. They were chosen by the true error, which favours it, where it is known;
    cases on which too few were tried borrow those of the case most alike."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What is reconstructed: all counts, or the parts into which measured counts are split."""
        return ("kept", "a", "b") if self.file == STAR else ("all",)


POISSON = {"noise": "poisson"}
CASES = [
    Case("run1084, as shipped", seeds=3, chi=POISSON),
    Case("run1084, whole pixels", seeds=3, whole=True, chi=POISSON),
    Case("run1084, 1e4 photons", seeds=3, photons=1e4, chi=POISSON | {"tv": 0.003}),
    Case("run1084, 1e3 photons", seeds=3, photons=1e3, chi=POISSON | {"tv": 0.03, "epochs": 200}),
    *(
        Case(f"right half, {name} photons", seeds=3, photons=photons, half=True, chi=POISSON | chi)
        for name, photons, chi in (
            ("1e3", 1e3, {"tv": 0.03, "epochs": 300}),
            ("3e2", 3e2, {"tv": 0.05, "epochs": 200}),
            ("1e2", 1e2, {"tv": 0.1, "epochs": 300}),
        )
    ),
    *(
        Case(
            f"right half, 1 position in {every}",
            seeds=3,
            half=True,
            every=every,
            chi=POISSON | {"epochs": epochs},
        )
        for every, epochs in ((32, 1000), (64, 3000))
    ),
    Case(
        "run1084, positions 3 px wrong",
        seeds=3,
        moved=3.0,
        chi=POISSON | {"epochs": 50, "stride": 1.0, "from_epoch": 5},
    ),
    Case("run1084, no probe", withheld=True, refine_probe=True, chi=POISSON),
    Case("gold balls, as shipped", file=BALLS, chi=POISSON | {"epochs": 40, "batch": 32}),
    Case("gold balls, no probe", file=BALLS, withheld=True, refine_probe=True),
    Case("Siemens star", file=STAR, refine_probe=True, chi={"epochs": 30, "batch": 16}),
    Case("Siemens star, no probe", file=STAR, withheld=True, refine_probe=True),
]

QUICK = "Siemens star"
"""The case that ``--quick`` runs, since its scores are the most, on a simulated scan."""

RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "reconstruct": ("reconstruct", {}),
    "reconstruct, learned prior": ("reconstruct", {"prior": "learned"}),
    "reconstruct, prior chosen": ("reconstruct", {"prior": "auto"}),
    "30 passes with momentum": ("momentum", {"passes": 30}),
    "ePIE, 30 passes": ("epie", {"passes": 30}),
    "ePIE, 100 passes": ("epie", {"passes": 100}),
    "pty-chi, best": ("pty-chi", {}),
    "pty-chi, defaults": ("pty-chi", {"batch": 100, "batching": "random"}),
    "the shipped reference": ("shipped", {}),
}


@dataclass(frozen=True)
class Truth:
    """What is known of a case, and not told to its rivals."""

    case: Case
    scan: pf.Scan
    """The positions are all from which the mask of the scores follows."""
    counts: NDArray[np.int64]
    positions: NDArray[np.float64]
    """The right positions of the patterns."""
    scale: float
    """Factor of the probe for the counts."""


def generator(seed: int, word: int) -> np.random.Generator:
    """Return a stream of random numbers of its own."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, word], np.uint64)))


def read(case: Case, data: Path, seed: int, *, quick: bool) -> Truth:
    """Return a case with the noise of a seed."""
    if quick:
        photons = SHIPPED if case.file != STAR else 1e5
        scan = pf.simulate_scan(n_positions=60, N=32, photons=photons, seed=0)
    else:
        scan = pf.read_scan(data / case.file)
        scan = at_whole_pixels(scan, seed) if case.whole else scan
    known = scan.object
    if case.file == STAR and not quick:
        known = np.load(data / REFERENCE)["object"].astype(np.complex64)
    assert scan.probe is not None
    assert known is not None
    rows = np.arange(len(scan))
    x = scan.positions[:, 0]
    if case.half:
        rows = np.flatnonzero(x > np.median(x) + APART)
    seen = scan.positions[rows]
    rows = rows[seed % case.every :: case.every]
    counts = np.rint(np.square(scan.diffraction[rows], dtype=np.float64)).astype(np.int64)
    if case.photons != SHIPPED:
        counts = generator(seed, THIN).binomial(counts, case.photons / SHIPPED)
    probe = np.squeeze(scan.probe).astype(np.complex64)
    if "photon_scale" in scan.metadata:
        scale = float(scan.metadata["photon_scale"]) * case.photons / SHIPPED
    else:
        scale = counts.sum(axis=(1, 2)).mean() / float(np.sum(np.abs(probe) ** 2))
    told = pf.Scan(seen, np.empty((len(seen), scan.N, scan.N), np.bool_), probe=probe, object=known)
    return Truth(case, told, counts, scan.positions[rows], float(np.sqrt(scale)))


def at_whole_pixels(scan: pf.Scan, seed: int) -> pf.Scan:
    """Return a scan as it would be measured at rounded positions."""
    assert scan.probe is not None
    assert scan.object is not None
    positions = np.rint(scan.positions)
    patches = pf.extract_patches(scan.object, positions[:, :, None], scan.N)[..., 0]
    far = np.fft.fft2(np.squeeze(scan.probe) * patches, norm="ortho")
    expected = np.fft.fftshift(np.abs(far) ** 2, axes=(1, 2)) * float(scan.metadata["photon_scale"])
    counts = generator(seed, WHOLE).poisson(expected)
    return replace(scan, positions=positions, diffraction=np.sqrt(counts).astype(np.float32))


def split(counts: NDArray[np.int64], part: str, seed: int) -> tuple[Any, float]:
    """Return a part of the counts, and which share of all it holds."""
    if part == "all":
        return counts, 1.0
    if part in ("kept", "held out"):
        held = generator(seed, HELD_OUT).binomial(counts, 0.1)
        return (held, 0.1) if part == "held out" else (counts - held, 0.9)
    a = generator(seed, HALF).binomial(counts, 0.5)
    return (a if part == "a" else counts - a), 0.5


def write_job(truth: Truth, part: str, seed: int, path: Path) -> None:
    """Write what a rival is given."""
    case = truth.case
    counts, share = split(truth.counts, part, seed)
    positions = truth.positions
    if case.moved:
        errors = generator(seed, MOVE).normal(0, case.moved / np.sqrt(2), positions.shape)
        positions = positions + errors
    area = canvas(positions, truth.scan.N)
    job = {
        "counts": counts.astype(np.float32),
        "positions": area.local(positions),
        "shape": area.shape,
        "origin": area.origin,
        "scale": truth.scale * np.sqrt(share),
        "share": share,
        "refine_probe": case.refine_probe,
        "refine_positions": case.moved > 0,
        "seed": seed,
    }
    if not case.withheld:
        job["probe"] = truth.scan.probe
    np.savez(path, **job)


def run(job: Path, rival: str, options: dict[str, Any], python: str, threads: int | None) -> Any:
    """Run a rival on a job, and return its numbers; the image lies beside the job."""
    engine = RIVALS[rival][0]
    found = job.with_name(f"{job.stem} {rival}.npz")
    # Modules of this folder must not hide those that a rival imports.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PTYCHO_FAST_NUM_THREADS")
        environment |= dict.fromkeys(names, str(threads))
    if engine == "pty-chi":
        environment.pop("PYTHONPATH", None)
    script = str(Path(__file__).with_name("rivals_reconstruct.py"))
    command = [python, script, str(job), engine, json.dumps(options), str(found)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{rival} on {job}:\n{done.stderr}")
    numbers = json.loads(done.stdout.splitlines()[-1])
    return {**numbers, "process": time.perf_counter() - start, "found": str(found)}


def make(case: Case, rival: str, seed: int, arguments: argparse.Namespace) -> None:
    """Make the images of a case by a rival, score them, and write the result."""
    folder = arguments.output / folder_name(case.name)
    target = folder / f"{seed} {rival}.json"
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    truth = read(case, arguments.data, seed, quick=arguments.quick)
    engine, options = RIVALS[rival]
    if engine == "shipped":
        if case.file == STAR and not case.withheld and not arguments.quick:
            target.write_text(json.dumps(shipped(truth, seed, folder, arguments.data)) + "\n")
        return
    options = {**options, **(case.chi if rival == "pty-chi, best" else {})}
    python = arguments.pty_chi if engine == "pty-chi" else sys.executable
    numbers, images = [], {}
    for part in case.parts:
        job = folder / f"{seed} {part}.npz"
        write_job(truth, part, seed, job)
        numbers.append(run(job, rival, options, python, arguments.threads))
        with np.load(job) as held:
            origin = (int(held["origin"][0]), int(held["origin"][1]))
        with np.load(numbers[-1].pop("found")) as held:
            images[part] = (Found(**held), origin, load(job))
        job.unlink()
    held_out = split(truth.counts, "held out", seed) if len(case.parts) > 1 else None
    result = {
        "case": case.name,
        "rival": rival,
        "seed": seed,
        "options": options,
        **numbers[0],
        **score_found(images, truth.scan, truth.positions, held_out),
    }
    target.write_text(json.dumps(result, indent=2) + "\n")


def shipped(truth: Truth, seed: int, folder: Path, data: Path) -> dict[str, Any]:
    """Return how well the shipped reference predicts the held-out counts, which it has seen."""
    path = folder / f"{seed} shipped.npz"
    write_job(truth, "kept", seed, path)
    job = load(path)
    with np.load(path) as held:
        x, y = held["origin"]
    path.unlink()
    with np.load(data / REFERENCE) as held:
        image = place(held["object"].astype(np.complex64), (-int(x), -int(y)), job.shape)
        found = Found(image, held["probe"].astype(np.complex64))
    counts, share = split(truth.counts, "held out", seed)
    total = expected_total(found, job)
    factor = share * float(truth.counts.sum()) / total
    told = {"case": truth.case.name, "rival": "the shipped reference", "seed": seed, "options": {}}
    return {**told, "deviance": deviance(counts, found, job, factor)}


def table(folder: Path, cases: list[str], rivals: list[str]) -> None:
    """Print the medians of all results that exist."""
    columns = {
        "phase RMSE, rad": ("phase_rmse", "{:.4f}"),
        "amplitude corr.": ("amplitude_correlation", "{:.4f}"),
        "positions, px": ("positions", "{:.3f}"),
        "deviance a count": ("deviance", "{:.5f}"),
        "FRC 1/2": ("frc", "{:.3f}"),
        "corr. with reference": ("phase_correlation", "{:.4f}"),
        "s": ("seconds", "{:.1f}"),
        "CPU, s": ("cpu", "{:.1f}"),
        "process, s": ("process", "{:.1f}"),
        "MB": ("megabytes", "{:.0f}"),
    }
    print("| case | rival | seeds | " + " | ".join(columns) + " | options |")
    print("|" + "---|" * (len(columns) + 4))
    for case in cases:
        for rival in rivals:
            results = read_results(folder, case, rival)
            if not results:
                continue
            for result in results:
                result["megabytes"] = result.get("bytes", 0) / 1e6
            cells = [
                form.format(median(r[key] for r in results)) if key in results[0] else ""
                for key, form in columns.values()
            ]
            told = ", ".join(f"{k} {v}" for k, v in results[0]["options"].items())
            print(f"| {case} | {rival} | {len(results)} | " + " | ".join(cells) + f" | {told} |")


def read_results(folder: Path, case: str, rival: str) -> list[dict[str, Any]]:
    """Return the results of all seeds that exist."""
    paths = sorted((folder / folder_name(case)).glob(f"* {rival}.json"))
    return [json.loads(path.read_text()) for path in paths]


def folder_name(name: str) -> str:
    """Return the name of the folder of a case."""
    return name.replace(", ", "-").replace(" ", "_")


def has(python: str, module: str) -> bool:
    """Return whether an interpreter can import a module."""
    seek = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", seek], check=False).returncode == 0


def main() -> None:
    """Make what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--rival", action="append", choices=RIVALS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--pty-chi", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    chosen = arguments.case or ([QUICK] if arguments.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in chosen]
    rivals = [
        name
        for name, (engine, _) in RIVALS.items()
        if (arguments.rival is None or name in arguments.rival)
        and (engine != "reconstruct" or hasattr(pf, "reconstruct"))
        and (engine != "pty-chi" or arguments.table or has(arguments.pty_chi, "ptychi"))
    ]
    for case in [] if arguments.table else cases:
        for rival in rivals:
            seeds = case.seeds if RIVALS[rival][0] == "reconstruct" else 1
            for seed in range(min(seeds, arguments.seeds)):
                make(case, rival, seed, arguments)
    table(arguments.output, [case.name for case in cases], rivals)


if __name__ == "__main__":
    main()
