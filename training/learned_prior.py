"""Train the network of ``pf.reconstruct(scan, prior="learned")``.

    python training/learned_prior.py scans FIRST/
    python training/learned_prior.py train FIRST/ -o ONE/
    python training/learned_prior.py scans SECOND/ --network ONE/
    python training/learned_prior.py train FIRST/ SECOND/ --begin ONE/ -o TWO/ --iterations 2500
    python training/learned_prior.py score                   # of the package's weights

Every scan of `training/scans.py` is reconstructed with the smooth prior. The network learns to
predict, from such images, what they lack; and then also from those that it has improved once. The
same seed gives the same network, on the same kind of processor.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import math
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import torch as safetensors

import ptycho_fast as pf
from ptycho_fast.atomic import replacing
from ptycho_fast.canvas import place
from ptycho_fast.reconstruction.learned import (
    WEIGHTS,
    CanvasNetwork,
    Seen,
    improved,
    network_of,
    see,
)
from ptycho_fast.reconstruction.resolution import lit
from ptycho_fast.reconstruction.run import Run
from scans import Kind, random_scan

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ANY, DIM = Kind(), Kind(photons=(1e2, 3e4))
"""Most can be learned from dim scans; at a million photons the smooth prior does little."""

BRIGHT_SCANS = 700
"""So many scans are of any brightness, all others are dim."""

HELD_OUT = range(100_000, 100_060)
"""Numbers of the scans of any brightness on which training is judged."""

SIDE, BATCH = 96, 4
"""Pixels per side of what the network is trained on, and how many of them at a time."""

PRIORS = ("smooth", "learned", "auto")
"""What is compared in the end; the last one chooses."""

RATE, WARM_UP = 2e-3, 200
"""Largest step of the optimiser (half of it for a network that was trained before), and iterations
(at most a tenth of them) until it is reached; then it falls to 0."""


# --- scans ----------------------------------------------------------------------------------------


def kind_of(number: int) -> Kind:
    """Return the kind of a scan with a number."""
    return ANY if number < BRIGHT_SCANS or number in HELD_OUT else DIM


def example(
    number: int, network: CanvasNetwork | None
) -> tuple[Seen, NDArray[np.complex64], dict[str, float]]:
    """Return what the network is given of a scan, the truth, and what the scan is like.

    With a network, it is what is given in the second stage, if this is the network of the first.
    """
    scan = random_scan(number, kind_of(number))
    assert scan.object is not None
    run = Run(scan, seed=number, device="cpu", num_threads=1, progress=None)
    run.start(None, modes=1, diameter=None, fixed=False)
    run.choose("fixed", "smooth")
    run.finish(200)
    seen = see(run.model, run.counts, run.unknowns, run.mu)
    if network is not None:
        begin = replace(run.unknowns, object=improved(seen, network))
        seen = see(run.model, run.counts, begin, run.mu)
    x, y = run.canvas.origin
    told = {name: float(scan.metadata[name]) for name in ("photons", "overlap")}
    return seen, place(scan.object, (-x, -y), run.canvas.shape), told


def write_example(folder: Path, out: Path | None, number: int) -> None:
    """Write the example of a scan, unless it is there."""
    path = folder / f"{number}.npz"
    if path.exists():
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that patterns hardly overlap is meant
    seen, truth, told = example(number, None if out is None else load(out))
    with replacing(path) as file:
        np.savez(file, **{"truth": truth, **vars(seen), **told})


# --- training -------------------------------------------------------------------------------------


class Example:
    """An example in memory: channels (7, H, W), sigma, truth and weight (H, W)."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as held:
            seen = Seen(
                held["object"], held["gained"], held["light"], held["sigma"], float(held["size"])
            )
            truth = held["truth"]
        self.seen = seen
        self.weight = weight_of(seen)
        # Neither the phase nor the size of an object can be known.
        across = (self.weight * seen.object * truth.conj()).sum()
        self.truth = (truth * (across / (self.weight * np.abs(truth) ** 2).sum())).astype("c8")
        self.channels = seen.channels()

    def crop(self, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Return a random square of it, in a random orientation and with a random phase."""
        height, width = self.weight.shape
        for _ in range(10):
            y, x = (int(rng.integers(0, max(1, side - SIDE + 1))) for side in (height, width))
            there = (slice(y, y + SIDE), slice(x, x + SIDE))
            if self.weight[there].sum() > 0.3 * min(SIDE**2, self.weight.size):
                break
        phase, mirror = np.exp(2j * math.pi * rng.random()), rng.random() < 0.5
        turns, flip = int(rng.integers(4)), rng.random() < 0.5

        def cut(image: NDArray[Any]) -> NDArray[Any]:
            part = image[..., there[0], there[1]]
            lacking = [(0, SIDE - length) for length in part.shape[-2:]]
            part = np.pad(part, [(0, 0)] * (part.ndim - 2) + lacking)
            return np.rot90(part[..., ::-1] if flip else part, turns, (-2, -1))

        def turned(image: NDArray[Any]) -> NDArray[Any]:
            wave: NDArray[Any] = (image.conj() if mirror else image) * phase
            return wave

        channels = cut(self.channels).copy()
        for i in (0, 2):
            wave = turned(channels[i] + 1j * channels[i + 1])
            channels[i], channels[i + 1] = wave.real, wave.imag
        truth = turned(cut(self.truth)).astype(np.complex64)
        return channels, cut(self.seen.sigma).copy(), truth, cut(self.weight).copy()


def weight_of(seen: Seen) -> NDArray[np.float32]:
    """Return how much each pixel counts: all that have the usual light, alike."""
    lit = seen.channels()[-1] > 0
    weight: NDArray[Any] = np.minimum(seen.light / np.median(seen.light[lit]), 1) * lit
    return weight.astype(np.float32)


def error(image: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the mean square error of each image of a batch, whatever its phase as a whole.

    It is relative to the object's intensity, since errors of the phase are; where that is below a
    tenth, to a tenth.
    """
    across = (weight * image * truth.conj()).sum((-2, -1), keepdim=True)
    rest = image - truth * across / (across.abs() + 1e-12)
    relative = (rest.real**2 + rest.imag**2) / (truth.abs() ** 2).clamp(min=0.1)
    return (weight * relative).sum((-2, -1)) / weight.sum((-2, -1))


def loss_of(network: CanvasNetwork, batch: list[tuple[NDArray[Any], ...]]) -> Tensor:
    """Return the logarithm of by how much the errors fall, on average."""
    channels, sigma, truth, weight = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*batch, strict=True)
    )
    change = network(channels.contiguous(memory_format=torch.channels_last)) * sigma[:, None]
    before = torch.complex(channels[:, 0], channels[:, 1])
    after = before + torch.complex(change[:, 0], change[:, 1])
    least = error(before, truth, weight)
    return torch.log((error(after, truth, weight) + 1e-3 * least) / least).mean()


