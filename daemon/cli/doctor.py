"""The verb ``doctor``: is all well with a daemon and what it needs, and what to do if not. Changes nothing."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from ...engine import errors
from ...engine.records import head, recovery, space
from ..client import Client
from ..endpoint import Unavailable
from . import options, render, symptoms

_STYLES = {"good": "green", "warning": "yellow", "bad": "bold red"}


@click.command()
@options.target
@options.as_json
def doctor(url: str, state: str, *, as_json: bool) -> int:
    """Look whether all is well: git, the clock, the state directory, its disk, records and index, the daemon, its
    source, flows and locks.

    What is wrong stands there with the next step. Exit status: 1 if something is bad; a warning is not."""
    found = list(_look(url, state))
    if as_json:
        render.json_object({"items": msgspec.to_builtins(found)})
    else:
        for one in found:
            render.line((f"{one.level:<8}", _STYLES[one.level]), f"{one.about}: {one.text}")
            if one.hint:
                render.line(" " * 8, (f"→ {one.hint}", "dim"))
    return 1 if any(one.level == "bad" for one in found) else 0


def _look(url: str, state: str) -> Iterator[symptoms.Finding]:
    yield _git()
    folder = options.state_directory(state)
    client: Client = options.client(url, state)
    # A daemon elsewhere has its state elsewhere, and none may be here.
    if folder.is_dir():
        yield symptoms.clock(folder, time.time(), symptoms.kernel_clock())
        yield from _state(folder)
        yield from symptoms.permissions(folder)
        yield from symptoms.git_locks(folder)
        with render.progress() as tell:
            if tell:
                tell("reading every record")
            yield from _records(folder)
    yield from _daemon(client)


def _git() -> symptoms.Finding:
    try:
        said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return symptoms.Finding(level="bad", about="git", text=f"it does not run: {error}", hint="apt install git")
    return symptoms.Finding(level="good", about="git", text=said.strip())


def _state(folder: Path) -> Iterator[symptoms.Finding]:
    about = "state directory"
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        hint = f"chmod 700 {folder}"
        yield symptoms.Finding(
            level="bad", about=about, text=f"others can look into {folder} (mode {mode:o})", hint=hint
        )
    else:
        yield symptoms.Finding(level="good", about=about, text=str(folder))
    disk = shutil.disk_usage(folder)
    text, hint = f"{disk.free / 1024**3:.1f} GiB are free", "`headrace records prune --dry-run` says what could go"
    enough = disk.free >= space.Bounds.of(disk.total).warn
    yield symptoms.Finding(level="good" if enough else "warning", about="disk", text=text, hint="" if enough else hint)


def _records(folder: Path) -> Iterator[symptoms.Finding]:
    try:
        mark = head.read(folder / head.FILE_NAME)  # first: beside a running daemon the journal goes on
        report = recovery.verify(folder / "records", mark)
    except errors.HeadraceError as error:
        yield symptoms.Finding(level="bad", about="records", text=error.message, hint=error.hint)
        return
    if report.problem:
        hint = "restore the file from a backup, or stop the daemon and see what `headrace records salvage` can do"
        yield symptoms.Finding(level="bad", about="records", text=report.problem, hint=hint)
        return
    yield symptoms.Finding(level="good", about="records", text=f"{report.records:,} are sound")
    yield symptoms.index(folder, report)


def _daemon(client: Client) -> Iterator[symptoms.Finding]:
    try:
        with client.endpoint.ask("GET", "/readyz") as answer:
            ready = json.load(answer)
        yield symptoms.Finding(level="good", about="daemon", text=f"{client.endpoint} takes work")
        for notice in ready["notices"]:
            yield symptoms.Finding(level="warning", about="daemon", text=notice)
    except Unavailable as error:
        hint = "its log says why"
        yield symptoms.Finding(level="bad", about="daemon", text=f"it takes no work: {error.message}", hint=hint)
    except errors.HeadraceError as error:
        yield symptoms.Finding(level="bad", about="daemon", text=error.message, hint=error.hint)
        return
    try:
        yield symptoms.containment(client.status()["cgroups"])
        yield from _source(client)
        yield from symptoms.flow_locks(client)
    except errors.HeadraceError as error:
        yield symptoms.Finding(level="bad", about="access", text=error.message, hint=error.hint)


def _source(client: Client) -> Iterator[symptoms.Finding]:
    sync = client.sync_state()
    for one in sync["sources"] or [sync]:
        if one["error"]:
            yield symptoms.Finding(
                level="bad", about="source", text=one["error"], hint="`headrace sync` tries again now"
            )
        else:
            yield symptoms.Finding(
                level="good", about="source", text=f"{one['source']} at {(one['commit'] or 'nothing')[:12]}"
            )
    if problems := [one["file"] for one in sync["problems"]]:
        text = f"cannot be used: {symptoms.named(problems)}"
        yield symptoms.Finding(
            level="warning", about="files", text=text, hint="`headrace sync --status` shows the reasons"
        )
    if broken := [one["file"] for one in sync["broken"]]:
        named = symptoms.named(broken)
        text = f"their newest version does not run: {named}"
        yield symptoms.Finding(
            level="warning", about="flows", text=text, hint="`headrace flows` shows file, line and reason"
        )
    else:
        yield symptoms.Finding(level="good", about="flows", text=f"{sync['flows']}, none is broken")
