"""What notebooks show: small, escaped, drawn from what it shows, and for the oddest objects too."""

from __future__ import annotations

import base64
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import ptycho_fast as pf
from ptycho_fast.bad_pixels import BadPixels
from ptycho_fast.cards import card, dots, small
from ptycho_fast.frames import Frames
from ptycho_fast.png import averaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 30_000


def html(shown: Any) -> str:
    """What a notebook asks for."""
    made: str = shown._repr_html_()
    assert len(made) < MOST
    for source in re.findall(r'src="data:image/png;base64,([^"]*)"', made):
        assert base64.b64decode(source, validate=True)[1:4] == b"PNG"
    # Nothing is left open, and no text is taken for a tag.
    assert (
        re.sub(r"</?(div|b|table|tr|td|figure|figcaption|img)( [^<>]*)?>", "", made).count("<") == 0
    )
    return made


def captions(made: str) -> list[str]:
    return re.findall(r'alt="([^"]*)"', made)


class Unreadable(Frames):
    """Patterns in a file that must not be read."""

    shape, dtype = (50, 16, 16), np.dtype(np.float32)

    def read(self, rows: NDArray[np.integer[Any]], out: NDArray[Any]) -> None:
        raise AssertionError


def test_a_scan_shows_its_numbers_and_pictures() -> None:
    scan = pf.simulate_scan(50, 16, seed=0)
    made = html(scan)
    assert captions(made) == ["positions", "mean of 16 patterns, 4th root", "object, phase"]
    for told in ("<b>Scan</b>", ">50<", "16 x 16 float32, 0.0512 MB", "bad pixels"):
        assert (told in made) == (told != "bad pixels")


def test_nothing_is_read_from_a_file() -> None:
    scan = dataclasses.replace(pf.simulate_scan(50, 16, seed=0), diffraction=Unreadable())
    made = html(scan)
    assert "0.0512 MB in a file" in made
    assert captions(made) == ["positions", "object, phase"]


def noise(*shape: int) -> NDArray[Any]:
    made: NDArray[Any] = np.random.default_rng(list(shape)).normal(size=(*shape, 2)) @ [1, 1j]
    return made


@pytest.mark.parametrize(
    "scan",
    [
        pf.Scan(np.zeros((0, 2)), np.zeros((0, 4, 4))),
        pf.Scan(np.full((3, 2), np.nan), np.full((3, 4, 4), np.nan)),
        pf.Scan(np.array([[1.0, np.nan], [1e300, -1e300], [2.0, 1e9]]), np.ones((3, 4, 4))),
        pf.Scan(np.zeros((1, 2)), np.zeros((1, 1, 1)), probe=np.zeros((1, 1, 1)) + 0j),
        pf.Scan(np.zeros((5, 2)), np.ones((5, 4, 4), bool), object=np.zeros((0, 0)) + 0j),
        pf.Scan(np.zeros((5, 2)), np.ones((5, 4, 4)), object=np.full((3, 900), np.nan + 0j)),
        pf.Scan(np.zeros((5, 2)), np.ones((5, 4, 4)), mask=np.zeros((4, 4), bool)),
        pf.Scan(
            np.zeros((2, 2)),
            np.ones((2, 4, 4)),
            bad_pixels=BadPixels.of(np.ones((2, 4, 4), bool)),
            metadata={"object_pixel_m": "<script>" * 1000},
        ),
        # As large as pictures can be.
        pf.Scan(
            np.random.default_rng(0).normal(size=(2000, 2)),
            np.random.default_rng(0).integers(0, 255, (2000, 80, 80), np.uint8),
            object=noise(80, 80),
        ),
    ],
)
def test_odd_scans_are_shown(scan: pf.Scan) -> None:
    made = html(scan)
    assert "script" not in made or "&lt;script&gt;" in made


