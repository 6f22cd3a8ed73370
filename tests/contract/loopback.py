"""A web server on loopback that tasks talk to: it echoes, fails as often as it is told to, and takes its time.

``/echo`` gives back what came, ``/status/<n>`` answers with that status, ``/flaky/<name>/<n>`` fails the first n times
for that name, ``/slow/<seconds>`` is slow, ``/file`` is a few bytes. ``seen`` holds every request.
"""

from __future__ import annotations

import collections
import http.server
import json
import threading
import time
from typing import Any


class Loopback:
    """Start it with ``with``; ``url`` says where it is."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []  # method, path with query, body
        self.asked: collections.Counter[str] = collections.Counter()
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (Handler,), {"loopback": self})
        )
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="loopback")

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def answer(self, path: str, shown: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body for a request."""
        first, *rest = path.partition("?")[0].strip("/").split("/")
        match first:
            case "status":
                return int(rest[0]), b"{}"
            case "flaky":
                self.asked[rest[0]] += 1
                return (503, b"{}") if self.asked[rest[0]] <= int(rest[1]) else (200, b'{"ok": true}')
            case "slow":
                time.sleep(float(rest[0]))
            case "file":
                return 200, b"the content of a file"
        return 200, json.dumps(shown).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands every request to the server."""

    protocol_version = "HTTP/1.1"
    loopback: Loopback

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.loopback.seen.append((self.command, self.path, body))
        shown = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): text for name, text in self.headers.items()},
            "body": body.decode(errors="replace"),
        }
        status, content = self.loopback.answer(self.path, shown)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "0" if status in (204, 304) else str(len(content)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(content)
        except OSError:  # a client that did not wait
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""
