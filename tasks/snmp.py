"""SNMP: read values of a device, walk through them, and set some, by version 1, 2c or 3, through pysnmp.

pysnmp decodes in Python, which takes its time, so each task has a thread with an event loop of its own. Object
identifiers are numbers: no MIB files are read. UDP has no connection: a device that is not there, one that does not
know the community and one that is slow all look alike, and the failure says so. A change is sent once; a question is
sent again when no answer came.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import blocking, extras, host
from . import definition as definitions
from . import snmp_values as values
from .definition import invalid, missing
from .host import about

TASK = "SNMP"
PORT = 161
_AUTHENTICATION = {
    "md5": "usmHMACMD5AuthProtocol",
    "sha": "usmHMACSHAAuthProtocol",
    "sha224": "usmHMAC128SHA224AuthProtocol",
    "sha256": "usmHMAC192SHA256AuthProtocol",
    "sha384": "usmHMAC256SHA384AuthProtocol",
    "sha512": "usmHMAC384SHA512AuthProtocol",
}
_PRIVACY = {
    "des": "usmDESPrivProtocol",
    "3des": "usm3DESEDEPrivProtocol",
    "aes": "usmAesCfb128Protocol",
    "aes192": "usmAesCfb192Protocol",
    "aes256": "usmAesCfb256Protocol",
}
#: Shorter ones are refused by every device (RFC 3414, 11.2).
_PASSWORD_CHARACTERS_MIN = 8
#: Communities that are no secrets: hiding these words would hide them everywhere.
_KNOWN_TO_ALL = frozenset({"public", "private"})


class SnmpInputs(host.LoginInputs, kw_only=True):
    """The inputs of SNMP."""

    port: Annotated[host.Port | None, about("Default: 161.")] = None
    version: Annotated[
        Literal["1", "2c", "3"] | None, about("The version of the protocol. Default: 3 with username, else 2c.")
    ] = None
    community: Annotated[str | None, about("What versions 1 and 2c have instead of a user.")] = None
    username: Annotated[str | None, about("For version 3: the user.")] = None
    password: Annotated[
        str | None, about("For version 3: the user's password for authentication. Default: there is none.")
    ] = None
    privacy_password: Annotated[
        str | None, about("For version 3: the password for encryption. Default: nothing is encrypted.")
    ] = None
    authentication_protocol: Annotated[
        Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"], about("For version 3. Default: sha.")
    ] = "sha"
    privacy_protocol: Annotated[
        Literal["des", "3des", "aes", "aes192", "aes256"], about("For version 3. Default: aes.")
    ] = "aes"
    context_name: Annotated[str, about("For version 3: the context. Default: the default one.")] = ""
    connect_timeout: Annotated[
        float, msgspec.Meta(gt=0, description="Seconds to find the address of a name. Default: 30.")
    ] = 30.0
    read_timeout: Annotated[
        float, msgspec.Meta(gt=0, le=3600, description="Seconds to wait for each answer. Default: 2.")
    ] = 2.0
    tries: Annotated[
        int, msgspec.Meta(ge=1, le=100, description="How often a question is sent; a change is sent once. Default: 3.")
    ] = 3
    command: Annotated[
        Literal["get", "next", "bulk", "walk", "set"],
        about("What to do: get the values of oids, the ones after them (next, or many: bulk), all below them (walk), "
        "or set values. Default: get."),
    ] = "get"  # fmt: skip
    oids: Annotated[
        str | list[str] | None, about("The object identifiers in numbers, such as 1.3.6.1.2.1.1.5.0, or one of them.")
    ] = None
    values: Annotated[
        dict[str, Any] | None,
        about("For set: an object of identifiers and values: whole numbers, texts, or {type, value} with type one of "
        "integer, string, oid, ipaddress, counter32, counter64, gauge32, timeticks, opaque, bits."),
    ] = None  # fmt: skip
    max_repetitions: Annotated[
        int, msgspec.Meta(ge=1, le=1000, description="For bulk and walk: how many at once. Default: 25.")
    ] = 25
    non_repeaters: Annotated[
        int, msgspec.Meta(ge=0, le=100, description="For bulk: of how many oids only the next one. Default: 0.")
    ] = 0
    max_entries: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="More entries than that are a failure. Default: 10000.")
    ] = 10_000

    @property
    def spoken(self) -> str:
        """The version in force."""
        return self.version or ("2c" if self.username is None else "3")

    @property
    def names(self) -> list[str]:
        """The object identifiers that are asked for."""
        given = [self.oids] if isinstance(self.oids, str) else self.oids or []
        return [one.lstrip(".") for one in given]

    @property
    def repeatable(self) -> bool:
        """Whether it changes nothing."""
        return self.command != "set"


class SnmpOutput(msgspec.Struct, kw_only=True):
    """The output of SNMP."""

    entries: list[values.Entry]


def _check(inputs: SnmpInputs) -> None:
    host.check_hostname(TASK, inputs)
    if inputs.spoken == "3":
        if inputs.username is None:
            raise missing(TASK, "username", "the user, with version 3")
        if inputs.community is not None:
            raise invalid(TASK, "community", "version 3 has users instead")
        if inputs.privacy_password is not None and inputs.password is None:
            raise missing(TASK, "password", "there is no encryption without authentication")
        for name in ("password", "privacy_password"):
            given = getattr(inputs, name)
            if given is not None and len(given) < _PASSWORD_CHARACTERS_MIN:
                raise invalid(TASK, name, f"expected at least {_PASSWORD_CHARACTERS_MIN} characters")
    else:
        if inputs.community is None:
            raise missing(TASK, "community", "the community, with version 1 or 2c, or 'username' with version 3")
        for name in ("username", "password", "privacy_password"):
            if getattr(inputs, name) is not None:
                raise invalid(TASK, name, "versions 1 and 2c have a community instead")
    if inputs.command == "bulk" and inputs.spoken == "1":
        raise invalid(TASK, "command", "version 1 knows no bulk")
    if inputs.command == "set":
        if not inputs.values:
            raise missing(TASK, "values", "what to set")
        if inputs.oids is not None:
            raise invalid(TASK, "oids", "what to set stands in 'values'")
    else:
        if not inputs.names:
            raise missing(TASK, "oids", f"{inputs.command} needs it")
        if inputs.values is not None:
            raise invalid(TASK, "values", "it is for set")
    for oid in inputs.names:
        values.check(TASK, oid, "oids")
    for oid, value in (inputs.values or {}).items():
        values.check(TASK, oid.lstrip("."), "values")
        values.typed(TASK, value)


class _Silent(host.Failed):
    """Nobody answered."""


class _Work:
    """One task, in a thread of its own, on an event loop of its own."""

    def __init__(self, inputs: SnmpInputs, address: str) -> None:
        self._inputs = inputs
        self._address = address
        self._where = f"{inputs.hostname}:{inputs.port or PORT}"
        self._guard = threading.Lock()
        self._stopped = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._found: list[values.Entry] = []

    def stop(self) -> None:
        """End it soon, from another thread."""
        with self._guard:
            self._stopped = True
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)

    def run(self) -> SnmpOutput:
        """Do it; raises ``host.Failed``."""
        try:
            return asyncio.run(self._main())
        except asyncio.CancelledError:
            raise host.Failed("cancelled") from None

    async def _main(self) -> SnmpOutput:
        task = asyncio.current_task()
        assert task is not None
        with self._guard:
            if self._stopped:
                raise asyncio.CancelledError
            self._running = (asyncio.get_running_loop(), task)
        try:
            return await self._performed(_library())
        finally:
            with self._guard:
                self._running = None

    async def _performed(self, snmp: Any) -> SnmpOutput:
        inputs, engine = self._inputs, snmp.SnmpEngine()
        try:
            asked = _Asked(snmp, engine, inputs, self._where, await self._target(snmp))
            match inputs.command:
                case "walk":
                    for oid in inputs.names:
                        await self._walked(asked, oid)
                case "set":
                    self._add(await asked.set(inputs.values or {}))
                case "next":
                    self._add(await asked.next(inputs.names))
                case "bulk":
                    self._add(await asked.bulk(inputs.names, inputs.non_repeaters))
                case _:
                    self._add(await asked.get(inputs.names))
            return SnmpOutput(entries=self._found)
        except (snmp.PySnmpError, *host.GARBAGE) as error:
            raise host.Failed(f"what the device says is not understood: {host.quoted(str(error))}") from None
        finally:
            engine.close_dispatcher()

    async def _target(self, snmp: Any) -> Any:
        kind = snmp.Udp6TransportTarget if ":" in self._address else snmp.UdpTransportTarget
        tries = self._inputs.tries if self._inputs.repeatable else 1
        timeout = self._inputs.read_timeout
        return await kind.create((self._address, self._inputs.port or PORT), timeout=timeout, retries=tries - 1)

    async def _walked(self, asked: _Asked, oid: str) -> None:
        """Collect what lies below ``oid``, and itself when it is a value."""
        top, last, begun = values.arcs(oid), oid, len(self._found)
        while True:
            more = await (asked.next([last]) if self._inputs.spoken == "1" else asked.bulk([last], 0))
            for entry in more:
                if entry.type == "end" or values.arcs(entry.oid)[: len(top)] != top:
                    more = []
                    break
                if values.arcs(entry.oid) <= values.arcs(last):
                    raise host.Failed(f"the device does not go on: after {last} it names {entry.oid}")
                last = entry.oid
                self._add([entry])
            if not more:
                break
        if len(self._found) == begun:
            self._add(one for one in await asked.get([oid], lenient=True) if one.type not in values.NOTHING)

    def _add(self, entries: Sequence[values.Entry] | Iterator[values.Entry]) -> None:
        for entry in entries:
            if len(self._found) >= self._inputs.max_entries:
                raise host.Failed(
                    f"there are more than {self._inputs.max_entries:,} entries: ask for fewer of them, or give a "
                    "larger max_entries"
                )
            self._found.append(entry)


class _Asked:
    """Questions to one device."""

    def __init__(self, snmp: Any, engine: Any, inputs: SnmpInputs, where: str, target: Any) -> None:
        self._snmp = snmp
        self._inputs = inputs
        self._where = where
        self._many: Any = None
        self._common = (engine, _credentials(snmp, inputs), target, snmp.ContextData(contextName=inputs.context_name))

    async def get(self, oids: list[str], *, lenient: bool = False) -> list[values.Entry]:
        """Return the values of ``oids``; ``lenient`` takes that there is none for no failure."""
        return await self._answered(self._snmp.get_cmd, oids, self._names(oids), lenient=lenient)

    async def next(self, oids: list[str]) -> list[values.Entry]:
        """Return the values after ``oids``; with version 1 nothing after the last one."""
        return await self._answered(self._snmp.next_cmd, oids, self._names(oids), lenient=True)

    async def bulk(self, oids: list[str], non_repeaters: int) -> list[values.Entry]:
        """Return many values after ``oids``."""
        self._many = functools.partial(_bulk, self._snmp, non_repeaters, self._inputs.max_repetitions)
        return await self._answered(self._many, oids, self._names(oids))

    async def set(self, changes: dict[str, Any]) -> list[values.Entry]:
        """Change values."""
        wanted = []
        for oid, given in changes.items():
            kind, value = values.typed(TASK, given)
            typed = getattr(self._snmp, values.TYPES[kind])(value)
            wanted.append(self._snmp.ObjectType(self._snmp.ObjectIdentity(oid.lstrip(".")), typed))
        return await self._answered(self._snmp.set_cmd, [oid.lstrip(".") for oid in changes], wanted)

    def _names(self, oids: list[str]) -> list[Any]:
        return [self._snmp.ObjectType(self._snmp.ObjectIdentity(oid)) for oid in oids]

    async def _answered(
        self, ask: Any, oids: list[str], wanted: list[Any], *, lenient: bool = False
    ) -> list[values.Entry]:
        trouble, status, index, bound = await ask(*self._common, *wanted, lookupMib=False)
        if trouble:
            raise self._failed(trouble)
        if status:
            name = status.prettyPrint()
            if lenient and name == "noSuchName":
                return []
            place = int(index)
            about_it = f" about {oids[place - 1]}" if 0 < place <= len(oids) else ""
            raise host.Failed(f"the device answers {name}{about_it}", passing=name == "resourceUnavailable")
        if ask is not self._many and len(bound) != len(oids):
            raise host.Failed(f"the device answered {len(bound)} of {len(oids)} questions")
        return [values.entry(name, value) for name, value in bound]

    def _failed(self, trouble: Any) -> host.Failed:
        inputs = self._inputs
        match type(trouble).__name__:
            case "RequestTimedOut":
                tries = inputs.tries if inputs.repeatable else 1
                words = f"no answer from {self._where} to {tries} × {inputs.read_timeout:g} s"
                other = (
                    "it does not know the community"
                    if inputs.spoken != "3"
                    else "it cannot read what 'privacy_password' encrypted"
                )
                return _Silent(f"{words}: there may be nobody, or {other}", passing=True)
            case "UnknownUserName" | "UnknownSecurityName":
                return host.Failed(f"the device does not know the user {inputs.username}")
            case "WrongDigest" | "AuthenticationFailure" | "AuthenticationError":
                return host.Failed(f"the device refused the password of {inputs.username}, or its protocol")
            case "DecryptionError":
                return host.Failed(f"the device refused the privacy password of {inputs.username}, or its protocol")
            case "UnsupportedSecurityLevel":
                words = "give 'privacy_password'" if inputs.password and not inputs.privacy_password else "other inputs"
                return host.Failed(f"the device wants another level of security of {inputs.username}: {words}")
        return host.Failed(f"the device cannot be asked: {host.quoted(str(trouble))}")


async def _bulk(snmp: Any, non_repeaters: int, repetitions: int, *arguments: Any, **named: Any) -> Any:
    return await snmp.bulk_cmd(*arguments[:4], non_repeaters, repetitions, *arguments[4:], **named)


def _credentials(snmp: Any, inputs: SnmpInputs) -> Any:
    if inputs.spoken != "3":
        return snmp.CommunityData(inputs.community, mpModel=0 if inputs.spoken == "1" else 1)
    secured: dict[str, Any] = {}
    if inputs.password is not None:
        secured["authKey"] = inputs.password
        secured["authProtocol"] = getattr(snmp, _AUTHENTICATION[inputs.authentication_protocol])
    if inputs.privacy_password is not None:
        secured["privKey"] = inputs.privacy_password
        secured["privProtocol"] = getattr(snmp, _PRIVACY[inputs.privacy_protocol])
    return snmp.UsmUserData(inputs.username, **secured)


class _Names:
    """What is used of pysnmp, wherever it stands."""

    def __init__(self, *modules: Any) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        return next(getattr(module, name) for module in self._modules if hasattr(module, name))


def _library() -> Any:
    if extras.require("pysnmp", extra="snmp", task=TASK):
        extras.require("cryptography", extra="snmp", task=TASK)
    parts = ("pysnmp.hlapi.v3arch.asyncio", "pysnmp.proto.rfc1902", "pysnmp.error")
    return _Names(*(extras.require(part, extra="snmp", task=TASK) for part in parts))


async def _attempt(inputs: SnmpInputs, settings: definitions.Settings) -> SnmpOutput:
    await blocking.call(_library)
    addresses = await host.addresses(inputs, inputs.port or PORT, settings.egress)
    for address in addresses[: -1 if inputs.repeatable else 0]:
        work = _Work(inputs, address)
        try:
            return await blocking.alone(work.run, on_cancel=work.stop)
        except _Silent:
            pass  # a name may have an address of a kind that the device does not listen at
    work = _Work(inputs, addresses[-1] if inputs.repeatable else addresses[0])
    return await blocking.alone(work.run, on_cancel=work.stop)


async def _run(settings: definitions.Settings, inputs: SnmpInputs, context: ports.TaskContext) -> SnmpOutput:
    hidden = ("password", "privacy_password", *(("community",) if inputs.community not in _KNOWN_TO_ALL else ()))
    for name in hidden:
        if getattr(inputs, name):
            context.hide(getattr(inputs, name))
    attempt = functools.partial(_attempt, inputs, settings)
    shown = f"{TASK} {inputs.command} on {inputs.hostname}:{inputs.port or PORT}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.repeatable, secret=hidden)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SnmpInputs]:
    """Return the task type SNMP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Read and set values of a device",
        description="Gets, walks through, or sets values of a device by SNMP version 1, 2c or 3.",
        inputs=SnmpInputs,
        output=SnmpOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.repeatable,
        check=_check,
        secret_inputs=frozenset({"community", "privacy_password"}),
        input_aliases=host.ALIASES,
    )
