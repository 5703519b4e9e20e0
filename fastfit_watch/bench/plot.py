"""A plot as SVG: seconds against references, steps and batch, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _MARGIN = 300, 220, 48
_HEADROOM = 1.12
_COLOURS = ("#1f6feb", "#d1570b", "#2da44e")


@dataclass(frozen=True)
class Panel:
    """One diagram: lines of (x, seconds) by name."""

    title: str
    axis: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def draw(panels: Sequence[Panel]) -> str:
    """The panels side by side, as an SVG document."""
    width = len(panels) * (_WIDTH + 2 * _MARGIN)
    height = _HEIGHT + 2 * _MARGIN
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
            ' font-size="12"><rect width="100%" height="100%" fill="white"/>'
        )
    ]
    for number, panel in enumerate(panels):
        left = number * (_WIDTH + 2 * _MARGIN) + _MARGIN
        parts.append(f'<g transform="translate({left} {_MARGIN})">{_draw_panel(panel)}</g>')
    return "".join([*parts, "</svg>\n"])


def _draw_panel(panel: Panel) -> str:
    points = [point for line in panel.lines.values() for point in line]
    most_x = max((x for x, _ in points), default=1.0) or 1.0
    most_y = _HEADROOM * max((y for _, y in points), default=1.0) or 1.0

    def place(x: float, y: float) -> tuple[str, str]:
        return f"{x / most_x * _WIDTH:.1f}", f"{_HEIGHT - y / most_y * _HEIGHT:.1f}"

    parts = [
        f'<text x="0" y="-14" font-weight="bold">{escape(panel.title)}</text>',
        f'<path d="M0,0 V{_HEIGHT} H{_WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{_WIDTH}" y="{_HEIGHT + 34}" text-anchor="end">{escape(panel.axis)}</text>',
        f'<text x="-6" y="{_HEIGHT + 4}" text-anchor="end">0 s</text>',
    ]
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [(*place(x, y), f"{y:.3g}") for x, y in sorted(line)]
        path = " ".join(f"{left},{top}" for left, top, _ in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for left, top, seconds in spots:
            parts.append(f'<circle cx="{left}" cy="{top}" r="3" fill="{colour}"/>')
            parts.append(f'<text x="{left}" y="{top}" dy="-8" text-anchor="middle" fill="{colour}">{seconds}</text>')
        below = _HEIGHT - 10 - 16 * (len(panel.lines) - 1 - number)
        parts.append(f'<text x="{_WIDTH - 4}" y="{below}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
    parts += [
        f'<text x="{x / most_x * _WIDTH:.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{x:g}</text>'
        for x in sorted({x for x, _ in points})
    ]
    return "".join(parts)
