"""From a ptychography scan to an image, and to the batches a network trains on.

Groups of overlapping scan positions, with their diffraction patterns, coordinates and object
patches, are drawn and gathered by a Rust core, which also computes the images. Importing the
package imports NumPy and nothing heavier.

Examples
--------
>>> import ptycho_fast as pf
>>> scan = pf.simulate_scan(n_positions=100, N=32, seed=0)
>>> groups = pf.group_positions(scan.positions, n_groups=10, gridsize=2, seed=42)
>>> positions = scan.positions[groups.indices].transpose(0, 2, 1)
>>> pf.extract_patches(scan.object, positions, N=32).shape
(10, 32, 32, 4)
"""

from ptycho_fast._core import __version__
from ptycho_fast.dataset import GroupedDataset
from ptycho_fast.grouping import Groups, ScanIndex, group_positions
from ptycho_fast.io import read_scan, write_scan
from ptycho_fast.live import follow
from ptycho_fast.patches.cpu import extract_patches
from ptycho_fast.quality import coverage
from ptycho_fast.reconstruction import Reconstruction, reconstruct
from ptycho_fast.scan import Scan
from ptycho_fast.simulate import simulate_scan

__all__ = [
    "GroupedDataset",
    "Groups",
    "Reconstruction",
    "Scan",
    "ScanIndex",
    "__version__",
    "coverage",
    "extract_patches",
    "follow",
    "group_positions",
    "read_scan",
    "reconstruct",
    "simulate_scan",
    "write_scan",
]
