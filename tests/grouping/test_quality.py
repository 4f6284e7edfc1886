"""Coverage: against the definitions, one position and one group at a time."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptycho_fast as pf
import reference
from places import SHARED
from ptycho_fast.illumination import illumination
from reference import coverage as reference_coverage

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = SHARED / "data"
SCANS = sorted(path.name for path in DATA.glob("*_n*.npz"))


def scan_of(positions: NDArray[np.float64], N: int, probe: Any = None) -> pf.Scan:
    return pf.Scan(positions, np.broadcast_to(np.float32(0), (len(positions), N, N)), probe=probe)


def probe_of(N: int, modes: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    away = np.arange(N) - N // 2
    spot = np.exp(-(away**2 + (away[:, None] - 1) ** 2) / (N / 3) ** 2)
    noise = 1 + 0.2 * rng.standard_normal((modes, N, N)) + 0.2j * rng.standard_normal((modes, N, N))
    return (spot * noise).astype(np.complex64)


def agree(found: pf.quality.Coverage, expected: dict[str, Any]) -> None:
    for name in ("positions_used", "area_covered", "discrepancy", "duplicates"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    if found.group_size > 1:
        assert found.overlap_min == expected["overlaps"].min()
        assert found.overlap_median == np.median(expected["overlaps"])


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(sorted(reference.scan_shapes(40, 0))),
    n=st.integers(2, 150),
    N=st.integers(1, 12),
    modes=st.integers(0, 2),
    C=st.integers(1, 5),
    scale=st.floats(0.1, 8),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_coverage_equals_its_definition(
    shape: str, n: int, N: int, modes: int, C: int, scale: float, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    positions = reference.scan_shapes(n, seed)[shape]
    positions = positions / max(1e-300, float(np.ptp(positions))) * scale * np.sqrt(n)
    n = len(positions)
    C = min(C, n)
    B = data.draw(st.integers(1, 2 * n))
    # Any groups, not only those that are drawn; few positions, so that sets repeat.
    few = rng.permutation(n)[: max(C, n // 3)]
    indices = np.array([rng.choice(few, C, replace=False) for _ in range(B)], np.int32)
    groups = pf.Groups(indices, rng.choice(few, B).astype(np.int32), positions, C, seed=0)
    probe = probe_of(N, modes, rng) if modes else None
    found = pf.coverage(scan_of(positions, N, probe), groups)
    if C == 1:
        assert (found.overlap_min, found.overlap_median, found.suggested_neighbors) == (None,) * 3
        expected = reference_coverage.coverage(
            positions, np.repeat(indices, 2, axis=1), groups.centers, N, probe
        )
    else:
        expected = reference_coverage.coverage(positions, indices, groups.centers, N, probe)
    agree(found, expected)


@pytest.mark.skipif(not SCANS, reason="no measured scans here")
@pytest.mark.parametrize("name", SCANS)
def test_coverage_of_measured_scans_equals_its_definition(name: str) -> None:
    scan = pf.read_scan(DATA / name, load=False)
    groups = pf.group_positions(scan.positions, 200, seed=3)
    found = pf.coverage(scan, groups)
    agree(
        found,
        reference_coverage.coverage(
            scan.positions, groups.indices, groups.centers, scan.N, scan.probe
        ),
    )
    assert found.probe_weighted


@pytest.mark.skipif(not SCANS, reason="no measured scans here")
@pytest.mark.parametrize("name", SCANS)
def test_a_random_draw_covers_more_than_the_first_positions(name: str) -> None:
    scan = pf.read_scan(DATA / name, load=False)
    first, random = (
        pf.coverage(scan, pf.group_positions(scan.positions, len(scan) // 4, centers=c, seed=0))
        for c in ("sequential", "random")
    )
    assert random.area_covered > first.area_covered + 0.1
    assert random.discrepancy < first.discrepancy / 3


@pytest.mark.parametrize("spacing", [0.5, 3, 5, 9, 40])
def test_suggested_neighbors_equals_its_definition(spacing: float) -> None:
    rng = np.random.default_rng(0)
    positions = spacing * (
        np.stack(np.meshgrid(np.arange(9), np.arange(9)), axis=-1).reshape(-1, 2)
        + rng.uniform(-0.3, 0.3, (81, 2))
    )
    groups = pf.group_positions(positions, 50, seed=1)
    found = pf.coverage(scan_of(positions, 20), groups).suggested_neighbors
    assert found == reference_coverage.suggested_neighbors(positions, groups.centers, 20, 4)
    assert found == {0.5: 30, 40: 4}.get(spacing, found)


def test_a_large_object_is_mapped_in_cells() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 3000, (3000, 2))
    probe = probe_of(128, 1, rng)
    groups = pf.group_positions(positions, 200, seed=1)
    found = pf.coverage(scan_of(positions, 128, probe), groups)
    expected = reference_coverage.area_covered(
        positions, set(groups.indices.ravel().tolist()), reference_coverage.light_of(128, probe)
    )
    assert found.area_covered == pytest.approx(expected, abs=0.01)
    assert illumination(scan_of(positions, 128), np.ones(3000)).values.size < 1100**2


@pytest.mark.parametrize("N", [1, 2, 7, 8])
def test_illumination_lies_where_windows_are_cut(N: int) -> None:
    rng = np.random.default_rng(N)
    positions = rng.uniform(20, 30, (6, 2)).round()
    times = np.array([1, 0, 2, 1, 0, 1])
    found = illumination(scan_of(positions, N), times)
    left, right, bottom, top = found.extent
    assert (right - left, bottom - top) == found.values.shape[::-1]
    # An object lit where the map is: its patches, put back where they were cut.
    expected = np.zeros((60, 60))
    for (x, y), count in zip(positions.astype(int), times, strict=True):
        expected[y - N // 2 : y - N // 2 + N, x - N // 2 : x - N // 2 + N] += count
    row, column = int(top + 0.5), int(left + 0.5)
    window = np.s_[row : row + len(found.values), column : column + found.values.shape[1]]
    np.testing.assert_allclose(found.values, expected[window], atol=1e-12)
    assert found.values.sum() == pytest.approx(expected.sum())


@pytest.mark.parametrize(
    "positions",
    [
        np.full((9, 2), 8.0),
        np.stack([np.linspace(-1e150, 1e150, 9), np.zeros(9)], axis=1),
        np.stack([np.linspace(-1e149, 1e150, 9)] * 2, axis=1),
        np.stack([np.arange(9) * 1e5, np.arange(9) * 1e3], axis=1),
    ],
)
def test_a_scan_of_any_extent_is_measured(positions: NDArray[np.float64]) -> None:
    found = pf.coverage(scan_of(positions, 8), pf.group_positions(positions, seed=0))
    assert found.positions_used > 0.5
    assert found.area_covered == pytest.approx(found.positions_used, abs=0.5)
    assert found.discrepancy == 0
    assert found.suggested_neighbors is not None


@pytest.mark.parametrize("probe", [None, np.zeros((8, 8)), np.full((8, 8), np.nan)])
def test_without_a_probe_windows_are_evenly_lit(probe: Any) -> None:
    scan = pf.simulate_scan(30, 8, seed=0)
    groups = pf.group_positions(scan.positions, 4, seed=0)
    dark = pf.coverage(dataclasses.replace(scan, probe=probe), groups)
    even = pf.coverage(dataclasses.replace(scan, probe=np.ones((8, 8), np.complex64)), groups)
    assert not dark.probe_weighted
    assert even.probe_weighted
    assert dark == dataclasses.replace(even, probe_weighted=False)


def test_all_centres_are_as_uniform_as_the_scan() -> None:
    scan = pf.simulate_scan(100, 8, jitter=0, seed=0)
    found = pf.coverage(scan, pf.group_positions(scan.positions, gridsize=1, seed=0))
    assert (found.discrepancy, found.positions_used, found.area_covered) == (0, 1, 1)
    half = pf.group_positions(scan.positions, 50, gridsize=1, centers="sequential")
    assert pf.coverage(scan, half).discrepancy == pytest.approx(0.5)  # the upper half of a raster


def test_the_table_lists_every_measure() -> None:
    scan = pf.simulate_scan(100, 8, seed=0)
    indices = np.array([[0, 1], [1, 0], [2, 3]], np.int32)
    groups = pf.Groups(indices, indices[:, 0], scan.positions, 2, seed=0)
    found = pf.coverage(scan, groups)
    table = str(found)
    for line in (
        r"used +4\.0% of 100 positions",
        rf"object +{found.area_covered:.1%} of the illuminated object covered, weighted by .*",
        rf"overlap +median {found.overlap_median:.1%}, smallest {found.overlap_min:.1%} of a .*",
        rf"discrepancy +{found.discrepancy:.3g} between centres and scan.*",
        r"duplicates +1 of 3 groups have the same members as another",
        rf"suggested K +{found.suggested_neighbors}, .* overlap by 25% or more",
    ):
        assert re.search(f"^{line}$", table, re.MULTILINE), line
    far = pf.Scan(40 * scan.positions, scan.diffraction)
    sparse = str(pf.coverage(far, dataclasses.replace(groups, positions=far.positions)))
    assert re.search(
        "^suggested K 2, the smallest possible: .* overlap < 25%$", sparse, re.MULTILINE
    )
    single = pf.coverage(scan, pf.group_positions(scan.positions, 3, gridsize=1))
    assert "overlap" not in str(single)
    assert "suggested" not in str(single)


def test_groups_of_another_scan_and_no_groups_are_refused() -> None:
    scan = pf.simulate_scan(60, 8, seed=0)
    groups = pf.group_positions(scan.positions[:50], seed=0)
    with pytest.raises(ValueError, match="from 50 positions, but the scan has 60"):
        pf.coverage(scan, groups)
    none = np.empty((0, 4), np.int32)
    with pytest.raises(ValueError, match="There are no groups"):
        pf.coverage(scan, pf.Groups(none, none[:, 0], scan.positions, 7, seed=0))
    with pytest.raises(ValueError, match="60"):
        pf.coverage(scan, pf.Groups(np.array([[0, 60]]), np.array([0]), scan.positions, 7, seed=0))
