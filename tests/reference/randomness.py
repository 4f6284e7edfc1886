"""Random words: Philox4x64-10, addressed by counter (docs/contract.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

MASK = 2**64 - 1


def key(seed: int, epoch: int = 0) -> Words:
    """Philox key of a seed and an epoch.

    Parameters
    ----------
    seed : int
        Seed, any non-negative integer.
    epoch : int
        Epoch, any non-negative integer.

    Returns
    -------
    ndarray of uint64, shape (2,)
        The two key words.
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(epoch,))
    return np.asarray(sequence.generate_state(2, np.uint64), dtype=np.uint64)


def words(key: Words, first_block: int, n_blocks: int, replicate: int, stage: int) -> Words:
    """Random words of consecutive blocks, from `numpy.random.Philox`.

    NumPy steps its counter before it makes a block, so block b is the first one made by a
    generator whose counter is b - 1.

    Parameters
    ----------
    key : ndarray of uint64, shape (2,)
        Key, see `key`.
    first_block : int
        Number of the first block; blocks are counted from 1.
    n_blocks : int
        How many blocks.
    replicate, stage : int
        Words 2 and 3 of the counter.

    Returns
    -------
    ndarray of uint64, shape (4 * n_blocks,)
        Words 0 to 3 of the first block, then those of the next.
    """
    if first_block < 1:
        raise ValueError(f"blocks are counted from 1, not from {first_block}")
    counter = np.array([first_block - 1, 0, replicate, stage], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(4 * n_blocks)
    return np.asarray(raw, dtype=np.uint64)


def philox_block(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x64-10 of one counter, in Python integers (Salmon et al., SC11).

    Parameters
    ----------
    counter : sequence of 4 int
        `(block, 0, replicate, stage)`, the lowest word first.
    key : sequence of 2 int
        Key words.

    Returns
    -------
    tuple of 4 int
        The four words of the block.
    """
    c0, c1, c2, c3 = (int(word) for word in counter)
    k0, k1 = (int(word) for word in key)
    for _ in range(10):
        product0 = 0xD2E7470EE14C6C93 * c0
        product1 = 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (
            (product1 >> 64) ^ c1 ^ k0,
            product1 & MASK,
            (product0 >> 64) ^ c3 ^ k1,
            product0 & MASK,
        )
        k0 = (k0 + 0x9E3779B97F4A7C15) & MASK
        k1 = (k1 + 0xBB67AE8584CAA73B) & MASK
    return c0, c1, c2, c3
