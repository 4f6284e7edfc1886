"""The Rust core; `ptycho_fast`'s Python modules are what people call."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__version__: str

class ScanIndex:
    def __new__(
        cls, positions: NDArray[np.float64], engine: str, num_threads: int | None
    ) -> ScanIndex: ...
    @property
    def engine(self) -> str: ...
    def __len__(self) -> int: ...
    def neighbors(
        self, centers: NDArray[np.int32], n_neighbors: int, num_threads: int | None
    ) -> NDArray[np.int32]: ...
    def draw_nearest(
        self,
        centers: NDArray[np.int32],
        n_neighbors: int,
        group_size: int,
        include_center: bool,
        key: tuple[int, int],
        num_threads: int | None,
    ) -> NDArray[np.int32]: ...
    def draw_legacy(
        self,
        centers: NDArray[np.int32] | None,
        n_groups: int,
        n_neighbors: int,
        group_size: int,
        twister_words: NDArray[np.uint32],
        twister_place: int,
        num_threads: int | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[NDArray[np.uint32], int]]: ...

_Found: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], int]
"""Centres, groups, the centres with too few slots, how many the rule left out."""

class LabelledIndex:
    def __new__(
        cls,
        positions: NDArray[np.float64],
        labels: NDArray[np.int32],
        engine: str,
        num_threads: int | None,
    ) -> LabelledIndex: ...
    @property
    def engine(self) -> str: ...

def draw(
    request: dict[str, Any],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], int, int, int, int | None, str]:
    """Draw groups by any rule, from whatever is known of the neighbours.

    A request must have ``rule`` ("nearest", "oversample", "quadrant", "overlap", "pool"),
    ``positions`` (n, 2) float64, ``centers`` (m,) int32, ``n_neighbors``, ``group_size`` and
    ``key`` (two 64-bit words). It may have

    - ``source``: a `ScanIndex`, a `LabelledIndex`, or the neighbours of all positions, (n, K)
      int32. Without it the core builds what the draw needs: nothing, a grid of what lies around
      a few centres, an index for each label, or an index of the whole scan;
    - ``engine``: the index to build, "auto" (the default), "grid" or "kdtree";
    - ``labels``: (n,) int32, from 0. Then an index for each label is built, unless `source` is a
      `LabelledIndex`;
    - ``limits``: the smallest and the largest distance of neighbours;
    - ``n_groups``: of "oversample" (default: one for each centre) and of "pool", which without it
      returns the whole pool in lexicographic order;
    - ``include_center`` (False) of "nearest"; ``window`` and ``min_overlap`` of "overlap";
      ``groups_per_center`` (1) of "nearest", "quadrant" and "overlap";
    - ``num_threads``.

    Returns
    -------
    centers : (B,), int32
        The centre of each group.
    groups : (B, C), int32
    too_few : int32
        The centres left out because they have too few neighbours.
    no_group : int
        How many centres are left out because the rule found no group around them.
    spent : int
        How many centres were asked for more groups than they have sets ("oversample").
    fewest : int
        The fewest sets that one of these has; 0 if there is none.
    pool_size : int or None
        How many groups the pool holds ("pool").
    engine : str
        The index that was searched: "grid" or "kdtree". If nothing was searched, the one asked
        for, "grid" for "auto".
    """

# A request holds source, positions, centers, n_neighbors, group_size, limits, labels,
# key, num_threads.
def draw_within(
    request: dict[str, Any], include_center: bool, groups_per_center: int
) -> _Found: ...
def draw_oversample(request: dict[str, Any], n_groups: int) -> tuple[_Found, int, int]: ...
def draw_quadrant(request: dict[str, Any], groups_per_center: int) -> _Found: ...
def draw_overlap(
    request: dict[str, Any], window: int, min_overlap: float, groups_per_center: int
) -> _Found: ...
def draw_pool(request: dict[str, Any], n_groups: int) -> tuple[_Found, int]: ...
def list_pool(request: dict[str, Any]) -> _Found: ...
def sample_pool(
    n_pool: int, n_groups: int, key: tuple[int, int], num_threads: int | None
) -> NDArray[np.int32]: ...
def check_positions(positions: NDArray[np.float64]) -> int: ...
def check_group(n_positions: int, n_neighbors: int, group_size: int) -> None: ...
def draw_centers(
    n_positions: int, n_groups: int, key: tuple[int, int], num_threads: int | None
) -> NDArray[np.int32]: ...
def count_threads(asked: int | None) -> int: ...
def draw_order(
    n_groups: int, key: tuple[int, int], num_threads: int | None
) -> NDArray[np.int32]: ...
def draw_few(
    positions: NDArray[np.float64],
    centers: NDArray[np.int32],
    n_neighbors: int,
    group_size: int,
    include_center: bool,
    key: tuple[int, int],
    num_threads: int | None,
) -> NDArray[np.int32] | None: ...
def simd_name() -> str: ...
def draw_listed(
    neighbors: NDArray[np.int32],
    centers: NDArray[np.int32],
    n_neighbors: int,
    group_size: int,
    include_center: bool,
    key: tuple[int, int],
    num_threads: int | None,
) -> NDArray[np.int32]: ...
def extract_patches(
    object: NDArray[np.complex64],
    positions: NDArray[np.float64],
    out: NDArray[np.complex64],
    num_threads: int | None,
) -> None: ...
def add_patches(
    patches: NDArray[np.complex64],
    positions: NDArray[np.float64],
    object: NDArray[np.complex64],
    num_threads: int | None,
) -> None: ...
def gather_patterns(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    indices: NDArray[np.int32],
    out: NDArray[Any],
    scales: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    num_threads: int | None,
) -> None: ...
def gather_twice(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    indices: NDArray[np.int32],
    out: NDArray[Any],
    scaled: NDArray[np.float32],
    scale: float,
    num_threads: int | None,
) -> None: ...
def pattern_energies(
    stack: NDArray[np.unsignedinteger[Any]],
    kind: str,
    rows: NDArray[np.int32] | None,
    mask: NDArray[np.bool_] | None,
    num_threads: int | None,
) -> NDArray[np.float64]: ...
