"""Diffraction patterns of groups: gathering, energies and normalisation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import (
    as_count,
    as_indices,
    as_mask,
    as_output,
    as_real,
    as_stack,
    as_threads,
)
from ptycho_fast.frames import BLOCK_BYTES, Frames
from ptycho_fast.memory import empty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from ptycho_fast.protocols import ScanLike

logger = logging.getLogger("ptycho_fast")

LOOKED_AT = 16
"""Patterns whose energy is computed to check the energies that are stored with a scan."""


def gather_patterns(
    diffraction: ArrayLike,
    indices: ArrayLike,
    *,
    scale: float | ArrayLike | None = None,
    mask: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Gather the patterns of groups into one array, with the channels last.

    Scaling and masking are done in the same pass over the patterns, by several threads.

    Parameters
    ----------
    diffraction : array_like, (n, N, N), real
        The patterns of the scan, of any real dtype of up to 64 bits.
    indices : array_like, (B, C), integers in 0..n-1
        The groups.
    scale : float or array_like, (B,), optional
        A factor for all groups or one for each, for example from `normalisation_scale`. The
        result is then float32.
    mask : array_like, (N, N), bool, optional
        False for dead and hot pixels of the detector; they are 0 in every gathered pattern.
    out : ndarray, (B, N, N, C), optional
        An array to write the result to, of the dtype of `diffraction`, or float32 with `scale`.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    ndarray, (B, N, N, C)
        ``result[b, :, :, c] = diffraction[indices[b, c]]``, scaled and masked; `out` if given.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or an index is out of range.
    MemoryError
        If the result does not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patterns import gather_patterns
    >>> stack = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    >>> gather_patterns(stack, [[2, 0]])[0, 0]
    array([[8., 0.],
           [9., 1.]], dtype=float32)
    """
    stack = as_stack(diffraction)
    words, kind = _words(stack)
    indices = as_indices("indices", indices, 2, len(stack))
    B, C = indices.shape
    N = stack.shape[1]
    dtype = stack.dtype if scale is None else np.dtype(np.float32)
    gathered = as_output(out, (B, N, N, C), dtype)
    scales = None
    if scale is not None:
        scales = np.array(np.broadcast_to(as_real("scale", scale), B), dtype=np.float32)
    good = None if mask is None else as_mask(mask, N)
    if gathered.size:
        filled = gathered if scale is not None else _words(gathered)[0]
        threads = as_threads(num_threads)
        _core.gather_patterns(words, kind, indices, filled, scales, good, threads)
    return gathered


