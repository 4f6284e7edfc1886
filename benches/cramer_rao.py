"""The Cramér-Rao bound of the phase: the smallest error of any unbiased estimate from a scan.

``python benches/cramer_rao.py SCAN.npz`` prints it for a scan file that holds its true object and
the photon scale of its simulation; ``--photons`` for another mean number of photons in a pattern,
``--right 12`` for the right half alone.

The probe is taken as known. For the counts ``I = |F(P O)|**2`` of a Poisson process, the
information about the real and imaginary part of every pixel is the matrix ``4 Re J^H J``, where J
is the derivative of the wave at the detector, its phase removed. The errors of the best unbiased
estimate have its inverse as covariance. They are sampled: noise of unit variance at every detector
pixel is brought back to the object, and the system is solved with conjugate gradients. Like every
score, the phase is taken without a global factor and a ramp, over the mask of section 9 of the
contract.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import ptycho_fast as pf
from ptycho_fast.metrics import scan_mask
from ptycho_fast.patches.cpu import add_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.complex64]

FLOOR = 1e-6
"""Counts added to the expected ones, so that a dark pixel has finite information."""

SHIPPED = 1e6
"""Mean number of photons in a pattern of the files to which ``photon_scale`` refers."""

DIMMEST = 1e-3
"""Least weight of a pixel in the preconditioner, as a fraction of the largest."""

BLOCK = 2**17
"""Pixels of patterns that are computed together: as many as fit in a cache."""


class Model(Protocol):
    """What is needed of a model of a scan."""

    def noise(self, object: Image, probe: Image, rng: np.random.Generator) -> Image:
        """Bring noise of unit variance at the detector back to the object: its covariance is H."""

    def curvature(self, object: Image, probe: Image, direction: Image) -> Image:
        """Return the information matrix H times a direction."""

    def light(self, probe: Image) -> NDArray[np.float32]:
        """Return the light on the object."""


class Diffraction:
    """The model in SciPy, on one thread.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        x and y in pixels of the object.
    shape : (int, int)
        Rows and columns of the object.
    """

    def __init__(self, positions: NDArray[np.float64], shape: tuple[int, ...]) -> None:
        self.positions = positions[:, :, None]
        self.shape = shape

    def blocks(self, probe: Image) -> list[NDArray[np.float64]]:
        """Return the positions, a block at a time."""
        step = max(1, BLOCK // probe.size)
        return [self.positions[i : i + step] for i in range(0, len(self.positions), step)]

    def noise(self, object: Image, probe: Image, rng: np.random.Generator) -> Image:
        """Bring noise of unit variance at the detector back to the object: its covariance is H."""
        out = np.zeros_like(object)
        for where in self.blocks(probe):
            far = forward(object, probe, where)
            back(2 * unit(far) * rng.standard_normal(far.shape, np.float32), probe, where, out)
        return out

    def curvature(self, object: Image, probe: Image, direction: Image) -> Image:
        """Return the information matrix H times a direction."""
        out = np.zeros_like(object)
        for where in self.blocks(probe):
            phase = unit(forward(object, probe, where))
            change = forward(direction, probe, where)
            along = phase.real * change.real + phase.imag * change.imag
            back(4 * phase * along, probe, where, out)
        return out

    def light(self, probe: Image) -> NDArray[np.float32]:
        """Return the light on the object."""
        out = np.zeros(self.shape, np.complex64)
        spot = (np.abs(probe) ** 2).astype(np.complex64)[None, :, :, None]
        for where in self.positions[:, None]:
            add_patches(spot, where, out, num_threads=1)
        return out.real


def forward(image: Image, probe: Image, where: NDArray[np.float64]) -> Image:
    """Return the waves at the detector."""
    from scipy import fft  # noqa: PLC0415

    waves = pf.extract_patches(image, where, len(probe), num_threads=1)[..., 0] * probe
    found: Image = fft.fft2(waves, norm="ortho", overwrite_x=True)
    return found


def back(far: Image, probe: Image, where: NDArray[np.float64], out: Image) -> None:
    """Add waves at the detector to the object: the adjoint of `forward`."""
    from scipy import fft  # noqa: PLC0415

    near = fft.ifft2(far, norm="ortho", overwrite_x=True) * probe.conj()
    add_patches(near[..., None], where, out, num_threads=1)


def unit(far: Image) -> Image:
    """Return the wave divided by its amplitude, and 0 where there is no light."""
    found: Image = far / np.sqrt(far.real**2 + far.imag**2 + np.float32(FLOOR))
    return found


def solve(
    model: Model, object: Image, probe: Image, target: Image, steps: int
) -> tuple[Image, float]:
    """Solve ``H x = target`` with conjugate gradients, preconditioned by the light.

    Returns
    -------
    x : ndarray, (H, W), complex64
    residual : float
        ``norm(target - H x) / norm(target)``. A global phase, which no data determine, and pixels
        that hardly any light reaches keep it above 0; the phase within the mask converges earlier.
    """
    light = model.light(probe)
    weight = light + DIMMEST * light.max()
    x, rest = np.zeros_like(target), target.copy()
    way = rest / weight
    size = dot(rest, way)
    for _ in range(steps):
        bent = model.curvature(object, probe, way)
        step = np.float32(size / dot(way, bent))
        x, rest = x + step * way, rest - step * bent
        ready = rest / weight
        size, former = dot(rest, ready), size
        way = ready + np.float32(size / former) * way
    return x, float(np.linalg.norm(rest) / np.linalg.norm(target))


def dot(a: Image, b: Image) -> float:
    """Return the inner product of two images as real vectors, summed in float64."""
    return float(np.sum(a.real * b.real + a.imag * b.imag, dtype=np.float64))


def phase_error(change: Image, object: Image, mask: NDArray[np.bool_]) -> float:
    """Return the rms of the phase of a small change, without a global factor and a ramp."""
    rows, columns = np.nonzero(mask)
    phase = (change[mask] / object[mask]).imag.astype(np.float64)
    ramps = np.stack([np.ones(len(rows)), columns - columns.mean(), rows - rows.mean()], axis=1)
    # The scores remove the ramp that fits the image best, so that bright pixels count more.
    weight = np.abs(object[mask])
    fit = np.linalg.lstsq(ramps * weight[:, None], phase * weight, rcond=None)[0]
    return float(np.sqrt(np.mean((phase - ramps @ fit) ** 2)))


def bound(
    scan: pf.Scan, photons: float, *, samples: int, steps: int
) -> tuple[list[float], list[float]]:
    """Return the phase error of each sample, and the residual of its system."""
    assert scan.object is not None
    assert scan.probe is not None
    scale = float(scan.metadata["photon_scale"]) * photons / SHIPPED
    probe = (np.squeeze(scan.probe) * np.sqrt(scale)).astype(np.complex64)
    image = np.ascontiguousarray(scan.object, np.complex64)
    mask = scan_mask(image.shape, scan.positions, scan.N)
    model = Diffraction(scan.positions, image.shape)
    errors, residuals = [], []
    for seed in range(samples):
        target = model.noise(image, probe, np.random.default_rng(seed))
        change, residual = solve(model, image, probe, target, steps)
        errors.append(phase_error(change, image, mask))
        residuals.append(residual)
    return errors, residuals


def main() -> None:
    """Print the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", help="a simulated scan file that holds its true object")
    parser.add_argument("--photons", type=float, default=SHIPPED, help="mean, in a pattern")
    parser.add_argument(
        "--right", type=float, help="use the positions that many pixels right of the median"
    )
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="of conjugate gradients")
    arguments = parser.parse_args()
    scan: Any = pf.read_scan(arguments.scan)
    if arguments.right is not None:
        x = scan.positions[:, 0]
        right = np.flatnonzero(x > np.median(x) + arguments.right)
        scan = replace(
            scan,
            positions=scan.positions[right],
            positions_start=None,
            diffraction=scan.diffraction[right],
            scan_index=None,
            energies=None,
        )
    errors, residuals = bound(
        scan, arguments.photons, samples=arguments.samples, steps=arguments.steps
    )
    found = math.sqrt(np.mean(np.square(errors)))
    told = ", ".join(f"{error:.5f}" for error in errors)
    print(f"phase: {found:.5f} rad (samples: {told}; residual at most {max(residuals):.1e})")


if __name__ == "__main__":
    main()
