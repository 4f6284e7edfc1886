"""The report is one valid page that needs no other file, and its charts show the numbers."""

from __future__ import annotations

import base64
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ptycho_fast.reconstruction.charts import history_chart, resolution_chart
from ptycho_fast.reconstruction.report import page, scale_bar
from ptycho_fast.reconstruction.resolution import Resolution

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ptycho_fast.reconstruction.result import Reconstruction

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "img", "path"}


class Page(HTMLParser):
    """Collects the elements of a page, and complains of those that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.rows.append(data)


def test_the_report_holds_everything_itself(tmp_path: Path, made: Reconstruction) -> None:
    made.save(tmp_path, command="ptycho-fast reconstruct 'a & b.npz' -o <OUT>")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    sources = [attributes["src"] for tag, attributes in found.elements if tag == "img"]
    pictures = [
        base64.b64decode((source or "").removeprefix("data:image/png;base64,"))
        for source in sources
    ]
    names = ["phase.png", "amplitude.png", "phase_sigma.png", "probe.png"]
    assert pictures == [(tmp_path / name).read_bytes() for name in names]
    assert (tmp_path / "frc.svg").read_text() in text
    assert (tmp_path / "history.svg").read_text() in text
    # Nothing is loaded from anywhere.
    assert set(re.findall(r"(?:src|href|url)\W{1,2}(\w+:)", text)) == {"data:"}
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"] * 2
    assert "prefers-color-scheme" in text
    assert 'name="viewport"' in text


def test_the_report_tells_the_numbers_with_their_units(
    tmp_path: Path, made: Reconstruction
) -> None:
    made.save(tmp_path, command="ptycho-fast reconstruct 'a & b.npz' -o <OUT>")
    written = Page((tmp_path / "report.html").read_text(encoding="utf-8")).rows
    cells = dict(itertools.pairwise(written))
    assert cells["resolution, half-bit"] == "2.33 pixels = 54.9 nm"
    # The correlation, 1 - 1.1 / 19 n of ring n + 1, is 0.143 at n = 14.8; 20 / 15.8 = 1.27.
    assert cells["resolution, 0.143"] == "1.27 pixels = 29.9 nm"
    assert cells["deviance"] == "1.017 (1: noise alone)"
    sigma = float(np.median(made.phase_sigma[4:]))  # type: ignore[index]
    assert cells["uncertainty, phase"] == f"{sigma:.3g} rad (median where there is light)"
    assert cells["object"] == ("50 x 40 pixels, 1.18 µm x 944 nm, top left pixel at x = -7, y = 12")
    assert cells["pixel"] == "23.6 nm"
    assert cells["patterns"] == "11 of 16 x 16 pixels"
    assert cells["probe"] == "2 modes"
    assert cells["prior"] == "smooth, weight 31.5"
    assert cells["iterations"] == "3"
    assert cells["time"] == "1.83 s"
    assert "ptycho-fast reconstruct 'a & b.npz' -o <OUT>" in written
    assert all(note in written for note in made.notes)
    shares = np.sum(np.abs(made.probe) ** 2, axis=(1, 2))
    told = " ".join(written)
    assert f"{shares[0] / shares.sum():.1%}, {shares[1] / shares.sum():.1%}" in told


def test_a_bare_reconstruction_has_a_shorter_report(tmp_path: Path, bare: Reconstruction) -> None:
    bare.save(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    written = Page(text).rows
    assert "size not known" in written
    assert not {"Quality", "Command", "iterations"} & set(written)
    assert not re.search(r"\d [nµm]*m\b", text)


def test_a_page_escapes_what_it_is_told() -> None:
    made = page(title="<i>", figures=[], charts=[], numbers={"<a>": "<b>"}, notes=["<u>"])
    assert not {"i", "a", "b", "u"} & {tag for tag, _ in Page(made).elements}


@pytest.mark.parametrize(
    ("width", "size", "pixels", "text"),
    [
        (150, 23.6e-9, 1000 / 23.6, "1 µm"),  # a third of 3540 nm is 1180
        (100, 3e-9, 100 / 3, "100 nm"),
        (64, 1e-6, 20, "20 µm"),
        (1, 0.3, 1 / 3, "100 mm"),
    ],
)
def test_scale_bars_have_round_lengths(width: int, size: float, pixels: float, text: str) -> None:
    found = scale_bar(width, size)
    assert found[0] == pytest.approx(pixels, rel=1e-5)
    assert found[1] == text


def lines(svg: str) -> dict[str, NDArray[np.float64]]:
    """The points of each line of a chart, (n, 2), by its name."""
    found = {}
    for line in ET.fromstring(svg).iter(f"{SVG}polyline"):
        points = [[float(v) for v in pair.split(",")] for pair in line.get("points", "").split()]
        found[line.findtext(f"{SVG}title", "")] = np.array(points)
    return found


def numbers(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_chart_of_the_correlation_shows_it(made: Reconstruction) -> None:
    assert made.resolution is not None
    svg = resolution_chart(made.resolution).svg
    found = lines(svg)
    assert found.keys() == {"correlation", "half-bit", "0.143"}
    # Places are linear in the values, and the same for all lines.
    x, y = found["correlation"].T
    slope = np.polyfit(made.resolution.frequencies, x, 1)
    up = np.polyfit(made.resolution.correlation, y, 1)
    assert slope[0] > 0 > up[0]
    wanted = np.polyval(up, made.resolution.half_bit)
    np.testing.assert_allclose(found["half-bit"][:, 1], wanted, atol=0.11)
    np.testing.assert_allclose(found["0.143"][:, 1], np.polyval(up, 0.143), atol=0.11)
    # Half a period at 0.1 and 0.5 cycles per pixel.
    assert {"118 nm", "23.6 nm", "0.5", "half period"} <= set(numbers(svg))
    unsized = Resolution(*(getattr(made.resolution, name) for name in
                           ("frequencies", "correlation", "half_bit")))  # fmt: skip
    assert {"5 px", "1 px"} <= set(numbers(resolution_chart(unsized).svg))


def test_the_chart_of_the_deviance_is_logarithmic_where_it_falls_far() -> None:
    deviance = [100.0, 10.0, 1.0]
    chart = history_chart([1, 2, 3], [9, 9, 3], deviance, [None, 10.0, 1.0])
    found = lines(chart.svg)
    y = found["fitted counts"][:, 1]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.11)
    np.testing.assert_array_equal(found["held-out counts"], found["fitted counts"][1:])
    assert {"1", "2", "3", "10", "100"} <= set(numbers(chart.svg))
    assert "from 9 to 3" in chart.note
    close = history_chart([1, 2, 3], [9] * 3, [1.2, 1.1, 1.05], [None] * 3)
    y = lines(close.svg)["fitted counts"][:, 1]
    assert (y[1] - y[0]) / (y[2] - y[1]) == pytest.approx(2, abs=0.02)
    assert lines(close.svg).keys() == {"fitted counts"}
    assert "weight" not in close.note


@pytest.mark.parametrize("deviance", [[1.0], [0.0, 0.0], [float("nan"), 2.0], [1e300, 1e-300]])
def test_odd_histories_have_a_chart(deviance: list[float]) -> None:
    count = len(deviance)
    chart = history_chart(list(range(1, count + 1)), [1.0] * count, deviance, [None] * count)
    assert "nan" not in chart.svg
    assert lines(chart.svg)
