"""The world outside, for tests that count what happened to it: an HTTP server that remembers every request."""

from __future__ import annotations

import collections
import http.server
import json
import threading
import time
import urllib.parse
from typing import Self


class World:
    """A server on loopback. ``/slow?s=1`` takes so many seconds; any other path answers with its query at once."""

    def __enter__(self) -> Self:
        self._counts: collections.Counter[str] = collections.Counter()
        self._bodies: dict[str, list[bytes]] = collections.defaultdict(list)
        counts, bodies = self._counts, self._bodies

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(asked.query))
                for path in {asked.path, self.path}:
                    counts[path] += 1
                bodies[asked.path].append(self.rfile.read(int(self.headers.get("content-length", 0))))
                if asked.path == "/slow":
                    time.sleep(float(query["s"]))
                body = json.dumps(query).encode()
                try:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # whoever asked is gone

            do_POST = do_GET  # noqa: N815 - the library calls it so

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="world")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def bodies(self, path: str) -> list[bytes]:
        """What was sent to ``path``, in order."""
        return self._bodies[path]

    def count(self, path: str) -> int:
        """How often ``path`` was asked for, with its query or without."""
        return self._counts[path]

    def asked(self) -> list[str]:
        """All that was ever asked for, paths with their queries."""
        return list(self._counts)
