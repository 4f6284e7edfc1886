"""`Rule`: what every rule of choosing groups can do, and what a draw returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ptycho_fast import _core
from ptycho_fast.grouping.rules.explain import explain_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptycho_fast.grouping.request import DrawRequest

NeighborSource: TypeAlias = "_core.ScanIndex | _core.LabelledIndex | NDArray[np.int32]"
"""Where neighbours come from: an index, or the lists (n, K) of them that were found before."""


class Drawn(NamedTuple):
    """What a draw returns."""

    indices: NDArray[np.int32]
    """(B, C), the members of the groups."""
    centers: NDArray[np.int32]
    """(B,), the position that each group was drawn around."""
    left_out: dict[str, int]
    """Reason -> how many of the centres have no group."""
    engine: str
    """The kind of index that found the neighbours."""
    spent: int = 0
    """How many centres were asked for more groups than they have distinct ones."""
    fewest: int = 0
    """The smallest number of distinct groups that one of these centres has."""
    pool: int | None = None
    """Groups in the pool that was sampled."""


class Rule:
    """One way of choosing groups: what it accepts, how it draws, why it draws nothing.

    A rule has no state: everything it needs is in the `DrawRequest`. A subclass names itself, says
    which arguments go with it, and overrides `check` and `explain` where it has its own to say.
    """

    name: ClassVar[str]
    """As the caller and the core name it; also the reason under which it leaves centres out."""
    allows_include_center: ClassVar[bool] = True
    """Whether ``include_center=True`` goes with it."""
    allows_groups_per_center: ClassVar[bool] = True
    """Whether ``groups_per_center`` goes with it."""
    uses_windows: ClassVar[bool] = False
    """Whether it looks at the windows of the patterns: ``N`` and ``min_overlap``."""
    counts_groups: ClassVar[bool] = False
    """Whether `n_groups` counts groups, which may be more than the positions."""
    draws_around_all: ClassVar[bool] = False
    """Whether it draws around all positions in order of index, whatever `n_groups` is."""

    @property
    def title(self) -> str:
        """How messages name it, as the caller wrote it."""
        return f"rule={self.name!r}"

    def default_neighbors(self, group_size: int) -> int:
        """Return K where the caller gives none."""
        return group_size + 3

    def accept(self, request: DrawRequest) -> DrawRequest:
        """Return the request with what the rule adds to it.

        Raises
        ------
        ValueError
            If an argument does not go with the rule, or one is missing.
        """
        if request.include_center and not self.allows_include_center:
            msg = f"include_center=True does not go with {self.title}. Use rule='nearest'."
            raise ValueError(msg)
        m = request.groups_per_center
        if m > 1 and not self.allows_groups_per_center:
            msg = (
                f"groups_per_center={m} does not go with {self.title}, which counts groups by "
                "n_groups alone. Leave groups_per_center out, and pass n_groups."
            )
            raise ValueError(msg)
        request = self.check(request)
        if not self.uses_windows and (request.N, request.min_overlap) != (None, None):
            given = (
                f"min_overlap={request.min_overlap!r}" if request.N is None else f"N={request.N!r}"
            )
            msg = f"{given} is for rule='overlap' alone, not for {self.title}. Leave it out."
            raise ValueError(msg)
        return request

    def check(self, request: DrawRequest) -> DrawRequest:
        """Refuse what contradicts this rule alone, and fill in its defaults."""
        return request

    def lists_suffice(self, request: DrawRequest) -> bool:
        """Whether a draw looks at nothing but the K nearest neighbours of each position."""
        return not request.min_distance and request.scan_ids is None

    def draw(
        self,
        request: DrawRequest,
        centers: NDArray[np.int32],
        source: NeighborSource | None = None,
        num_threads: int | None = None,
    ) -> Drawn:
        """Draw groups around the centres.

        Parameters
        ----------
        request : DrawRequest
            What was asked.
        centers : ndarray, (m,), int32
            The centres to try.
        source : index or ndarray, (n, K), int32, optional
            Where the neighbours come from. Without it the core builds an index if it needs one.
        num_threads : int, optional
            Threads to use. The result does not depend on it.

        Returns
        -------
        Drawn
        """
        kept, indices, too_few, no_group, spent, fewest, pool, engine = _core.draw(
            self.for_core(request, centers, source, num_threads)
        )
        left_out = self.count_left_out(request, too_few, no_group)
        return Drawn(indices, kept, left_out, engine, spent, fewest, pool)

    def for_core(
        self,
        request: DrawRequest,
        centers: NDArray[np.int32],
        source: NeighborSource | None,
        num_threads: int | None,
    ) -> dict[str, Any]:
        """Return a request as the core takes it."""
        return {
            "rule": self.name,
            "source": source,
            "engine": request.engine,
            "positions": request.positions,
            "centers": centers,
            "n_groups": request.count,
            "n_neighbors": request.n_neighbors,
            "group_size": request.group_size,
            "include_center": request.include_center,
            "groups_per_center": request.groups_per_center,
            "limits": request.limits,
            "window": request.N or 0,
            "min_overlap": request.min_overlap or 0.0,
            "labels": request.scan_ids,
            "key": request.key,
            "num_threads": num_threads,
        }

    def count_left_out(
        self, request: DrawRequest, too_few: NDArray[np.int32], no_group: int = 0
    ) -> dict[str, int]:
        """Count the centres without a group, by reason.

        Parameters
        ----------
        request : DrawRequest
            What was asked.
        too_few : ndarray, int32
            The centres with too few neighbours.
        no_group : int
            How many more the rule left out.

        Returns
        -------
        dict
            ``"scan_ids"``: fewer than C positions have the centre's label; ``"distance"``: fewer
            than C neighbours lie within the limits; the rule's name: the rest. No zeros.
        """
        if not no_group and not len(too_few):
            return {}
        small = 0
        if request.scan_ids is not None:
            sizes = np.bincount(request.scan_ids)[request.scan_ids]
            small = int(np.count_nonzero(sizes[too_few] < request.group_size))
        counts = {"scan_ids": small, "distance": len(too_few) - small, self.name: no_group}
        return {reason: count for reason, count in counts.items() if count}

    def explain(
        self, request: DrawRequest, centers: NDArray[np.int32], left_out: dict[str, int]
    ) -> str:
        """Say why none of the centres has a group, and which limit to change to what."""
        return explain_limits(request, centers, left_out)
