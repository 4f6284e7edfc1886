"""`ptycho-fast simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import ptycho_fast as pf
from commands import file_names
from ptycho_fast.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_simulate_writes_the_scan_of_its_arguments(here: Path) -> None:
    argv = "simulate -o a.npz --positions 30 --pixels 9 --trajectory spiral --photons 1e4 --seed 3"
    assert main(argv.split()) == 0
    assert file_names(here) == ["a.npz"]
    read = pf.read_scan("a.npz")
    expected = pf.simulate_scan(30, 9, trajectory="spiral", photons=1e4, seed=3)
    for field in ("positions", "positions_start", "diffraction", "probe", "object"):
        np.testing.assert_array_equal(getattr(read, field), getattr(expected, field))
    assert read.metadata == expected.metadata


def test_simulate_without_a_seed_records_a_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "-o", "a.npz", "--positions", "4", "--pixels", "8"]) == 0
    seed = int(pf.read_scan("a.npz").metadata["seed"])
    assert f"seed {seed}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--positions 0", "n_positions must be a whole number"),
        ("--positions 0", "(On the command line n_positions is --positions.)"),
        ("--positions 2000000000 --pixels 4096", "Unable to allocate"),
        ("--photons nan", "photons must be more than 0"),
        ("--seed -5", "seed must be a whole number"),
        ("-o nowhere/a.npz", "there is no folder nowhere"),
        ("-o a.h5", "a.h5 is named as a file of the format 'hdf5', but is to be written as 'npz'."),
    ],
)
def test_bad_arguments_of_simulate_get_a_sentence(
    here: Path, refused: Callable[..., str], options: str, expected: str
) -> None:
    assert expected in refused("simulate", "-o", "a.npz", *options.split())
    assert file_names(here) == []
