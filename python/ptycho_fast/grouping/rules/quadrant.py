"""The rule ``quadrant``: one of the K nearest neighbours in each quadrant around the centre."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ptycho_fast.grouping.rules.base import Rule
from ptycho_fast.grouping.rules.explain import at_least, centers_looked_at, neighbors_of
from ptycho_fast.spacing import median_spacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptycho_fast.grouping.request import DrawRequest


class Quadrant(Rule):
    """One position from each quadrant around the centre: dx<0 dy>0, dx>0 dy>0, dx<0 dy<0, ..."""

    name = "quadrant"
    allows_include_center = False

    def check(self, request: DrawRequest) -> DrawRequest:
        """Refuse groups of other than 4 positions, and quadrants without an end."""
        C = request.group_size
        if C != 4:
            msg = (
                "rule='quadrant' takes one position from each of 4 quadrants: C must be 4 "
                f"(gridsize 2), got C={C} (gridsize {math.sqrt(C):g})."
            )
            raise ValueError(msg)
        if request.max_distance is None:
            msg = (
                "rule='quadrant' needs max_distance, in pixels: how far from the centre a "
                "quadrant extends."
            )
            raise ValueError(msg)
        return request

    def lists_suffice(self, request: DrawRequest) -> bool:
        """No: the K nearest of each quadrant are not all among the K nearest."""
        return False

    def explain(
        self, request: DrawRequest, centers: NDArray[np.int32], left_out: dict[str, int]
    ) -> str:
        """Say which `max_distance` would give a centre a neighbour in each quadrant."""
        if self.name not in left_out:
            return super().explain(request, centers, left_out)
        positions = request.positions
        nearest, farthest = request.limits or (0.0, math.inf)
        text = f"max_distance={farthest:g} leaves out all {len(centers)} centres"
        for near in neighbors_of(request, centers, (nearest, math.inf)):
            apart = positions[near.neighbors] - positions[near.center]
            reach = [
                near.distance2[(apart[:, 0] * right > 0) & (apart[:, 1] * up > 0)][:1]
                for right in (-1, 1)
                for up in (-1, 1)
            ]
            if all(map(len, reach)):
                return (
                    f"{text}: none has a neighbour within it in every quadrant. The scan's "
                    f"spacing is {median_spacing(positions):.4g} (the median distance to the "
                    f"nearest neighbour). Raise max_distance to {at_least(max(reach)[0])}, which "
                    f"serves centre {near.center}."
                )
        return (
            f"{text}, and no larger one serves any of the first "
            f"{centers_looked_at(positions, centers)}: they have no neighbour in some quadrant "
            "at all. Use rule='nearest' or other centres, or leave min_distance out."
        )
