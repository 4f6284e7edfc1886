"""The rules by which groups are chosen, one file each (docs/contract.md, sections 2 and 4).

==================== ===========================================================================
``nearest``          C of the K nearest neighbours.
``oversample``       More groups than positions; a centre repeats none until it has used them all.
``quadrant``         One of the K nearest neighbours in each quadrant around the centre.
``overlap``          Grown from the centre: each next window overlaps all windows before it.
group-then-sample    A strategy: list the groups around all centres, then sample the list.
==================== ===========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptycho_fast.checks import one_of
from ptycho_fast.grouping.rules.nearest import Nearest
from ptycho_fast.grouping.rules.overlap import Overlap
from ptycho_fast.grouping.rules.oversample import Oversample
from ptycho_fast.grouping.rules.pool import GroupThenSample
from ptycho_fast.grouping.rules.quadrant import Quadrant

if TYPE_CHECKING:
    from ptycho_fast.grouping.rules.base import Rule

RULES: dict[str, Rule] = {
    rule.name: rule for rule in (Nearest(), Oversample(), Quadrant(), Overlap())
}
"""By the name that `rule` takes."""

GROUP_THEN_SAMPLE = GroupThenSample()

STRATEGIES = ("sample-then-group", "group-then-sample")


def find_rule(rule: str, strategy: str) -> Rule:
    """Return what draws the groups for a rule and a strategy.

    Raises
    ------
    ValueError
        If one is not known, or they do not go together.
    """
    one_of("rule", rule, RULES)
    one_of("strategy", strategy, STRATEGIES)
    if strategy == "sample-then-group":
        return RULES[rule]
    if rule != "nearest":
        msg = (
            f"strategy='group-then-sample' samples a pool of its own; it takes no rule={rule!r}. "
            "Leave rule or strategy out."
        )
        raise ValueError(msg)
    return GROUP_THEN_SAMPLE
