"""The manual page headrace(1), in roff: made of the verbs themselves, as docs/cli.md is.

``python -m headrace.daemon.cli.man_page`` prints it; packages bring it along. Called by nobody else.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping

import click

from ... import __version__
from . import main, manual

_FILES = {
    "/etc/headrace/headrace.toml": "The daemon's settings; else ~/.config/headrace/headrace.toml.",
    "/var/lib/headrace": "What a daemon that runs as a service keeps: its records first of all.",
    "./.headrace": "What one that was started by hand keeps.",
}
_ENVIRONMENT = {
    "HEADRACE_URL": "Which daemon is meant; see --url.",
    "HEADRACE_TOKEN": "The token it is spoken to with.",
    "STATE_DIRECTORY": "Where a daemon of this machine keeps its state; see --state.",
    "HEADRACE_SECTION__KEY": "The setting key of section, such as HEADRACE_SOURCE__URL.",
}


def page() -> str:
    """Return the whole page."""
    lines = [f'.TH HEADRACE 1 "" "Headrace {__version__}" "Headrace"', ".nh", ".ad l"]
    lines += [".SH NAME", r"headrace \- run automation straight from git"]
    lines += [".SH SYNOPSIS", r"\fBheadrace\fR [\fIOPTION\fR]... \fIVERB\fR [\fIARGUMENT\fR]...", ".SH DESCRIPTION"]
    lines += _text(main.headrace.help or "")
    lines += ["Every verb that reads has", r".BR \-\-json ;", "data goes to stdout, everything else to stderr."]
    lines += [".SH OPTIONS", *_options(main.headrace, click.Context(main.headrace), skip=frozenset())]
    lines.append(".SH VERBS")
    for words, command in manual.verbs(main.headrace):
        context = click.Context(command, info_name=words)
        given = [] if isinstance(command, click.Group) else command.collect_usage_pieces(context)
        usage = " ".join(["headrace", words, *(piece for piece in given if piece != "[OPTIONS]")])
        lines += [f".SS {_plain(usage)}", *_text(command.help or "")]
        lines += _options(command, context, skip=manual.OWN)
    lines += [".SH EXIT STATUS", *_pairs({str(code): f"{means}." for code, means in manual.EXIT_STATUSES.items()})]
    lines += [".SH ENVIRONMENT", *_pairs(_ENVIRONMENT), ".SH FILES", *_pairs(_FILES)]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context, *, skip: frozenset[str]) -> Iterator[str]:
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in skip:
            record = option.get_help_record(context)
            if record is not None:
                yield from _pairs({record[0]: " ".join(record[1].split())})


def _pairs(rows: Mapping[str, str]) -> Iterator[str]:
    for name, text in rows.items():
        yield ".TP"
        yield rf"\fB{_plain(name)}\fR"
        yield _line(text)


def _text(text: str) -> Iterator[str]:
    """Return the paragraphs of a docstring."""
    for number, paragraph in enumerate(inspect.cleandoc(text.replace("\b", "")).split("\n\n")):
        yield from [".PP"] if number else []
        yield from (_line(line) for line in paragraph.splitlines())


def _line(text: str) -> str:
    """Return text with its code in bold."""
    return _guarded(r"\fR".join(_bold(piece, number) for number, piece in enumerate(re.split("`+", text))))


def _bold(piece: str, number: int) -> str:
    return _escaped(piece) if number % 2 == 0 else rf"\fB{_escaped(piece)}"


def _plain(text: str) -> str:
    return _guarded(_escaped(text))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...")


def _guarded(line: str) -> str:
    """Return a line that is text even if it begins like a request of roff."""
    return rf"\&{line}" if line[:1] in (".", "'") else line


if __name__ == "__main__":
    sys.stdout.write(page())
