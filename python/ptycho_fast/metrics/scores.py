"""How close a reconstruction is to a reference: errors, correlations, similarities, resolution."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.metrics.alignment import align_near
from ptycho_fast.metrics.extras import ndimage, structural_similarity
from ptycho_fast.metrics.images import FEWEST, FLAT, as_pair, bounding_box, check_values
from ptycho_fast.metrics.masks import EROSION, NEAR, NEAREST, scan_mask
from ptycho_fast.metrics.ring import first_crossing, fourier_ring_correlation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.metrics.alignment import Alignment
    from ptycho_fast.metrics.images import Image, Mask

RANDOM_PHASE = math.pi / math.sqrt(3)
"""Root mean square of a uniformly random phase. A pixel that is 0 counts as this far off."""


@dataclass(frozen=True)
class Scores:
    """How close an image is to a reference, as `score` returns it.

    Every value is computed over the mask, from the aligned image.

    Parameters
    ----------
    phase_rmse : float
        Root mean square of ``angle(image * conj(reference))``, in radians. A pixel that is 0 has no
        phase; it counts as pi / sqrt(3) off, like a random phase.
    phase_correlation : float
        Pearson's correlation (real part) of the phasors ``image / |image|`` and
        ``reference / |reference|``, -1..1. Phase wraps do not matter. For small phases it equals
        the correlation of the phases.
    amplitude_rmse : float
        Root mean square of ``|image| - |reference|``, in units of the reference.
    amplitude_correlation : float
        Pearson's correlation of the moduli, -1..1.
    complex_error : float
        ``norm(image - reference) / norm(reference)``.
    amplitude_ssim : float
        Structural similarity of the moduli.
    phase_ssim : float
        Structural similarity of the phases, each wrapped to -pi..pi about the mean phase of the
        reference.
    frc : float
        The spatial frequency at which the Fourier ring correlation first falls below 0.5, as a
        fraction of Nyquist; 1 if it never does.
    shift : (float, float)
        How far the image was displaced from the reference, along x and y, in pixels.
    twin : Scores or None
        The scores of the twin image, which is conjugated and turned by 180 degrees. If the twin
        scores better, the reconstruction converged to the twin. None for the twin itself.
    """

    phase_rmse: float
    phase_correlation: float
    amplitude_rmse: float
    amplitude_correlation: float
    complex_error: float
    amplitude_ssim: float
    phase_ssim: float
    frc: float
    shift: tuple[float, float]
    twin: Scores | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all scores as a dictionary of types that JSON knows."""
        return asdict(self) | {
            "shift": list(self.shift),
            "twin": None if self.twin is None else self.twin.as_dict(),
        }


def score(image: ArrayLike, reference: ArrayLike, positions: ArrayLike, N: int) -> Scores:
    """Score an image and its twin against a reference, where the scan saw the object.

    `scan_mask` says which pixels count, and `align` removes shift, complex factor and phase ramp.
    The twin is the conjugated image turned by 180 degrees. It is turned about the centre of the
    array and about the centre of the mask, and the better of the two alignments (each within 6
    pixels) is kept; apart from that it is treated like the image. A correlation or similarity with
    an image without structure, such as a constant amplitude, is 0.

    The structural similarity is that of Wang et al. (2004) with Gaussian windows of sigma 1.5. Its
    dynamic range is that of the reference within the mask. It is averaged over the pixels whose
    window of 11 x 11 lies inside the mask, or over the whole mask if there is no such pixel.

    Parameters
    ----------
    image, reference : array_like, (H, W), complex
        Indexed ``[row=y, column=x]``, on the grid of the positions.
    positions : array_like, (n, 2), real
        All positions of the scan, x and y in pixels. Pass all of them also for an image made from
        some, so that different images are scored on the same pixels.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If the shapes differ, if the mask has fewer than 64 pixels, or if within it an image is not
        finite or is 0 everywhere.
    ImportError
        If SciPy or scikit-image is not installed.

    References
    ----------
    Z. Wang, A. C. Bovik, H. R. Sheikh and E. P. Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Transactions on Image Processing 13, 600-612 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.metrics import score
    >>> scan = pf.simulate_scan(n_positions=200, N=32, seed=0)
    >>> off = 2 * np.exp(0.1j * np.arange(scan.object.shape[1])) * scan.object
    >>> scores = score(off, scan.object, scan.positions, scan.N)
    >>> scores.phase_rmse < 1e-5, scores.frc, scores.twin.phase_rmse > 0.1
    (True, 1.0, True)
    """
    image, reference = as_pair(image, reference)
    mask = scan_mask(image.shape, positions, N)
    if np.count_nonzero(mask) < FEWEST:
        msg = (
            f"Of {image.shape[0]} x {image.shape[1]} pixels only {np.count_nonzero(mask)} can be "
            f"scored, but {FEWEST} are needed. A pixel can be scored if {NEAREST} of the "
            f"{len(np.asarray(positions))} positions lie within {NEAR * N:g} pixels of it, and if "
            f"it is {EROSION} pixels from the rim of the scanned area. Are the positions in pixels "
            "of this image? If they are, pass the positions of the whole scan, or call align with "
            "a mask of your own."
        )
        raise ValueError(msg)
    check_values(image, reference, mask)
    own = _over_mask(align_near(image, reference, mask, [(0, 0)]), reference, mask)
    # Turning about the centre of the array takes pixel r to (size - 1) - r.
    rows, columns = bounding_box(mask)
    about = (
        image.shape[1] - columns.start - columns.stop,
        image.shape[0] - rows.start - rows.stop,
    )
    turned = np.ascontiguousarray(image[::-1, ::-1].conj())
    twin = _over_mask(align_near(turned, reference, mask, [(0, 0), about]), reference, mask)
    return Scores(**{**vars(own), "twin": twin})


