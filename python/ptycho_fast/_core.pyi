"""The Rust core. It is private: users call the modules of `ptycho_fast`.

Arrays must be C-contiguous and have exactly the dtypes named here; the Python layer sees to that.
A refusal is a ValueError, or a MemoryError if memory does not suffice. ``num_threads`` is None for
``PTYCHO_FAST_NUM_THREADS``, or else for all the processors that the process may use; results do
not depend on it. A ``key`` is two 64-bit words, from which all random words are made.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

class ScanIndex:
    """An index of scan positions, (n, 2) float64, that finds their neighbours."""

    def __new__(
        cls, positions: NDArray[np.float64], engine: str, num_threads: int | None
    ) -> ScanIndex: ...
    @property
    def engine(self) -> str:
        """Which index it is: "grid" or "kdtree"."""

    def __len__(self) -> int: ...
    def neighbors(
        self, centers: NDArray[np.int32], n_neighbors: int, num_threads: int | None
    ) -> NDArray[np.int32]:
        """Return the nearest neighbours of each centre, (m, min(K, n - 1)), nearest first."""

    def draw_legacy(
        self,
        centers: NDArray[np.int32] | None,
        n_groups: int,
        n_neighbors: int,
        group_size: int,
        twister_words: NDArray[np.uint32],
        twister_place: int,
        num_threads: int | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[NDArray[np.uint32], int]]:
        """Draw by NumPy's legacy stream: centres, groups, and the state of the stream after it."""

class LabelledIndex:
    """An index for each label of scan positions; labels (n,) int32 are numbered from 0."""

    def __new__(
        cls,
        positions: NDArray[np.float64],
        labels: NDArray[np.int32],
        engine: str,
        num_threads: int | None,
    ) -> LabelledIndex: ...

def draw(
    request: dict[str, Any],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], int, int, int, int | None, str]:
    """Draw groups by any rule.

    A request must have ``rule`` ("nearest", "oversample", "quadrant", "overlap" or "pool"),
    ``positions`` (n, 2) float64, ``centers`` (m,) int32, ``n_neighbors``, ``group_size`` and
    ``key``. It may also have:

    - ``source``: a `ScanIndex`, a `LabelledIndex`, or the neighbours of all positions, (n, K)
      int32. If it is missing or None, the core builds what the draw needs: nothing, a grid of what
      lies around a few centres, an index for each label, or an index of the whole scan.
    - ``engine``: which index to build: "auto" (default), "grid" or "kdtree".
    - ``labels``: (n,) int32, numbered from 0. Groups never mix labels: an index for each label is
      built, unless `source` is one.
    - ``limits``: the smallest and the largest distance of a neighbour.
    - ``n_groups``: how many groups "oversample" draws (default: as many as centres), and how many
      "pool" samples (default: the whole pool is returned, in lexicographic order).
    - ``groups_per_center`` (default 1), for "nearest", "quadrant" and "overlap".
    - ``include_center`` (default False), for "nearest": channel 0 is the centre.
    - ``window`` and ``min_overlap``, for "overlap": the pixels per side of a diffraction pattern,
      and the share of a window that two positions must have in common.
    - ``num_threads``.

    Returns
    -------
    centers : (B,), int32
        The centre of each group.
    groups : (B, C), int32
        The scan positions of each group.
    too_few : int32
        The centres that are left out because they have too few neighbours.
    no_group : int
        How many centres are left out because the rule found no group around them.
    spent : int
        "oversample": how many centres had fewer distinct groups than they were asked for.
    fewest : int
        The fewest distinct groups that one of these has; 0 if `spent` is 0.
    pool_size : int or None
        "pool": how many groups the pool holds.
    engine : str
        The index that was searched, "grid" or "kdtree". If none was, the one that was asked for
        ("grid" if that is "auto").
    """

