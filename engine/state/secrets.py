"""Secrets by reference: flows, connections and webhooks name them, the daemon looks them up when it needs one.

    vault.secret(CONFIG:path.key)   a key of a secret in Vault, through the vault configuration CONFIG
    secret.env(NAME)                the daemon's environment
    secret.credential(NAME)         a file below ``$CREDENTIALS_DIRECTORY``, as systemd provides it
    secret.file(PATH)               a file on this host, or ``secrets/….age`` of the repository
    secret.age(NAME:key)            a key of ``secrets/NAME.age`` of the repository

Nothing is cached, so a rotated secret counts at once. What is looked up for flows is taught to ``masks`` before anybody
gets it. No message here holds a secret: it names the reference.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .. import errors, ports, values
from .age import Keys
from .masks import Masks

_REFERENCE = re.compile(r"(vault\.secret|secret\.(?:env|credential|file|age))\(([^()\n]+)\)")
_BEGINNING = re.compile(r"(?:vault\.secret|secret\.(?:env|credential|file|age))\(")
_BARE = re.compile(r"[^():\n]+:[^()\n]+")
_BYTES_MAX = 64 * 1024
_FORMS = "vault.secret(CONFIG:path.key), secret.env(NAME), secret.credential(NAME), secret.file(PATH), secret.age(NAME)"
#: Numbers with a fraction keep the text they came with.
_decoder = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode()))

#: What looking up raises; each takes a message and a hint.
_Refusal = errors.NotFound | errors.NotAllowed | errors.InvalidRequest | errors.SourceUnavailable
_REFUSALS = (errors.NotFound, errors.NotAllowed, errors.InvalidRequest, errors.SourceUnavailable)
_Read = dict[tuple[str, str], dict[str, Any]]


def resolve(reference: str, environ: Mapping[str, str]) -> str:
    """Return the secret of this host that ``reference`` names, for what needs nothing else.

    Raises ``InvalidRequest`` or ``NotFound`` without ever showing it."""
    match = _REFERENCE.fullmatch(reference)
    if match is None or match[1] not in ("secret.env", "secret.credential", "secret.file"):
        raise errors.InvalidRequest(
            "a secret is given by reference", hint="secret.env(NAME), secret.credential(NAME) or secret.file(PATH)"
        )
    kind, name = match[1], match[2].strip()
    match kind:
        case "secret.env":
            found = environ.get(name, "")
        case "secret.credential":
            found = _read(_credential(name, environ))
        case _:
            found = _read(name)
    if not found:
        raise errors.NotFound(f"{kind}({name}) is not set, or empty")
    return found


class Secrets:
    """What looks up every kind of reference.

    ``vault`` returns how to get into the vault of a configuration, or raises ``NotFound``; its token and ids may be
    references to this host in turn."""

    def __init__(
        self,
        environ: Mapping[str, str],
        masks: Masks,
        vault: Callable[[str], Awaitable[ports.VaultAccess]],
        vaults: ports.Vaults,
        age: Keys,
    ) -> None:
        self._environ = environ
        self._masks = masks
        self._vault = vault
        self._vaults = vaults
        self._age = age

    async def resolved(self, inputs: bytes, untrusted: bytes = b"") -> bytes:
        """Return the JSON text ``inputs`` with secrets in place of references; the same object if there are none.

        A reference that stands in ``untrusted`` too stays as it is: whoever may send a webhook could otherwise have
        any secret looked up by naming it.

        A string that is one reference becomes what the secret is, text or not; inside of a longer text it becomes text.
        Keys stay, and so does what a secret itself holds. Raises ``NotFound``, ``NotAllowed``, ``InvalidRequest`` and
        ``SourceUnavailable``, naming the reference and where it stands."""
        if b"secret" not in inputs or not _BEGINNING.search(inputs.decode()):
            return inputs
        read: _Read = {}
        untouched = {match[0] for match in _REFERENCE.finditer(untrusted.decode())}
        root = [_decoder.decode(inputs)]
        open_: list[tuple[Any, str]] = [(root, "")]
        while open_:
            node, where = open_.pop()
            for key, member in list(node.items() if isinstance(node, dict) else enumerate(node)):
                place = where if node is root else f"{where}.{key}".removeprefix(".")
                if isinstance(member, dict | list):
                    open_.append((member, place))
                elif isinstance(member, str):
                    node[key] = await self._replaced(member, place, read, untouched)
        return values.encode(root[0], "an input with its secrets")

    async def value(self, reference: str) -> Any:
        """Return the secret that ``reference`` names, or that ``CONFIG:path.key`` does, as connections write it.

        Raises like ``resolved``."""
        reference = reference.strip()
        match = _REFERENCE.fullmatch(reference)
        if match is None and _BARE.fullmatch(reference):
            match = _REFERENCE.fullmatch(f"vault.secret({reference})")
        if match is None:
            raise errors.InvalidRequest("a secret is given by reference", hint=_FORMS)
        return await self._found(match, {})

    async def access(self, config: str) -> ports.VaultAccess:
        """Return how to get into the vault of a configuration, its own references looked up; raises likewise."""
        access = await self._vault(config)
        found = {}
        for name in access.__struct_fields__:
            given = getattr(access, name)
            if not _BEGINNING.search(given):
                continue
            match = _REFERENCE.fullmatch(given.strip())
            try:
                if match is None or match[1] == "vault.secret":
                    raise errors.InvalidRequest("expected a value, or one reference to a secret outside of vaults")
                found[name] = str(await self._found(match, {}))
            except _REFUSALS as error:
                raise _about(error, f"the vault configuration {config!r}, {name}") from None
        access = msgspec.structs.replace(access, **found)
        self._masks.learn([access.token, access.secret_id])
        return access

    async def _replaced(self, text: str, place: str, read: _Read, untouched: Collection[str]) -> Any:
        references = list(_REFERENCE.finditer(text))
        if untouched and any(match[0] in untouched for match in references):
            return text
        if len(references) < sum(1 for _ in _BEGINNING.finditer(text)):
            raise errors.InvalidRequest(f"the input {place!r} holds an unfinished reference to a secret", hint=_FORMS)
        pieces, at = [], 0
        for match in references:
            try:
                found = await self._found(match, read)
            except _REFUSALS as error:
                raise _about(error, f"the input {place!r}") from None
            if match[0] == text:
                return found
            pieces += [text[at : match.start()], found if isinstance(found, str) else values.encode(found).decode()]
            at = match.end()
        return "".join([*pieces, text[at:]]) if pieces else text

    async def _found(self, match: re.Match[str], read: _Read) -> Any:
        kind, name = match[1], match[2].strip()
        try:
            match kind:
                case "vault.secret":
                    found = await self._from_vault(name, read)
                case "secret.age":
                    found = await asyncio.to_thread(self._from_age, name)
                case "secret.file" if not name.startswith("/"):
                    found = await asyncio.to_thread(self._from_repository, name)
                case "secret.env":  # of each delivery to a webhook, often: a thread would take longer than all of that
                    found = resolve(match[0], self._environ)
                case _:
                    found = await asyncio.to_thread(resolve, match[0], self._environ)
        except _REFUSALS as error:
            raise error if match[0] in error.message else _about(error, match[0]) from None
        self._masks.learn(found)
        return found

    async def _from_vault(self, name: str, read: _Read) -> Any:
        config, _, path = (part.strip() for part in name.partition(":"))
        if not (config and path):
            raise errors.InvalidRequest("it names no secret", hint="vault.secret(CONFIG:path.key), or without .key")
        before, dot, after = path.rpartition(".")
        if not dot or "/" in after:  # the dot is one of a folder's name
            before, after = path, ""
        if (config, before) not in read:
            read[config, before] = await self._vaults.read(await self.access(config), before)
        return _member(read[config, before], after, f"the secret {before}")

    def _from_age(self, name: str) -> Any:
        file, _, key = (part.strip() for part in name.partition(":"))
        found = self._age.value(file)
        if key and not isinstance(found, dict):
            raise errors.InvalidRequest(f"secrets/{file}.age holds one text, not keys with values")
        return _member(found, key, f"secrets/{file}.age")

    def _from_repository(self, path: str) -> str:
        folder, _, file = path.partition("/")
        if folder != "secrets" or not file.endswith(".age"):
            raise errors.InvalidRequest(
                "it is neither a file of this host nor one of the repository's secrets",
                hint="give an absolute path, or secrets/NAME.age",
            )
        return self._age.text(file).removesuffix("\n")


def _member(found: Any, key: str, what: str) -> Any:
    if not key:
        return found
    if key not in found:
        raise errors.NotFound(f"{what} has no key {key!r}", hint=f"its keys are {', '.join(sorted(found)) or 'none'}")
    return found[key]


def _about(error: _Refusal, what: str) -> _Refusal:
    """Return the same error, saying what it is about."""
    return type(error)(f"{what}: {error.message}", hint=error.hint)


def _credential(name: str, environ: Mapping[str, str]) -> str:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        raise errors.NotFound(f"secret.credential({name}): the service has no credentials directory")
    if "/" in name or name in (".", ".."):
        raise errors.InvalidRequest(f"secret.credential({name}): a credential is a name, not a path")
    return str(Path(directory) / name)


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
        if len(content) > _BYTES_MAX:
            raise errors.InvalidRequest(f"the secret's file {path} is larger than {_BYTES_MAX:,} bytes")
        return content.decode().removesuffix("\n")
    except (OSError, UnicodeError) as error:
        raise errors.NotFound(f"the secret's file {path} cannot be read: {type(error).__name__}") from None
