"""The task types that are there: built in, and by entry point from other distributions.

It owns everything the types have in common: finding a type by name or alias, telling missing, wrong and unknown inputs
apart with messages people can act on, the escape of reserved words (``from_`` is ``from``), the JSON Schemas, and the
bound on what a task may return. The engine calls ``prepare`` before it records the call, and ``run`` after.

A type is loaded when somebody first asks for it: a daemon is ready sooner, and smaller, without those it does not need.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import importlib.metadata
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from ..engine import errors, ports, values
from . import builtin, definition

log = structlog.get_logger()

ENTRY_POINTS = "headrace.tasks"
# What msgspec says about a value: the expectation, then what it got (left out: it may quote the value) and where.
_COMPLAINT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_TYPES = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}


class Prepared(msgspec.Struct, frozen=True):
    """A task whose inputs are known to be good."""

    _definition: definition.TaskDefinition[Any]
    _inputs: definition.Inputs

    @property
    def type(self) -> str:
        """The canonical type."""
        return self._definition.name

    @property
    def timeout_s(self) -> float | None:
        """How long the whole of it may take; None is without limit."""
        return self._inputs.timeout or None

    @property
    def idempotent(self) -> bool:
        """Whether it may simply be repeated when it was cut off midway."""
        return self._inputs.retry_interrupted or self._definition.idempotent(self._inputs)

    @property
    def secret_inputs(self) -> frozenset[str]:
        """Inputs that no record shows, whatever they are called."""
        return self._definition.secret_inputs

    async def run(self, context: ports.TaskContext) -> bytes:
        """Do it and return the output; raises ``TaskFailed``, also when there is more output than may be recorded."""
        output = await self._definition.run(self._inputs, context)
        text = values.encode(output, f"the output of {self.type}")
        if len(text) > values.VALUE_BYTES_MAX:
            raise errors.TaskFailed(
                f"{self.type} succeeded, but its output is {len(text):,} bytes as JSON and the limit is "
                f"{values.VALUE_BYTES_MAX:,}: let it write to a file"
            )
        return text


class Type(NamedTuple):
    """A type that may not be loaded yet: what it is called, its own name first, and how to load it."""

    names: tuple[str, ...]
    load: Callable[[], definition.TaskDefinition[Any]]


class Registry:
    """Implements ``ports.Tasks``. ``aclose`` when the daemon stops, on the event loop the tasks ran on.

    ``built_in`` are loaded one by one, ``foreign`` ones together, for only then is it known what they are called."""

    def __init__(
        self, built_in: Iterable[Type], foreign: Callable[[], Iterable[definition.TaskDefinition[Any]]] = tuple
    ) -> None:
        self._loading = threading.RLock()
        self._types: dict[str, Type] = {}  # by each of their names, folded
        self._loaded: dict[str, definition.TaskDefinition[Any]] = {}  # by their own names, folded
        self._foreign: Callable[[], Iterable[definition.TaskDefinition[Any]]] | None = foreign  # until they are loaded
        _add(self._types, built_in)

    def load_foreign(self) -> None:
        """Have the types of other distributions there, from any thread; later calls return at once.

        Raises ``ConfigurationInvalid`` for two types of the same name."""
        with self._loading:
            if self._foreign is None:
                return
            types = dict(self._types)
            found = list(self._foreign())
            _add(types, (Type((one.name, *one.aliases), functools.partial(_itself, one)) for one in found))
            self._types, self._foreign = types, None

    def _at_hand(self, name: str) -> definition.TaskDefinition[Any] | None:
        known = self._types.get(name.casefold())
        return None if known is None else self._loaded.get(known.names[0].casefold())

    def _find(self, name: str) -> definition.TaskDefinition[Any] | None:
        """Return the type of that name, from any thread; None if there is none. Waits only for one not loaded yet."""
        if (found := self._at_hand(name)) is not None:
            return found
        with self._loading:
            if name.casefold() not in self._types:
                self.load_foreign()
            known = self._types.get(name.casefold())
            if known is None:
                return None
            own = known.names[0].casefold()
            if own not in self._loaded:
                self._loaded[own] = known.load()
            return self._loaded[own]

    async def ready(self, type: str) -> None:  # noqa: A002 - flow authors call it so
        """Load a type in a thread, unless it is; nothing is said of an unknown one."""
        if self._at_hand(type) is None:
            await asyncio.to_thread(self._find, type)

    def prepare(self, type: str, inputs: bytes) -> Prepared:  # noqa: A002 - flow authors call it so
        """Validate; raises ``NotFound`` for an unknown type and ``InputRefused`` for inputs that cannot be used."""
        found = self._find(type)
        if found is None:
            names = {name: one.names[0] for one in self._types.values() for name in one.names}
            raise errors.NotFound(
                f"there is no task type {type!r}" + _nearest(type, names),
                hint=f"the types are {', '.join(sorted({*names.values()}))}",
            )
        struct = _decoded(found, _named(found, inputs))
        found.check(struct)
        return Prepared(found, struct)

    def types(self) -> Sequence[ports.TaskType]:
        """All types, by name, with JSON Schemas that stand alone. Loads them all, from any thread."""
        self.load_foreign()
        everything = (self._find(name) for name in {one.names[0] for one in self._types.values()})
        return [
            ports.TaskType(
                name=one.name,
                aliases=one.aliases,
                summary=one.summary,
                description=one.description,
                inputs=msgspec.json.schema(one.inputs),
                output=msgspec.json.schema(one.output),
            )
            for one in sorted(filter(None, everything), key=lambda one: one.name)
        ]

    async def aclose(self) -> None:
        """Close what the types keep open between runs."""
        for one in list(self._loaded.values()):  # a thread may be loading another
            await one.close()


def installed(settings: definition.Settings | None = None) -> Registry:
    """Return the registry of the built-in types and those that installed distributions bring.

    A foreign type that is not there or lacks a library is logged and left out: a distribution that was half removed
    must not keep the daemon from running. What else its module raises is a defect, and raised by whoever loads it."""
    settings = settings or definition.Settings()
    return Registry(_built_in(settings), functools.partial(_from_entry_points, settings))


def built_in() -> Registry:
    """Return the registry of the built-in types alone."""
    return Registry(_built_in(definition.Settings()))


def of(*definitions: definition.TaskDefinition[Any]) -> Registry:
    """Return the registry of these types alone."""
    return Registry((), lambda: definitions)


def _built_in(settings: definition.Settings) -> Iterator[Type]:
    return (Type(names, functools.partial(_made, where, settings)) for where, names in builtin.TYPES.items())


def _made(where: str, settings: definition.Settings) -> definition.TaskDefinition[Any]:
    module, _, function = where.partition(":")
    factory: definition.Factory = getattr(importlib.import_module(f".{module}", __package__), function or "definition")
    return factory(settings)


def _itself(one: definition.TaskDefinition[Any]) -> definition.TaskDefinition[Any]:
    return one


def _add(known: dict[str, Type], types: Iterable[Type]) -> None:
    for one in types:
        for name in one.names:
            taken = known.setdefault(name.casefold(), one)
            if taken is not one:
                raise errors.ConfigurationInvalid(
                    f"two task types are called {name}: {taken.names[0]} and {one.names[0]}",
                    hint="uninstall the distribution that brings the one you do not want",
                )


def _from_entry_points(settings: definition.Settings) -> Iterator[definition.TaskDefinition[Any]]:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found = entry.load()(settings)
        except (ImportError, AttributeError) as error:
            log.error("task_type.load_failed", entry_point=entry.name, value=entry.value, error=repr(error))
        else:
            yield found


def _named(found: definition.TaskDefinition[Any], inputs: bytes) -> dict[str, msgspec.Raw]:
    """Return the given inputs by their canonical names; raises for a name nobody knows and for one given twice."""
    given = values.members(inputs)
    if given is None:
        raise errors.InputRefused("InvalidInputError", f"{found.name} takes an object of names and values")
    known = found.inputs.__struct_encode_fields__
    named: dict[str, msgspec.Raw] = {}
    for key, value in given.items():
        name = _canonical(key, known, found.input_aliases)
        if name is None:
            raise errors.InputRefused(
                "ExtraInputError",
                f"{found.name} has no input '{key}'" + _nearest(key, [*known, *found.input_aliases]),
                hint=f"its inputs are {', '.join(known)}",
            )
        if bytes(value) == b"null":
            continue
        if name in named:
            raise definition.invalid(found.name, name, f"it is given twice, the second time as '{key}'")
        named[name] = value
    return named


def _canonical(key: str, known: Sequence[str], aliases: Mapping[str, str]) -> str | None:
    for name in (key, key.removesuffix("_")):
        if name in known:
            return name
        if name in aliases:
            return aliases[name]
    return None


def _decoded(found: definition.TaskDefinition[Any], named: Mapping[str, msgspec.Raw]) -> definition.Inputs:
    try:
        return msgspec.json.decode(msgspec.json.encode(named), type=found.inputs)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        for field in msgspec.structs.fields(found.inputs):
            if field.required and field.encode_name not in named:
                raise definition.missing(found.name, field.encode_name, _described(field)) from None
        raise _refusal(found.name, str(error)) from None


def _described(field: msgspec.structs.FieldInfo) -> str:
    described = msgspec.inspect.type_info(field.type)
    extra = described.extra_json_schema if isinstance(described, msgspec.inspect.Metadata) else None
    return str((extra or {}).get("description", "it is required"))


def _refusal(task: str, complaint: str) -> errors.InputRefused:
    """Turn msgspec's words into ours; never quotes the value."""
    match = _COMPLAINT.match(complaint)
    assert match is not None, "the pattern matches every text"
    path = (match["path"] or "$").removeprefix("$.")
    what = match["what"]
    if what.startswith("Invalid enum value"):
        return definition.invalid(task, path, "it is not one of the values that are possible")
    if what.startswith("Object contains unknown field"):
        return definition.invalid(task, path, what.replace("Object contains", "it contains an"))
    what = _TYPES.sub(_spoken, what)
    return definition.invalid(task, path, what[:1].lower() + what[1:])


def _spoken(types: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(one, one) for one in types[1].split(" | ") if one != "null")


def _nearest(name: str, known: Iterable[str]) -> str:
    spelled = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), spelled, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(spelled[one]) for one in near)}?" if near else ""
