"""n8n: workflows of nodes in one process of Node.js (and one of its task runner for code), its default database."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

from tests.bench import http_load

from . import installing
from .peer import Amount, Ask, Failed, Peer, free_port

_STARTED = "Workflow was started"
#: It asks nobody outside of this machine, and runs in the mode that its image sets.
_QUIET = {
    "NODE_ENV": "production",
    "N8N_DIAGNOSTICS_ENABLED": "false", "N8N_VERSION_NOTIFICATIONS_ENABLED": "false", "N8N_TEMPLATES_ENABLED": "false",
    "N8N_PERSONALIZATION_ENABLED": "false", "N8N_COMMUNITY_PACKAGES_ENABLED": "false",
    "N8N_DISABLED_MODULES": "mcp-registry",
}  # fmt: skip


class N8n(Peer):
    """n8n in its regular mode; every execution is saved, as it is by default."""

    name = "n8n"
    settings = (
        "regular mode, SQLite, all executions saved, expressions in isolates: all by default; `NODE_ENV=production` as "
        "in its image; telemetry off; `fs` allowed in code, for the ledger; the trivial one is an `Edit Fields` node, "
        "children are called by `Execute Sub-workflow` for each item"
    )
    done = "answer of the webhook, “when last node finishes”"
    waits = "`Wait` node; the execution is put into the database"
    amount = Amount(latency=100, many=320, parents=1, rounds=3, kills=1)
    sleep_s = 75.0  # below 65 s its documentation says that an execution stays in memory
    settle_s = 75.0

    @classmethod
    def install(cls) -> None:
        cls.version = json.loads((installing.npm("n8n") / "n8n/package.json").read_text())["version"]
        _imported()

    def start(self) -> None:
        if not self.port:
            self.port = free_port()
            shutil.copytree(_imported() / ".n8n", self.folder / ".n8n")
        self.spawn([*_command(), "start"], self._environment())

    def _environment(self) -> dict[str, str]:
        return {
            **installing.node_environment(), **_QUIET,
            "N8N_USER_FOLDER": str(self.folder), "N8N_PORT": str(self.port), "N8N_LISTEN_ADDRESS": "127.0.0.1",
            "N8N_RUNNERS_BROKER_PORT": str(free_port()), "NODE_FUNCTION_ALLOW_BUILTIN": "fs",
        }  # fmt: skip

    def trivial(self) -> Ask:
        return self.asking("/webhook/trivial", b"{}", expected="DONE")

    def children(self, count: int) -> Ask:
        return self.asking(f"/webhook/parent?count={count}", b"{}", expected="DONE")

    def wait(self, seconds: int) -> Ask:
        return self.asking(f"/webhook/sleeper?seconds={seconds}", b"{}", expected=_STARTED)

    def begin(self, seconds: int) -> Ask:
        number = http_load.NUMBER.decode()
        path = f"/webhook/entry?number={number}&seconds={seconds}&ledger={urllib.parse.quote(str(self.ledger))}"
        return self.asking(path, b"{}", expected=_STARTED)


def _command() -> list[str]:
    return [str(installing.node() / "bin/node"), str(installing.npm("n8n") / "n8n/bin/n8n")]


def _imported() -> Path:
    """A folder with n8n's state after the workflows were imported and published, made once: that takes its command
    line a start for each."""
    workflows = json.dumps(list(_workflows().values()))
    digest = hashlib.sha256(f"{installing.PINS['npm']['n8n']}{workflows}".encode()).hexdigest()[:12]
    folder = installing.HOME / f"n8n-state-{digest}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        (part / "workflows.json").write_text(workflows)
        _say("import:workflow", f"--input={part / 'workflows.json'}", folder=part)
        for name in _workflows():
            _say("publish:workflow", f"--id={name}", folder=part)
        part.rename(folder)
    return folder


def _say(*words: str, folder: Path) -> None:
    own = {**os.environ, **installing.node_environment(), **_QUIET, "N8N_USER_FOLDER": str(folder)}
    done = subprocess.run([*_command(), *words], env=own, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"n8n {words[0]}: {(done.stderr or done.stdout)[-300:]}")


def _workflows() -> dict[str, dict[str, Any]]:
    """The called one first: it has to be there when its caller is published."""
    wait = _node("Wait", "wait", 1.1, resume="timeInterval", amount="={{ $json.seconds }}", unit="seconds")
    count = "return Array.from({length: Number($input.first().json.query.count)}, (_, n) => ({json: {n}}));"
    write = "require('fs').appendFileSync(q.ledger, `%s ${Number(q.number)}\\n`);"
    begin = (
        f"const q = $input.first().json.query; {write % 'began'} "
        "return [{json: {number: q.number, ledger: q.ledger, seconds: Number(q.seconds)}}];"
    )
    end = f"const q = $input.first().json; {write % 'ended'} return [{{json: {{}}}}];"
    called = {"__rl": True, "value": "child", "mode": "id"}
    return {
        "child": _workflow("child", _node("Called", "executeWorkflowTrigger", 1.1, inputSource="passthrough"), _set()),
        "trivial": _workflow("trivial", _webhook("trivial", "lastNode"), _set()),
        "parent": _workflow(
            "parent", _webhook("parent", "lastNode"), _node("Count", "code", 2, jsCode=count),
            _node("Call", "executeWorkflow", 1.2, workflowId=called, mode="each", options={}),
        ),
        "sleeper": _workflow(
            "sleeper", _webhook("sleeper", "onReceived"), _set(seconds="={{ $json.query.seconds }}"), wait,
        ),
        "entry": _workflow(
            "entry", _webhook("entry", "onReceived"), _node("Begin", "code", 2, jsCode=begin), wait,
            _node("End", "code", 2, jsCode=end),
        ),
    }  # fmt: skip


def _node(name: str, kind: str, version: float, **parameters: Any) -> dict[str, Any]:
    return {
        "id": name, "name": name, "type": f"n8n-nodes-base.{kind}", "typeVersion": version, "position": [0, 0],
        "parameters": parameters,
    }  # fmt: skip


def _set(**values: str) -> dict[str, Any]:
    given = {"done": "DONE", **values}
    kinds = {"done": "string", "seconds": "number"}
    made = [{"id": name, "name": name, "value": value, "type": kinds[name]} for name, value in given.items()]
    return _node("Set", "set", 3.4, assignments={"assignments": made}, options={})


def _webhook(path: str, mode: str) -> dict[str, Any]:
    node = _node("Webhook", "webhook", 2, httpMethod="POST", path=path, responseMode=mode, options={})
    return {**node, "webhookId": f"hook-{path}"}


def _workflow(name: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    pairs = itertools.pairwise(nodes)
    wired = {a["name"]: {"main": [[{"node": b["name"], "type": "main", "index": 0}]]} for a, b in pairs}
    return {
        "id": name, "name": name, "nodes": list(nodes), "connections": wired, "active": False,
        "settings": {"executionOrder": "v1"},
    }  # fmt: skip
