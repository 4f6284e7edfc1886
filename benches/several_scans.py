"""A network that was trained on one scan images another; a network of three scans images each.

``python benches/several_scans.py`` trains four networks on run1084, if it is there, and on
simulated scans with other probes (ten minutes on one thread), and prints two tables: how well the
network of scan A images scan B through the probe of A, as it was done before models took the probe
of the scan that they image, and through that of B; and how well a network of all three scans images
each, beside a network of that scan alone which saw the same number of its patterns. ``--quick``
takes seconds, on small scans.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ptycho_fast as pf

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN1084 = Path(__file__).parents[2] / "shared" / "data" / "run1084_xpp_simdiff_n64.npz"

ITERATIONS = 10
"""Of `reconstruct`, which refine the network's image in the rows that say so."""


@dataclass(frozen=True)
class Size:
    """How much is simulated and trained.

    Parameters
    ----------
    N : int
        Pixels per side of a pattern.
    positions : int
        Patterns of a simulated scan.
    groups, epochs : int
        Groups of four patterns per epoch and scan, and epochs.
    """

    N: int
    positions: int
    groups: int
    epochs: int


WHOLE, QUICK = Size(64, 600, 400, 5), Size(32, 100, 50, 1)


def make_probe(N: int, defocus: float, stop: float) -> NDArray[np.complex64]:
    """Return the probe of a circular aperture with a central stop, out of focus.

    Parameters
    ----------
    N : int
        Pixels per side.
    defocus : float
        Radius of the probe, for a ray from the rim of the aperture, in units of N.
    stop : float
        Radius of the stop in units of that of the aperture.
    """
    axis = np.arange(N) - N // 2
    q, aperture = np.hypot(axis[:, np.newaxis], axis), N / 6
    # Both edges are one pixel soft.
    pupil = np.clip(aperture + 0.5 - q, 0, 1) * np.clip(q - stop * aperture + 0.5, 0, 1)
    # A ray at frequency q is displaced by N / (2 pi) times the derivative of the phase.
    wave = pupil * np.exp(1j * np.pi * defocus / aperture * q**2)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(wave), norm="ortho"))
    return (probe / np.linalg.norm(probe)).astype(np.complex64)


def light_again(scan: pf.Scan, probe: NDArray[np.complex64], photons: float, seed: int) -> pf.Scan:
    """Return a simulated scan as it would be measured with another probe.

    Parameters
    ----------
    scan : Scan
        Its object and its positions are used.
    probe : ndarray, (N, N), complex64
    photons : float
        Mean number of photons per pattern.
    seed : int
        Of the photon noise.
    """
    assert scan.object is not None
    patches = pf.extract_patches(scan.object, scan.positions[:, :, np.newaxis], scan.N)[..., 0]
    waves = np.fft.fft2(np.fft.ifftshift(patches * probe, axes=(1, 2)), norm="ortho")
    light = np.fft.fftshift(np.abs(waves) ** 2, axes=(1, 2)).astype(np.float64)
    light *= photons / light.sum(axis=(1, 2)).mean()
    counts = np.random.default_rng(seed).poisson(light)
    return replace(scan, probe=probe, diffraction=np.sqrt(counts).astype(np.float32), metadata={})


def scans(size: Size, *, quick: bool) -> dict[str, pf.Scan]:
    """Return three scans with different objects, probes and exposures, by name."""
    simulated = [
        pf.simulate_scan(size.positions, size.N, spacing=size.N / 16, seed=seed)
        for seed in range(3)
    ]
    found = {"A, simulated": simulated[0]}
    if RUN1084.exists() and not quick:
        found = {"A, run1084": pf.read_scan(RUN1084)}
    found["B, simulated, defocus"] = light_again(
        simulated[1], make_probe(size.N, defocus=0.25, stop=0), photons=1e6, seed=1
    )
    found["C, simulated, central stop"] = light_again(
        simulated[2], make_probe(size.N, defocus=-0.17, stop=0.4), photons=3e5, seed=2
    )
    return found


def train(given: list[pf.Scan], size: Size, seed: int) -> Any:
    """Return a network that was trained on scans."""
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    model = PtychoModel(N=size.N, seed=seed)
    model.train(given, n_groups=size.groups, max_epochs=size.epochs, picture_every=0)
    return model


def row(name: str, made: Any, *more: str) -> str:
    """Return a line of a table: a name, the scores of an image, and more cells."""
    scores = made.metrics
    cells = [
        name,
        f"{scores['phase_rmse']:.3f}",
        f"{scores['amplitude_correlation']:.3f}",
        f"{scores['complex_error']:.3f}",
        f"{scores['pattern_correlation']:.3f}",
        *more,
    ]
    return f"| {' | '.join(cells)} |"


def show_head(*names: str) -> None:
    """Print the head of a table."""
    first, *more = names
    columns = [first, "phase RMSE, rad", "amplitude corr.", "complex error", "pattern corr.", *more]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def show_probes(model: Any, other: pf.Scan) -> None:
    """Print how a network images a scan with another probe than its own, and with its own."""
    ways = {
        "before: through the probe of A": replace(other, probe=None),
        "after: through the probe of B": other,
    }
    for name, seen in ways.items():
        for refine in (0, ITERATIONS):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The scan has no probe")
                made = model.infer(seen, refine=refine)
            print(row(name + (f", and {refine} iterations" if refine else ""), made))


def main() -> None:
    """Train the networks, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of weights and groups (default: 0)")
    parser.add_argument("--quick", action="store_true", help="small scans, in seconds")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else WHOLE
    given = scans(size, quick=arguments.quick)
    begun = time.perf_counter()
    together = train(list(given.values()), size, arguments.seed)
    alone = {name: train([scan], size, arguments.seed) for name, scan in given.items()}
    first, second, _ = given
    print(f"{size.epochs} epochs of {size.groups} groups of 4 patterns a scan, ", end="")
    print(f"{time.perf_counter() - begun:.0f} s for 4 networks")

    show_head(f"the network of {first}, images {second}")
    show_probes(alone[first], given[second])

    show_head("scan", "phase RMSE, together : alone")
    for name, scan in given.items():
        own, shared = alone[name].infer(scan), together.infer(scan)
        ratio = shared.metrics["phase_rmse"] / own.metrics["phase_rmse"]
        print(row(f"{name}, alone", own, ""))
        print(row(f"{name}, together", shared, f"{ratio:.2f}"))


if __name__ == "__main__":
    main()
