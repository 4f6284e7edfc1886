"""The strategy ``group-then-sample``: a pool of the groups of all centres, and a sample of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ptycho_fast import _core
from ptycho_fast.grouping.rules.base import Drawn, NeighborSource, Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.grouping.request import DrawRequest


class Pool(NamedTuple):
    """All groups that ``group-then-sample`` samples from."""

    groups: NDArray[np.int32]
    """(P, C), each sorted, in lexicographic order."""
    centers: NDArray[np.int32]
    """(P,), the first centre that has the group."""
    without: NDArray[np.int32]
    """The centres that have no group."""


class GroupThenSample(Rule):
    """Lists the groups of all centres (up to 50 each) without duplicates, and samples the list."""

    name = "pool"
    allows_include_center = False
    allows_groups_per_center = False
    counts_groups = True
    draws_around_all = True

    @property
    def title(self) -> str:
        """How messages name it, as the caller wrote it."""
        return "strategy='group-then-sample'"

    def check(self, request: DrawRequest) -> DrawRequest:
        """Refuse centres of the caller's: the pool holds the groups around all positions."""
        if request.center_choice != "random":
            msg = (
                f"{self.title} draws groups around all positions, in order of index. Leave "
                "centers out."
            )
            raise ValueError(msg)
        return request

    def lists_suffice(self, request: DrawRequest) -> bool:
        """No: the pool is listed anew from the index."""
        return False

    def list_pool(
        self,
        request: DrawRequest,
        centers: NDArray[np.int32],
        source: NeighborSource | None = None,
        num_threads: int | None = None,
    ) -> tuple[Pool, str]:
        """List the pool around centres; return it and the kind of index that found the neighbours.

        The arguments are those of `draw`.
        """
        asked = self.for_core(request, centers, source, num_threads)
        first, groups, without, *_, engine = _core.draw({**asked, "n_groups": None})
        return Pool(groups, first, without), engine

    def sample(
        self, request: DrawRequest, pool: Pool, engine: str, num_threads: int | None = None
    ) -> Drawn:
        """Draw groups from a pool that was listed before: the same that `draw` draws."""
        size = len(pool.groups)
        rows = _core.sample_pool(size, request.count, request.key, num_threads)
        left_out = self.count_left_out(request, pool.without)
        return Drawn(pool.groups[rows], pool.centers[rows], left_out, engine, pool=size)
