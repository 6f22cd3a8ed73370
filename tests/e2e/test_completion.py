"""Completion in the shells themselves: what they insert when somebody presses the tab key."""

import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.daemon.endpoint import ANSWER_S

#: Each begins quietly, without files of the user.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(headrace completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(headrace completion zsh)"'),
    "fish": (["fish", "--no-config", "--interactive"], "headrace completion fish | source"),
}


@pytest.fixture(scope="module")
def environment(workshop):
    workshop.flow("squares in parallel", "def handler(system, this, inputs):\n    return inputs\n")
    workshop.daemon.client.keep("settings", "limits of the night", {"value": 1})
    return {
        "HOME": str(workshop.folder.parent),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "STATE_DIRECTORY": str(workshop.daemon.state),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


class Terminal:
    """A shell at a terminal."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True, close_fds=True
        )
        os.close(theirs)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def until(self, text: str, timeout_s: float = 20) -> str:
        """Read until it shows ``text``."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            if not select.select([self.ours], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r} within {timeout_s} s in\n{self.seen}")
            self.seen += os.read(self.ours, 65536).decode(errors="replace")
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def terminal(environment):
    opened = []

    def open_(shell, **more):
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        command, installing = SHELLS[shell]
        opened.append(Terminal(command, environment | more))
        opened[-1].type(f"{installing}; echo rea''dy\n")
        opened[-1].until("ready")
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key_completes_a_name_with_blanks_and_the_command_runs(terminal, workshop, shell):
    at = terminal(shell)
    at.type("headrace run squ\t")
    at.until("parallel")
    at.type("a=b --no-wait\n")
    ran = at.until("\n01")
    assert "no flow" not in ran
    newest = workshop.daemon.client.executions(limit=1)["items"][0]
    assert newest["flow_name"] == "squares in parallel"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("headrace run squ", "squares in parallel"),
        ("headrace settings show lim", "limits of the night"),
        ("headrace tasks RES", "REST"),
        ("headrace execu", "executions"),
        ("headrace run --fol", "--follow"),
    ],
)
def test_fish_is_offered_names_with_what_they_are(environment, line, offered):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    script = f"headrace completion fish | source; complete --do-complete '{line}'"
    for _ in range(5):  # nothing is offered if the daemon does not answer within a second
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        if done.stdout:
            break
    assert (done.stdout.partition("\t")[0].strip(), done.stderr) == (offered, "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_without_a_daemon_the_prompt_stays_as_it_is(terminal, tmp_path, shell):
    at = terminal(shell, STATE_DIRECTORY=str(tmp_path), HEADRACE_URL="http://127.0.0.1:1")
    before = len(at.seen)
    at.type("headrace run squ\t")
    at.type("x\n")
    said = at.until("no daemon answers")[before:]
    assert said.count("headrace:") == 1 and "Traceback" not in said


def test_a_daemon_that_does_not_answer_is_not_waited_for(environment):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        asked = {
            "_HEADRACE_COMPLETE": "bash_complete", "COMP_WORDS": "headrace run x", "COMP_CWORD": "2",
            "HEADRACE_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}",
        }  # fmt: skip
        # The limit is that of a request, which whoever presses a key must never wait for.
        done = subprocess.run(
            ["headrace"], env=environment | asked, capture_output=True, text=True, timeout=ANSWER_S - 5
        )
    assert (done.stdout.strip(), done.stderr) == ("", "")
