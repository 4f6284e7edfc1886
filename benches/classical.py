"""Classical reconstruction of one scan, compared with pty-chi and a plain sequential ePIE.

``python benches/classical.py SCAN.npz`` prints for each the time of a number of iterations from an
object of 1, and the error of the image against the true object in the file. Each rival runs in its
own process; pty-chi (``pip install ptychi``) is left out if it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import measure, run_apart

import ptycho_fast as pf
from ptycho_fast.metrics import score

if TYPE_CHECKING:
    from numpy.typing import NDArray

OURS, EPIE, CHI = "ptycho_fast", "sequential ePIE, NumPy", "pty-chi LSQML, batches of 64"


def read(path: str) -> tuple[Any, NDArray[np.complex64]]:
    """Return the scan, and its probe scaled such that the true object gives the measured counts."""
    scan: Any = pf.read_scan(path)
    patches = pf.extract_patches(scan.object, scan.positions[:, :, None], scan.N)[..., 0]
    lit = np.sum(np.abs(patches * scan.probe) ** 2)
    measured = np.sum(np.square(scan.diffraction[:], dtype=np.float64))
    return scan, (scan.probe * np.sqrt(measured / lit)).astype(np.complex64)


def epie(scan: Any, probe: NDArray[np.complex64], passes: int) -> NDArray[Any]:
    """Use one position after the other with full steps, as a short script does."""
    image = np.ones(scan.object.shape, np.complex64)
    measured = np.fft.ifftshift(scan.diffraction[:], axes=(1, 2))
    step = probe.conj() / np.max(np.abs(probe)) ** 2
    rng = np.random.default_rng(0)
    from ptycho_fast.patches.cpu import add_patches  # noqa: PLC0415

    for _ in range(passes):
        for row in rng.permutation(len(scan)):
            where = scan.positions[row][None, :, None]
            wave = probe * pf.extract_patches(image, where, scan.N, num_threads=1)[0, :, :, 0]
            far = np.fft.fft2(wave, norm="ortho")
            far *= measured[row] / np.maximum(np.abs(far), 1e-12)
            change = step * (np.fft.ifft2(far, norm="ortho") - wave)
            add_patches(change[None, :, :, None], where, image, num_threads=1)
    return image


def pty_chi(scan: Any, probe: NDArray[np.complex64], passes: int) -> NDArray[Any]:
    """Use LSQML with pty-chi's defaults, on our grid; its pixel centres are half a pixel off."""
    from ptychi import api  # type: ignore[import-not-found]  # noqa: PLC0415
    from ptychi.api.task import PtychographyTask  # type: ignore[import-not-found]  # noqa: PLC0415

    logging.disable(logging.WARNING)
    options = api.LSQMLOptions()
    options.object_options.determine_position_origin_coords_by = (
        api.ObjectPosOriginCoordsMethods.SPECIFIED
    )
    shift = -0.5 if scan.N % 2 == 0 else 0.0
    options.object_options.position_origin_coords = [shift, shift]
    options.object_options.remove_object_probe_ambiguity.enabled = False
    options.probe_options.optimizable = False
    options.reconstructor_options.num_epochs = passes
    options.reconstructor_options.batch_size = 64
    options.reconstructor_options.batching_mode = api.BatchingModes.UNIFORM
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.random_seed = 0
    x, y = scan.positions.astype(np.float32).T
    task = PtychographyTask(
        options,
        diffraction_data=np.square(scan.diffraction[:]),
        object_data=np.ones((1, *scan.object.shape), np.complex64),
        probe_data=probe[None, None],
        probe_position_x_px=x,
        probe_position_y_px=y,
    )
    task.run()
    found: NDArray[Any] = task.get_data_to_cpu("object", as_numpy=True)[0]
    return found


def run_here(rival: str, path: str, passes: int) -> dict[str, float]:
    """Run one rival, and score its image."""
    from ptycho_fast.models.classical import refine  # noqa: PLC0415

    scan, probe = read(path)
    jobs = {
        OURS: lambda: refine(scan, np.ones(scan.object.shape), probe, passes=passes).object,
        EPIE: lambda: epie(scan, probe, passes),
        CHI: lambda: pty_chi(scan, probe, passes),
    }
    found, image = measure(jobs[rival], 1)
    scores = score(image, scan.object, scan.positions, scan.N)
    return {**found, "error": scores.phase_rmse, "amplitude": scores.amplitude_correlation}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", nargs="?", help="a scan file that holds its true object")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--passes", type=int, nargs="+", default=[10, 30])
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(run_here(*json.loads(arguments.here))))
        return
    if arguments.scan is None:
        parser.error("a scan file is needed")
    print("| engine | passes | s | phase RMSE, rad | amplitude correlation |")
    print("|---|---|---|---|---|")
    for rival in (OURS, EPIE, CHI):
        if rival == CHI and importlib.util.find_spec("ptychi") is None:
            continue
        for passes in arguments.passes:
            found = run_apart(__file__, [rival, arguments.scan, passes])
            print(
                f"| {rival} | {passes} | {found['seconds']:.2f} | {found['error']:.4f} "
                f"| {found['amplitude']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
