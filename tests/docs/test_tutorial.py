"""docs/tutorial.md, walked through: its files are saved, its commands typed, and what it shows appears."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import until

DOCUMENT = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
STEPS = re.findall(r"^```(console|python|yaml)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ (.*)$", "".join(text for kind, text in STEPS if kind == "console"), re.MULTILINE)


class Newcomer:
    """Somebody at a terminal in an empty folder."""

    def __init__(self, home: Path, port: int) -> None:
        self.folder = home
        self.address = f"127.0.0.1:{port}"
        gone = ("HEADRACE_", "STATE_DIRECTORY", "PYTEST", "GIT_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(gone)} | {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HEADRACE_LISTEN__ADDRESS": self.address,
            "GIT_CEILING_DIRECTORIES": str(home),
            "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
        }  # fmt: skip
        self.daemon: subprocess.Popen[str] | None = None

    def save(self, text: str) -> None:
        """Save a block whose first line names the file."""
        name, _, content = text.removeprefix("# ").partition("\n")
        (self.folder / name).write_text(content.replace("127.0.0.1:8420", self.address))

    def type(self, command: str) -> str:
        """Type a command and return what it shows."""
        if command.startswith("cd "):
            self.folder /= command[3:]
            return ""
        if command.startswith("headrace up"):
            return self._start(command)
        typed = command.replace("127.0.0.1:8420", self.address)
        done = subprocess.run(
            ["bash", "-c", typed], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout.replace(self.address, "127.0.0.1:8420")

    def _start(self, command: str) -> str:
        log = self.folder.parent / "up.log"
        with log.open("w") as out:
            self.daemon = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.environment, stdout=out, stderr=subprocess.DEVNULL
            )
        until(lambda: log.read_text().count("\n") >= 3, "it greets")
        until(lambda: "hello" in self.type("headrace flows"), "the first commit is published")  # people type slowly
        return log.read_text().replace(self.address, "127.0.0.1:8420")


@pytest.fixture
def newcomer(tmp_path, unused_tcp_port):
    somebody = Newcomer(tmp_path, unused_tcp_port)
    yield somebody
    if somebody.daemon is not None:
        somebody.daemon.terminate()
        assert somebody.daemon.wait(60) == 0


def pattern(shown: str) -> str:
    """What a document shows, in which … can be anything."""
    return ".*?".join(re.escape(piece) for piece in shown.split("…"))


def test_every_step_works_and_shows_what_stands_there(newcomer):
    for kind, text in STEPS:
        if kind != "console":
            newcomer.save(text)
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            if "schedules" in command:
                until(lambda: "watch" in newcomer.type("headrace flows"), "what was saved counts")
            found = newcomer.type(command)
            assert re.fullmatch(pattern(shown.rstrip()), found.rstrip(), re.DOTALL), f"{command} shows\n{found}"
    assert newcomer.type("git status --porcelain") == ""


def test_it_takes_less_than_ten_commands():
    assert len(COMMANDS) == 9
    assert "Nine commands" in DOCUMENT
