"""How much of a scan is used: counting groups, and thinning."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
from ptycho_fast.patterns import pattern_energies
from ptycho_fast.ptychopinn import RawData
from ptycho_fast.subsampling import count_groups, draw_subsample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def legacy_choice(n: int, kept: int, seed: int) -> NDArray[np.int64]:
    """What older code keeps: its own sample, sorted."""
    return np.array(sorted(np.random.RandomState(seed).choice(n, kept, replace=False)))


def median_spacing(points: NDArray[np.float64]) -> float:
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(np.median(distances.min(axis=1)))


def raster(side: int) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(side) * 3.0, np.arange(side) * 3.0)
    return np.stack([x.ravel(), y.ravel()], axis=1)


# --- counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("gridsize", "patterns"), [(1, 512), (2, 2048), (3, 4608)])
def test_n_images_counts_images_at_gridsize_1_and_groups_above(
    gridsize: int, patterns: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ptycho_fast")
    B = count_groups(gridsize, n_images=512)
    groups = pf.group_positions(raster(23), B, gridsize=gridsize, seed=0)
    assert groups.indices.size == patterns
    assert caplog.messages == [
        f"n_images=512, gridsize={gridsize}: 512 groups, {patterns} patterns"
    ]


def test_n_groups_counts_groups() -> None:
    assert count_groups(3, n_groups=7) == 7
    assert count_groups(3) is None


def test_counts_that_contradict_or_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_images=5 and n_groups=6 both"):
        count_groups(2, n_images=5, n_groups=6)
    with pytest.raises(ValueError, match="n_images must be a whole number in 1"):
        count_groups(2, n_images=0)
    with pytest.raises(ValueError, match="gridsize must be a whole number"):
        count_groups(0, n_images=1)


# --- thinning ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_thinned_scan_is_the_sample_of_older_code(n: int, seed: int, data: Any) -> None:
    kept = data.draw(st.integers(1, n))
    positions = np.random.default_rng(0).uniform(0, 50, (n, 2))
    np.random.seed(9)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = draw_subsample(positions, kept, seed)
    np.testing.assert_array_equal(rows, legacy_choice(n, kept, seed))
    left = np.random.randint(2**31)  # noqa: NPY002
    assert left == np.random.RandomState(9).randint(2**31)


def test_a_sample_that_stretches_the_spacing_warns_with_the_numbers() -> None:
    positions = np.random.default_rng(0).uniform(0, 50, (200, 2))
    with pytest.warns(UserWarning, match="Keeping 20 of 200 positions stretches") as told:
        rows = draw_subsample(positions, 20, seed=1)
    before, after = median_spacing(positions), median_spacing(positions[rows])
    assert f"from {before:.4g} to {after:.4g} pixels" in str(told[0].message)


def test_the_warning_points_at_the_line_of_the_caller() -> None:
    with pytest.warns(UserWarning, match="stretches") as told:
        make_record().subsample(20, 1)
    assert told[0].filename == __file__
    scan = pf.Scan(raster(10), np.ones((100, 4, 4), np.float32))
    with pytest.warns(UserWarning, match="stretches") as told:
        scan.subsample(20, 1)
    assert told[0].filename == __file__


def test_a_sample_that_keeps_the_spacing_does_not_warn() -> None:
    # Of a raster a few may go: most keep a neighbour at the same distance.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(draw_subsample(raster(10), 95, seed=1)) == 95
        assert len(draw_subsample(raster(10), 1, seed=1)) == 1
        assert len(draw_subsample(raster(10), 100, seed=1)) == 100


def test_asking_for_more_positions_than_there_are_keeps_all_and_warns() -> None:
    with pytest.warns(UserWarning, match="n_subsample=101 exceeds the 100 positions"):
        rows = draw_subsample(raster(10), 101, seed=1)
    np.testing.assert_array_equal(rows, np.arange(100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((raster(3), 0, 1), "n_subsample must be a whole number in 1"),
        ((raster(3), 2, -1), "subsample_seed must be a whole number in 0"),
        ((raster(3), 2, 2**32), "subsample_seed must be a whole number in 0"),
        ((np.full((4, 2), np.nan), 2, 1), "finite"),
    ],
)
def test_counts_seeds_and_positions_out_of_range_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_subsample(*arguments)


# --- a record ---------------------------------------------------------------------------------


def make_record(**fields: Any) -> RawData:
    x, y = raster(10).T
    rng = np.random.default_rng(3)
    given: dict[str, Any] = {
        "xcoords": x.tolist(),
        "ycoords": y,
        "xcoords_start": x + 0.5,
        "ycoords_start": y - 0.25,
        "diff3d": rng.uniform(1, 2, (100, 8, 8)).astype(np.float32),
        "probeGuess": np.ones((8, 8), complex),
        "scan_index": list(range(100)),
        "objectGuess": rng.normal(size=(50, 50)) + 0j,
        "norm_Y_I": 2.0,
        "metadata": {"a": 1},
    }
    return RawData(**given | fields)


def test_a_record_is_thinned_with_all_that_belongs_to_it() -> None:
    Y = np.random.default_rng(4).normal(size=(100, 8, 8)) + 0j
    record = make_record(Y=Y)
    thinned = record.subsample(97, subsample_seed=5)
    rows = legacy_choice(100, 97, 5)
    np.testing.assert_array_equal(thinned.sample_indices, rows)
    assert thinned.subsample_seed == 5
    for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start", "diff3d", "Y"):
        np.testing.assert_array_equal(getattr(thinned, key), np.asarray(getattr(record, key))[rows])
    np.testing.assert_array_equal(thinned.scan_index, rows)
    for key in ("probeGuess", "objectGuess", "norm_Y_I", "metadata"):
        assert getattr(thinned, key) is getattr(record, key)
    assert record.sample_indices is None

    # Groups are drawn from what is left, and say which positions these were.
    data = thinned.generate_grouped_data(8, K=7, nsamples=20, seed=1, gridsize=2)
    of_all = data["sample_indices"][data["nn_indices"]]
    np.testing.assert_array_equal(
        data["coords_nn"], raster(10)[of_all].transpose(0, 2, 1)[:, np.newaxis]
    )


def test_thinning_twice_counts_in_the_first_scan() -> None:
    thinned = make_record().subsample(98, 1).subsample(96, 2)
    rows = legacy_choice(100, 98, 1)[legacy_choice(98, 96, 2)]
    np.testing.assert_array_equal(thinned.sample_indices, rows)
    np.testing.assert_array_equal(thinned.xcoords, raster(10)[rows, 0])


def test_missing_fields_stay_missing() -> None:
    nothing = dict.fromkeys(("xcoords_start", "ycoords_start", "diff3d", "scan_index"))
    thinned = make_record(**nothing).subsample(97, 1)
    assert [getattr(thinned, key) for key in nothing] == [None] * 4


def test_without_a_seed_the_sample_follows_numpys_global_stream() -> None:
    np.random.seed(8)  # noqa: NPY002
    first, second = make_record().subsample(97), make_record().subsample(97)
    assert first.subsample_seed != second.subsample_seed
    np.random.seed(8)  # noqa: NPY002
    again = make_record().subsample(97)
    np.testing.assert_array_equal(again.sample_indices, first.sample_indices)
    told = legacy_choice(100, 97, first.subsample_seed)
    np.testing.assert_array_equal(first.sample_indices, told)


def test_patches_by_group_can_not_be_thinned() -> None:
    record = make_record(Y=np.ones((12, 8, 8, 4), np.complex64))
    with pytest.raises(ValueError, match="Y has 12 rows for 100 positions"):
        record.subsample(97, 1)


# --- a scan -----------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [True, False])
def test_a_scan_is_thinned_with_all_that_belongs_to_it(tmp_path: Path, load: bool) -> None:
    rng = np.random.default_rng(3)
    Y = rng.normal(size=(100, 8, 8)) + 0j
    patterns = rng.uniform(1, 2, (100, 8, 8)).astype(np.float32)
    whole = pf.Scan(
        raster(10),
        patterns,
        positions_start=raster(10) + 1,
        probe=np.ones((8, 8), complex),
        scan_index=np.arange(100),
        energies=pattern_energies(patterns),
        metadata={"Y": Y, "beamline": "2-ID"},
    )
    pf.write_scan(whole, tmp_path / "scan.npz")
    thinned = pf.read_scan(tmp_path / "scan.npz", load=load).subsample(96, seed=7)
    pf.write_scan(thinned, tmp_path / "thinned.npz")
    rows = legacy_choice(100, 96, 7)
    for scan in (thinned, pf.read_scan(tmp_path / "thinned.npz")):
        for key in ("positions", "diffraction", "positions_start", "scan_index", "energies"):
            np.testing.assert_array_equal(getattr(scan, key), getattr(whole, key)[rows])
        np.testing.assert_array_equal(scan.metadata["Y"], Y[rows])
        np.testing.assert_array_equal(scan.metadata["sample_indices"], rows)
        assert scan.metadata["subsample_seed"] == 7
        assert scan.metadata["beamline"] == "2-ID"
    assert "sample_indices" not in whole.metadata
    again = thinned.subsample(95, seed=1)
    expected = rows[legacy_choice(96, 95, 1)]
    np.testing.assert_array_equal(again.metadata["sample_indices"], expected)


def test_a_scan_without_a_seed_records_one() -> None:
    scan = pf.Scan(raster(10), np.ones((100, 4, 4), np.float32))
    thinned = scan.subsample(97)
    rows = legacy_choice(100, 97, thinned.metadata["subsample_seed"])
    np.testing.assert_array_equal(thinned.metadata["sample_indices"], rows)
    assert thinned.scan_index is None
