"""The canvas: every window lies on it wherever the origin is, and objects never crop an image."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import ptycho_fast as pf
import reference
from ptycho_fast.canvas import Canvas, canvas, overhang, place, span, stack_canvases

if TYPE_CHECKING:
    from pathlib import Path


# --- the rectangle -------------------------------------------------------------------------------

COORDINATES = st.floats(-300, 300, width=32)


@pytest.mark.filterwarnings("ignore:.*far from all others")
@given(
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=12),
    st.integers(1, 17),
    st.sampled_from([0.0, -1e3, 1e6]),
)
@settings(max_examples=200, deadline=None)
def test_every_window_lies_inside_and_no_row_is_spare(
    positions: list[tuple[float, float]], N: int, offset: float
) -> None:
    """By the pixels that interpolation reads: floor(p) - N//2 and the N after it."""
    where = np.array(positions) + offset
    found = canvas(where, N)
    for axis, first, size in zip((0, 1), found.origin, found.shape[::-1], strict=True):
        read = np.floor(where[:, axis])[:, None] - N // 2 + np.arange(N + 1)
        assert (read.min(), read.max()) == (first, first + size - 1)
    np.testing.assert_array_equal(found.local(where), where - np.array(found.origin))


def test_a_window_read_on_the_canvas_is_the_one_on_the_object() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(60, 50)) + 1j * rng.normal(size=(60, 50))
    positions = rng.uniform((12, 12), (35, 45), (20, 2))
    area = canvas(positions, 9)
    moved = place(image, (-area.origin[0], -area.origin[1]), area.shape)
    np.testing.assert_allclose(
        reference.extract_patches(moved, area.local(positions)[:, :, None], 9),
        reference.extract_patches(image, positions[:, :, None], 9),
        atol=1e-12,
    )


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 8)
)
def test_placing_moves_pixels_and_drops_what_is_outside(
    h: int, w: int, x: int, y: int, size: int
) -> None:
    image = np.arange(1, h * w + 1).reshape(h, w)
    found = place(image, (x, y), (size, size + 1))
    expected = np.zeros((size, size + 1), int)
    for row in range(h):
        for column in range(w):
            if 0 <= row + y < size and 0 <= column + x < size + 1:
                expected[row + y, column + x] = image[row, column]
    np.testing.assert_array_equal(found, expected)


def test_a_canvas_beyond_memory_names_the_outlying_position() -> None:
    positions = np.random.default_rng(0).uniform(0, 80, (50, 2))
    positions[17] = 3e8, -2e8
    with pytest.raises(ValueError, match=r"position 17, x = 3e\+08 and y = -2e\+08.*leave such"):
        canvas(positions, 16)
    # What only maps need no memory for.
    assert span(positions, 16).shape[0] > 2e8
    positions[17] = np.nan, 3
    with pytest.raises(ValueError, match="row 17 is the first of 1 rows .of 50. that hold NaN"):
        canvas(positions, 16)
    with pytest.raises(ValueError, match="at least one scan position"):
        canvas(np.empty((0, 2)), 16)


def test_a_position_far_from_the_others_is_named() -> None:
    positions = np.random.default_rng(0).uniform(0, 80, (50, 2))
    positions[31] = 40, 2000
    with pytest.warns(UserWarning, match=r"1 of 50 positions lies far.*position 31.*y = 2000"):
        found = canvas(positions, 16)
    assert found.shape[0] > 1900


@pytest.mark.parametrize("shape", ["raster", "spiral", "line", "one", "few"])
@pytest.mark.filterwarnings("error")
def test_usual_scans_give_no_warning(shape: str) -> None:
    rng = np.random.default_rng(0)
    positions = {
        "raster": pf.simulate_scan(100, 16, seed=0).positions,
        "spiral": pf.simulate_scan(100, 16, trajectory="spiral", seed=0).positions,
        "line": np.stack([np.arange(400.0), np.zeros(400)], axis=1),
        "one": np.zeros((1, 2)),
        "few": rng.uniform(0, 50, (3, 2)),
    }[shape]
    assert canvas(positions, 16) == span(positions, 16)


