"""Pictures: of a scan and its groups, and of a reconstructed object.

Needs matplotlib: ``pip install "ptycho_fast[plot]"``.
"""

from ptycho_fast.plot.image import plot_image
from ptycho_fast.plot.scan import plot_scan

__all__ = ["plot_image", "plot_scan"]
