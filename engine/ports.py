"""The seams between the rooms: what one asks of another, and what is true after it answers.

``sync`` and ``tasks`` see only this module, ``model``, ``events`` and ``errors`` of the engine; ``daemon`` puts the
real things in place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from . import events, model


class Clock(Protocol):
    """Time, so that tests can move it."""

    def time(self) -> float:
        """Wall-clock seconds since the epoch: for what people read, never for durations."""

    def monotonic(self) -> float:
        """Seconds that never step back: for durations and deadlines."""


class Journal(Protocol):
    """The one record of what happened. Events become durable in the order they were appended, never with gaps."""

    @property
    def stalled(self) -> str:
        """Why the disk takes nothing now, in words; empty while it does."""

    @property
    def scarce(self) -> str:
        """Why requests from outside are refused although the disk takes records, in words; empty while they are not."""

    def append(self, event: events.AnyEvent) -> str:
        """Put ``event`` next in line and return its time.

        It becomes durable later: a crash before that loses it and everything appended after it."""

    def together(self) -> AbstractContextManager[None]:
        """What is appended inside this block is one: after a crash all of it is there, or nothing of it.

        Nothing may be awaited inside."""

    async def durable(self) -> None:
        """Return when everything appended so far is on disk. Raises ``JournalFailed`` if it never will be."""

    def meanwhile(self, callback: Callable[[], None]) -> None:
        """Call it on the event loop when the disk works on everything appended so far, which leaves time for it.

        Nothing of that is durable then. Never called if it never will be."""

    async def submit(self, event: events.AnyEvent) -> str:
        """Append and return its time when durable. Raises ``NotAccepting`` when the disk is full.

        It then is not recorded and never will be. For requests from outside: what nobody was promised may be
        refused."""

    def subscribe(self, listener: Callable[[Sequence[events.Recorded]], None]) -> Callable[[], None]:
        """Call ``listener`` on the event loop with each batch once it is durable, in order. Returns the way out."""


class Flows(Protocol):
    """The catalogue, as the engine needs it."""

    def current(self) -> model.Catalogue:
        """Return what is published now."""

    def find(self, name: str, commit: str = "") -> model.Flow:
        """Return the flow as published with ``commit`` (else as published now); raises ``NotFound``.

        A flow that is not in that commit's catalogue is looked up in the current one."""

    def snapshot(self, commit: str) -> Path:
        """Return the folder with the files of a published commit. It never changes."""

    def kept(self, source: str = "") -> list[model.Kept]:
        """Return the published commits of a source that may still be run, the newest first. Blocking."""


class Environments(Protocol):
    """Where the packages of flows are installed."""

    async def python(self, venv: str, commit: str) -> str:
        """Return the interpreter of an environment that the catalogue of ``commit`` names; empty for that of none.

        At once while it is there; where somebody removed it, when it is built again. Raises ``NotAccepting``."""


