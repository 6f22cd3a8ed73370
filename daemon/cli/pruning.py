"""The verb ``records prune``: forget what was kept long enough, now, and give its disk back. Part of ``history``."""

from __future__ import annotations

import click

from ..client import Client
from . import options, render


def _more_than_nothing(_ctx: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value == 0:
        raise click.BadParameter("in `records.keep` 0 is for ever; 1ms has all go that ended")
    return value


@click.command()
@options.reaches_daemon
@click.option(
    "--older-than",
    type=options.Seconds(),
    callback=_more_than_nothing,
    metavar="DURATION",
    help="Instead of records.keep, this once; flows that say how long theirs are kept are obeyed.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@options.as_json
def prune(client: Client, *, older_than: float | None, dry_run: bool, as_json: bool) -> None:
    """Forget executions that were kept long enough, and free the disk.

    The daemon does this by itself every hour."""
    done = client.prune(keep_s=older_than, dry_run=dry_run)
    if as_json:
        render.json_object(done)
        return
    would = "would be " if dry_run else ""
    render.say(
        f"{done['executions']:,} executions and {done['messages']:,} messages {would}forgotten; "
        f"{done['segments']:,} segments ({done['bytes']:,} bytes) {would}removed"
        + ("" if dry_run else f", and {done['files']:,} files ({done['file_bytes']:,} bytes)")
    )
