"""What must not be read: the secrets the daemon has met, hidden wherever they turn up in what is recorded or shown.

Whoever resolves a secret teaches it to ``Masks``; every event passes ``Masks.event`` before it is appended. A secret is
found by its literal bytes, in the spellings in which programs repeat what they were given (see ``spellings``), and
gives way to ``[masked]``. Nothing here makes a pattern out of a secret: one that is ``+++`` or ``\\Q`` is a text like
any other. What is hidden is what people wrote; ids, statuses, names that something is found by and the other words of
the engine stay, even if a secret is spelled like one of them, because masking must not break what it protects.

It does not guess: a secret that nobody resolved is not known here, and one that was encrypted, reversed or cut into
pieces is not found.
"""

from __future__ import annotations

import collections
import functools
import re
import sys
import threading
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec

from .. import events, scheduled, upkeep
from . import spellings

MARKER = "[masked]"
#: A shorter secret would be found by chance inside of other words: it counts only as a whole string or line.
SUBSTRING_CHARACTERS_MIN = 6
#: Secrets that live shortly (a new token for each execution) must not fill the memory of a daemon that runs for months:
#: beyond these bounds the one that was met longest ago is forgotten. A secret is met again whenever it is resolved.
SECRETS_MAX = 10_000
SPELLINGS_BYTES_MAX = 64 * 1024 * 1024

#: So few spellings are looked for one by one, in data that has so many bytes for each: that takes a sixth of the time
#: for the spellings of one secret, and as long as the other way where these bounds are.
_FEW_MAX = 64
_BYTES_EACH = 12

_MARKER = MARKER.encode()
_JSON_MARKER = msgspec.json.encode(MARKER)
#: Numbers with a fraction keep the text they came with.
_decoder = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode()))

#: What is escaped in every JSON text, and how else than in the shortest way it can be.
_ESCAPED, _ESCAPED_OTHERWISE = re.compile(rb'["\\\x00-\x1f]'), (b"\\u", b"\\/")

#: Fields of events that are never text of people: what things are found by, and words of the engine.
_ENGINE_WORDS = frozenset(
    {
        "base", "by", "children", "commit", "created_by", "effect", "execution", "file", "flow_id", "flow_name", "id",
        "key", "key_digest", "kind", "level", "manifest_sha256", "message_type", "on_interrupt", "parent", "path",
        "previous", "protect_inputs", "protect_outputs", "ref", "return_when", "sha256", "source", "status", "stream",
        "task", "terms", "traceparent", "type", "venv", "version", "where",
    }
)  # fmt: skip
#: The same for fields that are text elsewhere.
_ENGINE_WORDS_OF: Mapping[type[msgspec.Struct], frozenset[str]] = {
    events.CallStarted: frozenset({"message"}),
    events.ExecutionEnded: frozenset({"reason"}),
    events.EffectNoticed: frozenset({"effect"}),
    events.RecordSaved: frozenset({"name"}),
    events.RecordDeleted: frozenset({"name"}),
    events.RecordSuperseded: frozenset({"name"}),
    events.LockTaken: frozenset({"name"}),
    events.LockReleased: frozenset({"name"}),
    events.MessageCreated: frozenset({"message"}),
    events.MessageAnswered: frozenset({"message"}),
    events.MessageWithdrawn: frozenset({"message"}),
    events.MessageDeleted: frozenset({"message"}),
    # Names of flows and schedules, and moments: as in the catalogue, which anybody may read.
    **{
        event: frozenset(event.__struct_fields__) - {"reason"}
        for event in (
            scheduled.ScheduleArmed,
            scheduled.ScheduleDisarmed,
            scheduled.ScheduleLate,
            scheduled.TicksMissed,
        )
    },
    # What stands in them was masked when it first happened; a carried line says the same or it says something else.
    **{
        carried: frozenset(carried.__struct_fields__)
        for carried in (events.RecordCarried, events.LockCarried, events.MessageCarried, events.ExecutionCarried)
    },
    events.KeyCarried: frozenset(events.KeyCarried.__struct_fields__),
    events.ExecutionsPruned: frozenset({"executions"}),
    events.SegmentsDropped: frozenset(events.SegmentsDropped.__struct_fields__),
    events.CommitPublished: frozenset({"carried"}),
    upkeep.MaintenanceBegun: frozenset({"by", "since"}),
    upkeep.MaintenanceEnded: frozenset({"by"}),
}
#: Fields, or objects of them, that name files. The keys of such an object are those of the one it belongs to.
_OF_FILES = ("_sealed", "_blob", "_blobs")
#: Objects whose keys the engine chose.
_ENGINE_KEYS = frozenset({"fields", "field_blobs", "fields_sealed"})