def test_overhang_tells_how_far_windows_reach_beyond_an_object() -> None:
    inside = np.array([[4.0, 4.0], [15.0, 25.0]])
    assert not overhang(inside, 8, (29, 19))  # the last windows end at row 28 and column 18
    assert overhang(inside, 8, (28, 19)) == "1 pixel at the bottom"
    assert overhang(inside - 2.5, 8, (29, 10)) == (
        "3 pixels on the left, 7 pixels on the right and 3 pixels at the top"
    )
    assert not overhang(inside + 1e9, 8, (29, 19), origin=(10**9, 10**9))


def test_stacked_canvases_of_groups_do_not_overlap() -> None:
    """No window of a group reaches the rows of another."""
    rng = np.random.default_rng(1)
    positions = rng.uniform(-40, 40, (5, 2, 3)) + rng.integers(-9, 9, (5, 2, 1)) * 1e4
    local, (rows, columns) = stack_canvases(positions, 7)
    height = rows // 5
    assert rows == 5 * height
    first = np.floor(local) - 3
    assert (first[:, 0] >= 0).all()
    assert (first[:, 0] + 8 <= columns).all()
    for group, top in enumerate(first[:, 1]):
        assert (top >= group * height).all()
        assert (top + 8 <= (group + 1) * height).all()
    apart = positions - positions[:, :, :1]
    np.testing.assert_allclose(local - local[:, :, :1], apart, atol=1e-9)


# --- images --------------------------------------------------------------------------------------

N = 16


def moved(scan: Any, by: Any) -> Any:
    return replace(
        scan, positions=scan.positions + by, positions_start=scan.positions + by, object=None
    )


@pytest.fixture(scope="module")
def scan() -> Any:
    """Its positions are so round that 1e9 more is exact, as in the file of a stage's encoder."""
    made = pf.simulate_scan(n_positions=100, N=N, seed=2)
    return replace(made, positions=np.round(made.positions * 1024) / 1024)


@pytest.fixture(scope="module")
def model(scan: Any) -> Any:
    pytest.importorskip("lightning")
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    made = PtychoModel(N=N, width=8)
    made.train(scan, n_groups=32, max_epochs=2, picture_every=0, device="cpu", refine_probe=2)
    return made


OFFSETS = (-500, 10**9, (-37, 12345))


@pytest.mark.parametrize("by", OFFSETS)
@pytest.mark.parametrize("refine", [0, 3])
def test_the_origin_does_not_affect_the_image(model: Any, scan: Any, by: Any, refine: int) -> None:
    made = model.infer(moved(scan, 0), device="cpu", refine=refine)
    there = model.infer(moved(scan, by), device="cpu", refine=refine)
    assert there.origin == tuple(np.add(made.origin, by))
    assert there.object.shape == made.object.shape
    np.testing.assert_array_equal(there.coverage, made.coverage)
    np.testing.assert_allclose(there.object, made.object, atol=1e-5)


def test_a_scan_centred_on_0_is_imaged_completely(model: Any, scan: Any) -> None:
    middle = scan.positions.mean(axis=0)
    made, there = (model.infer(moved(scan, by), device="cpu") for by in (0, -middle))
    assert there.coverage.sum() == pytest.approx(made.coverage.sum(), rel=1e-5)
    # All of the light that the positions shed.
    weight = (np.abs(model.probe.astype(complex)) ** 2).sum(axis=0)
    assert float(there.coverage.sum()) == pytest.approx(
        len(scan) * (weight / weight.max()).sum(), rel=1e-3
    )


