"""Prefect: its server on PostgreSQL, and a process that serves deployments."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench import http_load

from . import installing
from .peer import APPS, Amount, Ask, Peer, answered, free_port, version_of
from .servers import Postgres


class Prefect(Peer):
    """Prefect's server on PostgreSQL, which it recommends for production; flows served by one process."""

    name = "Prefect"
    settings = (
        "`prefect server start` on PostgreSQL with Debian's settings, `serve(…, limit=200)`: a process for each run, "
        "which looks for runs each second instead of each ten; analytics off"
    )
    done = "`run_deployment` sees the run completed; it asks each 50 ms for each caller that waits"
    waits = "`asyncio.sleep` in a flow, which holds its process"
    amount = Amount(latency=3, many=32, parents=1, rounds=2, waiting=10, kills=1)
    sleep_s = 90.0  # until all 20 have begun
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
        bin_ = installing.python("prefect")
        self._postgres.start()
        self._api, self.port = self._api or free_port(), self.port or free_port()
        own = {
            "PREFECT_HOME": str(self.folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{self._api}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
            "PREFECT_API_DATABASE_CONNECTION_URL": self._postgres.url.replace("postgresql:", "postgresql+asyncpg:"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PYTHONPATH": str(APPS),
        }  # fmt: skip
        self.spawn([bin_ / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._api)], own)
        self.until(lambda: _healthy(self._api), "Prefect's server")
        self.spawn([bin_ / "python", APPS / "prefect_flows.py"], own)
        self._caller = self.spawn([bin_ / "python", APPS / "prefect_front.py"], own)

    @property
    def roots(self) -> list[int]:
        """Without who calls it."""
        return [pid for pid in super().roots if self._caller is None or pid != self._caller.pid]


def _healthy(port: int) -> bool:
    return answered(port, Ask(http_load.request("GET", "/api/health"), "true"))