S = TypeVar("S", bound=msgspec.Struct)


class Masks:
    """The secrets that are known, and their absence from everything that passes.

    May be used from several threads at once. Costs next to nothing while no secret is known."""

    def __init__(self, *, secrets_max: int = SECRETS_MAX, bytes_max: int = SPELLINGS_BYTES_MAX) -> None:
        self._secrets_max = secrets_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._secrets: collections.OrderedDict[str, Collection[bytes]] = collections.OrderedDict()
        self._short: set[bytes] = set()
        self._short_escaped: set[bytes] = set()  # those of them that JSON writes otherwise
        self._uses: dict[bytes, int] = {}  # spelling → how many secrets have it
        self._by_word: dict[int, tuple[bytes, ...]] = {}  # see _words; tuples, so that readers need no lock
        self._few: tuple[bytes, ...] = ()  # all spellings, as long as there are no more than that
        self._escaped = 0  # how many spellings look otherwise in a JSON text
        self._learning = threading.Lock()
        self.longest_bytes = 0  #: of any spelling ever known

    def knows(self) -> bool:
        """Return whether any secret is known."""
        return bool(self._secrets)

    def learn(self, value: Any) -> None:
        """Hide ``value`` from now on: a text, or each text and number in an object or list.

        Left out are keys, true, false, null, and numbers shorter than ``SUBSTRING_CHARACTERS_MIN`` digits."""
        open_ = [value]
        while open_:
            match open_.pop():
                case str() as text:
                    self._learn(text)
                case bool() | None:
                    pass
                case int() | float() as number:
                    text = msgspec.json.encode(number).decode()
                    if len(text) >= SUBSTRING_CHARACTERS_MIN:
                        self._learn(text)
                case dict() as members:
                    open_.extend(members.values())
                case list() | tuple() as items:
                    open_.extend(items)

    def text(self, text: str) -> str:
        """Return ``text`` without secrets; the same object if there is none in it."""
        if not self._secrets:
            return text
        data = text.encode("utf-8", "surrogatepass")
        masked = self.utf8(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

    def utf8(self, data: bytes) -> bytes:
        """Return ``data``, a text in UTF-8 or nearly so, without secrets; the same object if there is none in it."""
        return self._without_spellings(self._without_short(data))

    def json(self, raw: bytes | msgspec.Raw) -> bytes:
        """Return a JSON text without secrets in its strings, keys and numbers; what it is made of otherwise stays.

        A number that tells a secret becomes a string. Keys that become alike are numbered."""
        text = bytes(raw)
        if not self._secrets:
            return text
        masked = self._json(text)
        return text if masked is None else masked

    def event(self, event: S) -> S:
        """Return ``event`` without secrets in what people wrote; the same object if there is none in it."""
        return event if not self._secrets or self._has_none(event) else self._struct(event)

    # -- what is known ----------------------------------------------------------------------------------------------

    def _learn(self, secret: str) -> None:
        secret = secret.encode("utf-8", "ignore").decode().strip()
        if not secret or secret in MARKER:  # the marker itself would show it
            return
        with self._learning:
            if secret in self._secrets:
                self._secrets.move_to_end(secret)
                return
            if len(secret) < SUBSTRING_CHARACTERS_MIN:
                spelled: Collection[bytes] = ()
                self._short.add(secret.encode())
                if spellings.json_plain(secret) != secret:
                    self._short_escaped.add(secret.encode())
            else:
                spelled = frozenset(form.encode() for form in spellings.of(secret))
            for form in spelled:
                self._add(form)
            self._secrets[secret] = spelled
            while len(self._secrets) > self._secrets_max or (self._bytes > self._bytes_max and len(self._secrets) > 1):
                self._forget(*self._secrets.popitem(last=False))

    def _add(self, form: bytes) -> None:
        self._uses[form] = self._uses.get(form, 0) + 1
        if self._uses[form] == 1:
            self._bytes += len(form)
            self._escaped += bool(_ESCAPED.search(form))
            self.longest_bytes = max(self.longest_bytes, len(form))
            for word in _words(form):
                self._by_word[word] = (*self._by_word.get(word, ()), form)
            self._few = tuple(self._uses) if len(self._uses) <= _FEW_MAX else ()

    def _forget(self, secret: str, spelled: Collection[bytes]) -> None:
        self._short.discard(secret.encode())
        self._short_escaped.discard(secret.encode())
        for form in spelled:
            self._uses[form] -= 1
            if self._uses[form] == 0:
                del self._uses[form]
                self._bytes -= len(form)
                self._escaped -= bool(_ESCAPED.search(form))
                self._few = tuple(other for other in self._few if other != form)
                for word in _words(form):
                    kept = tuple(other for other in self._by_word.pop(word) if other != form)
                    if kept:
                        self._by_word[word] = kept

    # -- where it occurs --------------------------------------------------------------------------------------------

    def _occurring(self, data: bytes) -> list[bytes]:
        """Return the spellings that ``data`` contains.

        Looking for each one would take longer the more are known. So unless they are few every spelling is filed under
        two words of four bytes, which begin at neighbouring places: of each occurrence one of them lies at an even
        place. Only the words at even places are looked up, and only what is filed under one of those is searched for.
        """
        if self._few and len(self._few) * _BYTES_EACH <= len(data):
            return [form for form in self._few if form in data]
        known = self._by_word.__contains__
        view = memoryview(data)
        found: set[int] = set()
        for start in (0, 2):
            end = start + (len(data) - start) // 4 * 4
            if end > start:
                found.update(filter(known, view[start:end].cast("I")))
        if not found:
            return []
        filed = {form for word in found for form in self._by_word.get(word, ())}
        return [form for form in filed if form in data]

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Return from where to where secrets lie in ``data``, in order; those that overlap or touch are one."""
        spans: list[tuple[int, int]] = []
        for form in self._occurring(data):
            at = data.find(form)
            while at >= 0:
                spans.append((at, at + len(form)))
                at = data.find(form, at + 1)
        spans.sort()
        merged: list[tuple[int, int]] = []
        for begin, end in spans:
            if merged and begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def _without_spellings(self, data: bytes) -> bytes:
        spans = self.spans(data)
        if not spans:
            return data
        kept, at = [], 0
        for begin, end in spans:
            kept.append(data[at:begin])
            at = end
        return _MARKER.join([*kept, data[at:]])

    def _without_short(self, data: bytes) -> bytes:
        if not self._short or (b"\n" not in data and data not in self._short):
            return data
        lines = data.split(b"\n")
        if self._short.isdisjoint(lines):
            return data
        return b"\n".join(_MARKER if line in self._short else line for line in lines)

    # -- JSON -------------------------------------------------------------------------------------------------------

    def _json(self, text: bytes) -> bytes | None:
        """Return ``text`` without secrets, or None if there is none in it."""
        try:
            # A string may be escaped in many ways; after this there is one, and that is among the spellings.
            plain = msgspec.json.encode(_decoder.decode(text)) if _is_escaped_otherwise(text) else text
            if not self._occurring(plain) and not self._has_short(plain):
                return None
            root = [_decoder.decode(text)]
            return msgspec.json.encode(root[0]) if self._mask_tree(root) else None
        except RecursionError:  # too deep to look into, though somebody could build it: show nothing of it
            return _JSON_MARKER

    def _has_short(self, plain: bytes) -> bool:
        """Return False if no string is a short secret, from the text alone."""
        if not self._short:
            return False
        strings = plain.replace(b"\\n", b'"').split(b'"')  # and whatever else stands between quotes
        return not self._short.isdisjoint(strings) or (b"\\" in plain and bool(self._short_escaped))

    def _mask_tree(self, root: list[Any]) -> bool:
        """Mask a freshly decoded value in place and return whether there was anything to mask."""
        changed = False
        open_: list[Any] = [root]
        while open_:
            node = open_.pop()
            members = list(node.items() if isinstance(node, dict) else enumerate(node))
            keys = self._keys(node) if isinstance(node, dict) else None
            if keys is not None:
                node.clear()
                changed = True
            for key, member in members:
                masked = self._leaf(member)
                if masked is not member:
                    changed = True
                elif isinstance(member, dict | list):
                    open_.append(member)
                node[key if keys is None else keys[key]] = masked
        return changed

    def _leaf(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bool() | None:
                return value
            case int() | msgspec.Raw():  # a number; Raw is how _decoder gives those with a fraction
                text = str(value).encode() if isinstance(value, int) else bytes(value)
                return MARKER if self._occurring(text) else value
        return value

    def _keys(self, keys: Collection[str]) -> dict[str, str] | None:
        """Return what each key becomes, no two alike, or None if all stay. Short secrets are not looked for."""
        masked = {key: self._without_spellings(key.encode()).decode() for key in keys}
        if all(old == new for old, new in masked.items()):
            return None
        taken = {old for old, new in masked.items() if old == new}
        for old, new in masked.items():
            if old != new:
                count, numbered = 1, new
                while numbered in taken:
                    count += 1
                    numbered = f"{new} {count}"
                taken.add(numbered)
                masked[old] = numbered
        return masked

    # -- events -----------------------------------------------------------------------------------------------------

    def _has_none(self, event: msgspec.Struct) -> bool:
        """Return whether no secret stands anywhere in ``event``, from its JSON text: so it is with nearly all of them.

        Every spelling that has nothing to escape stands in that as it is."""
        try:
            text = msgspec.json.encode(event)
        except UnicodeEncodeError:  # half a character: whoever records it says so
            return False
        if b"\\" in text and (self._escaped or _is_escaped_otherwise(text)):
            return False
        return not self._occurring(text) and not self._has_short(text)

    def _struct(self, struct: S) -> S:
        values = {name: value for name in _texts_of(type(struct)) if (value := getattr(struct, name))}  # most are empty
        if getattr(struct, "kind", "message") != "message":
            values.pop("target", None)  # what a call is made to is found by its name; a message's subject is prose
        keys = [
            key for name, one in values.items() if isinstance(one, dict) and name not in _ENGINE_KEYS for key in one
        ]
        renamed = (self._keys(keys) if keys else None) or {}
        masked = {name: self._field(name, value, renamed) for name, value in values.items()}
        changed = {name: value for name, value in masked.items() if value is not values[name]}
        return msgspec.structs.replace(struct, **changed) if changed else struct

    def _field(self, name: str, value: Any, renamed: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return self._members(name, value, renamed)
        if name.endswith(_OF_FILES):
            return value
        match value:
            case str():
                return self.text(value)
            case msgspec.Raw():
                masked = self._json(bytes(value))
                return value if masked is None else msgspec.Raw(masked)
            case tuple():
                items = tuple(self._field(name, item, renamed) for item in value)
                return value if all(new is old for new, old in zip(items, value, strict=True)) else items
            case msgspec.Struct():
                return self._struct(value)
        return value

    def _members(self, name: str, value: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
        masked = {key: self._field(name, member, renamed) for key, member in value.items()}
        new = masked if name in _ENGINE_KEYS else {renamed.get(key, key): member for key, member in masked.items()}
        same = new.keys() == value.keys() and all(new[key] is member for key, member in value.items())
        return value if same else new


class Stream:
    """The output of a process, which comes in pieces: a secret that two of them share is masked all the same.

    Gives back whole lines as soon as they are complete; what follows the last line break waits for the next piece, but
    no more than ``line_bytes_max`` and what could be the beginning of a secret."""

    def __init__(self, masks: Masks, line_bytes_max: int) -> None:
        self._masks = masks
        self._line_bytes_max = line_bytes_max
        self._pending = bytearray()

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes and return those that can be recorded, masked."""
        self._pending += piece
        end = self._pending.rfind(b"\n") + 1
        if len(self._pending) - end > self._line_bytes_max:
            end = max(end, self._cut())
        return self._release(end)

    def flush(self) -> bytes:
        """Return what is left, masked: nothing follows."""
        return self._release(len(self._pending))

    def _cut(self) -> int:
        """Return where to cut a line that is too long: no secret begins before that and ends, or may end, after it."""
        end = max(0, len(self._pending) - max(0, self._masks.longest_bytes - 1))
        for begin, after in self._masks.spans(bytes(self._pending)):
            if begin < end < after:
                return begin or after
        return end

    def _release(self, end: int) -> bytes:
        released = bytes(memoryview(self._pending)[:end])
        del self._pending[:end]
        return self._masks.utf8(released)


@functools.cache
def _texts_of(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the fields of an event that may hold what people wrote. A new field does, until it is named above."""
    words = _ENGINE_WORDS | _ENGINE_WORDS_OF.get(struct, frozenset())
    return tuple(name for name in struct.__struct_fields__ if name not in words)


def _words(form: bytes) -> set[int]:
    """Return the words a spelling is filed under: from its middle, since many secrets begin alike (``ghp_``)."""
    middle = (len(form) - 5) // 2
    return {int.from_bytes(form[at : at + 4], sys.byteorder) for at in (middle, middle + 1)}


def _is_escaped_otherwise(text: bytes) -> bool:
    """Return whether a JSON text may escape otherwise than ``spellings.json_plain`` does, or what needs no escape."""
    return any(form in text for form in _ESCAPED_OTHERWISE)
