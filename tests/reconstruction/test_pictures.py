"""PNG files are decoded again by rules written here, and hold the values they were drawn from."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ptycho_fast.png import COLOURS, colour_table, png
from ptycho_fast.reconstruction.pictures import (
    amplitude_picture,
    map_picture,
    phase_picture,
    probe_picture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS = {0: 1, 2: 3, 3: 1, 6: 4}


def decode(data: bytes) -> tuple[NDArray[np.uint8], dict[bytes, bytes]]:
    """Return pixels (H, W, channels) and the chunks of a PNG file of 8 bits without interlace."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    first, *_, last = chunks
    assert (first, last) == (b"IHDR", b"IEND")
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    step = CHANNELS[kind]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    rows = np.zeros((height, width * step), np.uint8)
    for row in range(height):
        assert raw[row, 0] == 2  # the difference to the row above
        rows[row] = raw[row, 1:] + (rows[row - 1] if row else 0)
    return rows.reshape(height, width, step), chunks


def shown(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the parts 0..1 of the colour scale that a picture shows, and where it is opaque."""
    pixels, chunks = decode(data)
    assert chunks[b"tRNS"] == b"\0"  # colour 0
    return (pixels[..., 0].astype(float) - 1) / 254, pixels[..., 0] > 0


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (4, 6, 3), (3, 2, 4)])
def test_pixels_come_back(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found, _ = decode(png(pixels))
    np.testing.assert_array_equal(found, pixels.reshape(found.shape))
    assert found.shape[2] == (1 if len(shape) == 2 else shape[2])


def test_pixels_come_back_through_matplotlib(tmp_path_factory: pytest.TempPathFactory) -> None:
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path_factory.mktemp("png") / "a.png"
    number = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path.write_bytes(png(number, colour_table("perceptual")))
    found = np.rint(image.imread(path) * 255)
    np.testing.assert_array_equal(found[..., 3], np.where(number > 0, 255, 0))
    lit = number > 0
    np.testing.assert_array_equal(found[lit][:, :3], colour_table("perceptual")[number[lit] - 1])


def lightness(table: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIE L* of sRGB colours, another measure than that which the tables are made with."""
    part = table / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    curve: NDArray[np.float64] = 116 * np.cbrt(luminance) - 16
    return curve


def test_colour_maps_are_what_their_names_say() -> None:
    for colours in COLOURS:
        assert colour_table(colours).shape == (255, 3)
    assert (np.ptp(colour_table("grey"), axis=1) == 0).all()
    for colours in ("grey", "perceptual"):
        rising = lightness(colour_table(colours)[20:])
        steps = rising[10:] - rising[:-10]
        assert steps.min() > 1.5
        assert steps.max() < 2 * steps.min()
    around = colour_table("cyclic").astype(float)
    assert np.ptp(lightness(colour_table("cyclic"))) < 5
    steps = np.abs(around - np.roll(around, 1, axis=0)).max(axis=1)
    assert steps.max() < 8  # the step from the last to the first too


def test_the_phase_is_shown_without_mean_and_ramp_where_there_is_light() -> None:
    y, x = np.mgrid[:60, :80]
    bumps = 0.4 * np.sin(2 * np.pi * x / 15) * np.sin(2 * np.pi * y / 12)
    coverage = np.zeros((60, 80))
    coverage[6:54, 10:70] = 5
    coverage[20:24, 30:36] = 0.1
    image = 7 * np.exp(1j * (bumps + 2 + 0.3 * x - 0.2 * y))
    image[coverage == 0] = np.nan
    made = phase_picture(image, coverage)
    assert made.corner == (10, 6)
    assert made.size == (60, 48)
    part, opaque = shown(made.png)
    np.testing.assert_array_equal(opaque, coverage[6:54, 10:70] > 1)
    found = made.low + part * (made.high - made.low)
    within = opaque & (np.abs(bumps[6:54, 10:70]) < 0.37)
    # Half a step of the colours is 0.002; what the ramp takes of the bumps is as little.
    assert np.abs(found - bumps[6:54, 10:70])[within].max() < 0.01
    assert made.low == pytest.approx(-0.4, abs=0.03)
    assert made.high == pytest.approx(0.4, abs=0.03)


def test_a_phase_that_wraps_is_shown_in_colours_that_wrap() -> None:
    phase = np.random.default_rng(0).uniform(-np.pi, np.pi, (40, 40))
    made = phase_picture(2 + np.exp(1j * phase), np.ones((40, 40)))
    assert made.colours == "perceptual"
    made = phase_picture(np.exp(1j * np.sign(phase)) * np.exp(2.2j * phase), np.ones((40, 40)))
    assert (made.colours, made.low, made.high) == ("cyclic", -np.pi, np.pi)


def test_amplitudes_and_maps_run_from_percentile_to_percentile() -> None:
    values = np.arange(10_000, dtype=float).reshape(100, 100)
    coverage = np.ones((100, 100))
    for made, colours in (
        (amplitude_picture(values * 1j, coverage), "grey"),
        (map_picture(values, coverage), "perceptual"),
    ):
        assert made.colours == colours
        # Linear interpolation between ranks: 0.005 * 9999 and 0.995 * 9999.
        assert (made.low, made.high) == pytest.approx((49.995, 9949.005))
        part, opaque = shown(made.png)
        assert opaque.all()
        wanted = np.clip((values - 49.995) / 9899.01, 0, 1)
        assert np.abs(part - wanted).max() <= 0.5 / 254 + 1e-9


def test_modes_of_a_probe_stand_side_by_side() -> None:
    probe = np.zeros((5, 8, 6), complex)
    probe[:, 2, 3] = 100
    probe[0, 4, 1] = 50j
    made = probe_picture(probe)
    assert made.size == (4 * 6 + 3 * 2, 2 * 8 + 2)
    pixels, _ = decode(made.png)
    assert pixels.shape == (18, 30, 4)
    opaque = pixels[..., 3] > 0
    for number in range(8):
        row, column = divmod(number, 4)
        tile = opaque[10 * row : 10 * row + 8, 8 * column : 8 * column + 6]
        assert tile.all() == (number < 5)
    assert np.count_nonzero(opaque) == 5 * 48
    # Phase 0 is the middle of the table, phase 90 degrees three quarters of it.
    table = colour_table("cyclic")
    assert np.abs(pixels[2, 3, :3].astype(int) - table[127]).max() <= 5
    assert np.abs(pixels[12, 3, :3].astype(int) - table[127]).max() <= 5
    assert np.abs(pixels[4, 1, :3] - table[191] / 2).max() <= 5
    assert not pixels[0, 0, :3].any()


@pytest.mark.parametrize("light", [0, 1])
def test_flat_and_dark_images_have_pictures(light: int) -> None:
    coverage = np.full((9, 11), float(light))
    for made in (
        phase_picture(np.zeros((9, 11), complex), coverage),
        amplitude_picture(np.ones((9, 11), complex), coverage),
        map_picture(np.full((9, 11), np.nan), coverage),
        probe_picture(np.zeros((1, 9, 9), complex)),
    ):
        decode(made.png)
    # Colours that are all the same are those in the middle.
    part, opaque = shown(amplitude_picture(np.ones((9, 11), complex), coverage).png)
    assert opaque.all() == bool(light)
    assert (part[opaque] == 0.5).all()
