"""The drop-in: every name, rule, key, shape, dtype and message of CONTRACT section 7."""

# ruff: noqa: NPY002  # the legacy stream is what is tested

from __future__ import annotations

import inspect
import itertools
import json
import logging
import math
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from places import SHARED
from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import (
    RawData,
    get_image_patches,
    get_neighbor_indices,
    get_relative_coords,
    normalize_data,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GOLDENS = ("goldballs_als_simdiff_n104", "run1084_xpp_simdiff_n64", "siemens_star_aps_n128")
STACK_DTYPES = (np.float32, np.float64, np.uint16)
PLANNED = np.array([0.25, -0.5])
"""Planned positions minus positions."""


@pytest.fixture(autouse=True)
def _global_stream() -> Iterator[None]:
    """Leave NumPy's global stream as it was."""
    kept = np.random.get_state()
    yield
    np.random.set_state(kept)


def positions_of(n: int, seed: int = 1) -> NDArray[np.float64]:
    """Positions without ties, well inside `make_object`."""
    return np.random.default_rng(seed).uniform(20, 80, (n, 2))


def make_object(shape: tuple[int, int] = (100, 90), seed: int = 2) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def make_stack(n: int, N: int = 8, dtype: Any = np.float32) -> NDArray[Any]:
    return (np.random.default_rng(3).uniform(1, 100, (n, N, N))).astype(dtype)


def make_record(n: int = 30, N: int = 8, dtype: Any = np.float32, **fields: Any) -> RawData:
    x, y = positions_of(n).T
    given: dict[str, Any] = {
        "xcoords": x,
        "ycoords": y,
        "xcoords_start": x + PLANNED[0],
        "ycoords_start": y + PLANNED[1],
        "diff3d": make_stack(n, N, dtype),
        "probeGuess": np.ones((N, N), np.complex64),
        "scan_index": np.zeros(n, int),
    }
    return RawData(**given | fields)


def params(monkeypatch: pytest.MonkeyPatch, **cfg: Any) -> None:
    """Load a stub of the module `ptycho.params`."""
    module = types.ModuleType("ptycho.params")
    module.cfg = cfg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ptycho.params", module)


def info_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "ptycho_fast" and record.levelno == logging.INFO
    ]


def tolerance(obj: NDArray[Any]) -> float:
    """CONTRACT 5, the zeros outside counted."""
    bordered = np.pad(obj, 1).astype(np.complex128)
    steps = max(np.abs(np.diff(bordered, axis=axis)).max() for axis in (0, 1))
    return float(1e-6 * np.abs(obj).max() + 1e-4 * steps)


# --- names ------------------------------------------------------------------------------------


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


def test_constants() -> None:
    assert ptychopinn.local_offset_sign == -1
    assert ptychopinn.key_coords_offsets == "coords_start_offsets"
    assert ptychopinn.key_coords_relative == "coords_start_relative"


def test_all_that_is_given_is_kept_as_given() -> None:
    x, y = ([1.0, 2.0], [3, 4])
    values = (x, y, x, y, make_stack(2), None, [5, 6], make_object(), None, 7.5, {"a": 1})
    record = RawData(*values)
    names = list(inspect.signature(RawData).parameters)
    assert [id(getattr(record, name)) for name in names] == [id(value) for value in values]
    assert record.sample_indices is None
    assert record.subsample_seed is None


def test_most_may_be_none() -> None:
    x, y = positions_of(12).T
    record = RawData(x, y, None, None, None, None, None)
    data = record.generate_grouped_data(8, K=4, nsamples=5, seed=0, gridsize=2)
    for key in ("diffraction", "X_full", "Y", "objectGuess", "coords_start_nn"):
        assert data[key] is None
    # Loaders read these two: without planned positions they are those of the positions.
    np.testing.assert_array_equal(data["coords_start_offsets"], data["coords_offsets"])
    np.testing.assert_array_equal(data["coords_start_relative"], data["coords_relative"])


def test_from_coords_without_pc() -> None:
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


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ycoords", "xcoords_start", "ycoords_start"])
def test_coordinates_of_different_lengths(name: str) -> None:
    wrong: dict[str, Any] = {name: np.zeros(29)}
    with pytest.raises(ValueError, match=r"^Coordinate arrays must have matching shapes\.") as info:
        make_record(30, **wrong)
    assert f"{name} is (29,)" in str(info.value)


@pytest.mark.parametrize("shape", [(30, 1), (1, 30)])
def test_coordinates_that_are_a_column_or_a_row(shape: tuple[int, int]) -> None:
    x, y = (axis.reshape(shape) for axis in positions_of(30).T)
    with pytest.raises(
        ValueError, match=r"must be \(n,\).*got \(.*30.*\)\. Pass xcoords\.ravel\(\)"
    ):
        RawData(x, y, None, None, None, None, None)


def test_half_of_the_planned_positions() -> None:
    with pytest.raises(ValueError, match="xcoords_start and ycoords_start go together"):
        make_record(30, ycoords_start=None)


def test_coordinates_set_later_are_checked_too() -> None:
    record = make_record(30)
    record.xcoords = np.zeros(29)
    with pytest.raises(ValueError, match=r"^Coordinate arrays must have matching shapes\."):
        record.generate_grouped_data(8)


def test_a_stack_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"diff3d has shape \(29, 8, 8\).*30 coordinates"):
        make_record(30, diff3d=make_stack(29))


def test_a_stack_of_another_size() -> None:
    with pytest.raises(ValueError, match="N=16, but the patterns of diff3d are 8"):
        make_record(30).generate_grouped_data(16)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U1"])
def test_a_stack_of_another_dtype(dtype: Any) -> None:
    record = make_record(30, diff3d=np.ones((30, 8, 8), dtype))
    with pytest.raises(ValueError, match="diffraction must be real numbers of up to 64 bits"):
        record.generate_grouped_data(8)


@pytest.mark.parametrize("name", ["xcoords", "ycoords_start"])
def test_coordinates_that_are_not_finite(name: str) -> None:
    record = make_record(30)
    getattr(record, name)[[4, 7]] = np.nan
    with pytest.raises(ValueError, match=r"row 4 is the first of 2 rows \(of 30\)"):
        record.generate_grouped_data(8)


