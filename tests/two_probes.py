"""Two small scans of different objects with different probes. Computed from the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import ptycho_fast as pf
import reference

N = 16


def defocused(probe: Any, curvature: float) -> Any:
    """Return a probe after a quadratic phase in the far field, in radians per pixel²."""
    axis = np.arange(N) - N // 2
    phase = curvature * (axis[:, None] ** 2 + axis**2)
    wave = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe))) * np.exp(1j * phase)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(wave))).astype(np.complex64)


def lit(scan: Any, probe: Any, photons: float = 1e6, seed: int = 0) -> Any:
    """Return a scan of the same object and positions, with another probe or several modes."""
    patches = reference.extract_patches(scan.object, scan.positions[:, :, None], N)[..., 0]
    modes = np.array(probe, complex, ndmin=3)
    exits = np.fft.ifftshift(patches[:, None] * modes, axes=(2, 3))
    light = (np.abs(np.fft.fftshift(np.fft.fft2(exits), axes=(2, 3))) ** 2).sum(axis=1)
    counts = np.random.default_rng(seed).poisson(light * photons / light.sum(axis=(1, 2)).mean())
    amplitude = np.sqrt(counts).astype(np.float32)
    return replace(scan, probe=np.asarray(probe, np.complex64), diffraction=amplitude)


def two_scans(n: int = 100) -> tuple[Any, Any]:
    """Return scans whose probes are almost orthogonal, the second with a third of the counts."""
    one, other = (pf.simulate_scan(n_positions=n, N=N, seed=seed) for seed in (0, 1))
    return one, lit(other, defocused(one.probe, 0.5), photons=3e5)