class Diffraction:
    """The diffraction of N x N pixels; its Fourier transforms are planned once.

    The arrays are those of `ptycho_fast.reconstruction.cpu.CpuModel`, each C-contiguous. ``rows``
    (k,) says which positions are used.
    """

    def __new__(cls, n: int) -> Diffraction: ...
    def gradient(
        self,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        positions: NDArray[np.float64],
        rows: NDArray[np.int32],
        exposure: NDArray[np.float64] | None,
        background: float,
        counts: NDArray[np.float32],
        good: NDArray[np.bool_] | None,
        of_object: NDArray[np.complex64] | None,
        of_probe: NDArray[np.complex128] | None,
        of_positions: NDArray[np.float64] | None,
        of_exposure: NDArray[np.float64] | None,
        num_threads: int | None,
    ) -> float:
        """Return half the Poisson deviance; fill the gradients that are not None.

        The object's and the probe's are added to what the arrays hold. A negative count stands for
        a pixel that was not measured.
        """

    def curvature(
        self,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        change: NDArray[np.complex64],
        positions: NDArray[np.float64],
        rows: NDArray[np.int32],
        exposure: NDArray[np.float64] | None,
        background: float,
        good: NDArray[np.bool_] | None,
        out: NDArray[np.complex64],
        num_threads: int | None,
    ) -> None:
        """Add the Fisher information of the counts times a change of the object to `out`."""

    def intensity(
        self,
        object: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        positions: NDArray[np.float64],
        rows: NDArray[np.int32],
        exposure: NDArray[np.float64] | None,
        background: float,
        out: NDArray[np.float32],
        num_threads: int | None,
    ) -> None:
        """Fill `out` (k, N, N) with the expected counts."""

def sample_pool(
    n_pool: int, n_groups: int, key: tuple[int, int], num_threads: int | None
) -> NDArray[np.int32]:
    """Return which groups of a pool "pool" samples."""

def check_positions(positions: NDArray[np.float64]) -> int:
    """Refuse positions that no index can be built of; return how many there are."""

def check_group(n_positions: int, n_neighbors: int, group_size: int) -> None:
    """Refuse groups that are larger than K or than the scan."""

def philox_key(seed: int, epoch: int) -> tuple[int, int]:
    """Return the key for an epoch (below 2**32) of a seed (below 2**128)."""

def draw_centers(
    n_positions: int, n_groups: int, key: tuple[int, int], num_threads: int | None
) -> NDArray[np.int32]:
    """Return a random sample of positions, in random order."""

def draw_order(n_groups: int, key: tuple[int, int], num_threads: int | None) -> NDArray[np.int32]:
    """Return the random order in which an epoch visits its groups."""

def count_threads(asked: int | None) -> int:
    """Return how many threads are used if `asked` is passed as ``num_threads``."""

def simd_name() -> str:
    """Return which vector instructions are used: "portable", "avx2", "avx512" or "neon"."""

def extract_patches(
    object: NDArray[np.complex64],
    positions: NDArray[np.float64],
    out: NDArray[np.complex64],
    num_threads: int | None,
) -> None:
    """Fill `out` (B, N, N, C) with the patches of an object at positions (B, 2, C), x then y."""

def add_patches(
    patches: NDArray[np.complex64],
    positions: NDArray[np.float64],
    object: NDArray[np.complex64],
    num_threads: int | None,
) -> None:
    """Add patches to an object where `extract_patches` would cut them: its adjoint."""

def gather_patterns(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    indices: NDArray[np.int32],
    out: NDArray[Any],
    scales: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    num_threads: int | None,
) -> None:
    """Fill `out` (B, N, N, C) with the diffraction patterns of groups (B, C).

    The stack (n, N, N) is viewed as unsigned words; `kind` is the dtype of its values, as in
    "f4". With `scales`, one for each group, `out` is float32. Pixels where `mask` is False are 0.
    """

def gather_twice(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    indices: NDArray[np.int32],
    out: NDArray[Any],
    scaled: NDArray[np.float32],
    scale: float,
    num_threads: int | None,
) -> None:
    """Fill `out` with the diffraction patterns of groups, and `scaled` with `scale` times these."""

def pattern_energies(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    rows: NDArray[np.int32] | None,
    mask: NDArray[np.bool_] | None,
    num_threads: int | None,
) -> NDArray[np.float64]:
    """Return the sum of squares of each diffraction pattern, or of those in `rows`."""
