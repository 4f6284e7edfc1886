"""The incoherent modes of a probe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast.checks import as_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.counts import Counts

SHARE = 0.02
"""Energy of a new mode, as a fraction of the total."""


def with_modes(
    probe: NDArray[np.complexfloating[Any, Any]], modes: int, *, share: float = SHARE
) -> NDArray[np.complex64]:
    """Add incoherent modes to a probe, from which more can be found out.

    The new modes are the first one times polynomials of x and y, as in the family of Hermite and
    Gauss, orthogonal to each other and to the modes that were there. The total energy stays.

    Parameters
    ----------
    probe : ndarray, (m, N, N) or (N, N), complex
    modes : int
        Number of modes to return, at least m.
    share : float
        Energy of each new mode, as a fraction of the total.

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Raises
    ------
    ValueError
        If there would be fewer modes than before, more than pixels, or nothing left for those that
        were there.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.modes import with_modes
    >>> probe = with_modes(np.hanning(8)[:, None] * np.hanning(8), 3)
    >>> [round(float(np.vdot(mode, mode).real), 3) for mode in probe]
    [6.615, 0.138, 0.138]
    """
    old = np.asarray(probe, np.complex128)
    old = old.reshape(-1, *old.shape[-2:])
    m, N = len(old), old.shape[-1]
    modes = as_count("modes", modes, least=m, most=max(m, N))
    added = modes - m
    if not 0 < share * max(added, 1) < 1:
        msg = (
            f"share must be more than 0, and {added} new modes of share={share!r} each must leave "
            "something for the others. Pass a smaller share."
        )
        raise ValueError(msg)
    energy = float((np.abs(old) ** 2).sum())
    basis = [each.ravel() for each in orthogonal_modes(old).astype(np.complex128)]
    basis = [each / np.linalg.norm(each) for each in basis if np.linalg.norm(each) > 0]
    x = (np.arange(N) - N // 2) / (N / 2)
    new: list[NDArray[np.complex128]] = []
    for degree in range(1, 2 * N):
        if len(new) >= added:
            break
        for power in range(degree + 1):
            candidate = (old[0] * x ** (degree - power) * x[:, np.newaxis] ** power).ravel()
            size = np.linalg.norm(candidate)
            for _ in range(2):  # once leaves rounding errors
                for each in basis:
                    candidate = candidate - np.vdot(each, candidate) * each
            if np.linalg.norm(candidate) > 1e-6 * size:
                basis.append(candidate / np.linalg.norm(candidate))
                new.append(basis[-1].reshape(N, N) * math.sqrt(share * energy))
    if len(new) < added:
        msg = (
            f"Only {m + len(new)} modes can be made from this probe, but modes={modes}: it is lit "
            "on too few pixels. Pass a probe that is not 0, or ask for fewer modes."
        )
        raise ValueError(msg)
    kept = old * math.sqrt(1 - share * added)
    return np.concatenate([kept, *(each[np.newaxis] for each in new[:added])]).astype(np.complex64)


def orthogonal_modes(probe: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.complex64]:
    """Return modes that are orthogonal to each other, the brightest first.

    They are a unitary mixture of the given ones, so every object causes the same patterns.

    Parameters
    ----------
    probe : ndarray, (modes, N, N), complex

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.reconstruction.modes import orthogonal_modes
    >>> probe = orthogonal_modes(np.full((2, 4, 4), 1 + 0j))
    >>> [round(float(abs(mode[0, 0])), 3) for mode in probe]  # both were the same: one is left
    [1.414, 0.0]
    """
    old = np.asarray(probe, np.complex128)
    flat = old.reshape(len(old), -1)
    _, mixing = np.linalg.eigh(flat.conj() @ flat.T)
    mixing = mixing[:, ::-1].T
    # The phase of each mode is that of the largest part of it.
    largest = np.take_along_axis(mixing, np.abs(mixing).argmax(axis=1)[:, np.newaxis], axis=1)
    mixing = mixing * (largest.conj() / np.abs(largest))
    new: NDArray[np.complex64] = (mixing @ flat).reshape(old.shape).astype(np.complex64)
    return new


def as_modes(probe: Any) -> NDArray[np.complex64]:
    """Return the probe of a scan as modes.

    Parameters
    ----------
    probe : array_like, (N, N) or (modes, N, N), complex

    Returns
    -------
    ndarray, (modes, N, N), complex64

    Raises
    ------
    ValueError
        If it is not finite, or 0 everywhere.
    """
    modes = np.asarray(probe)
    modes = np.ascontiguousarray(modes.reshape(-1, *modes.shape[-2:]), np.complex64)
    bad = np.count_nonzero(~np.isfinite(modes))
    if bad or not modes.any():
        what = (
            f"{bad} of its {modes.size} pixels are NaN or infinite" if bad else "it is 0 everywhere"
        )
        msg = f"The probe of the scan can't be used: {what}. Replace it, or leave it out."
        raise ValueError(msg)
    return modes


def scaled(probe: NDArray[np.complex64], counts: Counts) -> NDArray[np.complex64]:
    """Scale a probe to counts: an object of modulus 1 then has as many as were measured.

    Parameters
    ----------
    probe : ndarray, (modes, N, N), complex64
    counts : Counts

    Returns
    -------
    ndarray, (modes, N, N), complex64
    """
    waves = np.fft.fft2(np.fft.ifftshift(probe, axes=(1, 2)), norm="ortho")
    expected = np.fft.fftshift((np.abs(waves) ** 2).sum(0))
    good = np.ones((1, 1, 1)) if counts.good is None else counts.good
    whole = float((np.broadcast_to(good, counts.values.shape) * expected).sum())
    measured = float(counts.values.sum(dtype=np.float64))
    return (probe * math.sqrt(measured / max(whole, 1e-30))).astype(np.complex64)
