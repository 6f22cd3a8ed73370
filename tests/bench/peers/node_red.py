"""Node-RED: flows in one process of Node.js, which records nothing of what runs."""

from __future__ import annotations

import json
from typing import Any

from tests.bench import http_load

from . import installing
from .peer import Amount, Ask, Peer, free_port


class NodeRed(Peer):
    """Node-RED without its editor's extras; a flow of nodes for each part of the trials."""

    name = "Node-RED"
    settings = "defaults; nodes `http in`, `function`, `delay`, `file`, and `link call` for children"
    done = "answer of `http response`; nothing is recorded"
    waits = "`delay` node, in memory"
    amount = Amount(latency=500, many=5_000)
    settle_s = 15.0

    @classmethod
    def install(cls) -> None:
        cls.version = json.loads((installing.npm("node-red") / "node-red/package.json").read_text())["version"]

    def start(self) -> None:
        if not self.port:
            self.port = free_port()
            (self.folder / "flows.json").write_text(json.dumps(_flows(str(self.ledger))))
        self.spawn(
            [installing.node() / "bin/node", installing.npm("node-red") / "node-red/red.js", "--userDir", self.folder,
             "--port", str(self.port), "-D", "uiHost=127.0.0.1", "flows.json"],
            {**installing.node_environment(), "NODE_RED_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip

    def unfinished(self) -> str:
        return "lost: nothing knows of them"

    def begin(self, seconds: int) -> Ask:
        order = b'{"number": "%b", "ms": %d}' % (http_load.NUMBER, 1000 * seconds)
        return self.asking("/begin", order, expected="ACCEPTED")

    def wait(self, seconds: int) -> Ask:
        return self.asking("/wait", b'{"ms": %d}' % (1000 * seconds), expected="ACCEPTED")


def _flows(ledger: str) -> list[dict[str, Any]]:
    delay = {"type": "delay", "pauseType": "delayv", "timeout": "5", "timeoutUnits": "milliseconds"}
    file = {"type": "file", "filename": ledger, "filenameType": "str", "appendNewline": True, "overwriteFile": "false"}
    accepted = _function("msg.delay = msg.payload.ms; msg.number = msg.payload.number; msg.payload = 'ACCEPTED';")
    return [
        {"id": "tab", "type": "tab", "label": "trials"},
        *_chain("trivial", _in("/trivial"), _function("msg.payload = 'DONE';"), _response()),
        *_chain("child", {"type": "link in"}, _function("msg.payload = 42;"), {"type": "link out", "mode": "return"}),
        *_chain(
            "parent",
            _in("/children"),
            _function("msg.payload = Array.from({length: Number(msg.req.query.count)}, (_, n) => n);"),
            {"type": "split", "splt": "\\\\n", "spltType": "str", "arraySplt": 1, "arraySpltType": "len"},
            {"type": "link call", "links": ["child0"], "timeout": "30"},
            {"type": "join", "mode": "auto"},
            _function("msg.payload = 'DONE';"),
            _response(),
        ),
        *_chain("wait", _in("/wait"), accepted, _response(), and_then=[delay]),
        *_chain(
            "begin", _in("/begin"), accepted, _response(),
            and_then=[
                _function("msg.payload = 'began ' + Number(msg.number);"), file, delay,
                _function("msg.payload = 'ended ' + Number(msg.number);"), dict(file),
            ],
        ),
    ]  # fmt: skip


def _in(url: str) -> dict[str, Any]:
    return {"type": "http in", "url": url, "method": "post"}


def _response() -> dict[str, Any]:
    return {"type": "http response", "statusCode": "200"}


def _function(code: str) -> dict[str, Any]:
    return {"type": "function", "func": f"{code} return msg;", "outputs": 1}


def _chain(name: str, *nodes: dict[str, Any], and_then: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Nodes wired one after the other; ``and_then`` are others behind the last but one."""
    tail = [dict(node) for node in and_then or ()]
    made = [{**node, "id": f"{name}{n}", "z": "tab"} for n, node in enumerate((*nodes, *tail))]
    ends = {len(nodes) - 1, len(made) - 1}
    for n, node in enumerate(made):
        node["wires"] = [] if n in ends else [[made[n + 1]["id"]]]
    if tail:
        made[len(nodes) - 2]["wires"] = [[made[len(nodes) - 1]["id"], made[len(nodes)]["id"]]]
    return made
