"""adnanh/webhook: a small server that runs a script for each request; what many have instead of an orchestrator."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.bench import http_load

from . import installing
from .peer import APPS, Amount, Ask, Peer, free_port


class Webhook(Peer):
    """The server with a hook for each part of the trials, each running a Python script."""

    name = "webhook + Python"
    settings = "Debian's package; a script in Python for each request, its output in the answer"
    done = "script ended; nothing is recorded"
    waits = "`time.sleep` in the script, which holds its process"
    amount = Amount(latency=200, many=600, waiting=100)
    settle_s = 15.0

    @classmethod
    def install(cls) -> None:
        said = subprocess.run([installing.program("webhook"), "-version"], capture_output=True, text=True).stdout
        cls.version = said.split()[-1]

    def start(self) -> None:
        self.port = self.port or free_port()
        hooks = self.folder / "hooks.json"
        hooks.write_text(json.dumps([_hook(part) for part in ("trivial", "children", "wait", "begin")]))
        self.spawn([installing.program("webhook"), "-hooks", hooks, "-ip", "127.0.0.1", "-port", str(self.port)])

    def unfinished(self) -> str:
        return "lost: nothing knows of them"

    def trivial(self) -> Ask:
        return self.asking("/hooks/trivial", expected="DONE")

    def children(self, count: int) -> Ask:
        return self.asking(f"/hooks/children?number={count}", expected="DONE")

    def wait(self, seconds: int) -> Ask:
        return self.asking(f"/hooks/wait?number=0&seconds={seconds}")

    def begin(self, seconds: int) -> Ask:
        return self.asking(f"/hooks/begin?number={http_load.NUMBER.decode()}&seconds={seconds}")


def _hook(part: str) -> dict[str, object]:
    names = {"children": ("hook_parent.py",), "trivial": ("hook.py", "trivial")}.get(part, ("hook.py", part))
    given = {"trivial": (), "children": ("number",)}.get(part, ("number", "seconds"))
    words = [{"source": "string", "name": name} for name in (str(APPS / names[0]), *names[1:])]
    return {
        "id": part,
        "execute-command": sys.executable,
        "include-command-output-in-response": part in ("trivial", "children"),
        "pass-arguments-to-command": [*words, *({"source": "url", "name": name} for name in given)],
    }
