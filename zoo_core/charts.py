"""Small line charts as inline SVG: they take the page's colours, light or dark, and need no file or script.

By hand and not by matplotlib: no run has to import it, and the colours are the page's own variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

_WIDTH, _HEIGHT = 340, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 40
_GREY = 9  # number of the page's last colour: reference lines have it


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        name: for the legend; empty for none.
        points: (x, y), in drawing order.
        style: a line, a dashed line, a line with dots, or dots alone.
        bars: (low, high) of each point's error bar, where there are any.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: Literal["line", "dash", "dots", "points"] = "line"
    bars: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it is, with its unit.
        low, high: its ends; found from the points where not given.
        ticks: position -> text; round numbers where not given.
        log: a logarithmic scale.
    """

    label: str
    low: float | None = None
    high: float | None = None
    ticks: dict[float, str] = field(default_factory=dict)
    log: bool = False


def chart(title: str, lines: Sequence[Line], x: Axis, y: Axis, alt: str, note: str = "") -> Markup:
    """A figure with its title, its legend and a sentence for those who cannot see it.

    Args:
        alt: the sentence.
        note: what is said below the title.
    """
    xs = [p[0] for line in lines for p in line.points]
    ys = [v for line in lines for v in (*(p[1] for p in line.points), *(b for bar in line.bars for b in bar))]
    across = _Scale(x, xs, _LEFT, _WIDTH - _RIGHT)
    up = _Scale(y, ys, _HEIGHT - _BOTTOM, _TOP)
    marks = [*_grid(up), *_feet(across), *_labels(x, y)]
    solid = iter(range(len(lines)))
    colours = [_GREY if line.style == "dash" else next(solid) % _GREY for line in lines]
    for line, colour in zip(lines, colours, strict=True):
        marks += _draw(line, colour, across, up)
    legend = Markup("").join(
        Markup('<li class="s{}"><i></i>{}</li>').format(colour, line.name)
        for line, colour in zip(lines, colours, strict=True)
        if line.name
    )
    return Markup(
        '<figure class="chart"><figcaption><b>{}</b>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>{}</svg>{}</figure>'
    ).format(
        title,
        Markup(" <span>{}</span>").format(note) if note else "",
        _WIDTH,
        _HEIGHT,
        title,
        alt,
        Markup("").join(marks),
        Markup('<ul class="legend">{}</ul>').format(legend) if legend else "",
    )


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two ends, about so many.

    >>> round_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= about + 0.5), 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


class _Scale:
    """From values to the picture's units."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float):
        given = [v for v in (*values, *axis.ticks) if math.isfinite(v)] or [0.0]
        low = min(given) if axis.low is None else axis.low
        high = max(given) if axis.high is None else axis.high
        if axis.log:
            self.turn: Callable[[float], float] = math.log
            room = math.log(max(high / low, 1.01)) * 0.06
            self.low, self.high = math.log(low) - room, math.log(max(high, 1.01 * low)) + room
        else:
            self.turn = float
            room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
            self.low = low - (room if axis.low is None else 0)
            self.high = high + (room if axis.high is None else 0)
        self.start, self.end = start, end
        self.ticks = axis.ticks or {v: f"{v:g}" for v in round_ticks(self.low, self.high)}

    def __call__(self, value: float) -> float:
        share = (self.turn(value) - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


def _grid(up: _Scale) -> list[Markup]:
    line = Markup('<path class="grid" d="M{} {}H{}"/><text x="{}" y="{}" class="end">{}</text>')
    right = _WIDTH - _RIGHT
    return [line.format(_LEFT, up(v), right, _LEFT - 5, up(v) + 3.5, text) for v, text in up.ticks.items()]


def _feet(across: _Scale) -> list[Markup]:
    """Labels below the axis; turned where there are many or long ones."""
    bottom = _HEIGHT - _BOTTOM
    turned = len(across.ticks) > 1 and sum(map(len, across.ticks.values())) > 40
    every = max(1, math.ceil(len(across.ticks) / 16))
    found = []
    for number, (value, text) in enumerate(across.ticks.items()):
        if number % every:
            continue
        x = across(value)
        turn = Markup(' transform="rotate(-38 {} {})" class="end"').format(x, bottom + 12) if turned else Markup("")
        found.append(Markup('<text x="{}" y="{}"{} class="mid">{}</text>').format(x, bottom + 14, turn, text))
    return found


def _labels(x: Axis, y: Axis) -> list[Markup]:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return [
        Markup('<text class="mid name" x="{}" y="{}">{}</text>').format(
            (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, x.label
        ),
        Markup('<text class="mid name" x="11" y="{}" transform="rotate(-90 11 {})">{}</text>').format(
            middle, middle, y.label
        ),
    ]


def _draw(line: Line, colour: int, across: _Scale, up: _Scale) -> list[Markup]:
    points = [(across(x), up(y)) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    found = [
        Markup('<path class="bar s{}" d="M{} {}V{}"/>').format(colour, across(x), up(low), up(high))
        for (x, _), (low, high) in zip(line.points, line.bars, strict=False)
    ]
    if line.style != "points" and len(points) > 1:
        way = "M" + "L".join(f"{a} {b}" for a, b in points)
        found.append(Markup('<path class="line s{}{}" d="{}"/>').format(colour, " dash" * (line.style == "dash"), way))
    if line.style in ("dots", "points"):
        found += [Markup('<circle class="s{}" cx="{}" cy="{}" r="3"/>').format(colour, a, b) for a, b in points]
    return found