def test_groups_and_their_coverage_are_shown() -> None:
    scan = pf.simulate_scan(50, 16, seed=0)
    groups = pf.group_positions(scan.positions, 20, seed=0)
    assert "20 of 4 of 50 positions" in html(groups)
    assert "1 (&lt;b&gt;)" in html(dataclasses.replace(groups, left_out={"<b>": 1}))
    found = pf.coverage(scan, groups)
    assert captions(html(found)) == ["object that is covered"]
    for line in str(found).splitlines():
        assert line[12:40] in html(found).replace("&lt;", "<")
    assert captions(html(dataclasses.replace(found, covered=None))) == []
    none = np.empty((0, 4), np.int32)
    html(pf.Groups(none, none[:, 0], np.zeros((0, 2)), 7, seed=0))


def test_the_map_of_a_coverage_adds_up_to_the_number() -> None:
    scan = dataclasses.replace(pf.simulate_scan(60, 16, seed=0), probe=None)
    found = pf.coverage(scan, pf.group_positions(scan.positions, 4, seed=0))
    assert found.covered is not None
    assert found.overlaps is not None
    values = found.covered.values
    # Windows that are evenly lit, in cells of one pixel: how many positions reach each pixel.
    left, _, _, top = found.covered.extent
    weight = np.zeros(values.shape)
    for x, y in np.rint(scan.positions).astype(int):
        column, row = x - 8 - round(left + 0.5), y - 8 - round(top + 0.5)
        weight[row : row + 16, column : column + 16] += 1
    np.testing.assert_array_equal(np.isnan(values), weight == 0)
    whole = np.nansum(values * weight) / weight.sum()
    assert whole == pytest.approx(found.area_covered, abs=0.02)
    assert found.overlaps.min() == found.overlap_min


@pytest.mark.parametrize("light", [0.0, 1.0, np.nan])
@pytest.mark.parametrize("shape", [(20, 30), (1, 1), (300, 7)])
def test_reconstructions_are_shown(light: float, shape: tuple[int, int]) -> None:
    made = pf.Reconstruction(
        object=noise(*shape).astype(np.complex64),
        origin=(-4, 0),
        probe=np.ones((2, 8, 8), np.complex64),
        positions=np.array([[3.0, 5.5], [20.0, 9.0]]),
        coverage=np.full(shape, light, np.float32),
        deviance=1.02,
        mu=20.0,
        prior="<i>",
    )
    assert "&lt;i&gt;" in html(made)


def test_a_phase_with_a_steep_ramp_is_averaged_without_it() -> None:
    """Averaged with the ramp, nothing of the image would be left."""
    from ptycho_fast.reconstruction.pictures import phase_picture  # noqa: PLC0415

    y, x = np.mgrid[:240, :240]
    image = np.exp(1j * (0.5 * np.sin(x / 30) + 1.5 * x - 0.9 * y))
    found = phase_picture(image, np.ones(image.shape), 80)
    assert found.size == (80, 80)
    assert found.high - found.low == pytest.approx(1.0, abs=0.1)


def test_averages_are_those_of_squares() -> None:
    values = noise(7, 10)
    found = averaged(values, 4)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found[0, 0], values[:3, :3].mean())
    np.testing.assert_allclose(found[2, 3], values[6:, 9:].mean())
    assert averaged(values, 10) is values


def test_dots_lie_where_positions_do() -> None:
    made = dots(np.array([[0.0, 0.0], [158.0, 0.0], [0.0, 79.0], [np.nan, 3.0]]))
    assert made is not None
    assert made.size == (80, 40)
    assert dots(np.full((2, 2), np.nan)) is None
    assert small(np.zeros((0, 4))) is None


def test_long_texts_are_cut() -> None:
    assert len(card("a", {"b": "c" * 10**6}, {})) < 1000


def test_the_image_of_a_network_is_shown() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("lightning")
    from ptycho_fast.models.reconstruction import Reconstruction  # noqa: PLC0415

    image, light = noise(20, 30).astype(np.complex64), np.ones((20, 30), np.float32)
    made = html(Reconstruction(image, light, {"phase_rmse": 0.25, "<b>": 1.0}))
    assert captions(made) == ["phase"]
    assert "30 x 20 pixels" in made
    assert "phase rmse" in made
    apart = Reconstruction(None, None, {}, patches=image[None])
    assert "1 x 20 x 30" in html(apart)
    with pytest.raises(ValueError, match="not stitched"):
        apart.plot()