def test_fewer_neighbors_than_channels() -> None:
    message = re.escape("K=3 must be >= C=4 (need at least C neighbors to form a group)")
    with pytest.raises(ValueError, match=message):
        make_record(30).generate_grouped_data(8, K=3, gridsize=2)
    with pytest.raises(ValueError, match=message):
        make_record(30)._generate_groups_efficiently(5, 3, 4)


@pytest.mark.parametrize("nsamples", [1, 10])
def test_fewer_points_than_channels(nsamples: int) -> None:
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
def test_counts_that_are_none(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        make_record(30).generate_grouped_data(**{"N": 8} | arguments)


def test_patterns_of_zeros() -> None:
    record = make_record(30, diff3d=np.zeros((30, 8, 8), np.float32))
    with pytest.raises(ValueError, match="zero"):
        record.generate_grouped_data(8)


def test_an_empty_scan() -> None:
    for in_order in (False, True):
        with pytest.raises(ValueError, match="The scan is empty"):
            make_record(0).generate_grouped_data(8, sequential_sampling=in_order)


# --- the dictionary ---------------------------------------------------------------------------


@pytest.mark.parametrize("gridsize", [1, 2, 3])
@pytest.mark.parametrize("dtype", STACK_DTYPES)
def test_keys_shapes_dtypes_and_values(gridsize: int, dtype: Any) -> None:
    n, N, B, C = 30, 8, 7, gridsize**2
    obj = make_object()
    record = make_record(n, N, dtype, objectGuess=obj)
    data = record.generate_grouped_data(N, K=C + 3, nsamples=B, seed=5, gridsize=gridsize)

    shapes = {
        "diffraction": ((B, N, N, C), dtype),
        "X_full": ((B, N, N, C), np.float32),
        "Y": ((B, N, N, C), np.complex64),
        "coords_nn": ((B, 1, 2, C), np.float64),
        "coords_start_nn": ((B, 1, 2, C), np.float64),
        "coords_offsets": ((B, 1, 2, 1), np.float64),
        "coords_start_offsets": ((B, 1, 2, 1), np.float64),
        "coords_relative": ((B, 1, 2, C), np.float64),
        "coords_start_relative": ((B, 1, 2, C), np.float64),
        "nn_indices": ((B, C), np.int32),
        "objectGuess": (obj.shape, np.complex64),
    }
    assert {key: (data[key].shape, data[key].dtype.type) for key in data} == shapes
    assert data["objectGuess"] is obj
    assert all(array.flags.c_contiguous for array in data.values())

    positions = positions_of(n)
    indices = data["nn_indices"]
    np.testing.assert_array_equal(
        indices, reference.legacy_groups(positions, B, C, C + 3, seed=5)[1]
    )
    planned = positions + PLANNED
    for prefix, at in (("coords_", positions), ("coords_start_", planned)):
        for key, array in reference.coordinates(at, indices).items():
            np.testing.assert_array_equal(data[key.replace("coords_", prefix)], array)
    gathered = reference.gather(make_stack(n, N, dtype), indices)
    np.testing.assert_array_equal(data["diffraction"], gathered)
    scale = reference.normalisation_scale(gathered, N)
    np.testing.assert_allclose(data["X_full"], scale * gathered.astype(np.float32), rtol=3e-7)


def test_the_groups_function_decides_and_the_rest_only_gathers() -> None:
    chosen = np.array([[3, 1], [0, 2], [9, 9]])

    class Chosen(RawData):
        def _generate_groups_efficiently(self, *_: Any, **__: Any) -> Any:
            return chosen

    x, y = positions_of(10).T
    record = Chosen(x, y, None, None, make_stack(10), None, None)
    data = record.generate_grouped_data(8, gridsize=1)
    assert data["nn_indices"].dtype == np.int32
    np.testing.assert_array_equal(data["nn_indices"], chosen)
    np.testing.assert_array_equal(data["diffraction"], reference.gather(make_stack(10), chosen))


def test_sample_indices_become_a_key_once_set() -> None:
    record = make_record(30)
    assert "sample_indices" not in record.generate_grouped_data(8)
    record.sample_indices = np.arange(30)
    copied = record.generate_grouped_data(8)["sample_indices"]
    np.testing.assert_array_equal(copied, np.arange(30))
    copied[0] = 7
    assert record.sample_indices[0] == 0


def test_scan_index_is_ignored() -> None:
    expected = make_record(30, scan_index=None).generate_grouped_data(
        8, K=7, nsamples=20, seed=1, gridsize=2
    )
    for labels in (np.arange(30), np.zeros(30, int), np.arange(30) % 2):
        record = make_record(30, scan_index=labels)
        data = record.generate_grouped_data(8, K=7, nsamples=20, seed=1, gridsize=2)
        np.testing.assert_array_equal(data["nn_indices"], expected["nn_indices"])
        assert record.scan_index is labels


def test_dataset_path_is_unused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = make_record(30)
    plain = record.generate_grouped_data(8, nsamples=5, seed=1)
    given = record.generate_grouped_data(
        8, nsamples=5, seed=1, dataset_path=str(tmp_path / "scan.npz")
    )
    np.testing.assert_array_equal(given["nn_indices"], plain["nn_indices"])
    assert list(tmp_path.iterdir()) == []  # no cache files


def test_the_default_is_one_group_of_one() -> None:
    data = make_record(30).generate_grouped_data(8)
    assert data["nn_indices"].shape == (1, 1)


def test_one_info_line_a_call_and_one_on_y(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    make_record(30).generate_grouped_data(8, K=7, nsamples=12, seed=42, gridsize=2)
    groups, y = info_lines(caplog)
    assert "strategy=" in groups
    assert groups.endswith(" n=30 B=12 K=7 C=4 seed=42")
    assert y.startswith("Y: ")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads VmHWM from /proc")
def test_peak_memory_is_output_and_source() -> None:
    script = """
import numpy as np
from ptycho_fast.ptychopinn import RawData
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if "VmHWM" in l)
rng = np.random.default_rng(0)
x, y = rng.uniform(0, 100, (2, 2000))
small = RawData(x, y, None, None, np.ones((2000, 2, 2), np.float32), None, None)
small.generate_grouped_data(2, K=7, nsamples=9, seed=0, gridsize=2)  # start threads, load code
before = peak()
stack = np.ones((2000, 64, 64), np.float32)
record = RawData(x, y, x, y, stack, None, None)
data = record.generate_grouped_data(64, K=7, nsamples=2000, seed=0, gridsize=2)
output = sum(a.nbytes for a in data.values() if a is not None)
print((peak() - before) / (output + stack.nbytes))
"""
    assert 0.9 < float(run(script)) < 1.1


# --- gridsize and the other settings of ptycho.params -----------------------------------------


def test_gridsize_comes_from_a_loaded_params_module(monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(30)
    assert "ptycho.params" not in sys.modules
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 1)
    params(monkeypatch, gridsize=2)
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 4)
    assert record.generate_grouped_data(8, nsamples=3, gridsize=1)["nn_indices"].shape == (3, 1)
    params(monkeypatch)  # a cfg without the key
    assert record.generate_grouped_data(8, nsamples=3)["nn_indices"].shape == (3, 1)


def test_patches_take_n_and_gridsize_from_a_loaded_params_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offsets, relative = np.full((2, 1, 2, 1), 40.0), np.zeros((2, 1, 2, 4))
    with pytest.raises(ValueError, match="N is not known"):
        get_image_patches(make_object(), offsets, relative)
    params(monkeypatch, N=16, gridsize=2)
    assert get_image_patches(make_object(), offsets, relative).shape == (2, 16, 16, 4)
    assert get_image_patches(make_object(), offsets, relative, N=5).shape == (2, 5, 5, 4)
    params(monkeypatch, N=16, gridsize=3)
    with pytest.raises(ValueError, match="gridsize=3 means 9 channels, but local_offsets has 4"):
        get_image_patches(make_object(), offsets, relative)


def test_the_flag_chooses_the_loop_of_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    from ptycho_fast.patches import tensorflow  # noqa: PLC0415

    rng = np.random.default_rng(4)
    obj, offsets = make_object(), rng.uniform(0, 90, (3, 1, 2, 1))
    relative = rng.normal(0, 5, (3, 1, 2, 4))
    calls = []

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(keywords["method"])
        return original(*arguments, **keywords)

    original = tensorflow.extract_patches
    monkeypatch.setattr(tensorflow, "extract_patches", counted)
    batched = get_image_patches(obj, offsets, relative, N=16, gridsize=2)
    params(monkeypatch, use_batched_patch_extraction=True)
    np.testing.assert_array_equal(get_image_patches(obj, offsets, relative, N=16), batched)
    assert calls == []
    params(monkeypatch, use_batched_patch_extraction=False)
    looped = get_image_patches(obj, offsets, relative, N=16, gridsize=2)
    assert calls == ["iterative"]
    assert type(looped) is np.ndarray
    assert looped.dtype == np.complex64
    np.testing.assert_allclose(looped, batched, rtol=0, atol=tolerance(obj))


def test_neither_tensorflow_nor_ptycho_is_imported(tmp_path: Path) -> None:
    package = tmp_path / "ptycho"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "params.py").write_text("cfg = {'gridsize': 2}")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import numpy as np
