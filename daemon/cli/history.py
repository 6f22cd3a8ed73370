"""The verb ``records``: is the journal sound, make its index anew, mend what is damaged. It needs no daemon.

Reading is fine beside a running daemon; what changes something takes the state directory for itself.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import click
import msgspec
import structlog

from ...engine import errors
from ...engine.records import filing, head, recovery, salvage, segments
from .. import ownership, written
from . import export, options, pruning, render

state_option = click.option("--state", default="", metavar="DIR", help="The state directory meant.")


@click.group(cls=options.Verbs)
def records() -> None:
    """The records on disk: check, mend, index, prune and export them."""
    # What the journal tells a daemon's log is no answer to who typed a verb.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    click.get_current_context().call_on_close(structlog.reset_defaults)


records.add_command(pruning.prune)
records.add_command(export.export)


@records.command()
@state_option
@options.as_json
def verify(state: str, *, as_json: bool) -> int:
    """Read every record and every checksum; exit 1 if something is wrong. Changes nothing."""
    folder = _folder(state)
    problem, mark = "", None
    try:
        mark = head.read(folder / head.FILE_NAME)  # first: beside a running daemon the journal goes on
    except errors.HistoryLost as lost:
        problem = lost.message
    report = recovery.verify(folder / "records", mark)
    problem = report.problem or problem
    if as_json:
        render.json_object(msgspec.to_builtins(report) | {"problem": problem})
        return 1 if problem else 0
    render.line(f"{report.records:,} records in {report.segments:,} segments, {report.bytes:,} bytes")
    if report.torn_bytes:
        render.line(f"{report.torn_bytes:,} bytes at the end were being written, or are what a crash left")
    for kind, count in report.unknown_kinds.items():
        render.line(f"{count:,} of a kind that this version does not know: {kind}")
    render.line((problem, "bold red") if problem else ("sound", "green"))
    return 1 if problem else 0


@records.command()
@state_option
def reindex(state: str) -> int:
    """Throw the index away and make it anew from the records. No daemon may run."""
    folder = _folder(state)
    with ownership.locked(folder):
        began = time.monotonic()
        reader = recovery.Reader(None)
        reader.read(segments.files(folder / "records"))
        found = reader.found
        with render.bar("indexing", found.position.seq) as reached:
            filing.rebuild(folder / "index.db", folder / "records", found.instance, found.position, reached)
        size = sum(path.stat().st_size for path in (folder / "records").glob("*.jsonl"))
    took_s = time.monotonic() - began
    render.say(f"{found.position.seq:,} records are indexed, {size:,} bytes in {took_s:.1f} s")
    return 0


@records.command(name="salvage")
@state_option
@options.as_json
def salvage_(state: str, *, as_json: bool) -> int:
    """Mend a damaged journal: keep what can be vouched for, set the rest aside, say what is lost.

    No daemon may run. Restoring the file from a backup loses nothing, so look for one first."""
    folder = _folder(state)
    with ownership.locked(folder):
        done = salvage.salvage(folder)
    if as_json:
        render.json_object(msgspec.to_builtins(done))
        return 0
    if not done.reason:
        render.line("the records are sound: nothing was changed")
        return 0
    render.line(done.reason)
    render.line(f"{done.kept:,} records before that stay as they were, {done.moved:,} behind it were kept")
    render.line(f"{done.missing:,} records are lost")
    for loss in done.losses:
        named = f", with something of {', '.join(loss.executions)}" if loss.executions else ""
        render.line(f"  {loss.file}: {loss.bytes:,} bytes from byte {loss.offset:,} on{named}")
    render.line(f"set aside in {folder / 'records'}: {', '.join(done.set_aside)}")
    return 0


def _folder(state: str) -> Path:
    before = click.get_current_context().find_object(options.Target) or options.Target()
    folder = Path(state or before.state or written.state_directory(os.environ)).expanduser().absolute()
    if not folder.is_dir():
        raise errors.NotFound(f"there is no state directory {folder}", hint="name it with --state")
    return folder
