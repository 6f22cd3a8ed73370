"""End-to-end tests share a daemon per module where they do not kill it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon


class Workshop:
    """A daemon in developer mode and the folder its flows come from."""

    def __init__(self, daemon: Daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder

    def flow(self, name: str, text: str) -> str:
        """Write a flow and wait until the daemon has it; returns its name."""
        self.write(f"{name}.py", text)
        self.daemon.client.sync()
        return name

    def write(self, path: str, text: str) -> None:
        """Write a file of the source."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A running daemon for this module."""
    home = tmp_path_factory.mktemp("w")
    folder = home / "flows"
    folder.mkdir()
    (folder / "idle.py").write_text("def handler(system, this):\n    return this.success()\n")
    daemon = Daemon(home / "s", folder)
    daemon.environment["HEADRACE_RUN__CANCEL_GRACE"] = "1s"
    daemon.start()
    yield Workshop(daemon, folder)
    assert daemon.stop() == 0


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Make daemons of this test's own; whatever still runs at its end is killed."""
    made: list[Daemon] = []

    def make(source: str | Path, *options: str, state: str = "s") -> Daemon:
        made.append(Daemon(tmp_path / state, source, *options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.kill()
