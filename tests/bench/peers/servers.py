"""PostgreSQL and Redis as Debian ships them, for peers that stand on one: on the disk that is measured, fsync on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import installing
from .peer import Peer, free_port, listening


def _someone() -> str | None:
    return "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to be root


class Postgres:
    """A cluster with Debian's settings but for its port, which trusts loopback."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._data = peer.folder / "postgresql"
        self.port = 0
        self.made = False

    @staticmethod
    def version() -> str:
        said = subprocess.run([installing.program("postgres"), "--version"], capture_output=True, text=True).stdout
        return said.split()[2]

    def start(self) -> None:
        """Start it, and make it before if it is not there; returns when it takes connections."""
        if not self.made:
            self.port = free_port()
            self._data.mkdir()
            if _someone():
                shutil.chown(self._data, _someone())
            subprocess.run(
                [installing.program("initdb"), "-D", self._data, "-U", "trials", "-A", "trust", "--locale=C.UTF-8"],
                user=_someone(), cwd="/", check=True, capture_output=True,
            )  # fmt: skip
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        words = [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        self._peer.spawn([installing.program("postgres"), "-D", self._data, *words], user=_someone())
        ask = [installing.program("psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "trials", "-d", "postgres"]
        self._peer.until(
            lambda: subprocess.run([*ask, "-qAtc", "SELECT 1"], capture_output=True).returncode == 0, "PostgreSQL"
        )
        if not self.made:
            subprocess.run([*ask, "-c", "CREATE DATABASE trials"], check=True, capture_output=True)
            self.made = True

    @property
    def url(self) -> str:
        return f"postgresql://trials@127.0.0.1:{self.port}/trials"


class Redis:
    """A Redis with its append-only file, flushed each second: what its documentation advises for durability."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.port = free_port()

    @staticmethod
    def version() -> str:
        said = subprocess.run([installing.program("redis-server"), "--version"], capture_output=True, text=True).stdout
        return said.split("v=")[1].split()[0]

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        folder: Path = self._peer.folder / "redis"
        folder.mkdir(exist_ok=True)
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(folder), "appendonly": "yes"}
        options["appendfsync"] = "everysec"
        words = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._peer.spawn([installing.program("redis-server"), *words])
        self._peer.until(listening(self.port), "Redis")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"
