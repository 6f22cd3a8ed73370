"""The keeper of stored records: the one way in which settings, files, connections, … change, for flows and people.

Each change is checked, appended to the journal, and applied. What the repository declares is taken up from the
catalogue whenever somebody asks; where it changed what was saved at run time, the repository wins and the log says so.
Saves of one record happen one after the other, so that nothing is lost between reading and writing it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog

from .. import errors, events, model, moments, ports, values
from ..state import filters, kinds, protection, secrets, store
from . import contents

log = structlog.get_logger()

#: Fields every record has, kept by the daemon.
COMMON = ("id", "name", "created_at", "modified_at", "created_by", "modified_by")


class Actor(msgspec.Struct, frozen=True):
    """Who changes something: a person, or a call of an execution."""

    name: str
    execution: str = ""
    call: int = 0

    def signed(self) -> dict[str, Any]:
        """Return the fields of an event that say so."""
        return {"by": self.name, "execution": self.execution, "call": self.call}


class Keeper:
    """All stored records."""

    def __init__(
        self,
        state: store.Store,
        journal: ports.Journal,
        values_in: contents.Contents,
        flows: ports.Flows,
        *,
        clock: ports.Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._state = state
        self._journal = journal
        self._contents = values_in
        self._flows = flows
        self._clock = clock
        self._new_id = new_id
        self._seen: model.Catalogue | None = None
        self._of_flows: dict[str, model.Webhook] = {}  # webhooks that flows publish in their metadata
        self._turns: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()
        self._secrets: secrets.Secrets | None = None
        self.watchers: list[Callable[[str], None]] = []  # told of the type of a record that has changed

    def use(self, resolver: secrets.Secrets) -> None:
        """Look references up with ``resolver``, which itself asks for vault configurations here."""
        self._secrets = resolver

    @property
    def _store(self) -> store.Store:
        """The records, with what the repository declares now."""
        self.adopt()
        return self._state

    def adopt(self) -> None:
        """Take up what the repository declares now."""
        current = self._flows.current()
        # Before anything is published nothing is known, which is not the same as: nothing is declared.
        if current is not self._seen and current.commit:
            self._seen = current
            hooks = ((flow, flow.metadata.webhook) for flow in current.flows.values())
            self._of_flows = {hook.name: msgspec.structs.replace(hook, flow=flow.id) for flow, hook in hooks if hook}
            at = current.published_at or moments.timestamp(self._clock.time())
            for type_, name in self._state.declare(current.declared, at):
                self._record(events.RecordSuperseded(type=type_, name=name, commit=current.commit))
                log.info("record.superseded", type=type_, name=name, commit=current.commit)

    def _record(self, event: events.RecordEvent) -> None:
        event = self._contents.masks.event(event)
        self._state.apply(event, self._journal.append(event))
        for told in self.watchers:
            told(event.type)

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return self._clock.time()

    async def durable(self) -> None:
        """Return when everything that was changed so far is on disk."""
        await self._journal.durable()

    # -- reading ----------------------------------------------------------------------------------------------------

    def find(self, type_: str, select: str, by: str = "") -> store.Record:
        """Return a record; raises ``NotFound``."""
        return self._store.find(type_, select, by)

    def exists(self, type_: str, select: str, by: str = "") -> bool:
        """Return whether there is such a record."""
        return self._store.exists(type_, select, by)

    async def show(self, type_: str, select: str, by: str = "") -> dict[str, Any]:
        """Return a record as people see it; raises ``NotFound``."""
        return await self.for_people(self.find(type_, select, by))

    async def fields(self, type_: str, select: str, by: str = "") -> dict[str, Any]:
        """Return a record as flows see it; raises ``NotFound``."""
        record = self.find(type_, select, by)
        return _common(record) | {key: await self._contents.true(value) for key, value in _own(record)}

    def all(self, type_: str) -> list[store.Record]:
        """Return the records of a type, in order of name."""
        return self._store.all(type_)

    async def chosen(self, type_: str, filter_: Any, is_wanted: Callable[[str], bool]) -> list[dict[str, str]]:
        """Return id and name of the records that match, in order of name; ``is_wanted`` looks at the name alone."""
        wanted = filters.parse(filter_) if filter_ is not None else None
        found = []
        for record in self._store.all(type_):
            if not is_wanted(record.name):
                continue
            if wanted is None or wanted.matches(await self._for_filter(record, wanted.fields)):
                found.append({"id": record.id, "name": record.name})
        return found

    async def _for_filter(self, record: store.Record, asked: Iterable[str]) -> dict[str, Any]:
        """The fields a filter looks at: values are only opened if it does."""
        whole = _common(record)
        names = {field.partition(".")[0] for field in asked}
        for key, value in _own(record):
            if key in names:
                whole[key] = values.decode(await self._contents.true(value))
        return whole

    async def for_people(self, record: store.Record) -> dict[str, Any]:
        """Return a record as people see it."""
        raws = {key: await self._contents.shown(value) for key, value in _own(record)}
        seen, _ = protection.shown(record.type, record.name, raws)
        masks = self._contents.masks
        return _common(record) | {key: msgspec.Raw(masks.json(raw)) for key, raw in seen.items()}

    # -- writing ----------------------------------------------------------------------------------------------------

    async def save(
        self, type_: str, select: str, fields: Mapping[str, msgspec.Raw], actor: Actor, by: str = ""
    ) -> store.Record:
        """Make or change a record; fields not given stay. Raises ``InvalidRequest``, and ``NotFound`` for an id."""
        return await self._saved(type_, select, fields, actor, by, lambda _: fields)

    async def append(self, name: str, item: msgspec.Raw, actor: Actor) -> store.Record:
        """Append to the list in a setting's value, making it if there is none."""

        def extended(now: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
            before = values.decode(now.get("value", msgspec.Raw(b"null")))
            if before is None:
                before = []
            if not isinstance(before, list):
                raise errors.InvalidRequest(f"the value of setting {name!r} is no list, so nothing can be appended")
            return {"value": msgspec.Raw(values.encode([*before, item]))}

        return await self._saved("setting", name, {}, actor, "name", extended)

    async def _saved(
        self,
        type_: str,
        select: str,
        given: Mapping[str, msgspec.Raw],
        actor: Actor,
        by: str,
        change: Callable[[Mapping[str, msgspec.Raw]], Mapping[str, msgspec.Raw]],
    ) -> store.Record:
        old_name = self._store.find(type_, select, by).name if by == "id" else select
        new_name = _text(given, "name") or old_name or f"new {type_} {moments.timestamp(self._clock.time())}"
        if self._store.exists(type_, old_name):
            old_name = self._store.find(type_, old_name).name  # it may have been its id
            new_name = _text(given, "name") or old_name
        new_name = kinds.name_of(type_, new_name)
        turn = self._turns.setdefault((type_, new_name), asyncio.Lock())
        async with turn:
            current = self._store.find(type_, old_name, "name") if self._store.exists(type_, old_name, "name") else None
            if new_name != old_name and current is not None and self._store.exists(type_, new_name, "name"):
                raise errors.Conflict(f"there is a {type_} {new_name!r} already")
            now = {key: await self._contents.true(value) for key, value in _own(current)} if current else {}
            fields = {key: raw for key, raw in change(now).items() if key != "name"}
            if current is not None and not fields and new_name == old_name:
                return current
            return await self._written(type_, new_name, fields, current, now, actor)

    async def _written(
        self,
        type_: str,
        name: str,
        fields: Mapping[str, msgspec.Raw],
        current: store.Record | None,
        now: Mapping[str, msgspec.Raw],
        actor: Actor,
    ) -> store.Record:
        checked = kinds.checked(type_, name, await self._meant(type_, name, fields, current, now))
        whole: dict[str, model.Value] = dict(_own(current)) if current else {}
        for key, raw in checked.items():
            seen, changed = protection.shown(type_, name, {key: raw})
            held = await self._contents.store(raw, shown=seen[key] if changed else None)
            whole[key] = model.value(held.raw, held.blob, held.sealed)
        whole = kinds.completed(type_, name, whole)
        return self._put(type_, name, whole, current, actor)

    async def _meant(
        self,
        type_: str,
        name: str,
        fields: Mapping[str, msgspec.Raw],
        current: store.Record | None,
        now: Mapping[str, msgspec.Raw],
    ) -> dict[str, msgspec.Raw]:
        """Put what people saw as protected, and sent back so, back in place."""
        if current is None:
            protection.refuse_markers(type_, name, fields)
            return dict(fields)
        raws = {key: await self._contents.shown(value) for key, value in _own(current)}
        seen, _ = protection.shown(type_, name, raws)
        return {
            key: protection.restored(raw, seen[key], now[key]) if key in seen and key in now else raw
            for key, raw in fields.items()
        }

    def _put(
        self, type_: str, name: str, whole: Mapping[str, model.Value], current: store.Record | None, actor: Actor
    ) -> store.Record:
        """Append the event of a record that is complete, and apply it."""
        if current is None or current.name == name:
            self._record(self._saved_event(type_, name, whole, current, actor))
        else:
            base = self._store.base_of(type_, current.name)
            with self._journal.together():
                self._record(events.RecordDeleted(type=type_, name=current.name, base=base, **actor.signed()))
                self._record(self._saved_event(type_, name, whole, current, actor))
        return self._store.find(type_, name, "name")

    def _saved_event(
        self, type_: str, name: str, whole: Mapping[str, model.Value], current: store.Record | None, actor: Actor
    ) -> events.RecordSaved:
        renamed = current is not None and current.name != name
        keeps_id = renamed and current is not None and current.declared is None and not current.base
        id_ = current.id if keeps_id and current is not None else self._store.id_of(type_, name) or self._new_id()
        twins: dict[str, Any] = {"fields": {}, "field_blobs": {}, "fields_sealed": {}}
        for key, value in whole.items():
            seen = value.shown if isinstance(value, model.Sealed) else value
            twins["field_blobs" if isinstance(seen, events.Blob) else "fields"][key] = seen
            if isinstance(value, model.Sealed):
                twins["fields_sealed"][key] = value.id
        base = self._store.base_of(type_, name)
        return events.RecordSaved(type=type_, name=name, id=id_, base=base, **twins, **actor.signed())

    async def delete(self, type_: str, select: str, actor: Actor, by: str = "") -> None:
        """Delete a record; raises ``NotFound``. One that the repository declares is hidden until that changes."""
        record = self._store.find(type_, select, by)
        base = self._store.base_of(type_, record.name)
        self._record(events.RecordDeleted(type=type_, name=record.name, base=base, **actor.signed()))

    async def clone(
        self, type_: str, select: str, fields: Mapping[str, msgspec.Raw], actor: Actor, by: str = ""
    ) -> store.Record:
        """Make a copy under another name, with other fields; raises ``NotFound``, ``InvalidRequest``, ``Conflict``."""
        record = self._store.find(type_, select, by)
        name = kinds.name_of(type_, _text(fields, "name") or f"{record.name} copy")
        if self._store.exists(type_, name, "name"):
            raise errors.Conflict(f"there is a {type_} {name!r} already", hint="give the copy another name")
        if type_ == "file":
            await self.write_file(name, await self.read_file(record.name), actor)
            return self.find(type_, name)
        now = {key: await self._contents.true(value) for key, value in _own(record)}
        given = {key: raw for key, raw in fields.items() if key != "name"}
        return await self._written(type_, name, now | given, None, {}, actor)

    # -- files ------------------------------------------------------------------------------------------------------

    async def read_file(self, path: str) -> bytes:
        """Return a file's content; raises ``NotFound``."""
        record = self.find("file", kinds.name_of("file", path))
        if record.declared is not None:
            return await asyncio.to_thread(self._declared_content, record.declared)
        return await asyncio.to_thread(self._contents.blobs.get, _content_of(record))

    def read_file_here(self, path: str) -> bytes:
        """The same in a thread; see ``ports.Files``."""
        record = self._state.find("file", kinds.name_of("file", path))
        if record.declared is not None:
            return self._declared_content(record.declared)
        return self._contents.blobs.get(_content_of(record))

    def _declared_content(self, declared: model.Declared) -> bytes:
        return (self._flows.snapshot(declared.commit) / declared.path).read_bytes()

    async def write_file(self, path: str, content: bytes, actor: Actor) -> store.Record:
        """Make or replace a file."""
        name = kinds.name_of("file", path)
        return self.put_file(name, await self._kept_content(content, actor), actor)

    async def _kept_content(self, content: bytes, actor: Actor) -> events.Blob:
        return await self._contents.store_file(content, patient=bool(actor.execution))

    def put_file(self, name: str, content: events.Blob, actor: Actor) -> store.Record:
        """The same for content that is stored already."""
        current = self.find("file", name, "name") if self.exists("file", name, "name") else None
        whole: dict[str, model.Value] = {key: v for key, v in (_own(current) if current else ()) if key != "size"}
        whole |= {"content": content, "size": msgspec.Raw(b"%d" % content.bytes)}
        return self._put("file", name, whole, current, actor)

    async def move_file(self, path: str, new_path: str, actor: Actor) -> events.Blob:
        """Give a file another path, in place of what may be there, and return its content; raises ``NotFound``."""
        new_name = kinds.name_of("file", new_path)
        record = self.find("file", kinds.name_of("file", path), "name")
        if record.declared is not None:  # what the repository holds is kept for itself from now on
            text = await asyncio.to_thread(self._declared_content, record.declared)
            content = await self._kept_content(text, actor)
            record = self.find("file", record.name, "name")
        else:
            content = _content_of(record)
        if record.name != new_name:
            whole: dict[str, model.Value] = {**dict(_own(record)), "content": content}
            whole["size"] = msgspec.Raw(b"%d" % content.bytes)
            self._put("file", new_name, whole, record, actor)
        return content

    # -- what the daemon itself needs of them -------------------------------------------------------------------------

    async def vault_access(self, name: str) -> ports.VaultAccess:
        """Return how to get into the vault that a configuration names; raises ``NotFound``, ``NotAllowed``."""
        record = self.find("vault_config", name)
        fields = {key: values.decode(await self._contents.true(value)) for key, value in _own(record)}
        if not fields.pop("is_enabled", True):
            raise errors.NotAllowed(f"vault configuration {name!r} is disabled", hint="set is_enabled to true")
        fields.pop("description", None)
        return ports.VaultAccess(**fields)

    async def webhook(self, name: str) -> tuple[model.Webhook, str]:
        """Return the webhook published under ``name`` and its secret, empty if it asks for none.

        A record or setting decides before a flow's own metadata. Raises ``NotFound``, and what looking the secret up
        raises."""
        published = self._store.webhooks().get(name)
        if published is None:
            if self._store.exists("webhook", name, "name"):
                raise errors.NotFound(f"webhook {name!r} is disabled")
            hook = self._of_flow(name)
            return hook, await self._secret(hook.secret)
        hook = published.webhook
        if hook.secret != protection.MARKER:
            return hook, await self._secret(hook.secret)
        true = await self._contents.true(published.record.fields[published.field])
        secret = published.secret_in(true)
        self._contents.masks.learn(secret)
        return hook, secret

    def _of_flow(self, name: str) -> model.Webhook:
        hook = self._of_flows.get(name)
        if hook is None:
            raise errors.NotFound(f"there is no webhook {name!r}")
        return hook

    async def _secret(self, reference: str) -> str:
        if not reference:
            return ""
        assert self._secrets is not None
        return str(await self._secrets.value(reference))

    async def resolved(self, inputs: bytes, untrusted: bytes = b"") -> bytes:
        """Return a task's inputs with secrets in place of references; see ``state.secrets``."""
        assert self._secrets is not None
        return await self._secrets.resolved(inputs, untrusted)

    async def access(self, config: str) -> ports.VaultAccess:
        """Return how to get into a vault, references in its configuration looked up."""
        assert self._secrets is not None
        return await self._secrets.access(config)

    def learn(self, secret: Any) -> None:
        """Mask ``secret`` from now on."""
        self._contents.masks.learn(secret)


def _common(record: store.Record) -> dict[str, Any]:
    return {field: getattr(record, field) for field in COMMON} | {"is_declared": record.declared is not None}


def _own(record: store.Record) -> Iterable[tuple[str, model.Value]]:
    """The fields of its type; a file's content is no field."""
    return [(key, value) for key, value in record.fields.items() if key != "content"]


def _content_of(record: store.Record) -> events.Blob:
    content = record.fields.get("content")
    if not isinstance(content, events.Blob):
        raise errors.NotFound(f"file {record.name!r} has no content")
    return content


def _text(fields: Mapping[str, msgspec.Raw], key: str) -> str:
    if key not in fields:
        return ""
    value = values.decode(fields[key])
    if not isinstance(value, str):
        raise errors.InvalidRequest(f"{key} must be a text")
    return value