from ptycho_fast.ptychopinn import RawData
x, y = np.random.default_rng(0).uniform(0, 50, (2, 20))
record = RawData(x, y, x, y, np.ones((20, 8, 8), np.float32), None, None, np.ones((60, 60)))
record.generate_grouped_data(8, nsamples=25, gridsize=2, enable_oversampling=True)
assert record.generate_grouped_data(8, nsamples=5)["Y"].shape == (5, 8, 8, 1)
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"tensorflow", "torch", "ptycho"}}))
"""
    assert run(script).strip() == "[]"


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the legacy stream ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_groups_follow_the_legacy_stream(data: st.DataObject) -> None:
    C = data.draw(st.integers(1, 10), label="C")
    n = data.draw(st.integers(C, 60), label="n")
    K = data.draw(st.integers(C, 70), label="K")
    B = data.draw(st.integers(1, n), label="B")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    positions = positions_of(n)
    x, y = positions.T
    groups = RawData(x, y, x, y, None, None, None)._generate_groups_efficiently(B, K, C, seed)
    assert groups.dtype == np.int32
    assert groups.flags.c_contiguous
    np.testing.assert_array_equal(groups, reference.legacy_groups(positions, B, C, K, seed)[1])


def draw_from_the_global_stream(
    positions: NDArray[np.float64], B: int, K: int, C: int
) -> list[list[int]]:
    """Groups by NumPy's own functions, for K < n."""
    n = len(positions)
    centers = np.random.choice(n, B, replace=False) if n > B else np.arange(n)
    if C == 1:
        return [[int(center)] for center in centers]
    near = reference.nearest_neighbors(positions, centers, K)
    return [np.random.choice(row, C, replace=False).tolist() for row in near]


@settings(max_examples=20, deadline=None)
@given(
    C=st.sampled_from([1, 3, 4, 9]),
    B=st.integers(1, 30),
    before=st.integers(0, 700),
    seed=st.integers(0, 2**32 - 1),
)
def test_without_a_seed_the_global_stream_goes_on(C: int, B: int, before: int, seed: int) -> None:
    record, positions = make_record(30), positions_of(30)
    np.random.seed(seed)
    np.random.randint(2, size=before)
    np.random.standard_normal()  # leaves a second one waiting in the state
    start = np.random.get_state()
    drawn = [record._generate_groups_efficiently(B, 12, C).tolist() for _ in range(2)]
    left = np.random.get_state()
    follow = np.random.standard_normal(3)

    np.random.set_state(start)
    expected = [draw_from_the_global_stream(positions, B, 12, C) for _ in range(2)]
    assert drawn == expected
    for mine, numpys in zip(left, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(mine, numpys)
    np.testing.assert_array_equal(follow, np.random.standard_normal(3))


def test_generate_grouped_data_without_a_seed_goes_on_too() -> None:
    record = make_record(30)
    np.random.seed(11)
    drawn = [
        record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2)["nn_indices"].tolist()
        for _ in range(2)
    ]
    np.random.seed(11)
    expected = [draw_from_the_global_stream(positions_of(30), 9, 7, 4) for _ in range(2)]
    assert drawn == expected


