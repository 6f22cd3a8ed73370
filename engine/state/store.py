"""Stored records: what the repository declares, overlaid by what was saved at run time. Folded from events.

Owns: which of the two counts (the repository, as soon as it changes what was overlaid), tombstones that hide what is
declared, the ids of declared records, which webhooks are published. Refuses: nothing that lies in the journal, not even
types of record it does not know. Called by the keeper, which checks and appends an event before applying it here, and
by recovery.

Looking up a record takes the same time however many there are; ``declare`` and ``all`` look at each one once.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from .. import errors, events, model, values
from . import kinds, protection

#: Who made a record that is declared.
REPOSITORY = "repository"
#: Near names are looked for among so many; beyond that the search takes longer than it helps.
_NAMES_COMPARED_MAX = 2000
_NOTHING: Mapping[str, model.Declared] = {}


class Record(msgspec.Struct, frozen=True):
    """A stored record with all its fields. ``declared`` if it is as the repository says; else, ``base`` tells what
    it overlays."""

    type: str
    name: str
    id: str
    fields: Mapping[str, model.Value]
    created_at: str
    modified_at: str
    created_by: str
    modified_by: str
    declared: model.Declared | None = None
    base: str = ""


class Publication(msgspec.Struct, frozen=True):
    """A published webhook and the record it comes from.

    ``webhook.secret`` is a reference or, where the secret was written out, ``[protected]``; then ``secret_in`` gives
    it."""

    webhook: model.Webhook
    record: Record

    @property
    def field(self) -> str:
        """The field of the record that holds the secret."""
        return "secret" if self.record.type == "webhook" else "value"

    def secret_in(self, true: bytes | msgspec.Raw) -> str:
        """Return the secret from the true value of ``field``."""
        held = values.decode(true)
        return str(held if self.record.type == "webhook" else _of_setting(held).get("key", ""))


class _Saved(msgspec.Struct, frozen=True):
    """What was saved at run time under a name, or, without an id, that it was deleted."""

    base: str
    id: str = ""
    fields: Mapping[str, model.Value] = msgspec.field(default_factory=dict)
    created_at: str = ""
    modified_at: str = ""
    created_by: str = ""
    modified_by: str = ""


class Store:
    """All stored records, by type and name."""

    def __init__(self) -> None:
        self._saved: dict[str, dict[str, _Saved]] = {}
        self._saved_ids: dict[str, dict[str, str]] = {}  # type → id → name
        self._declared: Mapping[str, Mapping[str, model.Declared]] = {}
        self._declared_ids: dict[str, dict[str, str]] = {}
        self._declared_at = ""
        self._published: dict[str, Publication] | None = None  # None: not known since the last change

    # -- changing ---------------------------------------------------------------------------------------------------

    def apply(self, event: events.RecordEvent, at: str) -> None:
        """Change the state as ``event`` says."""
        before = self._saved.get(event.type, {}).get(event.name)
        self._drop(event.type, event.name)
        match event:
            case events.RecordSaved():
                self._put(event.type, event.name, _saved(event, before, at))
            case events.RecordDeleted():
                if event.base:
                    self._put(event.type, event.name, _Saved(event.base))
            case events.RecordCarried():
                if event.id or event.base:
                    self._put(event.type, event.name, _carried(event))
            case events.RecordSuperseded():
                pass
        if event.type == "webhook" or event.name.startswith(kinds.WEBHOOK_SETTING):
            self._published = None

    def carried(self, type: str, name: str) -> events.RecordCarried | None:  # noqa: A002 - records have a type
        """Return what was saved or deleted at run time under this name, so that applying it changes nothing."""
        saved = self._saved.get(type, {}).get(name)
        if saved is None:
            return None
        shown = {k: value.shown if isinstance(value, model.Sealed) else value for k, value in saved.fields.items()}
        return events.RecordCarried(
            type=type,
            name=name,
            id=saved.id,
            fields={key: value for key, value in shown.items() if isinstance(value, msgspec.Raw)},
            field_blobs={key: value for key, value in shown.items() if isinstance(value, events.Blob)},
            fields_sealed={k: value.id for k, value in saved.fields.items() if isinstance(value, model.Sealed)},
            base=saved.base,
            created_at=saved.created_at,
            modified_at=saved.modified_at,
            created_by=saved.created_by,
            modified_by=saved.modified_by,
        )

    def declare(self, declared: Mapping[str, Mapping[str, model.Declared]], at: str) -> list[tuple[str, str]]:
        """Adopt what the repository declares since ``at``.

        Returns type and name of what was saved or deleted at run time over something that is now otherwise. It
        counts until the caller applied a ``record.superseded`` for each; asked again after a crash between the two,
        this returns the same."""
        self._declared, self._declared_at = declared, at
        self._declared_ids = {
            type_: {declared_id(type_, name): name for name in names} for type_, names in declared.items()
        }
        self._published = None
        return [
            (type_, name)
            for type_, names in self._saved.items()
            for name, saved in names.items()
            if saved.base != self.base_of(type_, name)
        ]

    def _put(self, type_: str, name: str, saved: _Saved) -> None:
        self._saved.setdefault(type_, {})[name] = saved
        if saved.id:
            self._saved_ids.setdefault(type_, {})[saved.id] = name

    def _drop(self, type_: str, name: str) -> None:
        saved = self._saved.get(type_, {}).pop(name, None)
        if saved is not None and self._saved_ids.get(type_, {}).get(saved.id) == name:
            del self._saved_ids[type_][saved.id]

    # -- reading ----------------------------------------------------------------------------------------------------

    def find(self, type: str, select: str, by: str = "") -> Record:  # noqa: A002 - records have a type
        """Return the record called ``select`` or with that id (``by`` says which, else both count, the name first).

        Raises ``NotFound`` with the nearest names, and ``InvalidRequest`` for another ``by``."""
        if by not in ("", "name", "id"):
            raise errors.InvalidRequest(f"a record is found by 'name' or 'id', not by {by!r}")
        record = self._named(type, select) if by != "id" else None
        if record is None and by != "name":
            record = self._identified(type, select)
        if record is None:
            raise errors.NotFound(f"there is no {type} {select!r}", hint=self._near(type, select))
        return record

    def exists(self, type: str, select: str, by: str = "") -> bool:  # noqa: A002
        """Return whether ``find`` would find it."""
        return (by != "id" and self._named(type, select) is not None) or (
            by != "name" and self._identified(type, select) is not None
        )

    def all(self, type: str) -> list[Record]:  # noqa: A002
        """Return the records of a type in order of their names."""
        names = sorted(self._saved.get(type, {}).keys() | self._declared.get(type, {}).keys())
        return [record for name in names if (record := self._named(type, name)) is not None]

    def base_of(self, type: str, name: str) -> str:  # noqa: A002
        """Return the digest of what the repository declares under this name, empty if nothing."""
        declared = self._declared.get(type, _NOTHING).get(name)
        return declared.digest if declared is not None else ""

    def id_of(self, type: str, name: str) -> str:  # noqa: A002
        """Return the id a record saved under this name must have; empty if nobody had that name.

        An overlay keeps the id of what is declared, even if that was deleted meanwhile."""
        saved = self._saved.get(type, {}).get(name)
        if saved is not None and saved.id:
            return saved.id
        return declared_id(type, name) if name in self._declared.get(type, _NOTHING) else ""

    def webhooks(self) -> Mapping[str, Publication]:
        """Return the published webhooks by name: enabled webhook records, and settings ``client.webhook.<name>``.

        A webhook record, even a disabled one, decides about its name before a setting does. A setting that says no
        flow publishes nothing."""
        if self._published is None:
            self._published = self._publications()
        return self._published

    def _named(self, type_: str, name: str) -> Record | None:
        saved = self._saved.get(type_, {}).get(name)
        declared = self._declared.get(type_, _NOTHING).get(name)
        if saved is not None:
            return _overlay(type_, name, saved, self._declared_at if declared else "") if saved.id else None
        return _repository(type_, name, declared, self._declared_at) if declared else None

    def _identified(self, type_: str, id_: str) -> Record | None:
        for names in (self._saved_ids.get(type_, {}), self._declared_ids.get(type_, {})):
            record = self._named(type_, names[id_]) if id_ in names else None
            if record is not None and record.id == id_:
                return record
        return None

    def _near(self, type_: str, select: str) -> str:
        names = [*self._saved.get(type_, {}), *self._declared.get(type_, {})][:_NAMES_COMPARED_MAX]
        near = difflib.get_close_matches(select, sorted(n for n in set(names) if self._named(type_, n)), n=3)
        return f"did you mean {', '.join(near)}?" if near else ""

    def _publications(self) -> dict[str, Publication]:
        published = {}
        settings = self._saved.get("setting", {}).keys() | self._declared.get("setting", {}).keys()
        for name in settings:
            if name.startswith(kinds.WEBHOOK_SETTING) and (record := self._named("setting", name)) is not None:
                hook = _webhook_of_setting(name.removeprefix(kinds.WEBHOOK_SETTING), record)
                if hook is not None:
                    published[hook.name] = Publication(hook, record)
        for record in self.all("webhook"):
            published.pop(record.name, None)
            hook = _webhook_of_record(record)
            if hook is not None:
                published[record.name] = Publication(hook, record)
        return published


def declared_id(type: str, name: str) -> str:  # noqa: A002
    """Return the id of a declared record: always the same for its type and name, and like any other id."""
    digest = hashlib.sha256(f"{type}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return base64.b32hexencode(digest[:16]).decode().rstrip("=").lower()


def _fields(event: events.RecordSaved | events.RecordCarried) -> dict[str, model.Value]:
    keys = event.fields.keys() | event.field_blobs.keys()
    return {
        key: model.value(
            event.fields.get(key, msgspec.UNSET), event.field_blobs.get(key), event.fields_sealed.get(key, "")
        )
        for key in sorted(keys)
    }


def _carried(event: events.RecordCarried) -> _Saved:
    return _Saved(
        base=event.base,
        id=event.id,
        fields=_fields(event),
        created_at=event.created_at,
        modified_at=event.modified_at,
        created_by=event.created_by,
        modified_by=event.modified_by,
    )


def _saved(event: events.RecordSaved, before: _Saved | None, at: str) -> _Saved:
    first = before if before is not None and before.id else None
    return _Saved(
        base=event.base,
        id=event.id,
        fields=_fields(event),
        created_at=first.created_at if first else at,
        modified_at=at,
        created_by=first.created_by if first else event.by,
        modified_by=event.by,
    )


def _overlay(type_: str, name: str, saved: _Saved, declared_at: str) -> Record:
    return Record(
        type=type_,
        name=name,
        id=saved.id,
        fields=kinds.with_defaults(type_, saved.fields),
        # The repository may have been published anew since, with what is overlaid as it was.
        created_at=min(declared_at, saved.created_at) if declared_at else saved.created_at,
        modified_at=saved.modified_at,
        created_by=REPOSITORY if saved.base else saved.created_by,
        modified_by=saved.modified_by,
        base=saved.base,
    )


def _repository(type_: str, name: str, declared: model.Declared, at: str) -> Record:
    fields: dict[str, model.Value] = dict(declared.fields)
    if type_ == "file":
        fields["size"] = msgspec.Raw(b"%d" % declared.size)
    return Record(
        type=type_,
        name=name,
        id=declared_id(type_, name),
        fields=kinds.with_defaults(type_, fields),
        created_at=at,
        modified_at=at,
        created_by=REPOSITORY,
        modified_by=REPOSITORY,
        declared=declared,
        base=declared.digest,
    )


# -- webhooks -------------------------------------------------------------------------------------------------------


def _seen(value: model.Value | None) -> Any:
    """Return the Python value of what people see; None for what lies in a file (no webhook is that large)."""
    shown = value.shown if isinstance(value, model.Sealed) else value
    return values.decode(shown) if isinstance(shown, msgspec.Raw) else None


def _webhook_of_record(record: Record) -> model.Webhook | None:
    flow, auth = _seen(record.fields.get("flow_name")), _seen(record.fields.get("auth"))
    methods = _seen(record.fields.get("methods"))
    if not _seen(record.fields.get("is_enabled")) or not isinstance(flow, str) or not flow:
        return None
    if not isinstance(auth, str) or not _are_methods(methods):
        return None
    secret = "" if auth == "none" else _secret(_seen(record.fields.get("secret")))
    return model.Webhook(name=record.name, flow=flow, auth=auth, secret=secret, methods=tuple(methods))


def _webhook_of_setting(name: str, record: Record) -> model.Webhook | None:
    said = _of_setting(_seen(record.fields.get("value")))
    flow, key = said.get("flow_name") or said.get("flow"), said.get("key") or ""
    auth, methods = said.get("auth") or ("key" if key else "none"), said.get("methods") or ["POST"]
    if not name or not isinstance(flow, str) or said.get("is_enabled", True) is not True:
        return None
    if auth not in kinds.AUTH or not isinstance(key, str) or not _are_methods(methods):
        return None
    methods = tuple(method.upper() for method in methods)
    return model.Webhook(
        name=name, flow=flow, auth=auth, secret="" if auth == "none" else _secret(key), methods=methods
    )


def _of_setting(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _are_methods(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(m, str) and m.upper() in kinds.METHODS for m in value)


def _secret(seen: Any) -> str:
    """Return a secret as people may see it: a reference stays, anything else is protected."""
    text = seen if isinstance(seen, str) else ""
    return text if not text or protection.is_reference(text) else protection.MARKER
