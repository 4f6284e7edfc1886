"""Random streams, and the seeds that they begin from.

Which random word decides what is in docs/contract.md, section 3.
"""

from __future__ import annotations

import os

from ptycho_fast.checks import as_count

RNGS = ("philox", "numpy")
"""Random streams: the package's own, and that of ``np.random.seed``."""

MOST_LEGACY_SEED = 2**32 - 1
MOST_SEED = 2**128 - 1


def as_seed(seed: int | None, rng: str = "philox") -> int:
    """Return the seed; for None fresh entropy, so that a draw can be repeated from its record."""
    most = MOST_LEGACY_SEED if rng == "numpy" else MOST_SEED
    if seed is None:
        return int.from_bytes(os.urandom(16), "little") % (most + 1)
    return as_count("seed", seed, least=0, most=most)
