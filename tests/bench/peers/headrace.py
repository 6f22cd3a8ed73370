"""Headrace itself: the daemon with its defaults, flows from a git repository, asked through its HTTP API."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from headrace import __version__
from tests.bench import http_load, stage
from tests.support.repositories import Repository

from .peer import Amount, Ask, Peer, free_port

_FLOWS = {
    "trivial": stage.FLOWS["warm"],
    "children": stage.FLOWS["parallel"].replace("'warm'", "'trivial'"),
    "sleeper": "def handler(system, this, inputs):\n    this.sleep(inputs['seconds'])\n",
    "entry": """import os

def write(word, number):
    descriptor = os.open({ledger!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f'{{word}} {{int(number)}}\\n'.encode())
    os.close(descriptor)

def handler(system, this, inputs):
    this.step('began', write, 'began', inputs['number'])
    this.sleep(inputs['seconds'])
    this.step('ended', write, 'ended', inputs['number'])
""",
}


class Headrace(Peer):
    """The product: a daemon that starts a process for a flow and gives it back while the flow waits."""

    name = "Headrace"
    settings = "defaults; one daemon, flows from a git repository, run through the API with `wait`"
    done = "answer held until the end is in the journal and flushed (fdatasync)"
    waits = "`this.sleep`; hibernated: no process"
    rest_s = 20.0  # each gives its process back after 15 s at the latest
    amount = Amount(latency=500, many=5_000, parents=10)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._state = folder / "state"
        self._source = ""

    @classmethod
    def install(cls) -> None:
        cls.version = __version__
        stage.compile_package()

    def start(self) -> None:
        if not self._source:
            repository = Repository(self.folder / "repository")
            for name, text in _FLOWS.items():
                repository.write(f"{name}.py", text.format(ledger=str(self.ledger)) if name == "entry" else text)
            repository.push()
            self._source, self.port = str(repository.url), free_port()
        listen = ["--listen", f"127.0.0.1:{self.port}"]
        self.spawn([sys.executable, "-m", "headrace", "up", self._source, "--state", self._state, *listen])

    def _run(self, flow: str, inputs: dict[str, object], *, wait: bool) -> Ask:
        client = self._state / "client.json"
        token = json.loads(client.read_text())["token"] if client.exists() else "not yet"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        path = f"/api/v1/flows/{flow}/run" + ("?wait=60" if wait else "")
        text = http_load.request("POST", path, json.dumps({"inputs": inputs}).encode(), headers)
        return Ask(text, "ENDED_SUCCESS") if wait else Ask(text, '"id"', 202)

    def trivial(self) -> Ask:
        return self._run("trivial", {}, wait=True)

    def children(self, count: int) -> Ask:
        return self._run("children", {"children": count}, wait=True)

    def wait(self, seconds: int) -> Ask:
        return self._run("sleeper", {"seconds": seconds}, wait=False)

    def begin(self, seconds: int) -> Ask:
        return self._run("entry", {"number": http_load.NUMBER.decode(), "seconds": seconds}, wait=False)
