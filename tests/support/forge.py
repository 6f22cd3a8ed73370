"""A forge's API on loopback, made from the forges' documentation: commit statuses of GitHub, GitLab and Gitea, and the
tokens of a GitHub App, whose signature it really checks."""

from __future__ import annotations

import datetime
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

APP = "12345"
INSTALLATION = 678
_STATUS = {
    "github": re.compile(r"/repos/ops/flows/statuses/([0-9a-f]{40})"),
    "gitea": re.compile(r"/repos/ops/flows/statuses/([0-9a-f]{40})"),
    "gitlab": re.compile(r"/projects/ops%2Fflows/statuses/([0-9a-f]{40})"),
}
_STATES = {
    "github": {"error", "failure", "pending", "success"},
    "gitea": {"error", "failure", "pending", "success", "warning"},
    "gitlab": {"pending", "running", "success", "failed", "canceled", "skipped"},
}


class Forge:
    """The forge of one repository, ``ops/flows``. Statuses are listed as (commit, context, state, body)."""

    def __init__(self, kind: str = "github", token: str = "canary-forge-t0ken") -> None:
        self.kind = kind
        self.token = token
        self.key = RSAKey.generate_key(2048)
        self.statuses: list[tuple[str, str, str, dict[str, Any]]] = []
        self.refusals: list[int] = []  # what the next requests are answered with, instead
        self.valid_s = 3600.0
        self.minted: list[str] = []
        self.asked: list[str] = []
        forge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def _answer(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = forge.answer(method, self.path, self.headers, body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.api = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def write_key(self, path: Path) -> Path:
        """Write the app's private key and return where."""
        path.write_bytes(self.key.as_pem(private=True))
        return path

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        path = urllib.parse.urlsplit(target).path
        self.asked.append(f"{method} {path}")
        if self.refusals:
            return self.refusals.pop(0), {"message": "not now"}
        if path == "/repos/ops/flows/installation" and method == "GET":
            return (200, {"id": INSTALLATION}) if self._is_the_app(headers) else _denied()
        if path == f"/app/installations/{INSTALLATION}/access_tokens" and method == "POST":
            return self._mint() if self._is_the_app(headers) else _denied()
        found = _STATUS[self.kind].fullmatch(path)
        if found and method == "POST":
            return self._mark(found[1], json.loads(body)) if self._may(headers) else _denied()
        return 404, {"message": "Not Found"}

    def contexts(self) -> Iterator[tuple[str, str, str]]:
        """What was said: commit, context, state."""
        return ((commit, context, state) for commit, context, state, _ in self.statuses)

    def _is_the_app(self, headers: Any) -> bool:
        """GitHub: RS256, issued in the past, good for ten minutes at most."""
        try:
            token = jwt.decode(headers["Authorization"].removeprefix("Bearer "), self.key, algorithms=["RS256"])
        except (ValueError, JoseError):
            return False
        claims, now = token.claims, time.time()
        return claims["iss"] == APP and claims["iat"] <= now <= claims["exp"] <= now + 600

    def _mint(self) -> tuple[int, dict[str, Any]]:
        self.minted.append(f"ghs_canary{len(self.minted)}")
        self.token = self.minted[-1]
        until = datetime.datetime.fromtimestamp(time.time() + self.valid_s, datetime.UTC)
        return 201, {"token": self.token, "expires_at": f"{until:%Y-%m-%dT%H:%M:%SZ}"}

    def _may(self, headers: Any) -> bool:
        match self.kind:
            case "gitlab":
                return bool(headers["PRIVATE-TOKEN"] == self.token)
            case "gitea":
                return bool(headers["Authorization"] == f"token {self.token}")
        return bool(headers["Authorization"] == f"Bearer {self.token}")

    def _mark(self, commit: str, said: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if said["state"] not in _STATES[self.kind] or len(said["description"]) > 140:
            return 422, {"message": "Validation Failed"}
        context = said["name" if self.kind == "gitlab" else "context"]
        if self.kind == "gitlab" and (commit, context, said["state"]) in self.contexts():
            return 400, {"message": f"Cannot transition status via :enqueue from :{said['state']}"}
        self.statuses.append((commit, context, said["state"], said))
        return 201, {"id": len(self.statuses), **said}


def _denied() -> tuple[int, dict[str, Any]]:
    return 401, {"message": "Bad credentials"}
