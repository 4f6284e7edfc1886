"""The optional packages that scores need (SciPy and scikit-image), imported on first use."""

from __future__ import annotations

from typing import Any


def ndimage() -> Any:  # SciPy has no type hints
    """Return ``scipy.ndimage``; ImportError says how to install it."""
    try:
        from scipy import ndimage  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_missing(error)) from error
    return ndimage


def structural_similarity() -> Any:
    """Return ``skimage.metrics.structural_similarity``; ImportError says how to install it."""
    try:
        from skimage.metrics import structural_similarity  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(_missing(error)) from error
    return structural_similarity


def _missing(error: ImportError) -> str:
    return (
        f"Scores need SciPy and scikit-image ({error}). Install them with: "
        'pip install "ptycho_fast[metrics]"'
    )
