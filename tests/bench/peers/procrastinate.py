"""Procrastinate: a worker on PostgreSQL, its web application beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import installing
from .peer import APPS, Amount, Peer, free_port, version_of
from .servers import Postgres


class Procrastinate(Peer):
    """Procrastinate with the periodic task that its documentation gives for jobs of killed workers."""

    name = "procrastinate"
    settings = (
        "`procrastinate worker --concurrency 20`, uvicorn beside it, PostgreSQL with Debian's settings; "
        "the documented periodic task that retries stalled jobs, each minute"
    )
    done = "row of the job says succeeded; one query each 2 ms looks for all callers"
    waits = "second task, deferred with `schedule_in`"
    amount = Amount(latency=200, many=600)
    settle_s = 120.0  # a killed worker counts as stalled after 30 s, and the task looks once a minute

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._postgres = Postgres(self)

    @classmethod
    def install(cls) -> None:
        bin_ = installing.python("procrastinate")
        cls.version = f"{version_of(bin_ / 'python', 'procrastinate')}, PostgreSQL {Postgres.version()}"

    def start(self) -> None:
        bin_, fresh = installing.python("procrastinate"), not self._postgres.made
        self._postgres.start()
        self.port = self.port or free_port()
        own = {"DATABASE": self._postgres.url, "PYTHONPATH": str(APPS), "LEDGER": str(self.ledger)}
        command: list[str | Path] = [bin_ / "procrastinate", "--app", "procrastinate_tasks.app"]
        if fresh:
            subprocess.run([*command, "schema", "--apply"], env=own, check=True, capture_output=True)
        self.spawn([*command, "worker", "--concurrency", "20"], own)
        self.spawn([bin_ / "python", APPS / "procrastinate_front.py"], own)