def train(
    folders: list[Path], out: Path, iterations: int, seed: int, begin: Path | None = None
) -> None:
    """Train a network, from nothing or from one that was trained; write it and the course of it."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    paths = [path for folder in folders for path in folder.glob("*.npz")]
    paths.sort(key=lambda path: (int(path.stem), folders.index(path.parent)))
    held_out = [Example(path) for path in paths if int(path.stem) in HELD_OUT]
    examples = [Example(path) for path in paths if int(path.stem) not in HELD_OUT]
    print(f"{len(examples)} examples, {len(held_out)} held out", flush=True)
    network = CanvasNetwork() if begin is None else load(begin).train().requires_grad_()
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    out.mkdir(parents=True, exist_ok=True)
    log: list[tuple[int, float, float, float]] = []
    losses: list[float] = []
    peak = RATE if begin is None else RATE / 2
    warm_up = min(WARM_UP, max(1, iterations // 10))
    for iteration in range(1, iterations + 1):
        done = iteration / iterations
        rate = peak * min(1, iteration / warm_up) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = [examples[rng.integers(len(examples))].crop(rng) for _ in range(BATCH)]
        loss = loss_of(network, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if iteration % 250 == 0 or iteration == iterations:
            row = (iteration, float(np.mean(losses[-250:])), *judge(network, held_out))
            log.append(row)
            print("iteration {}: loss {:.4f}; held out: error {:.4f}, phase {:.4f}".format(*row),
                  flush=True)  # fmt: skip
            write(network, log, out)


def judge(network: CanvasNetwork, examples: list[Example]) -> tuple[float, float]:
    """Return the mean logarithm of the ratio of errors, and of phase errors, after and before."""
    ratios = [(math.log(a[0] / b[0]), math.log(a[1] / b[1])) for b, a in scores(network, examples)]
    first, second = np.mean(ratios, axis=0)
    return float(first), float(second)


def scores(
    network: CanvasNetwork, examples: list[Example]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the errors of each scan, of the object and of its phase, before and after."""

    def errors(image: NDArray[Any], one: Example) -> tuple[float, float]:
        across = (one.weight * image.conj() * one.truth).sum()
        image = image * np.complex64(across / (one.weight * np.abs(image) ** 2).sum())
        tensors = (torch.from_numpy(array) for array in (image, one.truth, one.weight))
        turned = image * one.truth.conj()
        phase = np.angle(turned * np.exp(-1j * np.angle((one.weight * turned).sum())))
        square = (one.weight * phase**2).sum() / one.weight.sum()
        return math.sqrt(error(*tensors).item()), math.sqrt(square)

    return [
        (
            errors(one.seen.object, one),
            errors((improved(one.seen, network) / one.seen.size).astype(np.complex64), one),
        )
        for one in examples
    ]


