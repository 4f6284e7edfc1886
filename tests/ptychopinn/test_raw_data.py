"""What a record keeps, and what it refuses (docs/contract.md, section 7)."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import (
    RawData,
    get_image_patches,
    get_neighbor_indices,
    get_relative_coords,
    normalize_data,
)
from records import make_object, make_record, make_stack, positions_of


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (
            RawData,
            "xcoords ycoords xcoords_start ycoords_start diff3d probeGuess scan_index "
            "objectGuess=None Y=None norm_Y_I=None metadata=None",
        ),
        (
            RawData.generate_grouped_data,
            "self N K=4 nsamples=1 dataset_path=None seed=None sequential_sampling=False "
            "gridsize=None enable_oversampling=False neighbor_pool_size=None",
        ),
        (
            RawData._generate_groups_efficiently,
            "self nsamples K C seed=None seed_indices=None",
        ),
        (
            RawData.from_coords_without_pc,
            "xcoords ycoords diff3d probeGuess scan_index objectGuess=None",
        ),
        (RawData.from_file, "train_data_file_path validate_config=False current_config=None"),
        (RawData.from_files, "train_data_file_path test_data_file_path"),
        (RawData.to_file, "self file_path"),
        (get_image_patches, "gt_image global_offsets local_offsets N=None gridsize=None"),
        (get_relative_coords, "coords_nn"),
        (get_neighbor_indices, "xcoords ycoords K=3"),
        (normalize_data, "dset N"),
    ],
)
def test_arguments_have_their_names_order_and_defaults(function: Any, arguments: str) -> None:
    found = inspect.signature(function).parameters.values()
    assert " ".join(str(p.replace(annotation=p.empty)) for p in found) == arguments


def test_constants_are_those_that_loaders_read() -> None:
    assert ptychopinn.local_offset_sign == -1
    assert ptychopinn.key_coords_offsets == "coords_start_offsets"
    assert ptychopinn.key_coords_relative == "coords_start_relative"


def test_arguments_are_kept_as_attributes() -> None:
    x, y = ([1.0, 2.0], [3, 4])
    values = (x, y, x, y, make_stack(2), None, [5, 6], make_object(), None, 7.5, {"a": 1})
    record = RawData(*values)
    names = list(inspect.signature(RawData).parameters)
    assert [id(getattr(record, name)) for name in names] == [id(value) for value in values]
    assert record.sample_indices is None
    assert record.subsample_seed is None


def test_all_but_the_coordinates_may_be_none() -> None:
    x, y = positions_of(12).T
    record = RawData(x, y, None, None, None, None, None)
    data = record.generate_grouped_data(8, K=4, nsamples=5, seed=0, gridsize=2)
    for key in ("diffraction", "X_full", "Y", "objectGuess", "coords_start_nn"):
        assert data[key] is None
    # Loaders read these two: without planned positions they are those of the positions.
    np.testing.assert_array_equal(data["coords_start_offsets"], data["coords_offsets"])
    np.testing.assert_array_equal(data["coords_start_relative"], data["coords_relative"])


def test_from_coords_without_pc_takes_the_positions_as_planned() -> None:
    x, y = positions_of(12).T
    stack, probe, obj = make_stack(12), np.ones((8, 8)), make_object()
    record = RawData.from_coords_without_pc(x, y, stack, probe, np.arange(12), obj)
    assert record.xcoords_start is x
    assert record.ycoords_start is y
    assert record.diff3d is stack
    assert record.probeGuess is probe
    assert record.objectGuess is obj
    assert record.Y is None


def test_a_record_as_text_names_what_it_holds() -> None:
    text = str(make_record(n=30, objectGuess=None))
    assert "30 positions" in text
    assert "diff3d: (30, 8, 8) float32" in text
    assert "objectGuess: None" in text


@pytest.mark.parametrize("name", ["ycoords", "xcoords_start", "ycoords_start"])
def test_coordinates_of_different_lengths_are_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: np.zeros(29)}
    with pytest.raises(ValueError, match=r"^Coordinate arrays must have matching shapes\.") as info:
        make_record(30, **wrong)
    assert f"{name} is (29,)" in str(info.value)


@pytest.mark.parametrize("shape", [(30, 1), (1, 30)])
def test_coordinates_that_are_a_column_or_a_row_are_refused(shape: tuple[int, int]) -> None:
    x, y = (axis.reshape(shape) for axis in positions_of(30).T)
    with pytest.raises(
        ValueError, match=r"must be \(n,\).*got \(.*30.*\)\. Pass xcoords\.ravel\(\)"
    ):
        RawData(x, y, None, None, None, None, None)


def test_half_of_the_planned_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="xcoords_start and ycoords_start go together"):
        make_record(30, ycoords_start=None)


def test_coordinates_set_later_are_checked_too() -> None:
    record = make_record(30)
    record.xcoords = np.zeros(29)
    with pytest.raises(ValueError, match=r"^Coordinate arrays must have matching shapes\."):
        record.generate_grouped_data(8)


def test_a_stack_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"diff3d has shape \(29, 8, 8\).*30 coordinates"):
        make_record(30, diff3d=make_stack(29))


def test_patterns_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="N=16, but the patterns of diff3d are 8"):
        make_record(30).generate_grouped_data(16)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1"])
def test_patterns_that_are_not_real_are_refused(dtype: Any) -> None:
    record = make_record(30, diff3d=np.ones((30, 8, 8), dtype))
    with pytest.raises(ValueError, match="diffraction must be real numbers of up to 64 bits"):
        record.generate_grouped_data(8)


@pytest.mark.parametrize("name", ["xcoords", "ycoords_start"])
def test_coordinates_that_are_not_finite_are_refused(name: str) -> None:
    record = make_record(30)
    getattr(record, name)[[4, 7]] = np.nan
    with pytest.raises(ValueError, match=r"row 4 is the first of 2 rows \(of 30\)"):
        record.generate_grouped_data(8)


def test_fewer_neighbors_than_channels_are_refused() -> None:
    message = re.escape("K=3 must be >= C=4 (need at least C neighbors to form a group)")
    with pytest.raises(ValueError, match=message):
        make_record(30).generate_grouped_data(8, K=3, gridsize=2)
    with pytest.raises(ValueError, match=message):
        make_record(30)._generate_groups_efficiently(5, 3, 4)


@pytest.mark.parametrize("nsamples", [1, 10])
def test_fewer_points_than_channels_are_refused(nsamples: int) -> None:
    message = re.escape("Dataset has only 3 points but 4 coordinates per group requested.")
    record = make_record(3)
    with pytest.raises(ValueError, match=message):
        record.generate_grouped_data(8, nsamples=nsamples, gridsize=2)
    with pytest.raises(ValueError, match=message):
        record._generate_groups_efficiently(nsamples, 4, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nsamples": 0},
        {"nsamples": 2.0},
        {"gridsize": 0},
        {"K": -1},
        {"N": 0},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_counts_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        make_record(30).generate_grouped_data(**{"N": 8} | arguments)


def test_patterns_of_zeros_are_refused() -> None:
    record = make_record(30, diff3d=np.zeros((30, 8, 8), np.float32))
    with pytest.raises(ValueError, match="zero"):
        record.generate_grouped_data(8)


def test_an_empty_scan_is_refused() -> None:
    for in_order in (False, True):
        with pytest.raises(ValueError, match="The scan is empty"):
            make_record(0).generate_grouped_data(8, sequential_sampling=in_order)
