"""Prefect: its server on PostgreSQL, and a process that serves deployments."""

from __future__ import annotations

import collections
import json
import subprocess
import urllib.request
from pathlib import Path

from tests.bench import http_load

from . import installing
from .peer import APPS, Amount, Ask, Peer, answered, free_port, version_of
from .servers import Postgres

_JSON = {"Content-Type": "application/json"}
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
#: What its documentation gives against runs whose process died: without a heartbeat for so long they count as crashed.
_ZOMBIES = {
    "name": "Crash zombie flows",
    "trigger": {
        "type": "event", "posture": "Proactive", "threshold": 1, "within": 90,
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in _ENDS)],
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]}, "for_each": ["prefect.resource.id"],
    },
    "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "message": "missing heartbeats"}],
}  # fmt: skip


class Prefect(Peer):
    """Prefect's server on PostgreSQL, which it recommends for production; flows served by one process."""

    name = "Prefect"
    settings = (
        "`prefect server start` on PostgreSQL with Debian's settings, `serve(…, limit=200)`: a process for each run, "
        "which looks for runs each second instead of each ten; the documented automation that tells killed runs by "
        "heartbeats, each 30 s; analytics off"
    )
    done = "`run_deployment` sees the run completed; it asks each 50 ms for each caller that waits"
    waits = "`asyncio.sleep` in a flow, which holds its process"
    amount = Amount(latency=3, many=32, parents=1, rounds=2, waiting=10, kills=1)
    sleep_s = 180.0  # until all 20 have begun: each imports Prefect, at the same time
    rest_s = 45.0  # until those that are to sleep have begun
    settle_s = 60.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._api = 0
        self._postgres = Postgres(self)
        self._caller: subprocess.Popen[bytes] | None = None

    @classmethod
    def install(cls) -> None:
        prefect = version_of(installing.python("prefect") / "python", "prefect")
        cls.version = f"{prefect}, PostgreSQL {Postgres.version()}"

    def start(self) -> None:
        bin_, fresh = installing.python("prefect"), not self._postgres.made
        self._postgres.start()
        self._api, self.port = self._api or free_port(), self.port or free_port()
        own = {
            "PREFECT_HOME": str(self.folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{self._api}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
            "PREFECT_API_DATABASE_CONNECTION_URL": self._postgres.url.replace("postgresql:", "postgresql+asyncpg:"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PYTHONPATH": str(APPS),
        }  # fmt: skip
        self.spawn([bin_ / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._api)], own)
        self.until(lambda: _healthy(self._api), "Prefect's server")
        if fresh:
            text = http_load.request("POST", "/api/automations/", json.dumps(_ZOMBIES).encode(), _JSON)
            assert answered(self._api, Ask(text, "zombie", 201)), "Prefect took no automation"
        self.spawn([bin_ / "python", APPS / "prefect_flows.py"], own)
        self._caller = self.spawn([bin_ / "python", APPS / "prefect_front.py"], own)

    @property
    def roots(self) -> list[int]:
        """Without who calls it."""
        return [pid for pid in super().roots if self._caller is None or pid != self._caller.pid]

    def unfinished(self) -> str:
        chosen = json.dumps({"flows": {"name": {"any_": ["entry"]}}}).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self._api}/api/flow_runs/filter", chosen, _JSON)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            states = collections.Counter(run["state_name"] for run in json.load(answer))
        return "its server has " + ", ".join(f"{count} as {state}" for state, count in states.most_common())


def _healthy(port: int) -> bool:
    return answered(port, Ask(http_load.request("GET", "/api/health"), "true"))
