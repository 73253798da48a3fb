"""Charts as SVG, small multiples side by side, legible on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#64748b", "#0891b2", "#ca8a04", "#7c3aed", "#c2410c", "#15803d")
_DOTS = (*COLOURS, "#db2777", "#2563eb", "#dc2626")
WIDTH, HEIGHT, GAP, TOP = 190, 190, 54, 58

Lines = Mapping[str, Sequence[tuple[int, float]]]


def lines(title: str, charts: Mapping[str, Lines]) -> str:
    """One chart for each name: its lines are points (size, share), sizes on a logarithmic axis."""
    names = list(dict.fromkeys(name for chart in charts.values() for name in chart))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    width = GAP + len(charts) * (WIDTH + GAP)
    parts = [f'<text x="8" y="20" font-size="15">{escape(title)}</text>']
    for i, name in enumerate(names):
        x = GAP + 190 * i
        parts.append(f'<rect x="{x}" y="30" width="14" height="4" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 20}" y="37">{escape(name)}</text>')
    for i, (name, chart) in enumerate(charts.items()):
        parts.append(_chart(name, chart, colours, GAP + i * (WIDTH + GAP)))
    width, height = max(width, GAP + 190 * len(names)), TOP + HEIGHT + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="12" fill="#808080">{"".join(parts)}</svg>\n'
    )


def _chart(name: str, chart: Lines, colours: Mapping[str, str], left: float) -> str:
    points = [point for line in chart.values() for point in line]
    if not points:
        return ""
    low = math.floor(10 * min(y for _, y in points)) / 10
    sizes = sorted({x for x, _ in points})
    span = math.log(max(sizes) / min(sizes)) or 1.0

    def place(x: int, y: float) -> tuple[float, float]:
        across = left + WIDTH * math.log(x / sizes[0]) / span
        return across, TOP + 24 + (HEIGHT - 24) * (1 - (y - low) / (1 - low))

    parts = [f'<text x="{left}" y="{TOP + 8}" font-weight="bold">{escape(name)}</text>']
    for share in (low, (1 + low) / 2, 1.0):
        y = place(sizes[0], share)[1]
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#80808055" fill="none"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.2f}</text>')
    for size in sizes:
        parts.append(f'<text x="{place(size, 1)[0]:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{size}</text>')
    for line, values in chart.items():
        spots = [place(*value) for value in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" stroke="{colours[line]}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colours[line]}"/>' for x, y in spots]
    return "".join(parts)


def scatter(title: str, across: str, up: str, charts: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """One chart for each name, three in a row: a dot for each way, shares from 0 to 1 on both axes."""
    names = list(dict.fromkeys(name for chart in charts.values() for name in chart))
    colours = {name: _DOTS[i % len(_DOTS)] for i, name in enumerate(names)}
    parts = [f'<text x="8" y="20" font-size="15">{escape(title)}</text>']
    for i, name in enumerate(names):
        x, y = GAP + 190 * (i % 4), 38 + 20 * (i // 4)
        parts.append(f'<circle cx="{x + 6}" cy="{y}" r="5" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 4}">{escape(name)}</text>')
    first, side = 60 + 20 * -(-len(names) // 4), WIDTH + 10
    for i, (name, chart) in enumerate(charts.items()):
        left, top = GAP + (i % 3) * (side + GAP + 10), first + 24 + (i // 3) * (side + 78)
        parts.append(f'<text x="{left}" y="{top - 10}" font-size="11" font-weight="bold">{escape(name)}</text>')
        for share in (0.0, 0.5, 1.0):
            x, y = left + side * share, top + side * (1 - share)
            parts.append(f'<path d="M{left} {y}h{side}M{x} {top}v{side}" stroke="#80808055" fill="none"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:g}</text>')
            parts.append(f'<text x="{x}" y="{top + side + 16}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{left + side / 2}" y="{top + side + 32}" text-anchor="middle">{escape(across)}</text>')
        middle = top + side / 2
        turned = f'transform="rotate(-90 {left - 34} {middle})"'
        parts.append(f'<text x="{left - 34}" y="{middle}" text-anchor="middle" {turned}>{escape(up)}</text>')
        for way, (x, y) in chart.items():
            spot = f'cx="{left + side * x:.1f}" cy="{top + side * (1 - y):.1f}"'
            parts.append(f'<circle {spot} r="5.5" fill="{colours[way]}" fill-opacity=".85"/>')
    height = first + 24 + -(-len(charts) // 3) * (side + 78)
    width = GAP + 3 * (side + GAP + 10)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" font-size="12" fill="#808080">{"".join(parts)}</svg>\n'
    )
