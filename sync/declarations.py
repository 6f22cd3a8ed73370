"""What a commit declares beside flows: settings, files, connections, webhooks, schedules, vault configs. Pure.

Owns: the fields each type may have and their shapes, the digest that tells whether a declaration changed, and the
last good declaration of a file that is broken now. Refuses: unknown keys and wrong types, each with file, line and
key, and two files for one record. Called by ``catalogue`` with the documents that ``documents`` read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..engine import model, policy
from . import documents, policies, shapes, tree
from .places import Place, Places

#: The catalogue and every manifest hold all declared values; files are read from the snapshot and do not count.
TOTAL_BYTES_MAX = 64 * 1024 * 1024

Declared = Mapping[str, Mapping[str, model.Declared]]

_URL = re.compile(r"https?://[^\s/]+.*")
_REFERENCE = re.compile(r"(vault\.secret\()?[^:()\s][^:()]*:[^()]+(?(1)\))")
#: One secret, whose keys the connection's value refers to as ``vault.secret(key)``.
_SECRET = re.compile(r"[^:()\s][^:()\n]*:[^:()\s][^:()\n]*")


class Declarations(msgspec.Struct, frozen=True):
    """What a commit declares, what of it cannot be used, and path → what people should know."""

    declared: dict[str, dict[str, model.Declared]]
    problems: tuple[model.Broken, ...]
    warnings: dict[str, str]


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit whose declarations are to be gathered; ``webhooks`` are those of its flows, name → flow."""

    sha: str
    plan: tree.Plan
    places: Places
    documents: Mapping[str, documents.Document]
    webhooks: Mapping[str, str]


def files_to_read(
    before: model.Catalogue, blobs: Mapping[str, str], warned: Iterable[str], plan: tree.Plan, places: Places
) -> list[tree.Entry]:
    """Return the documents that are new or changed since ``blobs``, and those that had something wrong."""
    doubtful = {problem.file for problem in before.problems} | set(warned)
    return [
        entry
        for entry in plan.files
        if (place := places.of(entry.path)) is not None
        and place.type != "file"
        and (
            entry.path in doubtful
            or blobs.get(entry.path) != entry.blob
            or _known(before.declared, place, entry.path) is None
        )
    ]


def gather(before: model.Catalogue, commit: Commit) -> Declarations:
    """Return what ``commit`` declares; a file that cannot be used keeps what it declared last."""
    gathering = _Gathering(before, commit)
    for entry in sorted(commit.plan.files, key=lambda entry: entry.path):
        if place := commit.places.of(entry.path):
            gathering.add(entry, place)
    for path, reason in sorted(commit.plan.left_out.items()):
        if place := commit.places.of(path):
            gathering.refuse(place, path, _Unfit(reason))
    return gathering.result()


class _Unfit(Exception):
    """Why a declaration cannot be used."""

    def __init__(self, reason: str, line: int = 0, key: str = "", *, displaced: bool = False) -> None:
        """``displaced``: something else has its name, so what it declared last cannot stay either."""
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.key = key
        self.displaced = displaced


class _Gathering:
    """The declarations of one commit while they are gathered."""

    def __init__(self, before: model.Catalogue, commit: Commit) -> None:
        self._before = before
        self._commit = commit
        self._marks = {problem.file: problem for problem in before.problems}
        self._declared: dict[str, dict[str, model.Declared]] = {}
        self._problems: list[model.Broken] = []
        self._warnings: dict[str, str] = {}
        self._bytes = 0

    def add(self, entry: tree.Entry, place: Place) -> None:
        """Take up what the file declares, or say what is wrong with it."""
        try:
            found = self._read(entry, place)
            self._take(place, found)
        except _Unfit as unfit:
            self.refuse(place, entry.path, unfit)

    def refuse(self, place: Place, path: str, unfit: _Unfit) -> None:
        """Mark a file that cannot be used; what it declared last stays."""
        mark = model.Broken(reason=unfit.reason, file=path, line=unfit.line, commit=self._commit.sha, key=unfit.key)
        old = self._marks.get(path)
        if old is not None and msgspec.structs.replace(old, commit=mark.commit) == mark:
            mark = old  # the commit that broke it tells more than the latest one
        self._problems.append(mark)
        last = self._before.declared.get(place.type, {}).get(place.name)
        if last is not None and not unfit.displaced and place.name not in self._declared.get(place.type, {}):
            self._declared.setdefault(place.type, {})[place.name] = last

    def result(self) -> Declarations:
        """Return everything gathered, in order of name."""
        ordered = {type_: dict(sorted(named.items())) for type_, named in sorted(self._declared.items())}
        return Declarations(ordered, tuple(self._problems), self._warnings)

    def _read(self, entry: tree.Entry, place: Place) -> model.Declared:
        sha = self._commit.sha
        if place.type == "file":
            return model.Declared(digest=entry.blob, path=entry.path, commit=sha, size=entry.size)
        document = self._commit.documents.get(entry.path)
        if document is None:  # not looked at, because it is as it was
            known = _known(self._before.declared, place, entry.path)
            assert known is not None, f"{entry.path} was neither read nor known"
            return msgspec.structs.replace(known, commit=sha)
        if document.problem:
            raise _Unfit(document.problem, document.line)
        fields = _fields(place.type, document)
        if place.type == "vault_config" and (open_ := [k for k in _SECRET_KEYS if _is_literal(fields.get(k))]):
            self._warnings[entry.path] = f"{' and '.join(open_)} stands in the repository: write secret.env(NAME)"
        return model.Declared(digest=_digest(place.type, fields), path=entry.path, commit=sha, fields=_encoded(fields))

    def _take(self, place: Place, found: model.Declared) -> None:
        named = self._declared.setdefault(place.type, {})
        if other := named.get(place.name):
            raise _Unfit(f"the {place.type} {place.name!r} is declared by {other.path!r} already")
        if place.type == "webhook" and (owner := self._commit.webhooks.get(place.name)):
            said = f"the webhook {place.name!r} belongs to the flow {owner!r}, whose metadata names it"
            raise _Unfit(said, displaced=True)
        self._bytes += sum(len(bytes(value)) for value in found.fields.values())
        if self._bytes > TOTAL_BYTES_MAX:
            raise _Unfit(f"all declared values together are more than {TOTAL_BYTES_MAX:,} bytes; use files/ for data")
        named[place.name] = found


