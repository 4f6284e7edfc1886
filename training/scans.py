"""Random scans, from which networks learn what objects look like: no two are alike.

Nothing here was taken from a measured scan. Every scan follows from its number alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import ptycho_fast as pf
from ptycho_fast.patches.cpu import extract_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

Generator = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """What the random scans are like.

    Parameters
    ----------
    sizes : tuple of int
        Pixels per side of a pattern.
    patterns : (int, int)
        Fewest and most of them.
    photons : (float, float)
        Fewest and most a pattern; uniform in the logarithm.
    overlap : (float, float)
        Of neighbouring probes: 1 - spacing / diameter of the circle with 90 % of the energy.
    """

    sizes: tuple[int, ...] = (24, 32, 40, 48)
    patterns: tuple[int, int] = (40, 160)
    photons: tuple[float, float] = (1e2, 1e6)
    overlap: tuple[float, float] = (0.1, 0.8)


def random_scan(number: int, kind: Kind | None = None) -> pf.Scan:
    """Return a simulated scan, with its true object.

    Parameters
    ----------
    number : int
        Seed of everything in it.
    kind : Kind, optional

    Returns
    -------
    Scan
        Its metadata hold ``photons`` a pattern and the ``overlap``.
    """
    kind = kind or Kind()
    rng = np.random.default_rng(np.random.SeedSequence([number, 0x7C4]))
    N = int(rng.choice(kind.sizes))
    n = int(rng.integers(*kind.patterns))
    photons = _log_uniform(rng, *kind.photons)
    probe = random_probe(rng, N)
    overlap = float(rng.uniform(*kind.overlap))
    spacing = max(1.0, (1 - overlap) * diameter(probe))
    positions = _positions(rng, n) * spacing
    positions += N // 2 + 1 - positions.min(axis=0)
    width, height = np.ceil(positions.max(axis=0)).astype(int) + N - N // 2 + 1
    image = random_object(rng, int(height), int(width))
    intensity = _intensities(image, probe, positions, N)
    scale = photons / intensity.sum(axis=(1, 2)).mean()
    counts = rng.poisson(scale * intensity)
    return pf.Scan(
        positions=positions,
        diffraction=np.sqrt(counts).astype(np.float32),
        probe=probe[0] if len(probe) == 1 else probe,
        object=image,
        metadata={"photons": photons, "overlap": overlap, "number": number},
    )


# --- objects --------------------------------------------------------------------------------------


def random_object(rng: Generator, height: int, width: int) -> NDArray[np.complex64]:
    """Return an object: fields of one to three kinds, in phase and modulus.

    The modulus follows the phase, opposes it, has nothing to do with it, or hardly varies; the
    phase is weak or strong (several turns, if it is smooth).
    """
    shape = (height, width)
    shares = rng.dirichlet(np.full(len(FIELDS), 0.35))
    phase, other = np.zeros(shape), np.zeros(shape)
    for make, share in zip(FIELDS, shares, strict=True):
        if share > 0.08:
            phase += share * make(rng, shape)
            other += share * make(rng, shape)
    blur = _log_uniform(rng, 0.3, 1.2)
    phase, other = _normal(_blurred(phase, blur)), _normal(_blurred(other, blur))
    common = float(rng.choice([-1.0, 1.0, 0.0, rng.uniform(-1, 1)]))
    modulus = common * phase + math.sqrt(1 - common**2) * other
    strength = _log_uniform(rng, 0.05, 0.7)
    contrast = _log_uniform(rng, 0.02, 0.35)
    # Thick samples shift the phase slowly, by several radians.
    slow = rng.choice([0.0, _log_uniform(rng, 0.2, 2.5)], p=[0.4, 0.6])
    angle = strength * phase + slow * _normal(_rough(rng, shape, power=rng.uniform(2.5, 4)))
    ceiling = rng.uniform(1.0, 1.2)
    size = np.clip(0.8 + contrast * modulus, 0.02, ceiling)
    image: NDArray[np.complex64] = (size * np.exp(1j * angle)).astype(np.complex64)
    return image


def _rough(
    rng: Generator, shape: tuple[int, int], power: float | None = None
) -> NDArray[np.float64]:
    """Noise whose power spectrum falls as a power of the frequency."""
    power = rng.uniform(2, 4) if power is None else power
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1]))
    coarsest = _log_uniform(rng, 1 / 300, 1 / 20)
    spectrum = np.hypot(frequency, coarsest) ** (-power / 2)
    return _normal(np.fft.irfft2(spectrum * np.fft.rfft2(rng.standard_normal(shape)), s=shape))


def _domains(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Regions of two to four values, with sharp edges: where rough noise is within limits."""
    field = _rough(rng, shape, power=rng.uniform(2.5, 4.5))
    levels = np.sort(rng.normal(0, 0.7, rng.integers(1, 4)))
    return rng.standard_normal(len(levels) + 1)[np.searchsorted(levels, field)]