class Authoring(Protocol):
    """Changes to flows that become commits in the repository they come from (in developer mode: changes of a file)."""

    async def save_flow(self, name: str, script: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """Make ``script`` the text of flow ``name``, new or not, and return the commit (empty in developer mode).

        On return it is in the repository; a crash before leaves it as it was or complete. The catalogue has it a
        little later, or marks the flow broken. ``on_behalf_of`` had a flow do it, and is its
        co-author. Raises ``NotAllowed`` where the source cannot be written to, ``Conflict`` when somebody else changed
        the file meanwhile, ``InvalidRequest`` for an impossible name."""

    async def delete_flow(self, name: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """Remove the flow's file likewise; raises ``NotFound`` too."""

    async def rename_flow(
        self, name: str, new_name: str, *, author: str, message: str = "", on_behalf_of: str = ""
    ) -> str:
        """Move the flow's file likewise, keeping its id; raises ``NotFound``, and ``Conflict`` for a taken name."""

    async def published(self, timeout_s: float) -> bool:
        """Return whether everything written so far is in the catalogue, waiting so long for it."""


class VaultAccess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a vault is and how to get in: a token, or AppRole's ``role_id`` and ``secret_id``."""

    url: str
    token: str = ""
    role_id: str = ""
    secret_id: str = ""
    engine_path: str = "secret"  # where the KV version 2 engine is mounted
    namespace: str = ""
    cacert: str = ""  # PEM, when the system's authorities do not vouch for it


class Vaults(Protocol):
    """HashiCorp Vault or OpenBao, key-value engine version 2."""

    async def read(self, access: VaultAccess, path: str) -> dict[str, Any]:
        """Return the newest version of a secret; raises ``NotFound``, ``NotAllowed`` and ``SourceUnavailable``.

        No message holds the token or anything of the secret."""

    async def write(self, access: VaultAccess, path: str, data: dict[str, Any]) -> None:
        """Make ``data`` the newest version; raises likewise."""


class FileWriter(Protocol):
    """A file on its way into the store: visible whole after ``commit``, not at all otherwise."""

    def write(self, chunk: bytes) -> None:
        """Add bytes (blocking; call it off the event loop for large chunks)."""

    def commit(self) -> None:
        """Make it durable under its name, replacing an older one at once."""

    def abort(self) -> None:
        """Forget it. Harmless after ``commit``."""


class Files(Protocol):
    """Files that flows keep, by relative path."""

    def write(self, path: str) -> FileWriter:
        """Begin to write the file ``path``; raises ``InvalidRequest`` for a path that leaves the store."""

    def read(self, path: str) -> bytes:
        """Return the content; raises ``NotFound``."""

    def move(self, path: str, new_path: str) -> int:
        """Give a file another path, in place of what may be there, and return its size in bytes.

        A crash leaves it where it was or where it is to be, never at both nor at none. Raises ``NotFound``, and
        ``InvalidRequest`` for a path that leaves the store."""


class TaskContext(Protocol):
    """What a running task may use."""

    @property
    def execution_id(self) -> str:
        """The id of the task's own execution: stable, unique, usable as an idempotency key."""

    @property
    def files(self) -> Files:
        """The files that flows keep."""

    @property
    def allow_local_files(self) -> bool:
        """Whether ``file:`` addresses of this host may be read (developer mode)."""

    @property
    def traceparent(self) -> str:
        """What to send along so that others see which trace they are part of (W3C Trace Context); may be empty."""

    def log(self, level: str, text: str) -> None:
        """Write a line into the task's record."""

    def hide(self, secret: Any) -> None:
        """Mask a secret the task has to do with, every text in it, in all records from now on."""

    async def ask(self, subject: str, form: bytes) -> bytes:
        """Ask a person and return the answer, a JSON object's text; raises ``TaskFailed`` when there will be none.

        A task has one question. It is withdrawn when the task ends without an answer; a task that is repeated goes on
        waiting for the answer to the same one. Raises ``InvalidRequest`` for a form that cannot be used."""


class PreparedTask(Protocol):
    """A task whose inputs are known to be good and that has not begun."""

    @property
    def type(self) -> str:
        """The canonical type, in capitals."""

    @property
    def timeout_s(self) -> float | None:
        """How long the whole of it may take; the engine cancels it then."""

    @property
    def idempotent(self) -> bool:
        """Whether it may simply be repeated when it was cut off midway."""

    @property
    def secret_inputs(self) -> frozenset[str]:
        """Inputs that no record shows, whatever they are called."""

    async def run(self, context: TaskContext) -> bytes:
        """Do it and return the output, a JSON object's text; raises ``TaskFailed``. Cancelling really stops it."""


class TaskType(msgspec.Struct, frozen=True, kw_only=True):
    """A task type as people see it. ``inputs`` and ``output`` are JSON Schemas."""

    name: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    description: str = ""
    inputs: dict[str, Any] = {}
    output: dict[str, Any] = {}


class Tasks(Protocol):
    """The task types that are there."""

    async def ready(self, type: str) -> None:  # noqa: A002 - flow authors call it so
        """Have at hand what ``prepare`` needs for a type; it takes a moment, and says nothing of an unknown one."""

    def prepare(self, type: str, inputs: bytes) -> PreparedTask:  # noqa: A002 - flow authors call it so
        """Validate; raises ``NotFound`` for an unknown type and ``InputRefused`` for inputs that cannot be used."""

    def types(self) -> Sequence[TaskType]:
        """All types, by name."""


class Publications(Protocol):
    """Where sync announces what it published."""

    async def publish(self, event: events.CommitPublished | events.CommitRejected) -> str:
        """Record it and return its time; on return it is durable."""


CommitsInUse = Callable[[], Awaitable[frozenset[str]]]