def write(network: CanvasNetwork, log: list[tuple[int, float, float, float]], out: Path) -> None:
    """Write the weights in half precision, and the log."""
    weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    with replacing(out / WEIGHTS) as file:
        file.write(safetensors.save(weights))
    with (out / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("iteration", "loss", "error", "phase"), *log])


def phase_errors(number: int) -> tuple[float, float, list[float], str]:
    """Return photons, overlap, phase errors by each prior, and which one was chosen."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    scan = random_scan(number, kind_of(number))
    assert scan.object is not None
    found, chosen = [], ""
    for prior in PRIORS:
        made = pf.reconstruct(scan, probe="fixed", prior=prior, seed=number, num_threads=1)
        chosen = made.prior
        x, y = made.origin
        turned = made.object * place(scan.object, (-x, -y), made.object.shape).conj()
        weight = np.minimum(made.coverage / np.median(made.coverage[lit(made.coverage, 0.1)]), 1)
        phase = np.angle(turned * np.exp(-1j * np.angle((weight * turned).sum())))
        found.append(math.sqrt((weight * phase**2).sum() / weight.sum()))
    return scan.metadata["photons"], scan.metadata["overlap"], found, chosen


def score(processes: int) -> None:
    """Print the phase errors of the scans that were held out, with the weights of the package."""
    with ProcessPoolExecutor(processes) as pool:
        rows = list(pool.map(phase_errors, HELD_OUT))
    print(
        "| photons | overlap | scans | smooth, rad | learned, rad | learned / smooth | worst "
        "| auto / better | auto chose learned |"
    )
    print("|" + "---|" * 9)
    for low, high in itertools.pairwise((1e2, 1e3, 1e4, 1e5, 1e6)):
        for few, much in itertools.pairwise((0.1, 0.3, 0.5, 0.8)):
            some = [row for row in rows if low <= row[0] < high and few <= row[1] < much]
            if not some:
                continue
            errors = np.array([row[2] for row in some])
            ratios, median = errors[:, 1] / errors[:, 0], np.median(errors, axis=0)
            auto = errors[:, 2] / errors[:, :2].min(axis=1)
            share = sum(row[3] == "learned" for row in some)
            print(
                f"| {low:.0e} to {high:.0e} | {few} to {much} | {len(some)} | {median[0]:.3g} | "
                f"{median[1]:.3g} | {np.median(ratios):.3f} | {ratios.max():.2f} | "
                f"{np.median(auto):.3f} | {share} |"
            )


def load(out: Path) -> CanvasNetwork:
    """Return a network that was trained."""
    return network_of((out / WEIGHTS).read_bytes())


def main() -> None:
    """Carry out a command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("scans", help="simulate and reconstruct the scans")
    made.add_argument("folder", type=Path)
    made.add_argument("--number", type=int, default=1430)
    made.add_argument("--processes", type=int, default=2)
    made.add_argument("--network", type=Path, help="of the first stage, for examples of the second")
    trained = commands.add_parser("train", help="train the network")
    trained.add_argument("folder", type=Path, nargs="+")
    trained.add_argument("--begin", type=Path, help="a network that was trained before")
    trained.add_argument("-o", "--output", type=Path, required=True)
    trained.add_argument("--iterations", type=int, default=7500)
    trained.add_argument("--seed", type=int, default=0)
    scored = commands.add_parser("score", help="judge it by the scans that were held out")
    scored.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    began = time.monotonic()
    if chosen.command == "scans":
        chosen.folder.mkdir(parents=True, exist_ok=True)
        numbers = [*HELD_OUT, *range(chosen.number)]
        with ProcessPoolExecutor(chosen.processes) as pool:
            write_one = functools.partial(write_example, chosen.folder, chosen.network)
            list(pool.map(write_one, numbers))
    elif chosen.command == "train":
        train(chosen.folder, chosen.output, chosen.iterations, chosen.seed, chosen.begin)
    else:
        score(chosen.processes)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
