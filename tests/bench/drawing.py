"""Charts of how something grows, as SVG: both axes logarithmic, and the slope of each line written beside its name.

A slope of 0 is what does not grow, 1 what grows as its size does, 2 with the square of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 40, 48, 56
_COLOURS = ("#0b62a4", "#c2410c", "#15803d", "#7e22ce", "#525252")
_LINE = 18  # from one line of words to the next


def drawable(points: Points) -> list[tuple[float, float]]:
    """Those that have a place on such axes, by size."""
    return sorted((x, y) for x, y in points if x > 0 and y > 0)


def slope(points: Points) -> float | None:
    """The exponent that fits best (least squares of the logarithms); None with fewer than two sizes."""
    logs = [(math.log(x), math.log(y)) for x, y in drawable(points)]
    if len({x for x, _ in logs}) < 2:
        return None
    mean_x, mean_y = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def said(points: Points) -> str:
    """The slope in words: of all, and of the last two sizes, where what is constant at first has ended."""
    found = drawable(points)
    over_all, at_the_end = slope(found), slope(found[-2:])
    words = "one size, no slope" if over_all is None or at_the_end is None else f"slope {over_all:.2f}"
    if len(found) > 2 and at_the_end is not None:
        words += f", {at_the_end:.2f} at the end"
    if left_out := len(points) - len(found):
        words += f"; {left_out} of no more than 0 left out"
    return words


class _Axis:
    """Whole powers of ten from below the least to above the greatest, over pixels."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.first = math.floor(math.log10(min(values)) + 1e-9)
        self.last = max(self.first + 1, math.ceil(math.log10(max(values)) - 1e-9))
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.place(10.0**n), f"{10.0**n:,.10g}") for n in range(self.first, self.last + 1)]


def chart(title: str, x: str, y: str, series: Mapping[str, Points]) -> str:
    """The text of an SVG file. Raises ``ValueError`` where no point has a place."""
    points = [point for line in series.values() for point in drawable(line)]
    if not points:
        raise ValueError(f"nothing of {title!r} can be drawn: there is no figure above 0")
    across = _Axis([one for one, _ in points], _LEFT, _WIDTH - _RIGHT)
    # room for the names of the lines is made above all, so that they never lie on one
    upward = _Axis([one for _, one in points], _HEIGHT - _BOTTOM, _TOP + _LINE * len(series))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        _words(_LEFT, 24, title, "start", ' font-size="15" font-weight="bold"'),
        *_grid(across, upward),
        _words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, x),
        _words(18, _HEIGHT / 2, y, "middle", f' transform="rotate(-90 18 {_HEIGHT / 2:g})"'),
    ]
    for number, (name, line) in enumerate(series.items()):
        parts += _drawn(number, name, line, across, upward)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(across: _Axis, upward: _Axis) -> list[str]:
    left, right = across.place(10.0**across.first), across.place(10.0**across.last)
    bottom, top = upward.place(10.0**upward.first), upward.place(10.0**upward.last)
    parts = []
    for place, label in across.ticks():
        parts += [f'<path d="M{place} {bottom}V{top}" stroke="#ddd"/>', _words(place, bottom + 18, label)]
    for place, label in upward.ticks():
        parts += [f'<path d="M{left} {place}H{right}" stroke="#ddd"/>', _words(left - 8, place + 4, label, "end")]
    return parts


def _drawn(number: int, name: str, line: Points, across: _Axis, upward: _Axis) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(across.place(x), upward.place(y)) for x, y in drawable(line)]
    path = " ".join(f"{x},{y}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in places]
    return [*parts, _words(_LEFT, 44 + _LINE * number, f"● {name}: {said(line)}", "start", f' style="fill:{colour}"')]


def _words(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
