"""Seeds, and the keys of the counter generator that every draw takes its random words from.

Which word decides what is in docs/contract.md, section 3.
"""

from __future__ import annotations

import os

import numpy as np

from ptycho_fast.checks import as_count

RNGS = ("philox", "numpy")
"""Random streams: the package's own, and that of ``np.random.seed``."""

MOST_LEGACY_SEED = 2**32 - 1
MOST_SEED = 2**128 - 1


def philox_key(seed: int, epoch: int) -> tuple[int, int]:
    """Return the key of the counter generator (Philox4x64) for an epoch of a seed."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(epoch,))
    first, second = sequence.generate_state(2, np.uint64)
    return int(first), int(second)


def as_seed(seed: int | None, rng: str = "philox") -> int:
    """Return the seed; for None fresh entropy, so that a draw can be repeated from its record."""
    most = MOST_LEGACY_SEED if rng == "numpy" else MOST_SEED
    if seed is None:
        return int.from_bytes(os.urandom(16), "little") % (most + 1)
    return as_count("seed", seed, least=0, most=most)
