"""Refine an image or a probe by the iterations of `ptycho_fast.reconstruction`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ptycho_fast.reconstruction.run import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.reconstruction import Reconstruction
    from ptycho_fast.scan import Scan


def refine(
    scan: Scan,
    probe: NDArray[Any],
    *,
    iterations: int,
    object: NDArray[Any] | None = None,
    refine_probe: bool = False,
    device: str = "cpu",
) -> Reconstruction:
    """Refine an image, or the probe along with one.

    This is `ptycho_fast.reconstruction.reconstruct`, except that nothing is computed to judge the
    image, and Ctrl-C raises an exception.

    Parameters
    ----------
    scan : Scan
        Its own probe is not used.
    probe : ndarray, (modes, N, N), complex
        The probe, on any scale.
    iterations : int
        The largest number of iterations over all patterns.
    object : ndarray, (H, W), complex, optional
        The image to start from, on the canvas of the scan. By default it is flat.
    refine_probe : bool
    device : str
        Name of a PyTorch device.

    Returns
    -------
    Reconstruction
        Its object has the mean intensity 1, weighted by the light.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.models.refinement import refine
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> refine(scan, scan.probe, iterations=10).deviance < 1.1
    True
    """
    # Splitting counts and thinning patterns is random, and no choice of the caller.
    run = Run(replace(scan, probe=probe), seed=0, device=device, num_threads=None, progress=None)
    run.start(object, modes=1, diameter=None, fixed=not refine_probe)
    run.choose("refine" if refine_probe else "fixed", "smooth")
    run.finish(iterations)
    return run.result()
