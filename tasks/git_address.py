"""Where a git repository is and what of it is meant: addresses and refs, checked before git sees them.

Only addresses of the forms below pass, so that nothing in them can become an option, a helper or a local program:
``https://host/path``, ``http://host/path``, ``ssh://user@host/path``, ``user@host:path`` and ``file:///path``.
A user and password in the address are taken out of it. Pure functions; ``git`` reports what they refuse.
"""

from __future__ import annotations

import re
import urllib.parse

import msgspec

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
_USER = r"[A-Za-z0-9._][A-Za-z0-9._-]*"
_URL = re.compile(
    rf"(?P<scheme>https?|ssh)://(?:(?P<userinfo>[^@/]*)@)?(?P<host>{_HOST})(?::(?P<port>\d{{1,5}}))?/(?P<path>.+)"
)
_SCP = re.compile(rf"(?:(?P<user>{_USER})@)?(?P<host>{_HOST}):(?P<path>[^-:].*)")
_FILE = re.compile(r"file://(?P<path>/.+)")
_PORTS = {"https": 443, "http": 80, "ssh": 22}
_REF = re.compile(r"\w[^\x00-\x20\x7f~^:?*\[\\]*")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA = re.compile(r"[0-9a-f]{7,63}")

EXPECTED = "expected https://host/path, ssh://user@host/path or user@host:path"


class Address(msgspec.Struct, frozen=True):
    """A repository's address. ``url`` holds no credentials; ``host`` has no brackets and is empty for files."""

    scheme: str
    url: str
    host: str = ""
    port: int = 0
    user: str | None = None
    password: str | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port, as git's configuration names a server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def parsed(text: str) -> Address:
    """Return the address; raises ``ValueError`` with what is expected, never with the text."""
    text = text.strip()
    if not text.isprintable() or " " in text:
        raise ValueError(EXPECTED)
    if (match := _FILE.fullmatch(text)) is not None:
        return Address("file", text)
    if (match := _URL.fullmatch(text)) is not None:
        return _from_url(match)
    match = _SCP.fullmatch(text)
    if match is None or "//" in text or match["host"] in (*_PORTS, "file"):
        raise ValueError(EXPECTED)
    user = match["user"]
    return Address("ssh", f"{match['host']}:{match['path']}", match["host"].strip("[]"), 22, user)


def _from_url(match: re.Match[str]) -> Address:
    scheme, host = match["scheme"], match["host"]
    port = int(match["port"] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise ValueError(EXPECTED)
    user, mark, password = (match["userinfo"] or "").partition(":")
    user, password = urllib.parse.unquote(user), urllib.parse.unquote(password)
    if scheme == "ssh" and (mark or (user and not is_user(user))):
        raise ValueError("expected ssh://user@host/path, without a password")
    if not (user + password).isprintable():
        raise ValueError(EXPECTED)
    number = "" if port == _PORTS[scheme] else f":{port}"
    url = f"{scheme}://{host}{number}/{match['path']}"
    return Address(scheme, url, host.strip("[]"), port, user or None, password if mark else None)


def is_user(name: str) -> bool:
    """Return whether this is a user's name that ssh cannot take for anything else."""
    return re.fullmatch(_USER, name) is not None


def is_sha(ref: str) -> bool:
    """Return whether this can only be the full name of a commit."""
    return _SHA.fullmatch(ref) is not None


def is_short_sha(ref: str) -> bool:
    """Return whether this may be the beginning of a commit's name."""
    return _SHORT_SHA.fullmatch(ref) is not None


def is_ref(ref: str) -> bool:
    """Return whether git could have a ref of this name (git-check-ref-format)."""
    parts = ref.split("/")
    return (
        _REF.fullmatch(ref) is not None
        and ".." not in ref
        and "@{" not in ref
        and not ref.endswith(".")
        and all(part and not part.startswith(".") and not part.endswith(".lock") for part in parts)
    )
