"""Where the tests find files that are not theirs."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout, or the folder the tests were copied to."""

SHARED = ROOT.parent / "shared"
"""Scans and frozen outputs that are not part of the repository; tests that want them skip."""
