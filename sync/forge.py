"""The forge that a source lies on: which repository there, and where its API is. Pure, but for the app's tokens.

Owns: reading an address as GitHub, GitLab and Gitea build them, and ``AppTokens``, which lets the daemon in as a GitHub
App: a token of one hour, made anew before it ends. Protocol: GitHub's documentation, "Generating a JSON Web Token (JWT)
for a GitHub App" and "Create an installation access token for an app". Refuses: addresses a token should not travel to.
Called by ``remote``, and by the daemon for commit statuses. Asking for a token blocks.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..engine import errors

Kind = Literal["github", "gitlab", "gitea"]

#: Of GitHub that is an Enterprise Server's; github.com has a host of its own for that.
_API_VERSIONS: Mapping[Kind, str] = {"github": "v3", "gitlab": "v4", "gitea": "v1"}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_SCP_STYLE = re.compile(r"(?:[^@/:]+@)?([^/:]+):(?!//)(.+)")
_TIMEOUT_S = 30.0
_ANSWER_BYTES_MAX = 64 * 1024
#: The clock of the forge may be behind; it takes ten minutes at most.
_EARLIER_S, _VALID_S = 60, 540
#: What is good for so long suffices for one fetch or push.
_LEFT_S = 600.0


class GithubApp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``source.github_app``: the daemon reads and writes the source as an app, not as a person.

    ``app_id`` is the App ID or client id, ``key_file`` its private key (PEM). ``installation_id`` is looked up where it
    is not given, ``api`` is taken from the source's address."""

    app_id: str
    key_file: str
    installation_id: str = ""
    api: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.app_id:
            raise ValueError("`app_id` is empty")
        if not Path(self.key_file).is_file():
            raise ValueError(f"`key_file` {self.key_file!r} is not a file")
        if self.installation_id and not self.installation_id.isdecimal():
            raise ValueError("`installation_id` must be a number in quotes")
        if self.api:
            check_address(self.api, "api")


class Repository(msgspec.Struct, frozen=True):
    """A repository of a forge: ``path`` is ``owner/name``, longer at GitLab; ``api`` has no slash at its end."""

    path: str
    api: str


def repository(url: str, kind: Kind, api: str = "", path: str = "") -> Repository:
    """Return what the address of a source means at a forge; ``api`` and ``path`` win where they are given.

    Raises ``ConfigurationInvalid`` where the address does not say."""
    found = Repository(path or _host_and_path(url)[1], api.rstrip("/") or _api(url, kind))
    if not found.api or "/" not in found.path:
        raise errors.ConfigurationInvalid(
            "the address of the source does not say where its forge is",
            hint='give `api` and `repository`, such as "https://forge.example/api/v1" and "ops/flows"',
        )
    return found


def check_address(text: str, field: str) -> None:
    """Raise ``ValueError`` unless ``text`` is an https address, or an http one of this machine."""
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"`{field}` is not an address such as https://forge.example/api")
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ValueError(f"`{field}` has to begin with https://: a token travels there")


def _api(url: str, kind: Kind) -> str:
    host = _host_and_path(url)[0]
    if host == "github.com" and kind == "github":
        return "https://api.github.com"
    return f"https://{host}/api/{_API_VERSIONS[kind]}" if host else ""


def _host_and_path(url: str) -> tuple[str, str]:
    """Return host and repository of https, ssh and scp-like addresses; nothing of others."""
    parts = urllib.parse.urlsplit(url)
    host, path = "", ""
    if parts.scheme == "https":
        host, path = parts.netloc.rpartition("@")[2], parts.path
    elif parts.scheme == "ssh":  # its port is not that of https
        host, path = parts.hostname or "", parts.path
    elif found := _SCP_STYLE.fullmatch(url):
        host, path = found[1], found[2]
    return host, path.strip("/").removesuffix(".git")


class AppTokens:
    """Tokens of one app for one repository. May be asked from any thread."""

    def __init__(self, app: GithubApp, url: str) -> None:
        self._app = app
        self._api = app.api.rstrip("/") or _api(url, "github")
        self._url = url
        self._token, self._until = "", 0.0
        self._installation = app.installation_id
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return a token that is good for ten minutes at least; raises ``SourceUnavailable``. No message holds it."""
        with self._lock:
            if time.time() > self._until - _LEFT_S:
                self._renew()
            return self._token

    def _renew(self) -> None:
        if not self._installation:
            path = repository(self._url, "github", self._api).path
            found = self._ask("GET", f"/repos/{path}/installation")
            self._installation = str(found.get("id", ""))
        found = self._ask("POST", f"/app/installations/{self._installation}/access_tokens")
        token, until = found.get("token"), found.get("expires_at")
        try:
            self._until = datetime.datetime.fromisoformat(str(until)).timestamp()
        except ValueError:
            token = None
        if not isinstance(token, str) or not token.isprintable() or not token:
            raise self._failed("its answer holds no token")
        self._token = token

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {self._signed()}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "headrace",
        }
        request = urllib.request.Request(self._api + path, method=method, headers=headers)  # noqa: S310 - checked
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_S) as answer:
                found = json.loads(answer.read(_ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                said = _message(error.read(_ANSWER_BYTES_MAX))
            raise self._failed(f"{path} answered {error.code}{said}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise self._failed(f"{self._api} does not answer: {reason}") from None
        return found if isinstance(found, dict) else {}

    def _signed(self) -> str:
        """Return what says that we are the app; good for nine minutes."""
        try:
            from joserfc import jwk, jwt
        except ImportError:
            raise errors.ConfigurationInvalid(
                "source.github_app needs the package joserfc", hint="pip install 'headrace[github]'"
            ) from None
        now = int(time.time())
        claims = {"iat": now - _EARLIER_S, "exp": now + _VALID_S, "iss": self._app.app_id}
        try:
            key = jwk.RSAKey.import_key(Path(self._app.key_file).read_bytes())
            return str(jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, key))
        except (OSError, ValueError) as error:
            raise self._failed(f"its private key {self._app.key_file} cannot be used: {error}") from None

    def _failed(self, why: str) -> errors.SourceUnavailable:
        return errors.SourceUnavailable(
            f"the GitHub App {self._app.app_id} got no token: {why}",
            hint="look at the app's id, its key, and whether it is installed for this repository with contents: write",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """What we say stays between us and the address we were given."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def _message(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    return f": {str(said.get('message'))[:200]}" if isinstance(said, dict) and said.get("message") else ""
