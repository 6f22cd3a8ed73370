"""Restate: its server, and the process that serves its handlers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench import http_load

from . import installing
from .peer import APPS, Amount, Ask, Peer, answered, free_port, listening, version_of


class Restate(Peer):
    """One node of Restate with its own storage, handlers in Python."""

    name = "Restate"
    settings = "one node, defaults, telemetry off; handlers in Python under hypercorn with two workers"
    done = "answer of the ingress, after the end is in its log"
    waits = "`ctx.sleep`; suspended after a minute"
    rest_s = 70.0
    amount = Amount(latency=200, many=1_000)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._admin = self._node = self._service = 0

    @classmethod
    def install(cls) -> None:
        server = json.loads((installing.npm("restate-server") / "@restatedev/restate-server/package.json").read_text())
        sdk = version_of(installing.python("restate") / "python", "restate-sdk")
        cls.version = f"{server['version']}, SDK {sdk}"

    def start(self) -> None:
        fresh = not self.port
        if fresh:
            self.port, self._admin, self._node, self._service = (free_port() for _ in range(4))
        self.spawn(
            [installing.python("restate") / "hypercorn", "--workers", "2", "--bind", f"127.0.0.1:{self._service}",
             "restate_app:app"],
            {"PYTHONPATH": str(APPS)},
        )  # fmt: skip
        (server,) = installing.npm("restate-server").glob("@restatedev/restate-server-linux-*/bin/restate-server")
        own = {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self._admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self._node}", "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp", "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
        }  # fmt: skip
        self.spawn([server, "--no-logo", "--base-dir", self.folder / "restate"], own)
        if fresh:
            self.until(listening(self._service), "the handlers")
            body = json.dumps({"uri": f"http://127.0.0.1:{self._service}"}).encode()
            text = http_load.request("POST", "/deployments", body, {"Content-Type": "application/json"})
            self.until(lambda: answered(self._admin, Ask(text, "trials", 201)), "Restate's registration")

    def trivial(self) -> Ask:
        return self.asking("/trials/trivial", b"1", expected="DONE")

    def children(self, count: int) -> Ask:
        return self.asking("/trials/children", b"%d" % count, expected="DONE")

    def wait(self, seconds: int) -> Ask:
        return self.asking("/trials/wait/send", b"%d" % seconds, expected="Accepted", good=202)

    def begin(self, seconds: int) -> Ask:
        order = b'{"number": "%b", "seconds": %d}' % (http_load.NUMBER, seconds)
        return self.asking("/trials/begin/send", order, expected="Accepted", good=202)
