"""The check of a reader: do object, probe and positions as read explain the patterns as read?

A scan is simulated, written in the layout of another program, and read. Positions that are
mirrored, exchanged or scaled, frames that are transposed, shifted or in another order, amplitudes
that were taken for counts: each makes the misfit much larger than 1.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import ptycho_fast as pf
from ptycho_fast.io import convert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

n, N = 60, 32
ENERGY, DISTANCE, PIXEL = 8800.0, 1.9, 300e-6
# h c / (e E), with the SI's exact constants.
WAVELENGTH = 6.62607015e-34 * 299792458 / (ENERGY * 1.602176634e-19)
OBJECT_PIXEL = WAVELENGTH * DISTANCE / (N * PIXEL)


class Truth(NamedTuple):
    """A simulated scan, in the units of a beamline."""

    scan: pf.Scan
    counts: NDArray[np.uint16]
    """(n, N, N)"""
    x: NDArray[np.float64]
    """Position of the beam on the sample along the columns of the object, in metres."""
    y: NDArray[np.float64]
    """The same along its rows."""


def truth(N: int = N, seed: int = 3, *, whole_pixels: bool = False) -> Truth:
    """Return a scan without any symmetry, with zero frequency at ``[N // 2, N // 2]``.

    `whole_pixels` rounds the positions, so that it does not matter how a program interpolates.
    """
    scan = pf.simulate_scan(n, N, trajectory="spiral", jitter=1.0, photons=3e5, seed=seed)
    counts = np.rint(np.square(np.asarray(scan.diffraction), dtype=np.float64))
    positions = scan.positions
    if whole_pixels:
        assert scan.object is not None
        assert scan.probe is not None
        positions = np.rint(positions)
        model = intensities(scan.object, scan.probe, positions)
        model *= 3e5 * n / model.sum()
        counts = np.random.default_rng(seed).poisson(model)
        scan = pf.Scan(positions, np.sqrt(counts), probe=scan.probe, object=scan.object)
    assert counts.max() < 2**16 - 1
    pixel = WAVELENGTH * DISTANCE / (N * PIXEL)
    # Nothing lies at 0, so that no sign can be lost.
    x, y = (positions - positions.mean(axis=0) + (7, -4)).T * pixel
    return Truth(scan, counts.astype(np.uint16), x, y)


def intensities(
    image: NDArray[Any], probe: NDArray[Any], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the diffraction patterns of an object, (n, N, N), up to a factor."""
    N = probe.shape[-1]
    patches = pf.extract_patches(image, positions[:, :, np.newaxis], N)[..., 0]
    waves = np.reshape(probe, (-1, 1, N, N)) * patches
    fields = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(waves, axes=(2, 3))), axes=(2, 3))
    return np.asarray(np.sum(np.abs(fields) ** 2, axis=0, dtype=np.float64))


def misfit(read: pf.Scan, of: Truth, rows: slice | NDArray[np.int64] = slice(None)) -> float:
    """Return the mean of (counts - model)**2 / model over the bright pixels that were measured.

    The model is that of the true object at the positions as read, which may be shifted as a whole,
    unless the file holds an object; and so for the probe. It is about 1 if all is right. `rows` are
    those of the true positions whose mean the positions as read must have.
    """
    scan = of.scan
    assert scan.object is not None
    probe = scan.probe if read.probe is None else read.probe
    assert probe is not None
    image, places = scan.object, read.positions
    if read.object is not None:
        image = read.object
    else:
        places = places - places.mean(axis=0) + scan.positions[rows].mean(axis=0)
    model = intensities(image, probe, places)
    amplitudes, good = read.measured(np.arange(len(read)))
    counts = np.square(amplitudes.astype(np.float64))
    good = np.ones(counts.shape, bool) if good is None else np.broadcast_to(good, counts.shape)
    model *= counts[good].sum() / model[good].sum()
    bright = good & (model > 5)
    return float(np.mean((counts - model)[bright] ** 2 / model[bright]))


def check_image(read: Callable[[Truth], pf.Scan]) -> None:
    """Check that the image of a scan as read explains its counts as well as that of the scan.

    Both begin from a flat object, and the probe is refined where that explains more. `read` writes
    and reads the file. The positions are whole pixels, as an image depends a little on where
    between the pixels its patches are interpolated.
    """
    of = truth(whole_pixels=True)
    scan = read(of)
    probe = of.scan.probe if scan.probe is None else scan.probe
    image, expected = (pf.reconstruct(each) for each in (replace(scan, probe=probe), of.scan))
    assert image.deviance < 1.05 * expected.deviance


def check_ways(path: Path, read: pf.Scan, **options: Any) -> None:
    """Check that patterns that stay in the file, and a converted file, are those of a scan."""
    rows = np.random.default_rng(0).permutation(len(read))[:7]
    lazy = pf.read_scan(path, load=False, **options)
    again = pickle.loads(pickle.dumps(lazy.diffraction))
    for frames in (lazy.diffraction, again):
        np.testing.assert_array_equal(frames[rows], read.diffraction[rows])
    np.testing.assert_array_equal(lazy.diffraction[:], read.diffraction)
    target = path.with_name(f"{path.name}.converted.npz")
    convert(path, target, **options)
    converted = pf.read_scan(target)
    np.testing.assert_array_equal(converted.diffraction, read.diffraction)
    np.testing.assert_array_equal(converted.positions, read.positions)
    if read.mask is None:
        assert converted.mask is None
    else:
        np.testing.assert_array_equal(converted.mask, read.mask)