def gather_normalised(
    diffraction: ArrayLike, indices: ArrayLike
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Gather the patterns of groups twice in one pass: unchanged, and normalised.

    Parameters
    ----------
    diffraction : array_like, (n, N, N), real
        The patterns of the scan. Those that are in no group are not read.
    indices : array_like, (B, C), integers in 0..n-1
        The groups.

    Returns
    -------
    gathered : ndarray, (B, N, N, C), of the dtype of `diffraction`
        The patterns as `gather_patterns` returns them.
    normalised : ndarray, (B, N, N, C), float32
        The same, multiplied by `normalisation_scale`.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, an index is out of range, or the patterns are all zero or
        contain NaN or infinity.
    MemoryError
        If the result does not fit in memory.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patterns import gather_normalised
    >>> gathered, normalised = gather_normalised(np.full((3, 4, 4), 3.0), [[2, 0]])
    >>> gathered[0, 0, 0], normalised[0, 0, 0]
    (array([3., 3.]), array([0.5, 0.5], dtype=float32))
    """
    stack = as_stack(diffraction)
    indices = as_indices("indices", indices, 2, len(stack))
    N = stack.shape[1]
    used = np.zeros(len(stack), np.bool_)
    used[indices] = True
    rows = np.flatnonzero(used).astype(np.int32)
    energies = np.zeros(len(stack))
    words, kind = _words(stack)
    energies[rows] = _core.pattern_energies(words, kind, rows, None, None)
    scale = normalisation_scale(energies, indices, N)
    shape = (len(indices), N, N, indices.shape[1])
    gathered, normalised = empty(shape, stack.dtype), empty(shape, np.float32)
    if gathered.size:
        copied, _ = _words(gathered)
        _core.gather_twice(words, kind, indices, copied, normalised, float(scale), None)
    return gathered, normalised


def pattern_energies(
    diffraction: ArrayLike | Frames,
    *,
    mask: ArrayLike | None = None,
    num_threads: int | None = None,
) -> NDArray[np.float64]:
    """Compute the energy of each pattern: the sum of its squares, in float64.

    Parameters
    ----------
    diffraction : array_like or Frames, (n, N, N), real
        The patterns of the scan. Patterns in a file are read once, in blocks.
    mask : array_like, (N, N), bool, optional
        False for pixels that are left out of the sum.
    num_threads : int, optional
        Threads to use. The result does not depend on it.

    Returns
    -------
    ndarray, (n,), float64

    Raises
    ------
    ValueError
        If `diffraction` has another shape, or its dtype is not real.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patterns import pattern_energies
    >>> pattern_energies(np.full((2, 3, 3), 2.0))
    array([36., 36.])
    """
    if isinstance(diffraction, Frames):
        energies = np.empty(len(diffraction))
        for rows, block in diffraction.blocks():
            energies[rows] = pattern_energies(block, mask=mask, num_threads=num_threads)
        return energies
    stack = as_stack(diffraction)
    good = None if mask is None else as_mask(mask, stack.shape[1])
    return _core.pattern_energies(*_words(stack), None, good, as_threads(num_threads))


def _words(stack: NDArray[Any]) -> tuple[NDArray[np.unsignedinteger[Any]], str]:
    """Return numbers as unsigned integers of the same size, and their type, such as "f4"."""
    return stack.view(f"u{stack.itemsize}"), stack.dtype.str[1:]


def normalisation_scale(
    energies: NDArray[np.float64], indices: NDArray[np.integer], N: int
) -> np.float32:
    """Compute the factor that brings the mean energy of the grouped patterns to ``(N/2)**2``.

    It is ``sqrt((N/2)**2 / mean(energies[indices]))``, with the mean over all channels of all
    groups. One energy for each pattern suffices; nothing needs to be gathered.

    Parameters
    ----------
    energies : ndarray, (n,), float64
        The energies of all patterns, from `pattern_energies`.
    indices : ndarray, (B, C), int
        The groups.
    N : int
        Pixels per side of a pattern.

    Returns
    -------
    numpy.float32

    Raises
    ------
    ValueError
        If the patterns are all zero, or contain NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from ptycho_fast.patterns import normalisation_scale
    >>> normalisation_scale(np.array([16.0, 16.0]), np.array([[0, 1]]), N=4)
    np.float32(0.5)
    """
    N = as_count("N", N)
    mean = float(np.mean(energies[indices]))
    if not np.isfinite(mean):
        bad = np.flatnonzero(~np.isfinite(energies))
        msg = (
            f"Patterns must be finite: pattern {bad[0]} is the first of {len(bad)} (of "
            f"{len(energies)}) that contain NaN, infinity or values beyond 1e154. Leave them out "
            "of the scan, or mask their pixels."
        )
        raise ValueError(msg)
    if mean == 0:
        msg = (
            f"All {indices.size} grouped patterns are zero, so there is no scale to normalise to. "
            "Check that the file and the mask are those of this scan."
        )
        raise ValueError(msg)
    return np.float32(np.sqrt((N / 2) ** 2 / mean))


def measured_energies(scan: ScanLike) -> NDArray[np.float64]:
    """Compute the energy of each pattern of a scan, over the pixels that were measured.

    Parameters
    ----------
    scan : Scan
        Bad pixels are left out, whether the mask of the scan marks them or they are bad in single
        patterns. Patterns in a file are read once, in blocks.

    Returns
    -------
    ndarray, (n,), float64
        Sums of squares.

    Examples
    --------
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.patterns import measured_energies
    >>> measured_energies(pf.simulate_scan(n_positions=9, N=16, seed=0)).shape
    (9,)
    """
    in_file = isinstance(scan.diffraction, Frames) and scan.bad_pixels is None
    if in_file or not scan.may_have_bad_pixels:
        # Bad pixels of single patterns that only the file knows are read as 0.
        return pattern_energies(scan.diffraction, mask=scan.mask)
    energies = np.empty(len(scan))
    for rows, block, _ in _blocks(scan):
        energies[rows] = pattern_energies(block, mask=scan.mask)
    return energies


def mean_pattern(scan: ScanLike) -> NDArray[np.float64]:
    """Average the intensity of each pixel over the patterns in which it was measured.

    The sum of this mean over some pixels is thus the mean intensity of a pattern there, however
    many pixels are bad in single patterns, and two scans can be compared on the pixels that were
    measured in both.

    Parameters
    ----------
    scan : Scan
        All its patterns are used. Patterns in a file are read once, in blocks.

    Returns
    -------
    ndarray, (N, N), float64
        Mean counts; NaN for pixels that were measured in no pattern.

    Raises
    ------
    ValueError
        If a measured pixel is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.patterns import mean_pattern
    >>> scan = pf.simulate_scan(n_positions=100, N=16, photons=1e4, seed=0)
    >>> bool(abs(np.nansum(mean_pattern(scan)) - 1e4) < 100)
    True
    """
    total = np.zeros((scan.N, scan.N))
    times = np.zeros((scan.N, scan.N), np.int64)
    seen = np.ones((scan.N, scan.N), np.bool_) if scan.mask is None else scan.mask
    bad: list[int] = []
    for rows, block, good in _blocks(scan):
        times += len(block) if good is None else np.count_nonzero(good, axis=0)
        light = np.square(block, dtype=np.float64).sum(axis=0)
        if not np.isfinite(light[seen]).all():
            whole = np.isfinite(np.square(block[:, seen], dtype=np.float64)).all(axis=1)
            bad += (rows.start + np.flatnonzero(~whole)).tolist()
        total += light
    if bad:
        msg = (
            f"{len(bad)} of {len(scan)} patterns are not finite, the first at scan index "
            f"{bad[0]}. Leave them out of the scan, or mask their pixels."
        )
        raise ValueError(msg)
    counted = seen & (times > 0)
    return np.where(counted, total, np.nan) / np.maximum(times, 1)


def _blocks(
    scan: ScanLike,
) -> Iterator[tuple[slice, NDArray[Any], NDArray[np.bool_] | None]]:
    """Read all patterns in blocks: yield rows, patterns (always the same array), good pixels."""
    n, N, dtype = len(scan), scan.N, scan.diffraction.dtype
    each = max(1, BLOCK_BYTES // max(1, N * N * dtype.itemsize))
    buffer = np.empty((min(each, n), N, N), dtype)
    for first in range(0, n, each):
        rows = np.arange(first, min(first + each, n))
        good = scan.fill(rows, buffer[: len(rows)])
        yield slice(first, first + len(rows)), buffer[: len(rows)], good


def brought_energies(scan: ScanLike) -> NDArray[np.float64] | None:
    """Return the energies that are stored with a scan, if they are those of its patterns.

    The energies of a few patterns are computed as a check. They may have become wrong when the
    patterns or the mask were replaced (`dataclasses.replace`, a file changed in place).

    Parameters
    ----------
    scan : Scan
        A scan, with or without ``energies``.

    Returns
    -------
    ndarray, (n,), float64, or None
        None if the scan has no energies, or wrong ones, which is logged.

    Examples
    --------
    >>> import dataclasses
    >>> import ptycho_fast as pf
    >>> from ptycho_fast.patterns import brought_energies, pattern_energies
    >>> scan = pf.simulate_scan(n_positions=9, N=16, seed=0)
    >>> scan = dataclasses.replace(scan, energies=pattern_energies(scan.diffraction))
    >>> bool((brought_energies(scan) == scan.energies).all())
    True
    >>> brought_energies(dataclasses.replace(scan, diffraction=3 * scan.diffraction)) is None
    True
    """
    if scan.energies is None or len(scan) == 0:
        return scan.energies
    rows = np.unique(np.linspace(0, len(scan) - 1, LOOKED_AT).astype(np.int64))
    found, brought = pattern_energies(scan.measured(rows)[0]), scan.energies[rows]
    differ = ~np.isclose(found, brought, rtol=1e-6, atol=0, equal_nan=True)
    if not differ.any():
        return scan.energies
    first = int(np.argmax(differ))
    logger.info(
        "The energies stored with the scan are not those of its patterns (pattern %d has %g, not "
        "%g), so they are computed again.",
        rows[first],
        found[first],
        brought[first],
    )
    return None
