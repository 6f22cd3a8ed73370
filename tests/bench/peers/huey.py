"""Huey: its consumer on Redis, a web application beside it."""

from __future__ import annotations

from pathlib import Path

from . import installing
from .peer import APPS, Amount, Peer, free_port, version_of
from .servers import Redis


class Huey(Peer):
    """Huey with threads; Redis appends to a file and flushes it each second."""

    name = "Huey"
    settings = (
        "`huey_consumer -w 8 -k thread`, uvicorn beside it, Redis with `appendonly yes`, `appendfsync everysec`: "
        "the last second may be lost with the power"
    )
    done = "result read from Redis (`notify_result`)"
    waits = "second task, scheduled with `delay`"
    amount = Amount(latency=500, many=4_000)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._redis = Redis(self)

    @classmethod
    def install(cls) -> None:
        cls.version = f"{version_of(installing.python('huey') / 'python', 'huey')}, Redis {Redis.version()}"

    def start(self) -> None:
        bin_ = installing.python("huey")
        self._redis.start()
        self.port = self.port or free_port()
        own = {"REDIS": self._redis.url, "PYTHONPATH": str(APPS)}
        self.spawn([bin_ / "huey_consumer", "huey_tasks.huey", "-w", "8", "-k", "thread"], own)
        self.spawn([bin_ / "python", APPS / "huey_front.py"], own)
