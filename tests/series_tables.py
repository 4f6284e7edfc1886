"""What a series has left in its folder."""

from __future__ import annotations

import csv
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import ptycho_fast as pf


def table(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of series.csv by the folder of the scan."""
    with open(folder / "series.csv", newline="") as file:
        return {row["folder"]: row for row in csv.DictReader(file)}


def statuses(folder: Path) -> dict[str, str]:
    """Return the status of each scan in series.csv."""
    return {name: row["status"] for name, row in table(folder).items()}


def assert_same_image(made: pf.Reconstruction, other: pf.Reconstruction) -> None:
    """Assert that two reconstructions are equal to the bit, but for the time they took."""
    for field in fields(made):
        one, two = getattr(made, field.name), getattr(other, field.name)
        if field.name == "resolution":
            assert repr(one) == repr(two)
            if one is not None:
                np.testing.assert_array_equal(one.correlation, two.correlation)
        elif field.name != "seconds":
            np.testing.assert_array_equal(one, two, err_msg=field.name)