def _leaves(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Ellipses and rectangles of many sizes, that cover each other."""
    field = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    smallest = _log_uniform(rng, 1.5, 6)
    filled = rng.uniform(0.3, 2)
    area, limit = 0.0, filled * shape[0] * shape[1]
    while area < limit:
        # Radii fall as r**-3, as those of what lies in natural images.
        radius = min(smallest / math.sqrt(rng.uniform(0.003, 1)), 60)
        aspect, turn = rng.uniform(0.4, 1), rng.uniform(0, math.pi)
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        r = math.ceil(1.5 * radius)
        rows = slice(max(0, int(cy) - r), int(cy) + r + 1)
        columns = slice(max(0, int(cx) - r), int(cx) + r + 1)
        dy, dx = y[rows, columns] - cy, x[rows, columns] - cx
        u = dx * math.cos(turn) + dy * math.sin(turn)
        v = (dy * math.cos(turn) - dx * math.sin(turn)) / aspect
        if rng.random() < 0.6:
            inside = u**2 + v**2 < radius**2
        else:
            inside = np.maximum(np.abs(u), np.abs(v)) < 0.9 * radius
        field[rows, columns][inside] = rng.normal()
        area += math.pi * radius**2 * aspect
    return field


def _balls(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Spheres, whose thickness adds up."""
    field = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    largest = _log_uniform(rng, 4, 30)
    for _ in range(max(3, int(rng.uniform(0.2, 1) * shape[0] * shape[1] / (4 * largest**2)))):
        radius = largest * rng.uniform(0.3, 1)
        height = (
            radius**2 - (y - rng.uniform(0, shape[0])) ** 2 - (x - rng.uniform(0, shape[1])) ** 2
        )
        field += np.sqrt(np.maximum(height, 0))
    return field


def _lines(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Straight and bent lines, each with a width of its own."""
    field = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    size = max(shape)
    for _ in range(rng.integers(8, 40)):
        turn, bend = rng.uniform(0, 2 * math.pi), rng.normal(0, 1.5 / size)
        u = (x - rng.uniform(0, shape[1])) * math.cos(turn) + (
            y - rng.uniform(0, shape[0])
        ) * math.sin(turn)
        v = (y - rng.uniform(0, shape[0])) * math.cos(turn) - (
            x - rng.uniform(0, shape[1])
        ) * math.sin(turn)
        length, width = rng.uniform(0.1, 1) * size, _log_uniform(rng, 0.8, 6)
        field[(np.abs(v - bend * u**2) < width) & (np.abs(u) < length / 2)] += rng.normal()
    return field


def _gratings(rng: Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Bars in patches of ellipses, as on a test target."""
    field = np.zeros(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(3, 15)):
        turn, period = rng.uniform(0, math.pi), _log_uniform(rng, 3, 20)
        wave = np.sin(2 * math.pi / period * (x * math.cos(turn) + y * math.sin(turn)))
        radius = _log_uniform(rng, 8, 50)
        away = (y - rng.uniform(0, shape[0])) ** 2 + (x - rng.uniform(0, shape[1])) ** 2
        inside = away < radius**2
        field[inside] = (np.sign(wave) * rng.normal())[inside]
    return field


FIELDS = (_rough, _domains, _leaves, _balls, _lines, _gratings)


# --- probes ---------------------------------------------------------------------------------------


def random_probe(rng: Generator, N: int) -> NDArray[np.complex64]:
    """Return the modes of a probe, (modes, N, N), of total energy 1.

    A lens with a round, square or gaussian aperture, with or without a central stop, out of focus
    and with aberrations; one in four probes has two to four modes.
    """
    axis = (np.arange(N) - N // 2) / N
    fy, fx = axis[:, np.newaxis], axis[np.newaxis, :]
    aperture = rng.uniform(0.1, 0.3)
    fr = np.hypot(fx, fy) / aperture
    soft = 1 / (aperture * N)
    shape = rng.choice(["round", "square", "gaussian"], p=[0.6, 0.2, 0.2])
    if shape == "round":
        pupil = np.clip((1 - fr) / soft + 0.5, 0, 1)
    elif shape == "square":
        pupil = np.clip((1 - np.maximum(abs(fx), abs(fy)) / aperture) / soft + 0.5, 0, 1)
    else:
        pupil = np.exp(-2 * fr**2)
    if shape != "gaussian" and rng.random() < 0.3:
        pupil = pupil * np.clip((fr - rng.uniform(0.15, 0.5)) / soft + 0.5, 0, 1)
    # A ray at frequency q is displaced by d(phase)/dq / (2 pi): the probe's radius, out of focus.
    radius = rng.uniform(0.08, 0.28) * N
    phase = math.pi * radius * aperture * fr**2
    angle = np.arctan2(fy, fx + 1e-30)
    for order, turns in ((2, 2), (3, 1), (3, 3), (4, 0)):
        phase = phase + rng.normal(0, 0.6) * fr**order * np.cos(turns * angle + rng.uniform(0, 7))
    wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil * np.exp(1j * phase))))
    modes = [wave / np.linalg.norm(wave)]
    if rng.random() < 0.25:
        # Vibration: the probe beside itself.
        share = rng.uniform(0.05, 0.3)
        for _ in range(rng.integers(1, 4)):
            dy, dx = rng.normal(0, 1.5, 2)
            moved = np.exp(-2j * math.pi * (fy * dy + fx * dx)) * np.fft.fftshift(
                np.fft.fft2(np.fft.ifftshift(modes[0]))
            )
            wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(moved)))
            modes.append(math.sqrt(share) * wave / np.linalg.norm(wave))
            share *= rng.uniform(0.3, 0.9)
    probe = np.stack(modes)
    probe /= np.linalg.norm(probe)
    return probe.astype(np.complex64)


