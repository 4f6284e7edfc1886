"""Groups from NumPy's legacy stream: against the reference and frozen outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
import reference
from places import SHARED

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPES = sorted(reference.scan_shapes(8, 0))

GOLDENS = sorted((SHARED / "goldens").glob("*.npz"))

needs_goldens = pytest.mark.skipif(not GOLDENS, reason="../shared/goldens is not here")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("C", "K"), [(1, 1), (4, 7), (9, 12), (4, 500)])
def test_the_legacy_stream_equals_the_reference(shape: str, C: int, K: int) -> None:
    positions = reference.scan_shapes(300, 0)[shape]
    for n_groups in (1, 100, len(positions)):
        centers, indices = reference.legacy_groups(positions, n_groups, C, K, 11)
        groups = pf.group_positions(
            positions, n_groups, group_size=C, n_neighbors=K, seed=11, rng="numpy"
        )
        np.testing.assert_array_equal(groups.centers, centers)
        np.testing.assert_array_equal(groups.indices, indices)


@needs_goldens
@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.stem)
def test_the_legacy_stream_repeats_the_frozen_groups(golden: Path) -> None:
    frozen = np.load(golden)
    names = [name for name in frozen.files if name.startswith("groups_gridsize")]
    assert len(names) == 16
    for name in names:
        gridsize, K, n_groups, seed = (
            int("".join(filter(str.isdigit, part))) for part in name.split("_")[1:]
        )
        groups = pf.group_positions(
            xcoords=frozen["xcoords"],
            ycoords=frozen["ycoords"],
            n_groups=n_groups,
            gridsize=gridsize,
            n_neighbors=K,
            seed=seed,
            rng="numpy",
        )
        np.testing.assert_array_equal(groups.indices, frozen[name], err_msg=name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epoch": 1},
        {"max_distance": 20.0},
        {"min_distance": 1.0},
        {"groups_per_center": 2},
        {"rule": "oversample"},
        {"rule": "quadrant", "max_distance": 20.0},
        {"rule": "overlap", "N": 32},
        {"strategy": "group-then-sample"},
        {"bounds": ((0, 1), (0, 1))},
        {"scan_ids": np.zeros(400, int)},
    ],
)
def test_the_legacy_stream_refuses_what_older_code_did_not_have(
    coarse_raster: NDArray[np.float64], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match='rng="numpy" repeats what older code drew'):
        pf.group_positions(coarse_raster, rng="numpy", seed=1, **arguments)