def test_with_a_seed_the_global_stream_is_left_alone() -> None:
    record = make_record(30)
    np.random.seed(5)
    before = np.random.get_state()
    record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2, seed=3)
    record.generate_grouped_data(8, K=7, nsamples=9, gridsize=2, sequential_sampling=True)
    record.generate_grouped_data(8, K=7, nsamples=99, gridsize=2, seed=3, enable_oversampling=True)
    for old, new in zip(before, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_global_generator_of_another_kind() -> None:
    record = make_record(30)
    random: Any = np.random  # the stubs lack these two
    kept = random.get_bit_generator()
    random.set_bit_generator(np.random.PCG64(1))
    try:
        with pytest.raises(ValueError, match=r"PCG64.*Pass seed="):
            record.generate_grouped_data(8)
        record.generate_grouped_data(8, seed=1)
    finally:
        random.set_bit_generator(kept)


@pytest.mark.parametrize("seed", [None, 7])
def test_sequential_sampling(seed: int | None) -> None:
    data = make_record(30).generate_grouped_data(
        8, K=7, nsamples=12, gridsize=2, seed=seed, sequential_sampling=True
    )
    near = reference.nearest_neighbors(positions_of(30), np.arange(12), 7)
    stream = np.random.RandomState(0)
    expected = [stream.choice(row, 4, replace=False) for row in near]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def test_given_centers_are_used_as_given() -> None:
    centers = np.array([29, 3, 3, 0])
    groups = make_record(30)._generate_groups_efficiently(4, 7, 5, seed=9, seed_indices=centers)
    stream = np.random.RandomState(9)
    near = reference.nearest_neighbors(positions_of(30), centers, 7)
    np.testing.assert_array_equal(groups, [stream.choice(row, 5, replace=False) for row in near])
    alone = make_record(30)._generate_groups_efficiently(4, 1, 1, seed=9, seed_indices=centers)
    np.testing.assert_array_equal(alone, centers[:, None])


@pytest.mark.parametrize("centers", [[30], [-1], [0.5], [[1]], np.array([], int)])
def test_given_centers_that_are_none(centers: Any) -> None:
    with pytest.raises(ValueError, match="seed_indices"):
        make_record(30)._generate_groups_efficiently(1, 7, 4, seed_indices=centers)


def test_given_centers_without_a_seed_are_those_of_seed_0() -> None:
    centers, before = np.array([7, 3, 3, 29]), np.random.get_state(legacy=False)["state"]
    found = [
        make_record(30)._generate_groups_efficiently(4, 7, 4, seed=seed, seed_indices=centers)
        for seed in (None, None, 0)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    after = np.random.get_state(legacy=False)["state"]  # the global stream is not touched
    assert after["pos"] == before["pos"]
    np.testing.assert_array_equal(after["key"], before["key"])


def test_coordinates_set_between_calls_are_seen() -> None:
    record = make_record(30)
    record.generate_grouped_data(8, seed=1)
    other = positions_of(30, seed=8)
    record.xcoords, record.ycoords = other.T
    data = record.generate_grouped_data(8, K=7, nsamples=30, seed=1, gridsize=2)
    expected = reference.legacy_groups(other, 30, 4, 7, 1)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)


# --- more groups than points ------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [False, True])
def test_more_groups_of_one_than_points(enabled: bool) -> None:
    with pytest.warns(UserWarning, match="nsamples=40 exceeds the 30 points"):
        data = make_record(30).generate_grouped_data(
            8, nsamples=40, gridsize=1, seed=1, enable_oversampling=enabled
        )
    np.testing.assert_array_equal(data["nn_indices"], np.arange(30)[:, None])


def test_the_groups_function_never_oversamples() -> None:
    with pytest.warns(UserWarning, match="nsamples=40 exceeds the 30 points"):
        groups = make_record(30)._generate_groups_efficiently(40, 7, 3, seed=1)
    expected = reference.legacy_groups(positions_of(30), 30, 3, 7, 1)[1]
    np.testing.assert_array_equal(groups, expected)


def test_more_groups_than_points_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="OVERSAMPLING-001") as info:
        make_record(30).generate_grouped_data(8, K=7, nsamples=31, gridsize=2)
    assert "K choose C oversampling" in str(info.value)
    assert "enable_oversampling" in str(info.value)


@pytest.mark.parametrize(("K", "pool"), [(3, None), (7, 3)])
def test_too_small_a_pool(K: int, pool: int | None) -> None:
    with pytest.raises(ValueError, match="neighbor_pool_size >= C.*=3.*OVERSAMPLING-001"):
        make_record(30).generate_grouped_data(
            8, K=K, nsamples=31, gridsize=2, enable_oversampling=True, neighbor_pool_size=pool
        )


def test_as_many_groups_as_points_are_not_oversampled() -> None:
    data = make_record(30).generate_grouped_data(
        8, K=5, nsamples=30, gridsize=2, seed=4, enable_oversampling=True, neighbor_pool_size=9
    )
    expected = reference.legacy_groups(positions_of(30), 30, 4, 5, 4)[1]
    np.testing.assert_array_equal(data["nn_indices"], expected)


