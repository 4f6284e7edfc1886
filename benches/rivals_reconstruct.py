"""The rivals of ``benches/reconstruct.py``: each makes an image from counts, in its own process.

``python benches/rivals_reconstruct.py JOB.npz RIVAL OPTIONS FOUND.npz`` is what that benchmark
runs. A job holds the counts, the positions, the probe as the file ships it (or none) and the factor
that scales it to the counts; it does not hold the object. pty-chi may live in an environment of its
own: nothing else is imported there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Image = NDArray[np.complex64]

FULL = 1.0
"""Step of ePIE, for the object and for the probe."""


@dataclass(frozen=True)
class Job:
    """What a rival is given."""

    counts: NDArray[np.float32]
    """(n, N, N), frequency 0 at pixel ``[N//2, N//2]``."""
    positions: NDArray[np.float64]
    """(n, 2), x and y in pixels of the canvas."""
    shape: tuple[int, int]
    """Rows and columns of the canvas."""
    shipped: Image | None
    """(N, N), the probe as the file ships it, or None if it is withheld."""
    scale: float
    """Factor of the probe with which an object of modulus 1 gives the expected counts."""
    refine_probe: bool
    refine_positions: bool
    seed: int

    @property
    def N(self) -> int:  # noqa: N802
        """Pixels per side of a pattern."""
        return int(self.counts.shape[1])

    def probe(self) -> Image:
        """Return the probe scaled to the counts; without one, that of the mean pattern."""
        if self.shipped is not None:
            return (self.shipped * self.scale).astype(np.complex64)
        wave = np.sqrt(self.counts.mean(axis=0, dtype=np.float64))
        near = np.fft.ifft2(np.fft.ifftshift(wave), norm="ortho")
        return np.fft.fftshift(near).astype(np.complex64)


@dataclass(frozen=True)
class Found:
    """What a rival answers."""

    object: Image
    probe: Image
    positions: NDArray[np.float64] | None = None
    """Refined positions, in pixels of the canvas."""


def epie(job: Job, *, passes: int) -> Found:
    """Use one position after the other with full steps, as a short script does."""
    import ptycho_fast as pf  # noqa: PLC0415
    from ptycho_fast.patches.cpu import add_patches  # noqa: PLC0415

    image, probe = np.ones(job.shape, np.complex64), job.probe()
    measured = np.fft.ifftshift(np.sqrt(job.counts), axes=(1, 2))
    rng = np.random.default_rng(job.seed)
    for _ in range(passes):
        for row in rng.permutation(len(measured)):
            where = job.positions[row][None, :, None]
            patch = pf.extract_patches(image, where, job.N, num_threads=1)[0, :, :, 0]
            wave = probe * patch
            far = np.fft.fft2(wave, norm="ortho")
            far *= measured[row] / np.maximum(np.abs(far), 1e-12)
            miss = np.fft.ifft2(far, norm="ortho") - wave
            change = FULL * probe.conj() * miss / np.max(np.abs(probe)) ** 2
            add_patches(change[None, :, :, None], where, image, num_threads=1)
            if job.refine_probe:
                probe = probe + FULL * patch.conj() * miss / np.max(np.abs(patch)) ** 2
    return Found(image, probe)


class Passes:
    """Passes in batches with momentum, as version 1 of the package made them.

    The gain of a detector pixel follows the Poisson likelihood, and the last pass is averaged.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.image, self.probe = np.ones(job.shape, np.complex64), job.probe()
        self.energy = np.sum(np.abs(self.probe) ** 2)
        self.measured = np.fft.ifftshift(np.sqrt(job.counts), axes=(1, 2))
        self.velocity = np.zeros_like(self.image)
        light = np.zeros_like(self.image)
        spot = (np.abs(self.probe) ** 2).astype(np.complex64)
        self.add(np.broadcast_to(spot, (len(self.measured), *spot.shape)), slice(None), light)
        overlap = np.sum(light.real**2) / (np.sum(light.real) * spot.real.max())
        self.batches = min(math.ceil(max(32, overlap)), len(self.measured))

    def add(self, patches: Any, rows: Any, image: Image) -> None:
        """Add patches to an image."""
        from ptycho_fast.patches.cpu import add_patches  # noqa: PLC0415

        add_patches(patches[..., None], self.job.positions[rows, :, None], image)

    def update(self, rows: NDArray[np.int64]) -> None:
        """Update object and probe with one batch."""
        import ptycho_fast as pf  # noqa: PLC0415

        where = self.job.positions[rows, :, None]
        patches = pf.extract_patches(self.image, where, self.job.N)[..., 0]
        far = np.fft.fft2(patches * self.probe, norm="ortho")
        intensity = far.real**2 + far.imag**2
        floor = 1e-10 * intensity.max() + 1e-37
        lack = self.measured[rows] / np.sqrt(np.maximum(intensity, floor)) - 1
        gain = lack * np.minimum(1 + lack / 2, 1.5)
        miss = np.fft.ifft2(far * gain, norm="ortho").astype(np.complex64)
        change, light = np.zeros_like(self.image), np.zeros_like(self.image)
        self.add(miss * self.probe.conj(), rows, change)
        spot = (np.abs(self.probe) ** 2).astype(np.complex64)
        self.add(np.broadcast_to(spot, miss.shape), rows, light)
        step = change / floored(light.real)
        self.velocity = np.float32(0.7) * self.velocity + step
        self.image += step + np.float32(0.7) * self.velocity
        if self.job.refine_probe:
            density = np.sum(np.abs(patches) ** 2, axis=0)
            self.probe += np.sum(miss * patches.conj(), axis=0) / floored(density)
            growth = np.sqrt(np.sum(np.abs(self.probe) ** 2) / self.energy)
            self.probe, self.image = self.probe / growth, self.image * growth

    def run(self, passes: int) -> Found:
        """Use all patterns that many times."""
        for number in range(passes):
            order = np.random.default_rng([self.job.seed, number]).permutation(len(self.measured))
            image, probe = np.zeros_like(self.image), np.zeros_like(self.probe)
            for rows in np.array_split(order, self.batches):
                self.update(np.sort(rows))
                image += self.image
                probe += self.probe
        return Found(image / self.batches, probe / self.batches)


def floored(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight to divide by, raised where it is small compared to its maximum."""
    raised: NDArray[np.float32] = np.float32(0.5) * (weight + weight.max())
    return raised


def momentum(job: Job, *, passes: int) -> Found:
    """Use batches with momentum."""
    return Passes(job).run(passes)


def ours(job: Job, **options: Any) -> Found:
    """Use the package; nothing is set that the case does not name."""
    import ptycho_fast as pf  # noqa: PLC0415
    from ptycho_fast.canvas import canvas, place  # noqa: PLC0415

    scan = pf.Scan(job.positions, np.sqrt(job.counts), probe=job.shipped)
    positions = "refine" if job.refine_positions else "fixed"
    found: Any = pf.reconstruct(scan, positions=positions, seed=job.seed, **options)
    # Where positions may move, the canvas has a margin.
    area = canvas(job.positions, scan.N)
    offset = (found.origin[0] - area.origin[0], found.origin[1] - area.origin[1])
    return Found(place(found.object, offset, area.shape), found.probe, found.positions)


def pty_chi(
    job: Job,
    *,
    epochs: int = 100,
    batch: int = 64,
    batching: str = "uniform",
    noise: str = "gaussian",
    gain: float = 0.0,
    tv: float = 0.0,
    stride: float = 0.1,
    from_epoch: int = 0,
) -> Found:
    """Use LSQML of pty-chi on our grid; `stride` limits how far a position moves in an epoch.

    Its pixel centres are half a pixel off for even N, and its Fourier transform is not orthonormal.
    Its sub-pixel shifts move the probe by a phase ramp; they do not interpolate the object.
    """
    import torch  # noqa: PLC0415
    from ptychi import api  # type: ignore[import-not-found]  # noqa: PLC0415
    from ptychi.api.task import PtychographyTask  # type: ignore[import-not-found]  # noqa: PLC0415

    logging.disable(logging.WARNING)
    options = api.LSQMLOptions()
    shift = -0.5 if job.N % 2 == 0 else 0.0
    on, how = options.object_options, options.reconstructor_options
    on.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    on.position_origin_coords = [shift, shift]
    on.remove_object_probe_ambiguity.enabled = job.refine_probe
    on.total_variation.enabled = tv > 0
    on.total_variation.weight = tv
    options.probe_options.optimizable = job.refine_probe
    moving = options.probe_position_options
    moving.optimizable = job.refine_positions
    moving.step_size = min(3 * stride, 1.0)
    moving.correction_options.update_magnitude_limit = stride
    moving.optimization_plan.start = from_epoch
    how.rescale_probe_intensity_in_first_epoch = job.refine_probe
    how.num_epochs, how.batch_size = epochs, batch
    how.batching_mode = api.BatchingModes(batching)
    how.noise_model = api.NoiseModels(noise)
    how.momentum_acceleration_gain = gain
    how.default_device = api.Devices.GPU if torch.cuda.is_available() else api.Devices.CPU
    how.random_seed = job.seed
    x, y = job.positions.astype(np.float32).T
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        task = PtychographyTask(
            options,
            diffraction_data=job.counts,
            object_data=np.ones((1, *job.shape), np.complex64),
            probe_data=(job.probe() / job.N)[None, None],
            probe_position_x_px=x,
            probe_position_y_px=y,
        )
        task.run()
    image, probe, where = (
        task.get_data_to_cpu(name, as_numpy=True) for name in ("object", "probe", "probe_positions")
    )
    return Found(image[0], probe[0, 0] * job.N, where[:, ::-1].astype(np.float64))


RIVALS: dict[str, Callable[..., Found]] = {
    "reconstruct": ours,
    "momentum": momentum,
    "epie": epie,
    "pty-chi": pty_chi,
}


def peak() -> int:
    """Return the high-water mark of this process's resident memory, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def load(path: Path) -> Job:
    """Return a job from its file."""
    with np.load(path) as held:
        return Job(
            counts=held["counts"].astype(np.float32),
            positions=held["positions"],
            shape=(int(held["shape"][0]), int(held["shape"][1])),
            shipped=held.get("probe", None),
            scale=float(held["scale"]),
            refine_probe=bool(held["refine_probe"]),
            refine_positions=bool(held["refine_positions"]),
            seed=int(held["seed"]),
        )


def main() -> None:
    """Run one rival, and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("options")
    parser.add_argument("found", type=Path)
    arguments = parser.parse_args()
    job = load(arguments.job)
    before, start, worked = peak(), time.perf_counter(), time.process_time()
    found = RIVALS[arguments.rival](job, **json.loads(arguments.options))
    times = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - worked}
    arrays: dict[str, Any] = {"object": found.object, "probe": np.squeeze(found.probe)}
    if found.positions is not None:
        arrays["positions"] = found.positions
    np.savez(arguments.found, **arrays)
    print(json.dumps({**times, "bytes": peak() - before}))


if __name__ == "__main__":
    main()
