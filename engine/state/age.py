"""Secrets that travel with the flows: files ``secrets/*.age`` of the repository, encrypted with age.

Who writes a secret needs the public key alone; the daemon decrypts with an identity file that never lies in the
repository (the format and the tool: age-encryption.org). An identity is only ever read here, never made: a key that
appeared by itself would be lost by itself, and with it everything that was encrypted for it. A file that cannot be
decrypted keeps from running what uses it and nothing else. ``secrets`` calls this, in threads. Backups are encrypted
for public keys in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import msgspec
import yaml

from .. import errors

#: The file below ``$CREDENTIALS_DIRECTORY`` when no identity file is configured.
CREDENTIAL = "age-identity"
_NAME = re.compile(r"(?!\.)[\w.@ -]+(?:/(?!\.)[\w.@ -]+)*")
_BYTES_MAX = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of JSON: ``0123``, ``no``, ``12:30:00`` and dates stay the texts they are.

    An alias, which could grow without bounds, is refused."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the base class has it so

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


for _kind, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"-?(0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _first)


class Keys(msgspec.Struct, frozen=True):
    """What decrypts: the identities in ``identity_file``, else in the credential ``age-identity``.

    ``find`` returns a file of the folder ``secrets`` of the current commit, or raises ``NotFound``. Nothing is kept:
    new keys and new files count at once."""

    identity_file: str
    environ: Mapping[str, str]
    find: Callable[[str], bytes]

    def text(self, file: str) -> str:
        """Return the decrypted text of ``secrets/<file>``; raises ``NotFound``, ``NotAllowed``, ``InvalidRequest``."""
        if not _NAME.fullmatch(file):
            raise errors.InvalidRequest(
                f"secrets/{file} is not a file of encrypted secrets", hint="a path below secrets/ that ends with .age"
            )
        encrypted = self.find(file)
        if len(encrypted) > _BYTES_MAX:
            raise errors.InvalidRequest(f"secrets/{file} is larger than {_BYTES_MAX:,} bytes")
        pyrage = _pyrage()
        identities, where = self._identities(pyrage)
        try:
            return bytes(pyrage.decrypt(encrypted, identities)).decode()
        except pyrage.DecryptError as error:
            raise errors.NotAllowed(
                f"secrets/{file} cannot be decrypted with {where}: {error}",
                hint="encrypt it for this daemon's public key: age -r age1… -o secrets/NAME.age",
            ) from None
        except UnicodeError:
            raise errors.InvalidRequest(f"secrets/{file} does not hold a text in UTF-8") from None

    def value(self, name: str) -> Any:
        """Return what ``secrets/<name>.age`` holds: an object if it is one in JSON or YAML, else its text."""
        text = self.text(f"{name}.age")
        members = _object(text)
        return text.removesuffix("\n") if members is None else members

    def _identities(self, pyrage: ModuleType) -> tuple[list[Any], str]:
        directory = self.environ.get("CREDENTIALS_DIRECTORY", "")
        path = self.identity_file or (str(Path(directory) / CREDENTIAL) if directory else "")
        if not path:
            raise errors.NotFound(
                "there is no age identity to decrypt secrets/*.age with",
                hint=f"give the daemon its identity file, or the credential {CREDENTIAL}",
            )
        return _identities(pyrage, path), path


def _identities(pyrage: ModuleType, path: str) -> list[Any]:
    try:
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
    except (OSError, UnicodeError) as error:
        raise errors.NotFound(f"the age identity file {path} cannot be read: {type(error).__name__}") from None
    wanted = "lines that begin with AGE-SECRET-KEY-1, as age-keygen writes them, without a passphrase"
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise errors.InvalidRequest(f"{path} is not an age identity file", hint=f"it holds {wanted}")
    return found


def recipients(keys: Sequence[str]) -> list[Any]:
    """Return the public keys ``age1…`` as something to encrypt for; raises ``InvalidRequest``."""
    pyrage = _pyrage()
    try:
        return [pyrage.x25519.Recipient.from_str(key) for key in keys]
    except pyrage.RecipientError as error:
        raise errors.InvalidRequest(
            f"not a public key of age: {error}", hint="age1…, as age-keygen prints it"
        ) from None


def seal_stream(plain: IO[bytes], out: IO[bytes], keys: Sequence[Any]) -> None:
    """Encrypt all of ``plain`` into ``out`` for ``recipients``."""
    _pyrage().encrypt_io(plain, out, keys)


def open_stream(encrypted: IO[bytes], out: IO[bytes], identity_file: str) -> None:
    """Decrypt all of ``encrypted`` into ``out``; raises ``NotFound``, ``NotAllowed``, ``InvalidRequest``."""
    pyrage = _pyrage()
    if not identity_file:
        raise errors.NotFound("it is encrypted with age", hint="name the file with the identity that decrypts it")
    identities = _identities(pyrage, identity_file)
    try:
        pyrage.decrypt_io(encrypted, out, identities)
    except (pyrage.DecryptError, OSError, ValueError) as error:
        raise errors.NotAllowed(
            f"it cannot be decrypted with {identity_file}: {error}", hint="it is for another identity, or damaged"
        ) from None


def _object(text: str) -> dict[str, Any] | None:
    """Return the members of a text that is an object, and None for one that is not."""
    try:
        loaded = msgspec.json.decode(text)  # by itself, since YAML reads JSON's surrogate pairs as two characters
    except (msgspec.MsgspecError, RecursionError):
        try:
            loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
    return {str(key): value for key, value in loaded.items()} if isinstance(loaded, dict) else None


def _pyrage() -> ModuleType:
    """The one place that imports the extra: most daemons decrypt nothing and do without it."""
    try:
        import pyrage  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise errors.InvalidRequest(
            "files encrypted with age need the extra 'age'", hint="pip install 'headrace[age]'"
        ) from None
    assert isinstance(pyrage, ModuleType)
    return pyrage
