"""A simulated scan, with which everything can be tried without a file."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.checks import as_count
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BLOCK_BYTES = 2**24
"""Bytes of patches and counts that are made at a time: little beside the scan itself."""

TRAJECTORIES = ("raster", "spiral")
"""Rows from the top, or a Fermat spiral from the middle outwards."""


def simulate_scan(
    n_positions: int = 1000,
    N: int = 64,
    *,
    trajectory: str = "raster",
    spacing: float | None = None,
    jitter: float = 0.25,
    photons: float | None = 1e6,
    seed: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Scan:
    """Simulate a scan: an object with structure at all scales, a defocused probe, photon noise.

    The amplitudes are ``sqrt(Poisson(photon_scale * |F(probe * patch)|**2))``, where F is the
    centred orthonormal Fourier transform, `patch` is cut out by `extract_patches` at the sub-pixel
    positions, and `photon_scale` is one number for the whole scan.

    Parameters
    ----------
    n_positions : int
        Number of positions (n).
    N : int
        Pixels per side of a pattern and of the probe.
    trajectory : {"raster", "spiral"}
        Rows from top to bottom, or a Fermat spiral from the middle outwards.
    spacing : float, optional
        Distance in pixels between neighbours in a row; in a spiral, the square root of the area of
        each position. At most N. By default N/8, where the probes of neighbours overlap by well
        over half.
    jitter : float
        Largest displacement, in x and in y, of a position from where it was planned, in units of
        `spacing`, 0..1. ``Scan.positions_start`` holds the planned positions.
    photons : float, optional
        Mean number of photons per pattern, up to 1e15; None for amplitudes without noise, at photon
        scale 1.
    seed : int, optional
        0..2**63-1; a new random seed by default. The metadata record it in either case.
    progress : callable, optional
        Called with the share of the work done since the last call.

    Returns
    -------
    Scan
        Amplitudes are float32. The probe is complex64, of energy 1 and centred on pixel
        ``[N//2, N//2]``. The object is complex64, has modulus 0.6..1 and phase -1.2..1.2 rad, and
        is large enough for every patch. The metadata are ``simulated``, ``seed``, ``trajectory``
        and ``photon_scale``.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    MemoryError
        If the scan does not fit in memory.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=50, N=32, trajectory="spiral", seed=0)
    >>> scan.diffraction.shape, scan.probe.shape
    ((50, 32, 32), (32, 32))
    """
    n, N = as_count("n_positions", n_positions), as_count("N", N)
    if trajectory not in TRAJECTORIES:
        msg = f"trajectory must be 'raster' or 'spiral', got {trajectory!r}."
        raise ValueError(msg)
    spacing = N / 8 if spacing is None else spacing
    if not 0 < spacing <= N:
        msg = f"spacing must be more than 0 and at most N={N} pixels, got {spacing!r}."
        raise ValueError(msg)
    if not 0 <= jitter <= 1:
        msg = f"jitter must be 0..1 in units of the spacing, got {jitter!r}."
        raise ValueError(msg)
    if photons is not None and not 0 < photons <= 1e15:
        msg = f"photons must be more than 0 and at most 1e15, or None, got {photons!r}."
        raise ValueError(msg)
    if seed is None:
        seed = int.from_bytes(os.urandom(8), "little") >> 1
    seed = as_count("seed", seed, least=0, most=2**63 - 1)

    diffraction = np.empty((n, N, N), np.float32)
    rng = np.random.default_rng(seed)
    planned = _raster(n) if trajectory == "raster" else _spiral(n)
    planned = (planned - planned.min(axis=0) + jitter) * spacing + N // 2
    positions = planned + rng.uniform(-jitter * spacing, jitter * spacing, (n, 2))
    # The last patch ends N - N//2 - 1 pixels after its position, and interpolation needs one more.
    width, height = np.ceil(planned.max(axis=0) + jitter * spacing).astype(int) + N - N // 2 + 1
    image = _object(rng, int(height), int(width), N)
    probe = _probe(N)

    report = progress or (lambda share: None)
    passes = 1 if photons is None else 2
    frames = max(1, BLOCK_BYTES // (16 * N * N))
    blocks = [slice(first, min(first + frames, n)) for first in range(0, n, frames)]
    energy = 0.0
    for block in blocks:
        patches = extract_patches(image, positions[block, :, np.newaxis], N)[..., 0]
        field = np.fft.fft2(np.fft.ifftshift(probe * patches, axes=(1, 2)), norm="ortho")
        diffraction[block] = np.fft.fftshift(np.abs(field), axes=(1, 2))
        energy += float(np.sum(np.square(diffraction[block], dtype=np.float64)))
        report((block.stop - block.start) / (n * passes))
    photon_scale = 1.0 if photons is None else photons * n / energy
    if photons is not None:
        for block in blocks:
            counts = rng.poisson(photon_scale * np.square(diffraction[block], dtype=np.float64))
            diffraction[block] = np.sqrt(counts)
            report((block.stop - block.start) / (n * passes))
    return Scan(
        positions=positions,
        positions_start=planned,
        diffraction=diffraction,
        probe=probe,
        object=image,
        metadata={
            "simulated": True,
            "seed": seed,
            "trajectory": trajectory,
            "photon_scale": float(photon_scale),
        },
    )


def _raster(n: int) -> NDArray[np.float64]:
    """Return n positions of a raster of spacing 1, row by row."""
    row, column = np.divmod(np.arange(n), math.isqrt(n - 1) + 1)
    return np.stack([column, row], axis=1).astype(np.float64)


def _spiral(n: int) -> NDArray[np.float64]:
    """Return n positions of a Fermat spiral, each with an area of 1."""
    turn = np.arange(n) * (math.pi * (3 - math.sqrt(5)))
    radius = np.sqrt((np.arange(n) + 0.5) / math.pi)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _probe(N: int) -> NDArray[np.complex64]:
    """Return the probe of a circular aperture, out of focus, normalised to energy 1."""
    axis = np.arange(N) - N // 2
    q = np.hypot(axis[:, np.newaxis], axis)
    aperture = N / 6
    # The edge is one pixel soft: a hard one on this grid is a polygon, which causes streaks.
    pupil = np.clip(aperture + 0.5 - q, 0, 1)
    # A ray at frequency q is displaced by N/(2 pi) * d(phase)/dq. At the rim of the aperture this
    # is N/6, so the probe is N/3 wide.
    defocused = pupil * np.exp(1j * math.pi / (6 * aperture) * q**2)
    field = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(defocused), norm="ortho"))
    return (field / np.linalg.norm(pupil)).astype(np.complex64)


def _object(rng: np.random.Generator, height: int, width: int, N: int) -> NDArray[np.complex64]:
    """Return an object: discs with sharp edges on a background that is rough at every scale."""
    discs = _discs(rng, height, width, N)
    phase = 1.2 * np.tanh(0.4 * _rough(rng, height, width, N) + discs)
    modulus = 0.8 + 0.2 * np.tanh(0.4 * _rough(rng, height, width, N) - 0.7 * discs)
    image: NDArray[np.complex64] = (modulus * np.exp(1j * phase)).astype(np.complex64)
    return image


def _rough(rng: np.random.Generator, height: int, width: int, N: int) -> NDArray[np.float64]:
    """Return noise with structure at all scales from N pixels to 4, fainter at finer scales."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    spectrum = np.exp(-((4 * frequency) ** 2)) / np.hypot(frequency, 1 / max(N, 4)) ** 1.6
    noise = np.fft.irfft2(
        spectrum * np.fft.rfft2(rng.standard_normal((height, width))), s=(height, width)
    )
    return noise / max(float(noise.std()), 1e-12)


def _discs(rng: np.random.Generator, height: int, width: int, N: int) -> NDArray[np.float64]:
    """Return discs of +1 or -1, four per N x N pixels, with radii from N/40 to N/5."""
    field = np.zeros((height, width))
    for _ in range(math.ceil(4 * height * width / N**2)):
        radius = N / 40 * 8 ** rng.random()
        x, y = rng.random() * width, rng.random() * height
        sign = rng.choice((-1.0, 1.0))
        rows = np.arange(max(0, int(y - radius)), min(height, int(y + radius) + 2))
        columns = np.arange(max(0, int(x - radius)), min(width, int(x + radius) + 2))
        inside = (rows[:, np.newaxis] - y) ** 2 + (columns - x) ** 2 <= radius**2
        field[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += sign * inside
    return field
