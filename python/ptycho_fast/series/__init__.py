"""A series of scans: an image of each, a table of all, on one process or on many."""

from ptycho_fast.series.entry import SeriesEntry
from ptycho_fast.series.series import reconstruct_series

__all__ = ["SeriesEntry", "reconstruct_series"]
