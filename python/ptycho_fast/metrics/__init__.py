"""Scores of a reconstructed image against a reference.

Diffraction determines an object only up to a shift, a complex factor and a linear phase ramp (the
probe can absorb the ramp). These are removed first. Then the images are compared, only where the
scan saw the object.

Needs SciPy and scikit-image: ``pip install "ptycho_fast[metrics]"``.
"""

from ptycho_fast.metrics.alignment import Alignment, align
from ptycho_fast.metrics.masks import scan_mask
from ptycho_fast.metrics.ring import first_crossing, fourier_ring_correlation
from ptycho_fast.metrics.scores import Scores, score

__all__ = [
    "Alignment",
    "Scores",
    "align",
    "first_crossing",
    "fourier_ring_correlation",
    "scan_mask",
    "score",
]