def oversampled(
    positions: NDArray[np.float64], B: int, C: int, K: int, seed: int, *, in_order: bool = False
) -> list[list[int]]:
    """The rule `oversample` of CONTRACT 4 in Python integers, all subsets listed."""
    n = len(positions)
    key = reference.key(seed).tolist()
    centers = list(range(n)) if in_order else reference.centers(n, n, reference.key(seed)).tolist()
    groups = []
    for r, center in itertools.islice(itertools.product(range(B // n + 1), centers), B):
        slots = reference.nearest_neighbors(positions, [center], K)[0].tolist()
        if len(slots) < C:
            slots.append(center)
        # Colexicographic: by the largest member, then the next.
        subsets = sorted(itertools.combinations(range(len(slots)), C), key=lambda s: s[::-1])
        M = len(subsets)
        w0, w1, *_ = reference.philox_block((1 + center, 0, 0, 4), key)
        b = 1 + (w1 * (M - 1) >> 64)
        while math.gcd(b, M) != 1:
            b = (b + 1) % M
        group = [slots[s] for s in subsets[((w0 * M >> 64) + r * b) % M]]
        blocks = math.ceil(C / 4)
        words = [
            word
            for block in range(1 + center * blocks, 1 + (center + 1) * blocks)
            for word in reference.philox_block((block, 0, r, 2), key)
        ]
        for j in range(C):
            t = j + (words[j] * (C - j) >> 64)
            group[j], group[t] = group[t], group[j]
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    ("n", "gridsize", "K", "B"),
    [
        (20, 2, 7, 50),  # 35 sets a centre
        (20, 2, 4, 21),  # one set
        (20, 2, 5, 90),  # 5 sets, 4.5 rounds
        (6, 2, 9, 28),  # K > n - 1: 5 slots
        (4, 2, 7, 5),  # n = C: the centre is a slot
        (12, 3, 10, 27),  # three blocks of words a centre
    ],
)
@pytest.mark.parametrize("seed", [0, 42])
@pytest.mark.filterwarnings("ignore:nsamples")
def test_oversampling_is_the_rule(n: int, gridsize: int, K: int, B: int, seed: int) -> None:
    C = gridsize**2
    for in_order in (False, True):
        data = make_record(n).generate_grouped_data(
            8,
            K=K,
            nsamples=B,
            gridsize=gridsize,
            seed=seed,
            enable_oversampling=True,
            sequential_sampling=in_order,
        )
        # sequential_sampling stands for seed 0.
        expected = oversampled(positions_of(n), B, C, K, 0 if in_order else seed, in_order=in_order)
        assert data["nn_indices"].dtype == np.int32
        np.testing.assert_array_equal(data["nn_indices"], expected)
    assert data["X_full"].shape == (B, 8, 8, C)


def test_oversampling_draws_from_the_pool() -> None:
    data = make_record(20).generate_grouped_data(
        8,
        K=3,
        nsamples=45,
        gridsize=2,
        seed=1,
        enable_oversampling=True,
        neighbor_pool_size=6,
    )
    np.testing.assert_array_equal(
        data["nn_indices"], oversampled(positions_of(20), 45, 4, 6, seed=1)
    )


def test_no_set_comes_again_until_all_are_spent(recwarn: pytest.WarningsRecorder) -> None:
    n, M = 10, math.comb(6, 4)
    record = make_record(n)
    arguments: dict[str, Any] = {"K": 6, "gridsize": 2, "seed": 3, "enable_oversampling": True}
    all_sets = record.generate_grouped_data(8, nsamples=n * M, **arguments)["nn_indices"]
    assert not recwarn.list
    by_center = np.sort(all_sets.reshape(M, n, 4), axis=-1)
    for i in range(n):
        assert len(np.unique(by_center[:, i], axis=0)) == M

    with pytest.warns(UserWarning, match=r"exceeds the 10 \* 15 different groups"):
        more = record.generate_grouped_data(8, nsamples=n * M + 1, **arguments)["nn_indices"]
    np.testing.assert_array_equal(more[:-1], all_sets)
    assert sorted(more[-1]) == sorted(more[0])


def test_oversampling_from_more_sets_than_64_bits_can_number() -> None:
    n, C, K, seed, B = 90, 36, 80, 6, 150
    M = math.comb(K, C)
    assert M > 2**64
    groups = make_record(n).generate_grouped_data(
        8, K=K, nsamples=B, gridsize=6, seed=seed, enable_oversampling=True
    )["nn_indices"]
    key = reference.key(seed)
    centers = reference.centers(n, n, key)
    for row, group in enumerate(groups):
        r, center = row // n, int(centers[row % n])
        slots = reference.nearest_neighbors(positions_of(n), [center], K)[0].tolist()
        members = sorted(slots.index(i) for i in group)
        rank = sum(math.comb(member, i) for i, member in enumerate(members, start=1))
        w0, w1, *_ = reference.philox_block((1 + center, 0, 0, 4), key.tolist())
        b = 1 + (w1 * (M - 1) >> 64)
        while math.gcd(b, M) != 1:
            b = (b + 1) % M
        assert rank == ((w0 * M >> 64) + r * b) % M


def test_oversampling_without_a_seed_can_be_repeated_by_seeding_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    record = make_record(20)
    arguments: dict[str, Any] = {"K": 7, "gridsize": 2, "enable_oversampling": True}
    np.random.seed(12)
    first, second = (
        record.generate_grouped_data(8, nsamples=50, **arguments)["nn_indices"] for _ in range(2)
    )
    assert (first != second).any()
    np.random.seed(12)
    again = record.generate_grouped_data(8, nsamples=50, **arguments)["nn_indices"]
    np.testing.assert_array_equal(again, first)
    # The line tells the seed that repeats the call alone.
    told = re.search(r"strategy=oversample n=20 B=50 K=7 C=4 seed=(\d+)", info_lines(caplog)[0])
    assert told is not None
    alone = record.generate_grouped_data(8, nsamples=50, seed=int(told[1]), **arguments)
    np.testing.assert_array_equal(alone["nn_indices"], first)


# --- Y ----------------------------------------------------------------------------------------


def test_y_of_the_record_by_position(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    own = make_object((30 * 8, 8)).reshape(30, 8, 8).astype(np.complex128)
    for Y in (own, own[..., None]):
        record = make_record(30, Y=Y, objectGuess=make_object())
        data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
        assert data["Y"].dtype == np.complex64
        expected = reference.gather(own, data["nn_indices"])
        np.testing.assert_array_equal(data["Y"], expected.astype(np.complex64))
    assert "own" in info_lines(caplog)[1]


def test_y_of_the_record_by_group() -> None:
    own = make_object((12 * 8 * 8, 4)).reshape(12, 8, 8, 4)
    data = make_record(30, Y=own).generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
    np.testing.assert_array_equal(data["Y"], own)


def test_y_of_the_record_that_does_not_fit() -> None:
    record = make_record(30, Y=np.ones((12, 8, 8, 4), np.complex64))
    with pytest.raises(ValueError, match=r"Y has shape \(12, 8, 8, 4\).*\(13, 8, 8, 4\)"):
        record.generate_grouped_data(8, K=7, nsamples=13, seed=0, gridsize=2)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_y_from_the_object_at_the_mirrored_positions(
    gridsize: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    obj = make_object()
    record = make_record(30, objectGuess=obj)
    data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=gridsize)
    at = positions_of(30)[data["nn_indices"]].transpose(0, 2, 1)
    mirrored = (2 * at.mean(axis=2, keepdims=True) - at).astype(np.float32)
    expected = reference.extract_patches(obj, mirrored, 8)
    # One ulp of the float32 position is allowed for the order of the oracle's sum.
    np.testing.assert_allclose(data["Y"], expected, rtol=0, atol=tolerance(obj))
    assert "objectGuess" in info_lines(caplog)[1]


def test_no_y(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    assert make_record(30).generate_grouped_data(8)["Y"] is None
    assert "None" in info_lines(caplog)[1]


# --- the functions beside ---------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    N=st.integers(1, 40),
    gridsize=st.integers(1, 3),
    B=st.integers(1, 5),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_image_patches(N: int, gridsize: int, B: int, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    obj = make_object((50, 70), seed)
    # Across every border, and fully outside.
    offsets = rng.uniform(-30, 100, (B, 1, 2, 1)).astype(dtype)
    relative = rng.normal(0, 10, (B, 1, 2, gridsize**2)).astype(dtype)
    patches = get_image_patches(obj, offsets, relative, N, gridsize)
    assert type(patches) is np.ndarray
    assert patches.dtype == np.complex64
    total = (offsets.astype(np.float64) + relative.astype(np.float64)).astype(np.float32)
    expected = reference.extract_patches(obj, total, N)
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))


def test_image_patches_round_the_sum_to_float32() -> None:
    # At 2**20 float32 counts in eighths, so that 2**20 + 0.03 becomes 2**20.
    ramp = np.zeros((1, 2**20 + 2), np.complex64)
    ramp[0, -1] = 1
    offsets = np.array([2.0**20, 0.0]).reshape(1, 1, 2, 1)
    for x, expected in ((0.03, 0.0), (0.125, 0.125)):
        relative = np.array([x, 0.0]).reshape(1, 1, 2, 1)
        assert get_image_patches(ramp, offsets, relative, 1, 1).item() == expected


@pytest.mark.parametrize(
    ("offsets", "relative"),
    [
        ((2, 1, 2, 1), (3, 1, 2, 4)),
        ((2, 1, 2, 4), (2, 1, 2, 4)),
        ((2, 2, 2, 1), (2, 2, 2, 4)),
        ((2, 1, 3, 1), (2, 1, 3, 4)),
    ],
)
def test_offsets_that_do_not_fit(offsets: tuple[int, ...], relative: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 2, C\)"):
        get_image_patches(make_object(), np.zeros(offsets), np.zeros(relative), N=8, gridsize=2)


def test_relative_coords() -> None:
    positions, groups = positions_of(30), np.random.default_rng(5).integers(0, 30, (6, 9))
    expected = reference.coordinates(positions, groups)
    offsets, relative = get_relative_coords(expected["coords_nn"])
    np.testing.assert_array_equal(offsets, expected["coords_offsets"])
    np.testing.assert_array_equal(relative, expected["coords_relative"])
    assert offsets.dtype == relative.dtype == np.float64
    wide = get_relative_coords(expected["coords_nn"].astype(np.float32))
    assert wide[0].dtype == wide[1].dtype == np.float64
    for bad in (np.zeros((3, 1, 3, 4)), np.zeros((3, 1, 2, 4), complex), np.zeros(4)):
        with pytest.raises(ValueError, match=r"\(B, 1, 2, C\)|real numbers"):
            get_relative_coords(bad)


@pytest.mark.parametrize("K", [None, 1, 29])
def test_neighbor_indices(K: int | None) -> None:
    for name, positions in reference.scan_shapes(30, seed=1).items():
        x, y = positions.T
        found = get_neighbor_indices(x, y) if K is None else get_neighbor_indices(x, y, K)
        assert found.dtype == np.int64
        near = reference.nearest_neighbors(positions, np.arange(30), K or 3)
        expected = np.column_stack([np.arange(30), near])
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_neighbor_indices_that_are_not_there() -> None:
    x, y = positions_of(30).T
    with pytest.raises(
        ValueError, match="K=30 neighbours were asked for, but each of 30 points has only 29"
    ):
        get_neighbor_indices(x, y, 30)
    with pytest.raises(ValueError, match="K must be a whole number"):
        get_neighbor_indices(x, y, 0)
    with pytest.raises(ValueError, match="matching shapes"):
        get_neighbor_indices(x, y[1:])


@pytest.mark.parametrize("dtype", [*STACK_DTYPES, np.int64, np.float16])
def test_normalize_data(dtype: Any) -> None:
    gathered = np.random.default_rng(6).uniform(0, 200, (5, 8, 8, 4)).astype(dtype)
    kept = gathered.copy()
    X_full = normalize_data({"diffraction": gathered}, 8)
    scale = reference.normalisation_scale(gathered, 8)
    assert X_full.dtype == np.float32
    np.testing.assert_allclose(X_full, scale * gathered.astype(np.float32), rtol=3e-7)
    np.testing.assert_array_equal(gathered, kept)


def test_normalize_data_agrees_with_the_dictionary() -> None:
    data = make_record(30).generate_grouped_data(8, K=7, nsamples=9, seed=0, gridsize=2)
    np.testing.assert_allclose(normalize_data(data, 8), data["X_full"], rtol=3e-7)


def test_normalize_data_refuses_what_has_no_scale() -> None:
    for bad in (np.zeros((2, 4, 4, 1)), np.full((2, 4, 4, 1), np.nan), np.ones((4, 4))):
        with pytest.raises(ValueError, match=r"zero|finite|\(B, N, N, C\)"):
            normalize_data({"diffraction": bad}, 4)


# --- names that are gone, or going ------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ptychopinn.GONE))
def test_names_that_are_gone_say_what_to_use(name: str) -> None:
    successor = re.escape(ptychopinn.GONE[name])
    places = [RawData, make_record()] if name.startswith("_") else [ptychopinn]
    for place in places:
        with pytest.raises(AttributeError, match=f"^{name} is gone: use {successor}"):
            getattr(place, name)
        assert not hasattr(place, name)


def test_names_that_never_were_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match=r"ptycho_fast\.ptychopinn.*no attribute 'other'"):
        getattr(ptychopinn, "other")  # noqa: B009


@pytest.mark.parametrize(("C", "nsamples"), [(4, 1), (4, 3), (5, 2)])
def test_group_coords_works_and_warns(C: int, nsamples: int) -> None:
    x, y = positions_of(20).T
    np.random.seed(3)
    with pytest.warns(
        DeprecationWarning, match="group_coords is deprecated and will be removed"
    ) as told:
        indices, coords = ptychopinn.group_coords(x, y, K=4, C=C, nsamples=nsamples)
    assert told[0].filename == __file__
    near = reference.nearest_neighbors(positions_of(20), np.arange(20), 4)
    expected = reference.coordinates(positions_of(20), indices)["coords_nn"]
    np.testing.assert_array_equal(coords, expected)
    assert indices.shape == (20 * nsamples, C)
    for row, group in enumerate(indices):
        assert len(set(group)) == C
        assert set(group) <= {row // nsamples, *near[row // nsamples]}
    np.random.seed(3)
    with pytest.warns(DeprecationWarning, match="group_coords"):
        again, _ = ptychopinn.group_coords(x, y, 4, C, nsamples)
    np.testing.assert_array_equal(again, indices)


def test_group_coords_takes_the_gridsize_of_a_loaded_params_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = positions_of(20).T
    with pytest.warns(DeprecationWarning, match="group_coords"):
        indices, coords = ptychopinn.group_coords(x, y, 4, None, 3)
    np.testing.assert_array_equal(indices, np.arange(20)[:, None])  # of one: once
    np.testing.assert_array_equal(coords[:, 0, :, 0], positions_of(20))
    params(monkeypatch, gridsize=2)
    with pytest.warns(DeprecationWarning, match="group_coords"):
        assert ptychopinn.group_coords(x, y, 4, None, 3)[0].shape == (60, 4)
    with (
        pytest.warns(DeprecationWarning, match="group_coords"),
        pytest.raises(
            ValueError,
            match="Groups of C=4 can't be drawn from .* its K=2 neighbours. Pass K of at least 3",
        ),
    ):
        ptychopinn.group_coords(x, y, 2, None, 3)


def test_calculate_relative_coords_works_and_warns() -> None:
    x, y = positions_of(20).T
    with pytest.warns(DeprecationWarning, match="calculate_relative_coords is deprecated") as told:
        nn, offsets, relative, indices = ptychopinn.calculate_relative_coords(x, y, C=4)
    assert told[0].filename == __file__
    assert indices.shape == (200, 4)
    expected = reference.coordinates(positions_of(20), indices)
    for found, key in ((nn, "nn"), (offsets, "offsets"), (relative, "relative")):
        np.testing.assert_array_equal(found, expected[f"coords_{key}"])


# --- files ------------------------------------------------------------------------------------


def test_a_record_goes_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    Y = make_object((30 * 8, 8)).reshape(30, 8, 8)
    record = make_record(
        30,
        objectGuess=make_object(),
        Y=Y,
        scan_index=np.arange(30),
        norm_Y_I=2.5,
        metadata={"beamline": "2-ID", "photons": 1e6},
    )
    record.to_file(path)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.npz"]

    scan = pf.read_scan(path)
    np.testing.assert_array_equal(scan.positions, positions_of(30))
    np.testing.assert_array_equal(scan.positions_start, positions_of(30) + PLANNED)

    again = RawData.from_file(path, validate_config=True, current_config=object())
    for name in inspect.signature(RawData).parameters:
        if name != "metadata":
            np.testing.assert_array_equal(getattr(again, name), getattr(record, name))
    assert again.metadata == {"beamline": "2-ID", "photons": 1e6}

    train, test = RawData.from_files(path, str(path))
    assert train is not test
    np.testing.assert_array_equal(train.diff3d, test.diff3d)


def test_none_is_left_out_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    x, y = positions_of(12).T
    RawData(x, y, None, None, make_stack(12), None, None).to_file(path)
    with np.load(path) as file:
        assert sorted(file) == ["diff3d", "xcoords", "ycoords"]
    again = RawData.from_file(path)
    assert again.probeGuess is None
    assert again.metadata is None
    np.testing.assert_array_equal(again.xcoords_start, x)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"physics": {"lens": object()}},
            "'_metadata' can't be written as JSON: object has no place",
        ),
        ({"diff3d": 1}, r"metadata\['diff3d'\] can't be written: the name is taken"),
        ({"file": np.ones(3)}, r"metadata\['file'\] can't be written: the name is taken"),
        ({"lenses": np.array([{}])}, "'lenses' can't be written: it would need pickling"),
    ],
)
def test_a_file_that_can_not_be_written_is_not_begun(
    tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    path = tmp_path / "scan.npz"
    path.write_text("what stood here before")
    with pytest.raises(ValueError, match=message):
        make_record(30, metadata=metadata).to_file(path)
    assert path.read_text() == "what stood here before"
    assert len(list(tmp_path.iterdir())) == 1


def test_metadata_of_any_depth_goes_through_a_file(tmp_path: Path) -> None:
    """As PtychoPINN's: dicts in dicts, with ``nphotons`` somewhere in them."""
    metadata = {
        "schema": "1.0",
        "physics": {"nphotons": 1e9, "gridsize": np.int64(2), "probe": {"trainable": False}},
        "notes": ["a", None],
        "flux": np.float32(2.5),
        "offsets": np.array([1.5, 2.5]),
        "phase": 1 + 2j,
    }
    record = make_record(30, metadata=metadata)
    record.to_file(tmp_path / "scan")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]
    again = dict(RawData.from_file(tmp_path / "scan.npz").metadata or {})
    np.testing.assert_array_equal(again.pop("offsets"), [1.5, 2.5])
    assert again == {key: value for key, value in metadata.items() if key != "offsets"}
    with np.load(tmp_path / "scan.npz", allow_pickle=False) as file:  # nothing is pickled
        told = json.loads(str(file["_metadata"]))
    assert told["physics"]["nphotons"] == 1e9


