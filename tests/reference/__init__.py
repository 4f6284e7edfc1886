"""What ptycho_fast must compute, written from the numerical contract (docs/contract.md) alone.

Plain NumPy and SciPy, by brute force from the definitions: correct before fast. Nothing here
imports the package under test. ``reference.coverage`` holds the measures of a selection.
"""

from reference.batches import coordinates, gather, normalisation_scale
from reference.groups import legacy_groups, nearest_groups
from reference.groups import random_centers as centers
from reference.neighbors import nearest_neighbors, nearest_neighbors_tree
from reference.patches import extract_patches
from reference.randomness import key, philox_block, words
from reference.rules import inside_bounds, overlap, rule_groups
from reference.scans import scan_shapes

__all__ = [
    "centers",
    "coordinates",
    "extract_patches",
    "gather",
    "inside_bounds",
    "key",
    "legacy_groups",
    "nearest_groups",
    "nearest_neighbors",
    "nearest_neighbors_tree",
    "normalisation_scale",
    "overlap",
    "philox_block",
    "rule_groups",
    "scan_shapes",
    "words",
]
