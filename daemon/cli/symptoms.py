"""What a state directory and its machine tell of themselves, for ``doctor``: clock, owners, left-over locks, the index.

Looks only, also beside a running daemon; each function returns findings.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...engine import errors
from ...engine.records import recovery, segments, tables

#: A clock that is set back by less is corrected, not wrong.
_BACK_S = 60.0
#: What adjtimex(2) returns when nothing keeps the clock right.
_UNSYNCHRONISED = 5
#: No git works on its files for so long.
_LOCK_S = 600.0
#: So many records behind, the index has stopped rather than been slow.
_BEHIND = 10_000
_PRIVATE = ("client.json", "tokens.json", "login-link", "git-token")
_NAMED_MAX = 5


class Finding(msgspec.Struct, kw_only=True):
    """One thing that was looked at. ``hint`` is the next step, where there is one."""

    level: Literal["good", "warning", "bad"]
    about: str
    text: str
    hint: str = ""


def named(names: list[str]) -> str:
    """Name some of them."""
    return ", ".join(names[:_NAMED_MAX]) + (" …" if len(names) > _NAMED_MAX else "")


def kernel_clock() -> int:
    """Return what the kernel thinks of its clock, see adjtimex(2); 0 where that cannot be asked."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))  # all zero: only asked
    except (OSError, AttributeError):
        return 0


def clock(folder: Path, now_s: float, kernel: int) -> Finding:
    """See whether the clock went back behind the records, and whether anything keeps it right."""
    files = segments.files(folder / "records")
    last_s = _last_at_s(files[-1][1]) if files else 0.0
    if last_s > now_s + _BACK_S:
        text = f"it is {last_s - now_s:,.0f} s behind the last record: it was set back, or was wrong then"
        hint = "set it right; schedules and sleeps count by it (`timedatectl`)"
        return Finding(level="bad", about="clock", text=text, hint=hint)
    if kernel == _UNSYNCHRONISED:
        hint = "let a time service set it, such as systemd-timesyncd (`timedatectl set-ntp true`)"
        return Finding(level="warning", about="clock", text="nothing synchronises it", hint=hint)
    return Finding(level="good", about="clock", text="it is in front of the records")


def _last_at_s(path: Path) -> float:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - segments.LINE_BYTES_MAX))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines[1:] or lines):
        try:
            return datetime.datetime.fromisoformat(segments.decode(line).at).timestamp()
        except (ValueError, errors.JournalCorrupt):
            continue
    return 0.0


def permissions(folder: Path) -> Iterator[Finding]:
    """See whether everything belongs to whom the folder does, and nobody else reads what is private."""
    owner = folder.stat().st_uid
    foreign = [str(path.relative_to(folder)) for path in _looked_at(folder) if _owner(path) not in (owner, None)]
    if foreign:
        text = f"they belong to somebody else than {folder}: {named(foreign)}"
        yield Finding(level="bad", about="permissions", text=text, hint=f"chown -R --reference={folder} {folder}")
    for name in _PRIVATE:
        path = folder / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            hint = f"make new tokens if somebody may have read it, then chmod 600 {path}"
            yield Finding(level="bad", about="permissions", text=f"others can read {path}", hint=hint)


def _looked_at(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir()
    for name in ("records", "sealed", "snapshots", "mirror.git"):
        if (folder / name).is_dir() and os.access(folder / name, os.R_OK | os.X_OK):
            yield from (folder / name).iterdir()


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:  # gone meanwhile
        return None


def git_locks(folder: Path) -> Iterator[Finding]:
    """See whether a git that is no more left its locks, which keep every other one from writing."""
    mirrors = [folder / "mirror.git", *folder.glob("sources/*/mirror.git")]
    found = [path for mirror in mirrors for path in mirror.rglob("*.lock") if _age_s(path) > _LOCK_S]
    if found:
        names = named([str(path.relative_to(folder)) for path in found])
        hint = "if no git works there: remove them, or restart the daemon, which does"
        yield Finding(level="warning", about="git locks", text=f"left over from a git that died: {names}", hint=hint)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0


def index(folder: Path, report: recovery.Report) -> Finding:
    """See whether listings know what the records do."""
    hint = "stop the daemon and run `headrace records reindex`, or remove index.db*: it is made anew"
    reached = tables.reached(folder / "index.db")
    if reached is None:
        return Finding(level="warning", about="index", text="there is none that can be read", hint=hint)
    behind = report.records - reached
    if behind > _BEHIND or behind < 0:
        text = f"it is {behind:,} records behind" if behind > 0 else f"it is {-behind:,} records ahead of the journal"
        return Finding(level="warning", about="index", text=text, hint=hint)
    return Finding(level="good", about="index", text=f"it knows {reached:,} records")


def containment(cgroups: dict[str, Any]) -> Finding:
    """Tell whether flow processes have cgroups; without them they are ended and limited by other means."""
    if cgroups["path"]:
        shares = " and ".join(cgroups["controllers"]) or "nothing"
        text = f"a cgroup for each, with a share of {shares}"
    else:
        text = f"no cgroups of their own: {cgroups['reason']}"
    return Finding(level="good", about="flow processes", text=text)


def flow_locks(client: Any) -> Iterator[Finding]:
    """See whether a lock outlived the execution that took it (`setting.acquire`): perhaps nobody will give it back."""
    for lock in client.locks():
        if client.execution(lock["execution_id"])["ended_at"]:
            text = f"{lock['name']!r} is held by {lock['execution_id']}, which has ended"
            hint = f"headrace locks release {lock['name']!r}"
            yield Finding(level="warning", about="locks", text=text, hint=hint)
