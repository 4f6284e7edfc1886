"""Groups drawn from NumPy's legacy random stream, as older code drew them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_fast import _core
from ptycho_fast.checks import as_count, as_indices
from ptycho_fast.grouping import ScanIndex, draw_from_twister
from ptycho_fast.grouping.legacy import seeded_state
from ptycho_fast.grouping.randomness import MOST_LEGACY_SEED
from ptycho_fast.notices import warn

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def draw_groups(
    positions: NDArray[np.float64],
    nsamples: int,
    K: int,
    C: int,
    *,
    seed: int | None = None,
    seed_indices: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Draw groups: sample the centres, then draw C of the K nearest neighbours of each.

    Parameters
    ----------
    positions : ndarray, (n, 2), float64
        Columns x and y, in pixels.
    nsamples : int
        Number of groups. If there are fewer positions, each is a centre once, in order.
    K : int
        Number of nearest neighbours to draw from.
    C : int
        Positions in a group, any number from 1. With C = 1 a group is its centre.
    seed : int, optional
        0..2**32-1. Without it NumPy's global stream is continued and left advanced, unless
        `seed_indices` are given.
    seed_indices : array_like, (B,), int, optional
        The centres to use, in this order, instead of a sample of `nsamples`. Without a seed, the
        groups around them are those of seed 0.

    Returns
    -------
    ndarray, (min(nsamples, n), C) or (B, C), int32

    Raises
    ------
    ValueError
        If K < C or n < C, a number is out of range, positions are not finite, or NumPy's global
        generator is not a Mersenne Twister and there is no seed.

    Warns
    -----
    UserWarning
        If there are fewer positions than `nsamples`.
    """
    index = ScanIndex(positions)
    n = len(index)
    nsamples, C = as_count("nsamples", nsamples), as_count("C", C)
    K = as_count("K", K, least=0)
    _core.check_group(n, K, C)
    centers = None
    if seed_indices is not None:
        centers = as_indices("seed_indices", seed_indices, 1, n)
        as_count("The number of seed_indices", len(centers))
        seed = 0 if seed is None else seed
    if nsamples > n:
        warn(
            f"nsamples={nsamples} exceeds the {n} points of the dataset: every point becomes "
            "a centre once.",
        )
    B = min(nsamples, n)
    if seed is not None:
        state = seeded_state(as_count("seed", seed, least=0, most=MOST_LEGACY_SEED))
        return draw_from_twister(index, B, K, C, state, centers=centers).indices
    stream = _global_stream()
    state = stream["state"]["key"], stream["state"]["pos"]
    drawn = draw_from_twister(index, B, K, C, state, centers=centers)
    words, place = drawn.state
    stream["state"] = {"key": words, "pos": place}
    np.random.set_state(stream)  # noqa: NPY002
    return drawn.indices


def _global_stream() -> dict[str, Any]:
    """Return the state of NumPy's global generator, if it is a Mersenne Twister."""
    state: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    if state["bit_generator"] != "MT19937":
        msg = (
            f"NumPy's global generator is {state['bit_generator']} (np.random.set_bit_generator), "
            "but groups without a seed continue an MT19937 stream. Pass seed=."
        )
        raise ValueError(msg)
    return state


def fresh_seed() -> int:
    """Take a seed from NumPy's global stream.

    A script that seeds the global stream once can so be repeated.

    Returns
    -------
    int
        0..2**32-1.
    """
    return int(np.random.randint(2**32, dtype=np.int64))  # noqa: NPY002
