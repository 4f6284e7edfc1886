"""Checks of what a model of the diffraction is given, be it arrays or tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_indices, as_number, as_real

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

GRADIENTS = ("object", "probe", "positions", "exposure")
"""What the likelihood can be differentiated with respect to."""


def as_exposure(exposure: ArrayLike | None, n: int) -> NDArray[np.float64]:
    """Return the exposures of n patterns, 1 if none are given; raise `ValueError` for others."""
    if exposure is None:
        return np.ones(n)
    values = as_real("exposure", exposure)
    if values.shape != (n,):
        msg = f"exposure must be ({n},), one for each position, got shape {values.shape}."
        raise ValueError(msg)
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        first = int(wrong.argmax())
        msg = (
            f"Exposures must be finite and at least 0: {np.count_nonzero(wrong)} of {n} are not; "
            f"the first is exposure {first}, which is {values[first]:g}."
        )
        raise ValueError(msg)
    return values


def as_background(background: object) -> float:
    """Return a number of counts per pixel; raise `ValueError` if it is not a number from 0."""
    number = as_number("background", background)
    if number is None:
        msg = "background must be a number of counts per pixel, got None. Pass 0 if there is none."
        raise ValueError(msg)
    return number


def as_rows(rows: ArrayLike | None, n: int) -> NDArray[np.int32]:
    """Return which of n patterns are used; None stands for all."""
    return np.arange(n, dtype=np.int32) if rows is None else as_indices("rows", rows, 1, n)


def as_wanted(wrt: Collection[str]) -> frozenset[str]:
    """Return what to differentiate with respect to; raise `ValueError` for unknown names."""
    wanted = frozenset([wrt] if isinstance(wrt, str) else wrt)
    if unknown := sorted(wanted - set(GRADIENTS)):
        msg = f"wrt may name {', '.join(map(repr, GRADIENTS))}, but it names {unknown[0]!r}."
        raise ValueError(msg)
    return wanted


def check_object(name: str, image: Any, shape: tuple[int, int]) -> None:
    """Raise `ValueError` unless an object has the shape that the model was made for."""
    if tuple(image.shape) != tuple(shape):
        msg = f"{name} must be {tuple(shape)}, as the model was made for, got {_shape(image)}."
        raise ValueError(msg)


def check_probe(probe: Any, N: int) -> None:
    """Raise `ValueError` unless a probe has at least one mode of N x N pixels."""
    if probe.ndim != 3 or tuple(probe.shape[1:]) != (N, N) or len(probe) == 0:
        msg = (
            f"probe must be (modes, {N}, {N}) for patterns of {N} x {N} pixels, got "
            f"{_shape(probe)}."
        )
        raise ValueError(msg)


def check_patterns(counts: Any | None, good: Any | None, n: int, N: int) -> None:
    """Raise `ValueError` unless counts and mask, where there are any, fit n patterns."""
    if counts is not None and tuple(counts.shape) != (n, N, N):
        msg = (
            f"counts must be ({n}, {N}, {N}), one pattern for each position, got {_shape(counts)}."
        )
        raise ValueError(msg)
    if good is not None and tuple(good.shape) not in {(n, N, N), (1, N, N)}:
        msg = (
            f"good must be ({n}, {N}, {N}), one mask for each position, or (1, {N}, {N}), got "
            f"{_shape(good)}."
        )
        raise ValueError(msg)


def _shape(array: Any) -> str:
    return f"shape {tuple(array.shape)}"
