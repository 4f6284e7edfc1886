"""The rule ``oversample``: more groups than positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.grouping.rules.base import Rule

if TYPE_CHECKING:
    from ptycho_fast.grouping.request import DrawRequest


class Oversample(Rule):
    """C of the K nearest neighbours, round after round over all centres.

    A centre repeats none of its groups until it has used all K choose C of them.
    """

    name = "oversample"
    allows_include_center = False
    allows_groups_per_center = False
    counts_groups = True

    def check(self, request: DrawRequest) -> DrawRequest:
        """Refuse groups of one position: a centre has only one of them."""
        if request.group_size == 1:
            msg = (
                "rule='oversample' needs groups of 2 or more positions, got C=1: with one position "
                "a centre has a single group. Use rule='nearest'."
            )
            raise ValueError(msg)
        return request
