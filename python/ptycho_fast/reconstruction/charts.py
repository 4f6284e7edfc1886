"""The charts of a report, drawn as SVG without matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ptycho_fast.reconstruction.resolution import FIXED, length_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ptycho_fast.reconstruction.resolution import Resolution

WIDTH, HEIGHT = 480, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 26, 34, 60
"""Margins of a chart."""

MOST_TICKS = 7
"""Numbers on a logarithmic axis."""

DECADE = 3
"""An axis whose values differ by more than this factor is logarithmic."""

STYLE = """
.chart{--ink:#222;--faint:#ddd;--one:#0b62a8;--two:#c2410c;--three:#777;
font:13px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.chart{
--ink:#ddd;--faint:#333;--one:#6db8f2;--two:#f59e6c;--three:#999}}
.chart text{fill:var(--ink)}.chart .small{font-size:11px}
.chart .grid{stroke:var(--faint)}.chart .mark{stroke:var(--three);stroke-dasharray:2 3}
.chart .axis{stroke:var(--ink)}
.chart polyline{fill:none;stroke-width:2}.chart .two,.chart .three{stroke-dasharray:6 4}
.chart .one{stroke:var(--one)}.chart .two{stroke:var(--two)}.chart .three{stroke:var(--three)}
.chart text.one{fill:var(--one);stroke:none}.chart text.two{fill:var(--two);stroke:none}
.chart text.three{fill:var(--three);stroke:none}
"""


@dataclass(frozen=True)
class Chart:
    """A chart with its caption.

    Parameters
    ----------
    title : str
        What it shows.
    svg : str
        The drawing, an SVG file.
    note : str
        A sentence below it.
    """

    title: str
    svg: str
    note: str = ""


def resolution_chart(resolution: Resolution) -> Chart:
    """Draw a Fourier ring correlation and its thresholds.

    Parameters
    ----------
    resolution : Resolution

    Returns
    -------
    Chart
    """
    size = resolution.pixel_size

    def period(frequency: float) -> str:
        if frequency == 0:
            return "half period"
        return f"{0.5 / frequency:.3g} px" if size is None else length_text(0.5 * size / frequency)

    lowest = min(0.0, math.floor(float(resolution.correlation.min()) * 5) / 5)
    axes = _Axes((0, 0.5), (lowest, 1), "spatial frequency, cycles per pixel", "correlation")
    ticks = [0.1 * n for n in range(6)]
    svg = [
        *axes.grid(ticks, [lowest + 0.2 * n for n in range(round((1 - lowest) / 0.2) + 1)]),
        *(axes.below(x, period(x)) for x in ticks),
    ]
    fixed = np.full(len(resolution.frequencies), FIXED)
    for values, colour, name in (
        (fixed, "three", f"{FIXED}"),
        (resolution.half_bit, "two", "half-bit"),
        (resolution.correlation, "one", "correlation"),
    ):
        svg.append(axes.line(resolution.frequencies, values, colour, name))
    crossing = 0.5 / resolution.pixels()
    if 0 < crossing < resolution.frequencies[-1]:
        svg.append(axes.vertical(crossing))
    note = (
        f"of two images from half the counts each. Half-bit: {resolution.text()}; {FIXED}: "
        f"{resolution.text(FIXED)}."
    )
    drawn = axes.drawn(svg, ("correlation", "half-bit", f"{FIXED}"))
    return Chart("Fourier ring correlation", drawn, note)


def history_chart(
    iterations: Sequence[int],
    mu: Sequence[float],
    deviance: Sequence[float],
    held_out: Sequence[float | None],
) -> Chart:
    """Draw how the deviance fell.

    Parameters
    ----------
    iterations, mu, deviance, held_out : sequence
        The columns of a history. Dotted lines stand where the weight of the penalty changed.

    Returns
    -------
    Chart
    """
    kept = np.array([np.nan if value is None else value for value in held_out], float)
    fitted = np.array(deviance, float)
    both = np.concatenate([fitted, kept, [1.0]])
    both = both[np.isfinite(both) & (both > 0)]
    steps = sorted({min(iterations), max(iterations)})
    span = (steps[0] - 0.5, steps[0] + 0.5) if len(steps) == 1 else (steps[0], steps[1])
    log = bool(both.max() > DECADE * both.min())
    low, high = both.min(), both.max()
    limits = (low / 1.1, high * 1.1) if log else (low - 0.05 * (high - low) - 1e-3, high * 1.02)
    axes = _Axes(span, limits, "iteration", "deviance (1: noise alone)", log=log)
    ticks = [x for x in _ticks(*span) if x == int(x)]
    svg = axes.grid(ticks, _log_ticks(*limits) if log else _ticks(*limits))
    changes = [n for n in range(1, len(mu)) if mu[n] != mu[n - 1]]
    svg += [axes.vertical(iterations[n]) for n in changes]
    names = ["fitted counts"]
    svg.append(axes.line(iterations, fitted, "one", "fitted counts"))
    if np.isfinite(kept).any():
        names.append("held-out counts")
        svg.append(axes.line(iterations, kept, "two", "held-out counts"))
    note = f"Poisson deviance; {fitted[-1]:.4g} at the end."
    if changes:
        note += f" Dotted lines: the weight of the penalty changed, from {mu[0]:.3g} to "
        note += f"{mu[-1]:.3g}."
    return Chart("Deviance", axes.drawn(svg, names), note)


class _Axes:
    """The axes of a chart: they turn values into places, and draw."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        below: str,
        beside: str,
        *,
        log: bool = False,
    ) -> None:
        self.x, self.log = x, log
        self.y = (math.log(y[0]), math.log(y[1])) if log else y
        self.labels = below, beside

    def across(self, value: float) -> float:
        part = (value - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def up(self, value: float) -> float:
        value = math.log(value) if self.log else value
        part = (value - self.y[0]) / (self.y[1] - self.y[0])
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def grid(self, ticks: Iterable[float], beside: Iterable[float]) -> list[str]:
        """Draw the grid and write its numbers."""
        bottom, drawn = HEIGHT - BOTTOM, []
        for value in beside:
            y = self.up(value)
            drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            drawn.append(_text(LEFT - 8, y + 4, _number(value), anchor="end"))
        for value in ticks:
            x = self.across(value)
            drawn.append(f'<path class="axis" d="M{x:.1f} {bottom}v5"/>')
            drawn.append(_text(x, bottom + 19, _number(value), anchor="middle"))
        drawn.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
        return drawn

    def below(self, value: float, text: str) -> str:
        """Write a second line under a number of the horizontal axis."""
        place = self.across(value), HEIGHT - BOTTOM + 34
        return _text(*place, text, anchor="middle", kind="three small")

    def vertical(self, value: float) -> str:
        """Draw a thin vertical line."""
        return f'<path class="mark" d="M{self.across(value):.1f} {TOP}V{HEIGHT - BOTTOM}"/>'

    def line(self, x: Iterable[float], y: Iterable[float], colour: str, name: str) -> str:
        """Draw a line through what is finite of some points."""
        points = " ".join(
            f"{self.across(across):.1f},{self.up(up):.1f}"
            for across, up in zip(x, y, strict=True)
            if math.isfinite(up) and (up > 0 or not self.log)
        )
        return f'<polyline class="{colour}" points="{points}"><title>{name}</title></polyline>'

    def drawn(self, parts: list[str], names: Sequence[str]) -> str:
        """Return the SVG file."""
        middle = (TOP + HEIGHT - BOTTOM) / 2
        legend, across = [], float(LEFT)
        for name, colour in zip(names, ("one", "two", "three"), strict=False):
            legend.append(_text(across, TOP - 14, name, anchor="start", kind=colour))
            across += 8 * len(name) + 16
        beside = (
            f'<text x="16" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle})">{self.labels[1]}</text>'
        )
        below = _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.labels[0], anchor="middle")
        inside = "".join([*parts, *legend, beside, below])
        return (
            f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'role="img"><style>{STYLE}</style>{inside}</svg>'
        )


def _text(x: float, y: float, text: str, *, anchor: str, kind: str = "") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _number(value: float) -> str:
    return f"{round(value, 9):.6g}".replace("-", "\N{MINUS SIGN}")


def _ticks(low: float, high: float) -> list[float]:
    """Return 3 to 7 round numbers between two."""
    most = (high - low) / 3 * (1 + 1e-9)  # so that rounding makes no step shorter
    step = 10.0 ** math.floor(math.log10(most))
    step *= max(times for times in (1, 2, 5) if times * step <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two, on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) <= MOST_TICKS:
            break
    return found[:: -(-len(found) // MOST_TICKS) or 1]
