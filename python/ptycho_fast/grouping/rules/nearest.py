"""The rule ``nearest``: C of the K nearest neighbours of a centre, the default."""

from __future__ import annotations

from ptycho_fast.grouping.rules.base import Rule


class Nearest(Rule):
    """C of the K nearest neighbours, drawn without replacement."""

    name = "nearest"
