"""A small OpenID provider on loopback: real keys, real signatures, and as wrong as a test wants it to be."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "headrace"
SECRET = "the client's secret: with + and %"


class IdentityProvider:
    """One provider; ``claims`` and ``spoil`` say what its next ID tokens hold and what is done to them."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.claims: dict[str, Any] = {"sub": "u1", "preferred_username": "ada", "groups": ["ops"]}
        self.user_info: dict[str, Any] = {"sub": "somebody else"}
        self.spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.is_down = False
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(provider.get(urllib.parse.urlsplit(self.path), self.headers))

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(provider.exchange(dict(urllib.parse.parse_qsl(form)), self.headers))

            def _answer(self, answer: tuple[int, Any]) -> None:
                status, body = (503, {}) if provider.is_down else answer
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, parts: urllib.parse.SplitResult, headers: Any) -> tuple[int, Any]:
        self.asked.append(parts.path)
        if parts.path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/keys"}
            places["userinfo_endpoint"] = "/me"
            return 200, {"issuer": self.issuer} | {name: self.issuer + path for name, path in places.items()}
        if parts.path == "/keys":
            return 200, {"keys": [self.key.as_dict(private=False)]}
        if parts.path == "/me":
            assert headers["Authorization"] == "Bearer access"
            return 200, self.user_info
        return 404, {}

    def authorize(self, address: str) -> str:
        """Be the browser at the provider's page, whose owner agrees; returns the address it is sent back to."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query))
        assert query["response_type"] == "code" and query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self._codes[code] = query
        return query["redirect_uri"] + "?" + urllib.parse.urlencode({"code": code, "state": query["state"]})

    def exchange(self, form: dict[str, str], headers: Any) -> tuple[int, Any]:
        """The token endpoint, as strict as one may be."""
        pair = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        client, _, secret = pair.partition(":")
        if (urllib.parse.unquote_plus(client), urllib.parse.unquote_plus(secret)) != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form["code"], None)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        )
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, self.spoil({"id_token": self.token(nonce=asked["nonce"]), "access_token": "access"})

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a signed ID token: good, but for what is given."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300}
        told = {name: value for name, value in (usual | self.claims | claims).items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": "one"} | (header or {}), told, self.key)


@contextlib.contextmanager
def running() -> Iterator[IdentityProvider]:
    """A provider for as long as it is needed."""
    provider = IdentityProvider()
    try:
        yield provider
    finally:
        provider.close()
