"""Reconstruct a scan: maximum likelihood with a prior, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.checks import as_count
from ptycho_fast.reconstruction.fit import MOST
from ptycho_fast.reconstruction.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from ptycho_fast.reconstruction.progress import Progress
    from ptycho_fast.reconstruction.result import Reconstruction
    from ptycho_fast.scan import Scan

PRIORS = ("smooth", "learned", "auto", "none")
"""What can be asked for."""

INTERRUPTED = "Interrupted: this is the image as it was then."
"""The last note of an image whose reconstruction was interrupted."""


def reconstruct(
    scan: Scan,
    *,
    probe: str = "auto",
    modes: int = 1,
    prior: str = "smooth",
    positions: str = "fixed",
    iterations: int | None = None,
    uncertainty: int = 0,
    probe_diameter: float | None = None,
    object: ArrayLike | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    num_threads: int | None = None,
) -> Reconstruction:
    """Reconstruct a scan without a network.

    The object is found that explains the counts best (maximum Poisson likelihood) and is as smooth
    as an image is expected to be. How smooth that is, and whether the probe of the scan needs
    refinement, is decided by counts that are held out: nothing has to be tuned.

    Parameters
    ----------
    scan : Scan
        Positions and amplitudes. Pixels that were not measured (its mask, bad pixels) are ignored.
        Patterns that stay in their file are read in each iteration.
    probe : {"auto", "fixed", "refine"}
        Whether the probe of the scan is refined along with the object. "auto" refines it if the
        refined probe explains held-out counts better. If the scan has no probe, one is estimated
        from the patterns, and refined.
    modes : int
        Number of incoherent modes of the probe. If the scan's probe has fewer, modes are added and
        the probe is refined.
    prior : {"smooth", "learned", "auto", "none"}
        "smooth" penalises high spatial frequencies of the object (`SmoothPrior`), with a weight
        that held-out counts choose. "learned" improves that image with a small network that has
        learned from simulated scans what objects look like; this needs PyTorch. "auto" uses it if
        a fit that expects its image explains held-out counts better.
    positions : {"fixed", "refine"}
        "refine" corrects the scan positions along with the object.
    iterations : int, optional
        The largest number of iterations over all patterns, once prior and probe are chosen. By
        default they end when the image no longer changes visibly, at the latest after 200.
    uncertainty : int
        Number of samples from which the standard deviations of phase and modulus are estimated; 8
        is a good number. 0 for none.
    probe_diameter : float, optional
        Diameter of the probe in pixels, if the scan has no probe but its size is known.
    object : array_like, (H, W), complex, optional
        An image to start from, on the canvas of the scan (`ptycho_fast.canvas.canvas`). By default
        the object is flat at first.
    seed : int
        Seed of everything random: the split of the counts, the samples of the uncertainty.
    device : {"cpu", "auto", "gpu"}
        Where to compute; "auto" is a GPU if PyTorch finds one.
    progress : callable, optional
        Called after each iteration with a `Progress`.
    num_threads : int, optional
        Threads to use. By default ``PTYCHO_FAST_NUM_THREADS``, else all that the process may use.
        The result does not depend on it.

    Returns
    -------
    Reconstruction
        If interrupted (Ctrl-C), the image so far, with a note that says so.

    Raises
    ------
    ValueError
        If an argument is none of those above, positions or patterns are not finite, or all patterns
        are zero.
    MemoryError
        If there is too little memory for images of the size of the scan.
    KeyboardInterrupt
        If interrupted before there was any image.

    Warns
    -----
    UserWarning
        If patterns hardly overlap, or a few positions lie far from all others.

    References
    ----------
    P. Thibault and M. Guizar-Sicairos, "Maximum-likelihood refinement for coherent diffractive
    imaging", New Journal of Physics 14, 063004 (2012).

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
    >>> image = pf.reconstruct(scan)
    >>> image.object.shape == image.coverage.shape, image.deviance < 1.1
    (True, True)
    """
    modes, steps, uncertainty, seed = check_options(
        probe=probe,
        modes=modes,
        prior=prior,
        positions=positions,
        iterations=iterations,
        uncertainty=uncertainty,
        seed=seed,
    )
    run = Run(
        scan,
        seed=seed,
        device=device,
        num_threads=num_threads,
        progress=progress,
        margin=scan.N // 4 if positions == "refine" else 0,
    )
    try:
        run.start(object, modes=modes, diameter=probe_diameter, fixed=probe == "fixed")
        if positions == "refine":
            run.move()
        run.choose(probe if modes <= run.given_modes else "refine", prior)
        run.finish(steps)
        run.judge(uncertainty)
    except KeyboardInterrupt:
        if run.best is None:
            raise
        run.notes.append(INTERRUPTED)
    return run.result()


def check_options(
    *,
    probe: str,
    modes: int,
    prior: str,
    positions: str,
    iterations: int | None,
    uncertainty: int,
    seed: int,
) -> tuple[int, int, int, int]:
    """Refuse options that no scan can be reconstructed with; they are those of `reconstruct`.

    Returns
    -------
    modes, iterations, uncertainty, seed : int

    Raises
    ------
    ValueError
        If an option is none of those that `reconstruct` names.
    """
    _check_choice("probe", probe, ("auto", "fixed", "refine"))
    _check_choice("prior", prior, PRIORS)
    _check_choice("positions", positions, ("fixed", "refine"))
    modes = as_count("modes", modes, most=100)
    uncertainty = as_count("uncertainty", uncertainty, least=0, most=10_000)
    seed = as_count("seed", seed, least=0, most=2**63 - 1)
    steps = MOST if iterations is None else as_count("iterations", iterations)
    if uncertainty and prior != "smooth":
        msg = (
            f"The uncertainty is only known with the smooth prior, got prior={prior!r}. Pass "
            "uncertainty=0 or prior='smooth'."
        )
        raise ValueError(msg)
    return modes, steps, uncertainty, seed


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        told = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        msg = f"{name} must be {told}, got {value!r}."
        raise ValueError(msg)
