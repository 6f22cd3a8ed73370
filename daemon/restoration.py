"""The way back from a backup: a state directory that was empty is whole, or as empty as before.

Everything is checked before anything is there under its name: each file's SHA-256, then the journal as every start
reads it, against the mark that came with it. What was under way at the moment of the backup may have gone on after it,
in the world: unless it is said that it shall, none of it goes on by itself. Flows stand still until somebody resumes
them, tasks count as cut off (one that may have had its effect is not repeated), and schedules count from now on. All
that is said by events of the journal, so that the daemon that starts there needs to know nothing.

Blocking. Refuses a state directory that holds anything, or in which a daemon works.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from ..engine import durable, errors, events, model, moments
from ..engine.lifecycle import Status
from ..engine.records import head, journal, recovery
from ..engine.running import resting
from ..sync import snapshot
from . import app, audit, depots, ownership, unfinished

_LOCK = "daemon.lock"
_BESIDE = ".restoring"
#: What a backup may hold, and nothing else is ever written.
_PATH = re.compile(
    rf"records/\d{{8}}\.jsonl|blobs/[0-9a-f/]+|sealed/[0-9a-f]{{32}}|(sources/[^/]+/)?snapshots/[0-9a-f]{{40,64}}(\.json|/.+)"
    rf"|{head.FILE_NAME}|tokens\.json|{re.escape(audit.FILE)}"
)

Tell = Callable[[str], None]


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that had not ended. ``held``: what was done about it; empty if it goes on."""

    id: str
    flow: str
    status: str
    held: str = ""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What is there now, or would be."""

    at: str
    version: str
    records: int
    files: int
    bytes: int
    in_flight: tuple[InFlight, ...]
    schedules: int
    missing: tuple[str, ...]


def restore(backup: depots.Backup, state: Path, *, resume: bool = False, dry_run: bool = False) -> Restored:
    """Make ``backup`` the content of the empty directory ``state``; with ``resume`` what was under way goes on.

    On return it is durable. If we die before the end, ``state`` holds no records: remove what it holds and begin anew.
    Raises ``Conflict``, ``StateInUse``, and ``Damaged`` or what recovery raises with ``state`` empty as it was."""
    made = not state.exists()
    with ownership.locked(state):
        if left := sorted(path.name for path in state.iterdir() if path.name != _LOCK):
            raise errors.Conflict(
                f"{state} is not empty: it holds {', '.join(left[:5])}{' …' if len(left) > 5 else ''}",
                hint="name another --state, or move what is there away",
            )
        beside = state / _BESIDE
        try:
            beside.mkdir(mode=0o700)
            _write(backup, beside)
            done = _judge(backup.manifest, beside, resume=resume, dry_run=dry_run)
            if not dry_run:
                _put_in_place(beside, state)
        except BaseException:
            dry_run = True
            raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            if dry_run and made:
                shutil.rmtree(state, ignore_errors=True)
    return done


def _write(backup: depots.Backup, folder: Path) -> None:
    for entry in backup.manifest.files:
        if not _PATH.fullmatch(entry.path) or ".." in PurePosixPath(entry.path).parts:
            raise depots.Damaged(f"a backup holds no {entry.path!r}", hint="it was not made by `headrace backup`")
        target = folder / entry.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sha256, size = hashlib.sha256(), 0
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for chunk in backup.content(entry):
                file.write(chunk)
                sha256.update(chunk)
                size += len(chunk)
            os.fchmod(file.fileno(), entry.mode)
        if (sha256.hexdigest(), size) != (entry.sha256, entry.size):
            raise depots.Damaged(f"{entry.path} is damaged in the backup", hint="take another backup")
        if entry.mtime_s:
            os.utime(target, (entry.mtime_s, entry.mtime_s))


def _judge(manifest: depots.Manifest, folder: Path, *, resume: bool, dry_run: bool) -> Restored:
    """See that the records are whole, and hold what was under way."""
    records, left = folder / "records", unfinished.Unfinished()
    recovered = recovery.recover(records, left.visit, head.read(folder / head.FILE_NAME))
    if recovered.position.seq != manifest.seq or recovered.instance != manifest.instance:
        raise depots.Damaged(f"the records end with seq {recovered.position.seq:,}, not {manifest.seq:,}")
    left.unreadable = frozenset(recovered.unknown_executions)
    held = {} if resume else {one.id: how for one in left.executions.values() if (how := _how(one, left))}
    if not resume and not dry_run:
        asyncio.run(_hold(records, recovered, left, held, manifest.at))
    return Restored(
        at=manifest.at,
        version=manifest.version,
        records=manifest.seq,
        files=len(manifest.files),
        bytes=sum(entry.size for entry in manifest.files),
        in_flight=tuple(
            InFlight(
                id=one.id,
                flow=one.flow_name or one.task or one.name,
                status=one.status.value,
                held=held.get(one.id, ""),
            )
            for one in sorted(left.executions.values(), key=lambda one: one.created_at)
        ),
        schedules=len(left.kept.ticks.positions),
        missing=manifest.missing,
    )


def _how(state: model.Execution, left: unfinished.Unfinished) -> str:
    """Return what keeps an execution from going on by itself; empty if nothing has to."""
    if state.status in (Status.NEW, Status.PAUSED) or state.id in left.unreadable:
        return ""
    if state.type == "TASK":
        return "cut off"
    if state.attempt and resting.judge(state) is resting.Verdict.FAIL:
        return "fails"
    return "paused"


async def _hold(
    records: Path, recovered: recovery.Recovered, left: unfinished.Unfinished, held: dict[str, str], at: str
) -> None:
    lines = await journal.Journal.open(records, app.SystemClock(), recovered=recovered)
    reason = f"held: restored from the backup of {at}, and what it did after that is not known; resume or cancel it"
    for execution, how in held.items():
        state = left.executions[execution]
        if how == "paused":
            lines.append(events.ExecutionPaused(execution=execution, reason=reason))
        elif how == "cut off" and state.status is Status.QUEUED:
            # As if it had begun: the start repeats it if that does no harm, else its outcome is unknown.
            lines.append(events.ExecutionStarted(execution=execution, attempt=state.attempt + 1))
    now = moments.timestamp(time.time())
    for key in left.kept.ticks.positions:
        armed = left.kept.ticks.carried(key)
        assert armed is not None
        lines.append(msgspec.structs.replace(armed, after=max(now, armed.after), carried=False))
    await lines.durable()
    await lines.close()


def _put_in_place(beside: Path, state: Path) -> None:
    """Move everything to its name: ``HEAD`` first, so that records, which come last, are missed until then."""
    if not snapshot.sync_file_system(beside):
        os.sync()
    names = sorted(
        (path.name for path in beside.iterdir()), key=lambda name: (name == "records", name != head.FILE_NAME)
    )
    for name in names:
        (beside / name).rename(state / name)
        durable.names(state)
