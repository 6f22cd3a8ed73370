"""Terminal colours of what programs wrote, as pieces of text with classes from a fixed set. Pure; it makes no HTML.

Only what colours text (SGR) counts; every other terminal code and control character is dropped by ``wording.plain``.
Called by the template that shows a log.
"""

from __future__ import annotations

import re

from . import wording

_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_STYLES = {1: "bold", 2: "faint", 3: "italic", 4: "underline"}
#: A line with more changes of colour than this is shown without.
_PIECES_MAX = 500


def pieces(text: str) -> list[tuple[str, str]]:
    """Return ``text`` as (classes, text without codes); no classes where nothing was asked for."""
    parts = _SGR.split(text)
    if len(parts) == 1 or len(parts) > 2 * _PIECES_MAX:
        return [("", wording.plain(text))]
    found, styles, colour = [("", wording.plain(parts[0]))], set[str](), ""
    for codes, words in zip(parts[1::2], parts[2::2], strict=True):
        styles, colour = _after(codes, styles, colour)
        if words:
            found.append(
                (" ".join(f"ansi-{name}" for name in sorted(styles | ({colour} - {""}))), wording.plain(words))
            )
    return [piece for piece in found if piece[1]]


def _after(codes: str, styles: set[str], colour: str) -> tuple[set[str], str]:
    """Return what holds after one sequence of codes; colours of 256 and more are passed over."""
    numbers = [int(code or 0) for code in codes[:100].split(";") if len(code) <= 3]
    while numbers:
        number = numbers.pop(0)
        if number == 0:
            styles, colour = set(), ""
        elif number in _STYLES:
            styles = styles | {_STYLES[number]}
        elif number == 22:
            styles = styles - {"bold", "faint"}
        elif number in (23, 24):
            styles = styles - {_STYLES[number - 20]}
        elif number in (38, 48):
            del numbers[: 2 if numbers[:1] == [5] else 4]
        elif 30 <= number <= 37 or 90 <= number <= 97:
            colour = _COLOURS[number % 10]
        elif number == 39:
            colour = ""
    return styles, colour
