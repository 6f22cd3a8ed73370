"""DBOS: a library in a web application, with PostgreSQL, as recommended for production, or SQLite."""

from __future__ import annotations

from pathlib import Path

from . import installing
from .peer import APPS, Amount, Peer, free_port, version_of
from .servers import Postgres


class _Dbos(Peer):
    done = "result returned by the workflow, whose end is committed"
    waits = "`DBOS.sleep_async` in an asynchronous workflow"
    amount = Amount(latency=200, many=600)

    def _start_application(self, database: str) -> None:
        self.port = self.port or free_port()
        self.spawn([installing.python("dbos") / "python", APPS / "dbos_app.py"], {"DATABASE": database})


class DbosPostgres(_Dbos):
    """DBOS on PostgreSQL."""

    name = "DBOS, PostgreSQL"
    settings = "one process of uvicorn with the workflows in it (asynchronous ones), PostgreSQL with Debian's settings"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._postgres = Postgres(self)

    @classmethod
    def install(cls) -> None:
        bin_ = installing.python("dbos")
        cls.version = f"{version_of(bin_ / 'python', 'dbos')}, PostgreSQL {Postgres.version()}"

    def start(self) -> None:
        self._postgres.start()
        self._start_application(self._postgres.url.replace("postgresql:", "postgresql+psycopg:"))


class DbosSqlite(_Dbos):
    """DBOS on SQLite, its default."""

    name = "DBOS, SQLite"
    settings = (
        "the same with SQLite, its default, which it recommends for prototypes and tests; as it opens it: a rollback "
        "journal, flushed at each commit"
    )

    @classmethod
    def install(cls) -> None:
        cls.version = version_of(installing.python("dbos") / "python", "dbos")

    def start(self) -> None:
        self._start_application(f"sqlite:///{self.folder}/dbos.sqlite")
