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