@pytest.mark.parametrize("by", OFFSETS)
def test_the_origin_does_not_affect_training(scan: Any, by: Any) -> None:
    pytest.importorskip("lightning")
    from ptycho_fast.models import PtychoModel  # noqa: PLC0415

    losses = []
    for seen in (moved(scan, 0), moved(scan, by)):
        history = PtychoModel(N=N, width=8).train(
            seen, max_epochs=1, n_groups=16, picture_every=1, device="cpu", refine_probe=2
        )
        losses.append(history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_an_object_that_is_too_small_crops_nothing(model: Any, scan: Any) -> None:
    """It scores where it lies, and the warning says what it lacks."""
    pytest.importorskip("skimage")
    whole = model.infer(scan, device="cpu")
    rows, columns = scan.object.shape
    small = replace(scan, object=scan.object[: rows - 8, : columns - 3])
    beyond = overhang(scan.positions, N, small.object.shape)
    assert "at the bottom" in beyond
    with pytest.warns(UserWarning, match=f"too small: the windows reach beyond it, {beyond}"):
        made = model.infer(small, device="cpu")
    assert np.array_equal(made.object, whole.object)
    assert made.origin == whole.origin
    assert made.metrics["phase_rmse"] == pytest.approx(whole.metrics["phase_rmse"], rel=0.1)
    # A placeholder of a pixel has nothing to be scored on, and the image is there all the same.
    with pytest.warns(UserWarning, match="1 x 1 pixels is too small"):
        made = model.infer(replace(scan, object=np.ones((1, 1), np.complex64)), device="cpu")
    assert np.array_equal(made.object, whole.object)
    assert made.metrics.keys() == {"pattern_correlation"}


def test_an_object_with_a_margin_is_scored_where_it_lies(model: Any, scan: Any) -> None:
    pytest.importorskip("skimage")
    whole = model.infer(scan, device="cpu")
    padded = replace(scan, object=np.pad(scan.object, ((0, 30), (0, 20))))
    made = model.infer(padded, device="cpu")
    assert np.array_equal(made.object, whole.object)
    assert made.metrics["complex_error"] == pytest.approx(whole.metrics["complex_error"], rel=1e-3)


def test_the_origin_is_saved(model: Any, scan: Any, tmp_path: Path) -> None:
    made = model.infer(moved(scan, -500), device="cpu")
    made.save(tmp_path)
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["origin"] == list(made.origin)
    assert max(told["origin"]) < -490


def test_a_canvas_beyond_memory_is_refused_before_anything_is_computed(
    model: Any, scan: Any
) -> None:
    positions = scan.positions.copy()
    positions[40] = 5e8, -5e8
    with pytest.raises(ValueError, match="position 40, x = 5e"):
        model.infer(replace(scan, positions=positions), device="cpu")
    with pytest.raises(ValueError, match="position 40, x = 5e"):
        type(model)(N=N, width=8).train(replace(scan, positions=positions), device="cpu")


def rectangle(scan: Any) -> Canvas:
    return canvas(scan.positions, scan.N)


# --- maps and pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", OFFSETS)
def test_maps_lie_where_the_canvas_does(scan: Any, by: Any) -> None:
    from ptycho_fast.illumination import illumination  # noqa: PLC0415

    here, there = (illumination(moved(scan, d), np.ones(len(scan))) for d in (0, by))
    area = rectangle(moved(scan, by))
    left, _, _, top = there.extent
    assert (left + 0.5, top + 0.5) == area.origin
    np.testing.assert_allclose(there.values, here.values, atol=1e-9)


def test_pictures_show_all_windows(scan: Any) -> None:
    pytest.importorskip("matplotlib.figure")
    from ptycho_fast.plot import draw_image  # noqa: PLC0415

    for seen in (moved(scan, -500), replace(moved(scan, -30), object=scan.object)):
        area = rectangle(seen)
        left, right, bottom, top = area.extent
        assert (left, top) == tuple(np.array(area.origin) - 0.5)
        assert (bottom - top, right - left) == area.shape
        for figure in (seen.plot(), pf.group_positions(seen.positions, seed=0).plot(seen)):
            assert figure.axes[0].get_xlim() == (left, right)
            assert figure.axes[0].get_ylim() == (bottom, top)
    image, light = np.ones((20, 30), np.complex64), np.ones((20, 30), np.float32)
    phase = draw_image(image, light, origin=(-500, 10**9)).axes[0]
    assert phase.get_xlim() == (-500.5, -470.5)
    assert phase.get_ylim() == (10**9 + 19.5, 10**9 - 0.5)
