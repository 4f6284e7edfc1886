"""What the methods `plot` of a scan, of groups, of their coverage and of an image draw.

Needs matplotlib: ``pip install "ptycho_fast[plot]"``.
"""

from ptycho_fast.plot.coverage import draw_coverage
from ptycho_fast.plot.figure import write_png
from ptycho_fast.plot.groups import draw_groups
from ptycho_fast.plot.image import draw_image
from ptycho_fast.plot.scan import draw_scan

__all__ = ["draw_coverage", "draw_groups", "draw_image", "draw_scan", "write_png"]