def test_a_missing_scan_index_is_zeros(tmp_path: Path) -> None:
    make_record(30, scan_index=None).to_file(tmp_path / "scan.npz")
    scan_index = RawData.from_file(tmp_path / "scan.npz").scan_index
    assert isinstance(scan_index, np.ndarray)
    assert scan_index.tolist() == [0] * 30
    assert pf.read_scan(tmp_path / "scan.npz").scan_index is None


@pytest.mark.parametrize("shape", [(30, 8, 8), (30, 8, 8, 1)])
def test_a_files_own_y_is_used(tmp_path: Path, shape: tuple[int, ...]) -> None:
    Y = make_object((30 * 8, 8)).reshape(shape)
    make_record(30, objectGuess=make_object(), Y=Y).to_file(tmp_path / "scan.npz")
    record = RawData.from_file(tmp_path / "scan.npz")
    data = record.generate_grouped_data(8, K=7, nsamples=12, seed=0, gridsize=2)
    expected = Y.reshape(30, 8, 8)[data["nn_indices"]].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(data["Y"], expected)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.npz"):
        RawData.from_file(tmp_path / "missing.npz")
    with pytest.raises(OSError, match="nowhere"):
        make_record(30).to_file(tmp_path / "nowhere" / "scan.npz")


# --- what the existing implementation returned ------------------------------------------------


