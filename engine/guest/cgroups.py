"""A cgroup for each flow process, where the service manager gave the daemon its part of the tree (version 2).

systemd does that for a unit with ``Delegate=`` and marks what is given with an extended attribute; without that mark
the tree is somebody else's, even where it could be written. A cgroup that has controllers for its children may hold no
processes itself, so the daemon moves into one called ``daemon``, with its fork servers; nothing else is there yet.

    <service>/daemon     the daemon, fork servers, git
    <service>/flow-N     a flow process and all it ever starts, whatever session or parent that has

A flow process makes its own and enters it before it runs anything; its fork server removes it, with whoever is still
inside. Where something here does not work, what was there without it still holds: sessions, adoption, rlimits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

_DAEMON, _FLOW = "daemon", "flow-"
_WANTED = ("memory", "pids")
#: Killed ones are gone within milliseconds, unless the kernel itself holds them; then the folder stays.
_GONE_S = 1.0


class Subtree(NamedTuple):
    """What was given: where it is (empty for nothing, and ``reason`` says why), and of what its flows have shares."""

    path: str = ""
    controllers: tuple[str, ...] = ()
    #: How many processes and threads one flow may have, so that it never takes the daemon's last; 0 for any number.
    tasks_max: int = 0
    reason: str = ""

    def cell(self, number: int) -> str:
        """Return the cgroup of flow process ``number``; empty if it has none."""
        return os.path.join(self.path, f"{_FLOW}{number}") if self.path else ""


class _NotGranted(Exception):
    """No part of the tree is ours; it says why."""


def claim() -> Subtree:
    """Take what this process, which must be alone in its cgroup, was given; it is in a leaf of that afterwards.

    What an earlier daemon left in there is killed and removed."""
    try:
        return _claimed()
    except _NotGranted as why:
        return Subtree(reason=str(why))
    except OSError as error:
        return Subtree(reason=f"{error.filename or 'a cgroup'} cannot be used: {error.strerror}")


def _claimed() -> Subtree:
    path = _own()
    try:
        granted = os.getxattr(path, "user.delegate") == b"1"
    except OSError:
        granted = False
    if not granted:
        raise _NotGranted(f"{path} is not delegated, see Delegate= of systemd.resource-control(5)")
    if _read(path, "cgroup.procs").split() != [str(os.getpid())]:
        raise _NotGranted(f"the daemon shares {path} with other processes")
    leaf = os.path.join(path, _DAEMON)
    os.makedirs(leaf, exist_ok=True)
    if not os.path.exists(os.path.join(leaf, "cgroup.kill")):
        raise _NotGranted("the kernel is older than 5.14")
    _write(leaf, "cgroup.procs", "0")
    clear([os.path.join(path, name) for name in os.listdir(path) if name.startswith(_FLOW)])
    for name in set(_WANTED) & set(_read(path, "cgroup.controllers").split()):
        _write(path, "cgroup.subtree_control", f"+{name}")
    controllers = _read(path, "cgroup.subtree_control").split()
    most = _read(path, "pids.max").strip() if "pids" in controllers else ""
    return Subtree(path, tuple(sorted(controllers)), int(most) // 2 if most.isdigit() else 0)


def enter(cell: str, tasks_max: int) -> None:
    """Let this process live in ``cell``, which is made; where that fails it stays where it is."""
    with contextlib.suppress(OSError):
        os.mkdir(cell)
        if tasks_max:
            _write(cell, "pids.max", str(tasks_max))
        _write(cell, "cgroup.procs", "0")


def limit_memory(cell: str, bytes_: int) -> None:
    """Let all in ``cell`` have so many bytes together; who takes more is killed, with all the others in there."""
    with contextlib.suppress(OSError):
        _write(cell, "memory.oom.group", "1")
        _write(cell, "memory.max", str(bytes_))
        _write(cell, "memory.swap.max", "0")


def why_killed(cell: str) -> str:
    """Return ``limit`` if it took more memory than its own limit, ``machine`` if there was none left in the service or
    on the machine, and nothing if memory is not what anybody in ``cell`` was killed for."""
    try:
        told = dict(line.split() for line in _read(cell, "memory.events").splitlines())
    except OSError:
        return ""
    if not int(told.get("oom_kill", 0)):
        return ""
    return "limit" if int(told.get("oom", 0)) else "machine"


def clear(cells: Iterable[str]) -> None:
    """Kill who is in ``cells`` and remove them. Blocks until the dead are dead, not until somebody has buried them."""
    cells = [cell for cell in cells if cell]
    for cell in cells:
        with contextlib.suppress(OSError):  # it was never entered
            _write(cell, "cgroup.kill", "1")
    deadline = time.monotonic() + _GONE_S
    for cell in cells:
        while not _removed(cell) and time.monotonic() < deadline:
            time.sleep(0.002)


def _removed(cell: str) -> bool:
    """Remove it with those that its flow made inside, the innermost first; False while somebody is there."""
    try:
        for folder, _, _ in os.walk(cell, topdown=False):
            os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _own() -> str:
    """Return the folder of this process's cgroup."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as told:
            name = next((line[3:].rstrip("\n") for line in told if line.startswith("0::")), "")
        with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                root, point = before.split()[3:5]
                root = root.rstrip("/")
                if name and after.startswith("cgroup2 ") and f"{name}/".startswith(f"{root}/"):
                    return (point + name[len(root) :]).rstrip("/")
    except OSError:
        pass  # no /proc: said below
    raise _NotGranted("there are no cgroups of version 2 here")


def _read(cgroup: str, name: str) -> str:
    with open(os.path.join(cgroup, name), encoding="ascii") as file:
        return file.read()


def _write(cgroup: str, name: str, text: str) -> None:
    descriptor = os.open(os.path.join(cgroup, name), os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
