"""The verbs about the daemon as a service: ``status``, ``reload``, ``log-level``, ``maintenance``."""

from __future__ import annotations

from typing import Any

import click

from .. import written
from ..client import Client
from . import options, render

_CONFIGURED = "configured"


@click.command()
@options.reaches_daemon
@options.as_json
def status(client: Client, *, as_json: bool) -> int:
    """How the daemon is: whether it takes work, maintenance, its log, its last reload.

    Exit status: 1 if it takes no work."""
    now = client.status()
    _show(now, as_json=as_json)
    return 0 if now["status"] == "ready" else 1


@click.command()
@options.reaches_daemon
@options.as_json
def reload(client: Client, *, as_json: bool) -> None:
    """Have the daemon read its configuration anew.

    It is refused whole if any of it is wrong. Settings that cannot change while it runs are named; the table in
    docs/configuration.md says which. `systemctl reload headrace` does this, and so does SIGHUP."""
    done = client.reload()
    if as_json:
        render.json_object(done)
        return
    render.say("the configuration is taken" + (f": {', '.join(done['changed'])}" if done["changed"] else ""))
    if done["restart"]:
        render.say((f"needs a restart: {', '.join(done['restart'])}", "yellow"))


@click.command("log-level")
@options.reaches_daemon
@click.argument("level", required=False, type=click.Choice([*written.LEVELS, _CONFIGURED]))
@click.option("--for", "for_s", type=options.Seconds(), metavar="TIME", help="How long: 10m, 2h; an hour unless said.")
@options.as_json
def log_level(client: Client, level: str | None, *, for_s: float | None, as_json: bool) -> None:
    """Have the daemon log more, or less, for a while; `configured` goes back to log.level at once.

    Without LEVEL: say what it is."""
    if level == _CONFIGURED:
        now = client.restore_log_level()
    elif level:
        now = client.set_log_level(level, for_s=for_s)
    else:
        now = client.status()
    if as_json:
        render.json_object(now["log"])
    else:
        render.line(_level(now["log"]))


@click.command()
@options.reaches_daemon
@click.argument("switch", metavar="[on|off]", required=False, type=click.Choice(["on", "off"]))
@click.option("--reason", default="", metavar="TEXT", help="Why; people see it.")
@options.as_json
def maintenance(client: Client, switch: str | None, *, reason: str, as_json: bool) -> None:
    """Let nothing new begin, or let begin what waited.

    While it is on, runs and webhooks are taken, durably, and wait; schedules go on asking for theirs. What has begun
    goes on with everything it starts. It outlives a restart of the daemon. Without on or off: say whether it is."""
    if reason and switch != "on":
        raise click.UsageError("--reason goes with `on`")
    if switch == "on":
        now = client.begin_maintenance(reason)
    else:
        now = client.end_maintenance() if switch else client.status()
    if as_json:
        render.json_object(now)
        return
    render.line(_maintenance(now["maintenance"]))
    if now["maintenance"]:
        render.line(f"{now['running']} flows run still")


def _show(now: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.json_object(now)
        return
    reload = now["reload"]
    rows: list[tuple[str, render.Part]] = [
        ("Status", now["status"]),
        ("Version", now["version"]),
        ("Since", render.exact(now["since"])),
        ("Running", str(now["running"])),
        ("Maintenance", _maintenance(now["maintenance"])),
        ("Log", _level(now["log"])),
        ("Reload", f"{reload['result']} {render.moment(reload['at'])} ({reload['by']})" if reload else "none yet"),
    ]
    rows += [("Reason", (reason, "red")) for reason in now["reasons"]]
    rows += [("Notice", (notice, "yellow")) for notice in now["notices"]]
    render.fields(rows)


def _level(said: dict[str, Any]) -> str:
    return f"{said['level']}, until {render.exact(said['until'])}" if said["until"] else str(said["level"])


def _maintenance(said: dict[str, Any] | None) -> str:
    if said is None:
        return "off"
    why = f": {said['reason']}" if said["reason"] else ""
    return f"on since {render.exact(said['since'])}, by {said['by']}{why}; {said['waiting']} executions wait"
