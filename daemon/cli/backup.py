"""The verbs ``backup`` and ``restore``: the state directory, copied while its daemon works; and the way back."""

from __future__ import annotations

import collections
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import structlog

from . import options, render

_SHOWN_MAX = 20


@click.command()
@click.argument("target", metavar="FILE|DIR")
@click.option("--state", default="", metavar="DIR", help="The state directory meant.")
@click.option("--recipient", multiple=True, metavar="age1…", help="Encrypt the file for this public key (age).")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Of a folder, keep the newest N backups alone.")
@options.as_json
def backup(target: str, state: str, recipient: tuple[str, ...], *, keep: int | None, as_json: bool) -> int:
    """Copy the state directory to a file, or into a folder of backups; the daemon may work meanwhile.

    A folder (an existing one, or a name that ends with /) keeps each content once, so that one more backup costs what
    changed. It holds what nobody can make again: records, files, sealed values, tokens, the audit log, and the commits
    in use. Sealed values are in clear: encrypt the file, or keep it as you keep keys."""
    # The marked place for the daemon's parts: no other verb pays for importing them.
    from .. import backup as taking
    from .. import depots

    folder = options.state_directory(state)
    depot = depots.depot(target, recipient, keep or 0)
    with _quiet(), render.progress() as tell:
        done = taking.Taken.of(taking.take(folder, depot, tell or (lambda what: None)))
    if as_json:
        render.json_object(msgspec.to_builtins(done))
    else:
        render.line(f"{target}: {done.records:,} records, {done.files:,} files, {done.bytes:,} bytes, as of {done.at}")
        _say_missing(done.missing)
    return 1 if done.missing else 0


@click.command()
@click.argument("source", metavar="FILE|DIR", type=click.Path(path_type=Path, exists=True))
@click.option("--state", default="", metavar="DIR", help="The empty directory that becomes the state directory.")
@click.option("--identity", default="", metavar="FILE", help="The age identity that decrypts the backup.")
@click.option("--resume", is_flag=True, help="What was under way goes on: whatever ran there is gone for good.")
@click.option("--dry-run", is_flag=True, help="Check the backup and say what was under way; leave nothing behind.")
@options.as_json
def restore(source: Path, state: str, identity: str, *, resume: bool, dry_run: bool, as_json: bool) -> int:
    """Make an empty state directory what it was at the moment of a backup.

    SOURCE is what `headrace backup` made; of a folder the newest backup counts, or the one whose .json is named. Every
    byte is checked before anything is there. What was under way stands still until `headrace resume`, because it may
    have gone on after the backup; with --resume it goes on at the next start."""
    # The marked place for the daemon's parts: no other verb pays for importing them.
    from .. import depots, restoration

    folder = options.state_directory(state)
    with _quiet(), depots.opened(source, identity, folder.parent if folder.parent.is_dir() else None) as found:
        done = restoration.restore(found, folder, resume=resume, dry_run=dry_run)
    if as_json:
        render.json_object(msgspec.to_builtins(done))
        return 0
    said = "could be restored" if dry_run else f"are in {folder}"
    render.line(f"{done.records:,} records and {done.files:,} files, {done.bytes:,} bytes, as of {done.at}, {said}")
    _say_missing(done.missing)
    counts = collections.Counter(one.held for one in done.in_flight)
    for held, what in (
        ("", "go on as they were"),
        ("paused", "stand still: `headrace resume` or `headrace cancel` them"),
        ("cut off", "tasks were queued or under way: one that may have had its effect fails, others are repeated"),
        ("fails", "touched the world by themselves, and fail at the start"),
    ):
        if counts[held]:
            render.line(f"{counts[held]:,} executions: {what}")
            for one in [one for one in done.in_flight if one.held == held][:_SHOWN_MAX]:
                render.line(f"  {one.id}  {one.flow}  {one.status}")
            if counts[held] > _SHOWN_MAX:
                render.line(f"  … and {counts[held] - _SHOWN_MAX:,} more")
    if done.schedules and not resume:
        render.line(f"{done.schedules:,} schedules: ticks since the backup are not made up for")
    return 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the journal tells a daemon's log is no answer to who typed a verb."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.reset_defaults()


def _say_missing(missing: tuple[str, ...]) -> None:
    if missing:
        render.line((f"{len(missing):,} files that records name were not there:", "yellow"))
        for name in missing[:_SHOWN_MAX]:
            render.line(f"  {name}")
