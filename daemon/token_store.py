"""The tokens that people and programs have: names, scopes, flows, an end. On disk and in memory only as sha256.

``tokens.json`` in the state directory (mode 0600) is the truth; it is written whole. A token is good when ``create``
has returned and not any more when ``revoke`` has; after a crash before that the file is as it was. When a token was
last used is written once a minute: that may be lost, and nothing depends on it.

Whether somebody may do something is ``access``'s business; it, ``accounts`` and ``app`` call this.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import secrets
from pathlib import Path

import msgspec

from ..engine import durable, errors, ports
from . import principals, private_files

PREFIX = "hr_"
TOKENS_MAX = 1000
_NAME_CHARACTERS_MAX = 100
_PATTERNS_MAX = 50
_WRITE_USES_S = 60.0


class Token(msgspec.Struct, kw_only=True, frozen=True):
    """One token without its secret. Times are RFC 3339, UTC."""

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    flows: tuple[str, ...] = ()
    created_at: str
    created_by: str
    expires_at: str | None = None

    @property
    def expires_s(self) -> float | None:
        """When it ends, in seconds since the epoch."""
        return None if self.expires_at is None else datetime.datetime.fromisoformat(self.expires_at).timestamp()


class _File(msgspec.Struct):
    tokens: list[Token] = []
    used: dict[str, str] = {}  # id -> when last


class TokenStore:
    """The tokens of one state directory; ``open`` it."""

    def __init__(self, path: Path, clock: ports.Clock, found: _File) -> None:
        self._path = path
        self._clock = clock
        self._tokens = {token.sha256: token for token in found.tokens}
        self._used = dict(found.used)
        self._used_written = dict(found.used)
        self._writing = asyncio.Lock()

    @classmethod
    def open(cls, path: Path, clock: ports.Clock) -> TokenStore:
        """Read the file, if there is one; raises ``ConfigurationInvalid`` for one that cannot be trusted."""
        private_files.check(path)
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            found = _File()
        except (OSError, msgspec.MsgspecError) as error:
            raise errors.ConfigurationInvalid(
                f"{path} cannot be read: {error}", hint="put a copy of it back, or remove it and make new tokens"
            ) from error
        return cls(path, clock, found)

    def all(self) -> list[Token]:
        """Return the tokens there are, by name; expired ones too, until somebody revokes them."""
        return sorted(self._tokens.values(), key=lambda token: (token.name, token.id))

    def last_used(self, token: Token) -> str | None:
        """Return when it was last used, or None."""
        return self._used.get(token.id)

    def find(self, secret: str) -> Token | None:
        """Return the token whose secret this is, which counts as a use, or None if there is none that is still good.

        It is found by the hash: what a comparison's time could tell is of no use to anybody."""
        token = self._tokens.get(_digest(secret))
        if token is None or not self._is_good(token):
            return None
        self._used[token.id] = self._now(0.0)
        return token

    async def create(
        self, name: str, scopes: tuple[str, ...], flows: tuple[str, ...], valid_s: float | None, by: str
    ) -> tuple[Token, str]:
        """Make a token; returns it and its secret, which nobody can read again. Raises ``InvalidRequest``."""
        _check(name, flows)
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(5),
            name=name,
            sha256=_digest(secret),
            scopes=scopes,
            flows=flows,
            created_at=self._now(0.0),
            created_by=by,
            expires_at=None if valid_s is None else self._now(valid_s),
        )
        async with self._writing:
            if any(other.name == name for other in self._tokens.values()):
                raise errors.Conflict(f"there is a token {name!r} already", hint="revoke it, or choose another name")
            if len(self._tokens) >= TOKENS_MAX:
                raise errors.Conflict(f"there are {TOKENS_MAX} tokens already", hint="revoke some of them")
            await self._write([*self._tokens.values(), token])
            self._tokens[token.sha256] = token
        return token, secret

    async def revoke(self, name: str) -> Token:
        """Take a token, by id or name, from whoever has it; raises ``NotFound``. It is not good any more at once."""
        async with self._writing:
            token = next((one for one in self._tokens.values() if name in (one.id, one.name)), None)
            if token is None:
                raise errors.NotFound(f"there is no token {name!r}", hint="`headrace token list` lists them")
            del self._tokens[token.sha256]
            self._used.pop(token.id, None)
            await self._write(list(self._tokens.values()))
        return token

    async def run(self) -> None:
        """Write down from time to time when tokens were used, until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_USES_S)
            await self.write_uses()

    async def write_uses(self) -> None:
        """Write down when tokens were used, if that has changed."""
        async with self._writing:
            if self._used != self._used_written:
                await self._write(list(self._tokens.values()))

    async def _write(self, tokens: list[Token]) -> None:
        used = dict(self._used)
        text = msgspec.json.format(msgspec.json.encode(_File(tokens, used))).decode()
        await durable.whole(private_files.write, self._path, text)
        self._used_written = used

    def _is_good(self, token: Token) -> bool:
        return token.expires_s is None or self._clock.time() < token.expires_s

    def _now(self, later_s: float) -> str:
        moment = datetime.datetime.fromtimestamp(self._clock.time() + later_s, datetime.UTC)
        return moment.isoformat(timespec="seconds")


def principal(token: Token) -> principals.Principal:
    """Return whom a token stands for."""
    return principals.Principal(
        token.name, frozenset(token.scopes), flows=token.flows, keys=(token.id,), expires_s=token.expires_s
    )


def _check(name: str, flows: tuple[str, ...]) -> None:
    if not name or len(name) > _NAME_CHARACTERS_MAX or not name.isprintable() or name == principals.ADMIN.name:
        raise errors.InvalidRequest(
            f"{name!r} cannot be the name of a token",
            hint=f"give 1 to {_NAME_CHARACTERS_MAX} printable characters; {principals.ADMIN.name!r} is taken",
        )
    if len(flows) > _PATTERNS_MAX or not all(flows):
        raise errors.InvalidRequest(f"give up to {_PATTERNS_MAX} patterns of flows, none of them empty")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