def diameter(probe: NDArray[np.complex64]) -> float:
    """Return the diameter of the circle that holds 90 % of the energy of a probe."""
    light = (np.abs(probe) ** 2).sum(axis=0)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    light = light / light.sum()
    away = np.hypot(y - (light * y).sum(), x - (light * x).sum()).ravel()
    order = np.argsort(away)
    return 2 * float(away[order][np.searchsorted(np.cumsum(light.ravel()[order]), 0.9)])


# --- scans ----------------------------------------------------------------------------------------


def _positions(rng: Generator, n: int) -> NDArray[np.float64]:
    """Return n positions, (n, 2), at a distance of about 1: a raster or a spiral, or jittered."""
    if rng.random() < 0.3:
        turn = np.arange(n) * (math.pi * (3 - math.sqrt(5)))
        radius = np.sqrt((np.arange(n) + 0.5) / math.pi)
        found = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    else:
        columns = max(2, int(math.sqrt(n * _log_uniform(rng, 0.5, 2))))
        row, column = np.divmod(np.arange(n), columns)
        found = np.stack([column, row], axis=1).astype(float)
    jitter = rng.choice([0.0, rng.uniform(0, 0.5)])
    return found + rng.uniform(-jitter, jitter, found.shape)


def _intensities(
    image: NDArray[np.complex64],
    probe: NDArray[np.complex64],
    positions: NDArray[np.float64],
    N: int,
) -> NDArray[np.float64]:
    patches = extract_patches(image, positions[:, :, np.newaxis], N)[..., 0]
    total = np.zeros(patches.shape)
    for mode in probe:
        field = np.fft.fft2(np.fft.ifftshift(mode * patches, axes=(1, 2)), norm="ortho")
        total += np.abs(np.fft.fftshift(field, axes=(1, 2))) ** 2
    return total


def _blurred(field: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    down, right = np.fft.fftfreq(field.shape[0]), np.fft.rfftfreq(field.shape[1])
    response = np.exp(-2 * (math.pi * sigma) ** 2 * (down[:, np.newaxis] ** 2 + right**2))
    blurred: NDArray[np.float64] = np.fft.irfft2(response * np.fft.rfft2(field), s=field.shape)
    return blurred


def _normal(field: NDArray[np.float64]) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = (field - field.mean()) / max(float(field.std()), 1e-12)
    return normal


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.random())
