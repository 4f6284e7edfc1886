"""Names of older code that are gone, and functions that will be."""

# ruff: noqa: NPY002  # the legacy stream is what is tested

from __future__ import annotations

import re

import numpy as np
import pytest

import reference
from ptycho_fast import ptychopinn
from ptycho_fast.ptychopinn import RawData
from records import make_record, positions_of, set_params


@pytest.mark.parametrize("name", sorted(ptychopinn.GONE))
def test_names_that_are_gone_say_what_to_use(name: str) -> None:
    successor = re.escape(ptychopinn.GONE[name])
    places = [RawData, make_record()] if name.startswith("_") else [ptychopinn]
    for place in places:
        with pytest.raises(AttributeError, match=f"^{name} is gone: use {successor}"):
            getattr(place, name)
        assert not hasattr(place, name)


def test_unknown_names_are_not_attributes() -> None:
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
    set_params(monkeypatch, gridsize=2)
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