@pytest.fixture(params=GOLDENS)
def golden(request: pytest.FixtureRequest) -> tuple[Path, dict[str, NDArray[Any]]]:
    frozen, scan = (SHARED / folder / f"{request.param}.npz" for folder in ("goldens", "data"))
    if not (frozen.exists() and scan.exists()):
        pytest.skip(f"{frozen} or {scan} is missing")
    with np.load(frozen) as file:
        return scan, dict(file)


def test_golden_groups(golden: tuple[Path, dict[str, NDArray[Any]]]) -> None:
    _, arrays = golden
    x, y = arrays["xcoords"], arrays["ycoords"]
    record = RawData(x, y, x, y, None, None, None)
    compared = 0
    for name, expected in arrays.items():
        if match := re.fullmatch(r"groups_gridsize(\d+)_K(\d+)_nsamples(\d+)_seed(\d+)", name):
            gridsize, K, B, seed = map(int, match.groups())
            groups = record._generate_groups_efficiently(B, K, gridsize**2, seed=seed)
            np.testing.assert_array_equal(groups, expected, err_msg=name)
            compared += 1
    assert compared == 16


def test_golden_dictionary(golden: tuple[Path, dict[str, NDArray[Any]]]) -> None:
    scan, arrays = golden
    words = str(arrays["dict_args"]).split()
    arguments: dict[str, Any] = {
        name: int(value) for name, value in (word.split("=") for word in words)
    }
    data = RawData.from_file(scan).generate_grouped_data(**arguments)
    np.testing.assert_array_equal(data["nn_indices"], arrays["dict_nn_indices"])
    np.testing.assert_array_equal(data["coords_nn"], arrays["dict_coords_nn"])
    for key in ("coords_offsets", "coords_relative"):
        np.testing.assert_allclose(data[key], arrays[f"dict_{key}"], rtol=0, atol=1e-12)
    first, total = arrays["dict_X_full_first2"], float(arrays["dict_X_full_sum"])
    np.testing.assert_allclose(data["X_full"][:2], first, rtol=1e-6)
    assert float(data["X_full"].sum(dtype=np.float64)) == pytest.approx(total, rel=1e-6)