def _known(before: Declared, place: Place, path: str) -> model.Declared | None:
    """Return what this very file declared before."""
    known = before.get(place.type, {}).get(place.name)
    return known if known is not None and known.path == path else None


def _fields(type_: str, document: documents.Document) -> dict[str, Any]:
    """Return the record's fields in their one form; raises ``_Unfit`` naming the key."""
    value = msgspec.json.decode(document.value)
    if type_ == "setting":
        return {"value": value}
    try:
        return _SHAPES[type_](value)
    except shapes.Wrong as wrong:
        line = document.lines.get(wrong.key.partition(".")[0], 1)
        said = f"{wrong.key} {wrong.message}" if wrong.key else f"the document {wrong.message}"
        raise _Unfit(said, line, wrong.key) from None


def _encoded(fields: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in fields.items()}


def _digest(type_: str, fields: Mapping[str, Any]) -> str:
    """Return what changes with the content alone: not with comments, order of keys or the way it is written."""
    return hashlib.sha256(type_.encode() + b"\n" + msgspec.json.encode(fields, order="sorted")).hexdigest()


def _is_literal(value: object) -> bool:
    return isinstance(value, str) and value != "" and not shapes.is_secret_reference(value)


def _references(value: object) -> dict[str, str] | str:
    if isinstance(value, str) and _SECRET.fullmatch(value):
        return value
    checked = {}
    for key, reference in shapes.table(value).items():
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            # The value is not repeated: it may be a secret itself.
            raise shapes.Wrong("must say where the secret is: write config:path.key, as a text", key)
        checked[key] = reference
    return checked


def _record(required: Iterable[str], **checks: shapes.Check) -> Callable[[object], dict[str, Any]]:
    """Return the check of a document that declares a record with these fields."""
    check = shapes.fields(description=shapes.text, **checks)

    def checked(value: object) -> dict[str, Any]:
        fields = check(value)
        for alias in fields.keys() & _ALIASES.keys():
            key = _ALIASES[alias]
            if key in fields:
                raise shapes.Wrong(f"is the same as {key}; give one of them", alias)
            fields[key] = fields.pop(alias)
        for key in required:
            if key not in fields:
                raise shapes.Wrong(f"has no {key}")
        return fields

    return checked


def _webhook(value: object) -> dict[str, Any]:
    fields = _webhook_fields(value)
    shapes.admission(fields, auth_default="key")
    return fields


def _matching(pattern: re.Pattern[str], example: str) -> shapes.Check:
    def check(value: object) -> str:
        if not pattern.fullmatch(shapes.full_text(value).strip()):
            raise shapes.Wrong(f"is {shapes.shown(value)}; write it like {example}")
        return str(value)

    return check


def _checked(check: shapes.Check) -> shapes.Check:
    """Return the check that lets a value through as it was written."""

    def checked(value: object) -> object:
        check(value)
        return value

    return checked


_ALIASES = {"connector_type": "connection_type", "flow": "flow_name", "key": "secret"}
_SECRET_KEYS = ("token", "secret_id")
_webhook_fields = _record(
    ("flow_name",),
    flow_name=shapes.full_text,
    flow=shapes.full_text,
    auth=shapes.auth,
    secret=shapes.secret,
    key=shapes.secret,
    methods=shapes.methods,
    is_enabled=shapes.flag,
)
_SHAPES: dict[str, Callable[[object], dict[str, Any]]] = {
    "connection": _record(
        ("connection_type", "value"),
        connection_type=shapes.full_text,
        connector_type=shapes.full_text,
        value=shapes.table,
        vault_secrets=_references,
    ),
    "webhook": _webhook,
    "schedule": _record(
        ("flow_name", "cron"),
        flow_name=shapes.full_text,
        flow=shapes.full_text,
        cron=policies.cron_text,
        timezone=policies.zone,
        input_value=shapes.table,
        catchup=_checked(policies.catchup),
        overlap=shapes.one_of(*policy.OVERLAP),
        expect=_checked(policies.expect),
        is_enabled=shapes.flag,
    ),
    "vault_config": _record(
        ("url",),
        url=_matching(_URL, "https://vault.example:8200"),
        token=shapes.text,
        role_id=shapes.text,
        secret_id=shapes.text,
        engine_path=shapes.full_text,
        namespace=shapes.text,
        cacert=shapes.text,
        is_enabled=shapes.flag,
    ),
}
