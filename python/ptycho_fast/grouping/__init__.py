"""Groups of overlapping scan positions: an index of the scan, and groups drawn from it.

`group_positions` draws groups, `redraw` draws those of another epoch, and `ScanIndex` keeps the
search structure of a scan for repeated draws. ``rules/`` holds one file for each rule of choosing.
"""

from ptycho_fast.grouping.coordinates import group_coordinates, relative_coordinates
from ptycho_fast.grouping.drawing import (
    KnownNeighbors,
    draw,
    group_positions,
    prepare_redraw,
    redraw,
)
from ptycho_fast.grouping.groups import Groups
from ptycho_fast.grouping.index import ENGINES, LabelledIndex, ScanIndex
from ptycho_fast.grouping.legacy import LegacyDraw, draw_from_twister
from ptycho_fast.grouping.randomness import RNGS
from ptycho_fast.grouping.request import Bounds, DrawRequest
from ptycho_fast.grouping.rules import RULES, STRATEGIES
from ptycho_fast.grouping.rules.base import Drawn
from ptycho_fast.grouping.rules.pool import Pool

__all__ = [
    "ENGINES",
    "RNGS",
    "RULES",
    "STRATEGIES",
    "Bounds",
    "DrawRequest",
    "Drawn",
    "Groups",
    "KnownNeighbors",
    "LabelledIndex",
    "LegacyDraw",
    "Pool",
    "ScanIndex",
    "draw",
    "draw_from_twister",
    "group_coordinates",
    "group_positions",
    "prepare_redraw",
    "redraw",
    "relative_coordinates",
]
