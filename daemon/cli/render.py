"""What people read: tables, lines and trees, with colour and progress only on a terminal.

Data goes to stdout, talk to stderr. What flows wrote themselves (names, messages, logs) cannot steer the terminal:
control characters are replaced there, except for the colours of a log. rich is an extra, imported only when a terminal
is really there; without it people read what a pipe gets. Times are local, as everywhere on a terminal; ``--json`` has
them exactly.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from ...engine import errors

_RICH = importlib.util.find_spec("rich") is not None
#: A text, or a text with its style.
Part = str | tuple[str, str]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: The only sequences of a log that a terminal gets: colours and the like, which end with their line.
_COLOURS = re.compile(r"(\x1b\[[0-9;]*m)")
_STATUS_STYLES = {
    "NEW": "dim",
    "QUEUED": "cyan",
    "RUNNING": "blue",
    "WAITING": "yellow",
    "PAUSED": "magenta",
    "ENDED_SUCCESS": "green",
    "ENDED_ERROR": "bold red",
    "ENDED_CANCELLED": "yellow",
}


def line(*parts: Part, to: TextIO | None = None) -> None:
    """Write one line to stdout (or ``to``)."""
    stream = sys.stdout if to is None else to
    if _is_rich(stream):
        _console(stream).print(_text(*parts), soft_wrap=True)
    else:
        _write("".join(part if isinstance(part, str) else part[0] for part in parts) + "\n", stream)


def log_line(before: Sequence[Part], text: str, style: str, *, to: TextIO) -> None:
    """Write a line of a log; the colours that its writer gave it are kept, wherever it goes."""
    if not _is_rich(to):
        line(*before, text, to=to)
        return
    from rich.text import Text  # the marked place for rich, as below

    pieces = _COLOURS.split(text)
    tame = "".join(piece if number % 2 else _CONTROL.sub("�", piece) for number, piece in enumerate(pieces))
    shown = Text.from_ansi(tame, style=style) if len(pieces) > 1 else Text(tame, style)
    _console(to).print(_text(*before) + shown, soft_wrap=True)


def plain(text: str) -> str:
    """Return text of a flow so that it cannot steer a terminal."""
    return _CONTROL.sub("�", text)


def say(*parts: Part) -> None:
    """Tell the person something that is not data."""
    line(*parts, to=sys.stderr)


def say_error(error: errors.HeadraceError) -> None:
    """Tell what went wrong and what can be done about it."""
    say(("headrace: ", "bold red"), error.message)
    if diff := getattr(error, "diff", ""):
        say(("what was changed meanwhile:\n", "dim"), diff)
    if error.hint:
        say(("hint: ", "dim"), error.hint)


def json_object(value: Any) -> None:
    """Write one JSON object, indented."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if _is_rich(sys.stdout):
        _console(sys.stdout).print_json(text, ensure_ascii=True)
    else:
        sys.stdout.write(text + "\n")


def compact(value: Any) -> str:
    """Return a value as JSON on one line, to stand in a cell."""
    return json.dumps(value, ensure_ascii=False)


def json_line(value: Mapping[str, Any]) -> None:
    """Write one JSON object on a line of its own."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Part]], *, cut: Sequence[str] = (), wrap: Sequence[str] = ()
) -> None:
    """Write rows below their headings; to fit a terminal the columns named in ``cut`` and ``wrap`` are narrowed so."""
    if _is_rich(sys.stdout):
        _console(sys.stdout).print(_rich_table(columns, rows, cut, wrap))
        return
    plain = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in [columns, *rows]]
    plain = [[" ".join(cell.split()) for cell in row] for row in plain]
    widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
    for row in plain:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(rows: Sequence[tuple[str, Part]]) -> None:
    """Write names and values below each other; values that are empty are left out."""
    shown = [(name, value) for name, value in rows if (value if isinstance(value, str) else value[0])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line((f"{name:<{width}}  ", "dim"), value)


def paragraph(text: str) -> None:
    """Write text after an empty line, broken between words on a terminal."""
    line()
    if _is_rich(sys.stdout):
        _console(sys.stdout).print(_text(text))
    else:
        line(text)


def heading(text: str) -> None:
    """Write the heading of a section."""
    line()
    line((text, "bold"))


def code(text: str, language: str) -> None:
    """Write source text, in colour on a terminal."""
    if _is_rich(sys.stdout):
        # The marked place for rich's highlighter, which is slower to import than the rest of it.
        from rich.syntax import Syntax

        _console(sys.stdout).print(Syntax(_CONTROL.sub("�", text), language, theme="ansi_dark", word_wrap=True))
    else:
        _write(text if text.endswith("\n") else text + "\n", sys.stdout)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None] | None]:
    """Yield what shows on a terminal how something goes on, from its first call; None where nobody watches."""
    if not _is_rich(sys.stderr):
        yield None
        return
    shown = _console(sys.stderr).status("")

    def show(text: str) -> None:
        shown.update(_text(text))
        shown.start()

    try:
        yield show
    finally:
        shown.stop()


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield what is to be told how much of ``total`` is done; a bar shows it on a terminal, and nothing elsewhere."""
    if not _is_rich(sys.stderr):
        yield lambda done: None
        return
    from rich.progress import Progress  # the same place

    with Progress(console=_console(sys.stderr), transient=True) as shown:
        number = shown.add_task(what, total=total)
        yield lambda done: shown.update(number, completed=done)


def status(execution: Mapping[str, Any]) -> Part:
    """Return the status in its colour."""
    return execution["status"], _STATUS_STYLES.get(execution["status"], "")


def moment(at: str | None) -> str:
    """Return a time as people say it: the time of day, before it the date unless it is today's."""
    if not at:
        return ""
    local = datetime.datetime.fromisoformat(at).astimezone()
    today = local.date() == datetime.datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def exact(at: str | None) -> str:
    """Return a time with date, milliseconds and zone."""
    if not at:
        return ""
    return datetime.datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + time.strftime(" %Z")


def took(execution: Mapping[str, Any]) -> str:
    """Return how long it ran, or has run so far."""
    if not execution["started_at"]:
        return ""
    begin = datetime.datetime.fromisoformat(execution["started_at"])
    ended_at = execution["ended_at"]
    end = datetime.datetime.fromisoformat(ended_at) if ended_at else datetime.datetime.now(datetime.UTC)
    return span(max(0.0, (end - begin).total_seconds()))


def span(seconds: float) -> str:
    """Return a duration with the two units that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _is_rich(stream: TextIO) -> bool:
    return stream.isatty() and _RICH


def _write(text: str, stream: TextIO) -> None:
    stream.write(plain(text) if stream.isatty() else text)


@functools.lru_cache(maxsize=4)
def _console(stream: TextIO) -> Any:
    # The marked place for rich: only a terminal pays for it.
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _text(*parts: Part) -> Any:
    from rich.text import Text  # the same place, for what goes into the console

    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((_CONTROL.sub("�", text), style) for text, style in styled))


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[Part]], cut: Sequence[str], wrap: Sequence[str]) -> Any:
    from rich.table import Table  # the same place

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        shown.add_column(column, no_wrap=column not in cut and column not in wrap)
    for row in rows:
        cells = [_text(cell) for cell in row]
        for column, cell in zip(columns, cells, strict=True):
            if column not in wrap:
                cell.plain = " ".join(cell.plain.split()) if "\n" in cell.plain else cell.plain
                cell.no_wrap, cell.overflow = True, "ellipsis"
        shown.add_row(*cells)
    return shown
