"""`Groups`: coordinates, files, and the request that they answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def test_groups_are_printed_on_one_line(raster: NDArray[np.float64]) -> None:
    groups = pf.group_positions(raster, gridsize=2, n_groups=100, seed=3)
    assert repr(groups) == (
        "Groups(100 of 4 positions, scan of 400, K=7, rule='nearest', seed=3, epoch=0)"
    )


@given(C=st.integers(1, 12), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_coordinates_equal_the_reference_to_the_bit(C: int, seed: int) -> None:
    positions = reference.scan_shapes(50, seed)["uniform"] * 1234.5
    groups = pf.group_positions(positions, group_size=C, seed=seed)
    expected = reference.coordinates(positions, groups.indices)
    for found, name in [
        (groups.coords, "coords_nn"),
        (groups.offsets, "coords_offsets"),
        (groups.relative, "coords_relative"),
    ]:
        assert found.dtype == np.float64
        assert found.flags.c_contiguous
        assert found.tobytes() == np.ascontiguousarray(expected[name]).tobytes()
    np.testing.assert_allclose(groups.relative.sum(axis=-1), 0, atol=1e-9)


def test_saved_groups_load_as_they_were(raster: NDArray[np.float64], tmp_path: Path) -> None:
    groups = pf.group_positions(raster, 30, gridsize=3, seed=2**100, epoch=4, include_center=True)
    path = tmp_path / "groups.npz"
    groups.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["groups.npz"]
    for again in (pf.Groups.load(path), pf.Groups.load(path, raster)):
        np.testing.assert_array_equal(again.indices, groups.indices)
        np.testing.assert_array_equal(again.centers, groups.centers)
        np.testing.assert_array_equal(again.offsets, groups.offsets)
        for name in ("n_neighbors", "seed", "epoch", "rule", "rng", "engine", "include_center"):
            assert getattr(again, name) == getattr(groups, name)
    assert json.loads(str(np.load(path)["parameters"]))["seed"] == 2**100


def test_groups_of_another_scan_are_refused(raster: NDArray[np.float64], tmp_path: Path) -> None:
    path = tmp_path / "groups.npz"
    pf.group_positions(raster, seed=1).save(path)
    with pytest.raises(ValueError, match="drawn from other positions"):
        pf.Groups.load(path, raster + 1e-9)


@pytest.mark.parametrize("key", ["indices", "centers", "positions", "parameters"])
def test_files_without_groups_are_refused(
    raster: NDArray[np.float64], tmp_path: Path, key: str
) -> None:
    path = tmp_path / "groups.npz"
    pf.group_positions(raster, seed=1).save(path)
    arrays = dict(np.load(path))
    missing = {name: array for name, array in arrays.items() if name != key}
    np.savez(path, **missing)
    with pytest.raises(KeyError, match=key):
        pf.Groups.load(path)
    arrays[key] = arrays[key][:-1] if arrays[key].ndim else np.array("{}")
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"centres|checksum|parameters"):
        pf.Groups.load(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(OSError, match="is not an NPZ file"):
        pf.Groups.load(path)


def test_groups_are_not_saved_to_a_folder_that_does_not_exist(
    raster: NDArray[np.float64], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        pf.group_positions(raster, seed=1).save(tmp_path / "nowhere" / "groups.npz")