def test_golden_patches() -> None:
    name = "goldballs_als_simdiff_n104.npz"
    if not ((SHARED / "goldens" / name).exists() and (SHARED / "data" / name).exists()):
        pytest.skip(f"{SHARED} has no {name}")
    arrays = dict(np.load(SHARED / "goldens" / name))
    obj = RawData.from_file(SHARED / "data" / name).objectGuess
    assert obj is not None

    offsets, relative = arrays["dict_coords_offsets"][:4], arrays["dict_coords_relative"][:4]
    patches = get_image_patches(obj, offsets, relative, N=64, gridsize=2)
    expected = arrays["patches_N64_gridsize2_first4"]
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))

    positions = np.stack([arrays["xcoords"], arrays["ycoords"]], axis=1)[:6, None, :, None]
    patches = get_image_patches(obj, positions, np.zeros_like(positions), N=64, gridsize=1)
    expected = arrays["patches_N64_gridsize1_first6"]
    np.testing.assert_allclose(patches, expected, rtol=0, atol=tolerance(obj))


def test_a_mask_that_a_record_can_not_hold_is_said(tmp_path: Path) -> None:
    scan = pf.simulate_scan(12, 8, seed=0)
    mask = np.ones((8, 8), bool)
    mask[0, :3] = False
    pf.write_scan(pf.Scan(scan.positions, scan.diffraction, mask=mask), tmp_path / "scan.npz")
    with pytest.warns(UserWarning, match=r"masks 3 pixels of the detector.*GroupedDataset honours"):
        record = RawData.from_file(tmp_path / "scan.npz")
    assert record.diff3d is not None
    np.testing.assert_array_equal(record.diff3d[:, mask], scan.diffraction[:, mask])