def _over_mask(alignment: Alignment, reference: Image, mask: Mask) -> Scores:
    """Return the scores of an aligned image, without those of its twin."""
    image, wanted = alignment.image[mask], reference[mask]
    phasors, known = (_phasors(values) for values in (image, wanted))
    product = phasors * known.conj()
    phase = np.where(product == 0, RANDOM_PHASE, np.angle(product))
    mean_phase = np.exp(-1j * np.angle(known.sum()))
    phases = tuple(np.angle(full * mean_phase) for full in (alignment.image, reference))
    ring = fourier_ring_correlation(alignment.image, reference, mask)
    return Scores(
        phase_rmse=_rms(phase),
        phase_correlation=_pearson(phasors, known),
        amplitude_rmse=_rms(np.abs(image) - np.abs(wanted)),
        amplitude_correlation=_pearson(np.abs(image), np.abs(wanted)),
        complex_error=float(np.linalg.norm(image - wanted) / np.linalg.norm(wanted)),
        amplitude_ssim=_similarity(np.abs(alignment.image), np.abs(reference), mask),
        phase_ssim=_similarity(phases[0], phases[1], mask),
        frc=first_crossing(*ring),
        shift=alignment.shift,
    )


def _phasors(values: Image) -> Image:
    """Scale values to modulus 1; a value of 0 has no phase and stays 0."""
    modulus = np.where(values == 0, 1, np.abs(values))
    phasors: Image = values / modulus
    return phasors


def _rms(values: NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _pearson(values: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return Pearson's correlation, or 0 if one of the two is constant."""
    parts = []
    for of in (values, reference):
        rest = of - of.mean()
        parts.append((rest, float(np.linalg.norm(rest)), float(np.linalg.norm(of))))
    if any(varies <= FLAT * size for _, varies, size in parts):
        return 0.0
    (a, of_a, _), (b, of_b, _) = parts
    return float(np.vdot(a, b).real) / (of_a * of_b)


def _similarity(values: NDArray[np.float64], reference: NDArray[np.float64], mask: Mask) -> float:
    """Return the mean structural similarity in a mask, or 0 if the reference is constant."""
    compare = structural_similarity()
    level, span = float(reference[mask].mean()), float(np.ptp(reference[mask]))
    if span <= FLAT * np.abs(reference[mask]).max():
        return 0.0
    # A window is 11 x 11. Outside the mask, and 5 pixels around it, both images get one constant.
    box = bounding_box(mask)
    inside = np.pad(mask[box], 5)
    ours, theirs = (
        np.pad(np.where(mask, v, level)[box], 5, constant_values=level) for v in (values, reference)
    )
    _, similar = compare(
        theirs,
        ours,
        data_range=span,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    whole = ndimage().binary_erosion(inside, np.ones((11, 11)))
    return float(similar[whole if whole.any() else inside].mean())
